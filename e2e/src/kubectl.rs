//! The real `kubectl`.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// `kubectl` with a kubeconfig.
#[derive(Debug, Clone)]
pub struct Kubectl {
    kubeconfig: PathBuf,
    namespace: Option<String>,
    plugins: Option<PathBuf>,
}

/// What one call of `kubectl` gave.
#[derive(Debug, Clone)]
pub struct Output {
    /// Whether it ended with 0.
    pub success: bool,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Kubectl {
    /// For the user in that kubeconfig.
    pub fn new(kubeconfig: &Path) -> Self {
        Self { kubeconfig: kubeconfig.to_path_buf(), namespace: None, plugins: None }
    }

    /// The same, with `--namespace` on every call.
    #[must_use]
    pub fn in_namespace(self, namespace: &str) -> Self {
        Self { namespace: Some(namespace.to_owned()), ..self }
    }

    /// The same, with a folder of plugins first on PATH.
    #[must_use]
    pub fn with_plugins(self, folder: &Path) -> Self {
        Self { plugins: Some(folder.to_path_buf()), ..self }
    }

    /// Runs it, whatever it ends with.
    pub async fn output(&self, args: &[&str]) -> Result<Output> {
        self.call(args, None).await
    }

    /// Runs it and returns standard output; an exit status other than 0 is an error with what it said.
    pub async fn run(&self, args: &[&str]) -> Result<String> {
        check(args, self.call(args, None).await?)
    }

    /// [`Kubectl::run`] with text on standard input, as `kubectl apply -f -` wants it.
    pub async fn run_with_input(&self, args: &[&str], input: &str) -> Result<String> {
        check(args, self.call(args, Some(input)).await?)
    }

    /// [`Kubectl::output`] with text on standard input.
    pub async fn output_with_input(&self, args: &[&str], input: &str) -> Result<Output> {
        self.call(args, Some(input)).await
    }

    async fn call(&self, args: &[&str], input: Option<&str>) -> Result<Output> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths(self.plugins.iter().cloned().chain(std::env::split_paths(&path)))?;
        let mut child = Command::new("kubectl")
            .env("PATH", path)
            .args(self.namespace.iter().flat_map(|namespace| ["--namespace", namespace]))
            .args(args)
            .env("KUBECONFIG", &self.kubeconfig)
            .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("start kubectl; is it on PATH?")?;
        if let Some(input) = input {
            let mut stdin = child.stdin.take().context("kubectl's standard input")?;
            stdin.write_all(input.as_bytes()).await?;
        }
        let output = child.wait_with_output().await?;
        Ok(Output {
            success: output.status.success(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }
}

fn check(args: &[&str], output: Output) -> Result<String> {
    if !output.success {
        bail!("kubectl {}: {}{}", args.join(" "), output.stdout, output.stderr);
    }
    Ok(output.stdout)
}
