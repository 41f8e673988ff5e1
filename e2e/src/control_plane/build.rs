//! The control plane's binary: built once per content of its sources, and shared by all clones of one user.

use std::fs::File;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::paths;
use crate::wait::say;

/// The path of the binary, after building it if these sources were not built yet.
pub(super) fn binary() -> Result<PathBuf> {
    let source = paths::root().join("e2e/controlplane");
    let Some(go) = paths::program("go") else {
        bail!(
            "building the control plane needs Go 1.26 or later, and there is no `go` on PATH; \
             or set KUBECONFIG or KUBEBUILDER_ASSETS"
        );
    };
    let version =
        Command::new(&go).arg("version").current_dir(&source).output().context("run go version")?.stdout;
    let mut hash = Sha256::new();
    hash.update(&version);
    let mut files: Vec<PathBuf> = std::fs::read_dir(&source)?.flatten().map(|entry| entry.path()).collect();
    files.sort();
    for file in files.iter().filter(|file| file.is_file()) {
        hash.update(std::fs::read(file)?);
        hash.update([0]);
    }
    let mut key = format!("{:x}", hash.finalize());
    key.truncate(16);

    let cache = paths::cache()?;
    let binary = cache.join(format!("controlplane-{key}"));
    if binary.is_file() {
        return Ok(binary);
    }
    // Two clones that start at once build once.
    let lock = File::create(cache.join("controlplane.lock"))?;
    lock.lock().context("wait for another build of the control plane")?;
    if binary.is_file() {
        return Ok(binary);
    }
    say("building kube-apiserver, etcd and kube-controller-manager from Go modules: 3 to 5 minutes, once");
    let kubernetes = kubernetes_version(&std::fs::read_to_string(source.join("go.mod"))?)?;
    let mut parts = kubernetes.trim_start_matches('v').split('.');
    let (major, minor) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let package = "k8s.io/component-base/version";
    let unfinished = cache.join(format!("controlplane-{key}.new"));
    // Without these the server reports a version that kubectl and Helm cannot parse.
    let flags = format!(
        "-s -w -X {package}.gitVersion={kubernetes} -X {package}.gitMajor={major} -X {package}.gitMinor={minor}"
    );
    // Its objects are 2.8 GB that nobody needs again.
    let objects = tempfile::tempdir_in(&cache).context("a folder for the objects of the control plane")?;
    let status = Command::new(&go)
        .env("GOCACHE", objects.path())
        .args(["build", "-trimpath", "-ldflags", &flags, "-o"])
        .arg(&unfinished)
        .arg(".")
        .current_dir(&source)
        .status()
        .context("run go build")?;
    if !status.success() {
        bail!("go build in {} failed ({status}); its messages are above", source.display());
    }
    std::fs::rename(&unfinished, &binary)?;
    Ok(binary)
}

fn kubernetes_version(go_mod: &str) -> Result<String> {
    go_mod
        .lines()
        .find_map(|line| line.trim().strip_prefix("k8s.io/kubernetes "))
        .map(|version| version.trim().to_owned())
        .context("e2e/controlplane/go.mod does not require k8s.io/kubernetes")
}
