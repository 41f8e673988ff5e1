//! A control plane from ready-made binaries, `etcd` and `kube-apiserver` in the folder of `KUBEBUILDER_ASSETS`. It
//! has no controllers: namespaces never finish their deletion there.

use std::net::TcpListener;
use std::path::Path;

use anyhow::{Context, Result};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};

use super::kubeconfig::write_private;
use super::{READY, text};
use crate::process::{Lifetime, Process, Spec};
use crate::wait::{Look, say};

/// Starts both and writes the administrator's kubeconfig.
pub(super) async fn start(
    assets: &Path,
    dir: &Path,
    kubeconfig: &Path,
    lifetime: Lifetime,
) -> Result<Vec<Process>> {
    say(format!("starting etcd and kube-apiserver of KUBEBUILDER_ASSETS={}", assets.display()));
    let path = |name: &str| text(&dir.join(name));
    let authority_key = KeyPair::generate()?;
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.distinguished_name.push(DnType::CommonName, "autobuild-development-ca");
    let authority_pem = authority.self_signed(&authority_key)?.pem();
    let issuer = Issuer::new(authority, authority_key);

    let mut server = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()])?;
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let server_key = KeyPair::generate()?;
    let server = server.signed_by(&server_key, &issuer)?.pem();
    let mut admin = CertificateParams::default();
    admin.distinguished_name.push(DnType::CommonName, "autobuild-admin");
    admin.distinguished_name.push(DnType::OrganizationName, "system:masters");
    admin.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let admin_key = KeyPair::generate()?;
    let admin = admin.signed_by(&admin_key, &issuer)?.pem();
    let tokens = KeyPair::generate()?;
    for (name, content) in [
        ("ca.crt", &authority_pem),
        ("server.crt", &server),
        ("server.key", &server_key.serialize_pem()),
        ("tokens.key", &tokens.serialize_pem()),
        ("tokens.pub", &tokens.public_key_pem()),
    ] {
        write_private(&dir.join(name), content)?;
    }

    let spec = |name: &str, args: Vec<String>| Spec {
        name: name.to_owned(),
        program: assets.join(name),
        args,
        env: Vec::new(),
        log_dir: dir.join("logs"),
        lifetime,
    };
    let (clients, peers, port) = (free_port()?, free_port()?, free_port()?);
    let etcd = Process::start(spec(
        "etcd",
        vec![
            format!("--data-dir={}", path("etcd")?),
            format!("--listen-client-urls=http://127.0.0.1:{clients}"),
            format!("--advertise-client-urls=http://127.0.0.1:{clients}"),
            format!("--listen-peer-urls=http://127.0.0.1:{peers}"),
            "--unsafe-no-fsync".to_owned(),
        ],
    ))?;
    let server = Process::start(spec(
        "kube-apiserver",
        vec![
            format!("--etcd-servers=http://127.0.0.1:{clients}"),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--secure-port={port}"),
            format!("--cert-dir={}", path("certificates")?),
            format!("--tls-cert-file={}", path("server.crt")?),
            format!("--tls-private-key-file={}", path("server.key")?),
            format!("--client-ca-file={}", path("ca.crt")?),
            "--authorization-mode=RBAC".to_owned(),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!("--service-account-key-file={}", path("tokens.pub")?),
            format!("--service-account-signing-key-file={}", path("tokens.key")?),
            "--service-cluster-ip-range=10.0.0.0/24".to_owned(),
            "--disable-admission-plugins=ServiceAccount".to_owned(),
        ],
    ))?;
    let config = serde_json::json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "autobuild",
        "clusters": [{"name": "autobuild", "cluster": {
            "server": format!("https://127.0.0.1:{port}"), "certificate-authority": path("ca.crt")?}}],
        "users": [{"name": "admin", "user": {
            "client-certificate-data": base64(&admin), "client-key-data": base64(&admin_key.serialize_pem())}}],
        "contexts": [{"name": "autobuild", "context": {"cluster": "autobuild", "user": "admin"}}],
    });
    write_private(kubeconfig, &serde_yaml::to_string(&config)?)?;
    server
        .wait_ready("kube-apiserver to be ready", READY, async || {
            let client = super::client(kubeconfig).await?;
            let request = http::Request::get("/readyz").body(Vec::new()).context("a request")?;
            client.request_text(request).await?;
            Ok(Look::Holds(()))
        })
        .await?;
    Ok(vec![etcd, server])
}

fn base64(text: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(text)
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
