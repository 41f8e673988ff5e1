//! Proxies between a person, or a process, and the API server.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use e2e::control_plane::ControlPlane;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;

use crate::says;

/// A name that only the proxy knows.
const NAME: &str = "api.example.test";

/// A proxy that leads every tunnel to one address, and keeps who asked for what.
struct Proxy {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let kept = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(tunnel(client, target, Arc::clone(&kept)));
            }
        });
        Self { address, asked }
    }

    /// What was asked since the last look.
    fn asked(&self) -> String {
        std::mem::take(&mut *self.asked.lock().unwrap()).concat()
    }
}

async fn tunnel(mut client: TcpStream, target: SocketAddr, asked: Arc<Mutex<Vec<String>>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.unwrap());
    }
    asked.lock().unwrap().push(String::from_utf8_lossy(&head).into_owned());
    let mut server = TcpStream::connect(target).await.unwrap();
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    tokio::io::copy_bidirectional(&mut client, &mut server).await.ok();
}

/// The kubeconfig with more in its cluster: a name in place of the address, or a `proxy-url`.
fn changed(
    kubeconfig: &Path,
    dir: &Path,
    server: Option<&str>,
    proxy: Option<&str>,
) -> (PathBuf, SocketAddr) {
    let text = std::fs::read_to_string(kubeconfig).unwrap();
    let mut value: serde_json::Value = serde_yaml::from_str(&text).unwrap();
    let cluster = &mut value["clusters"][0]["cluster"];
    let address: url::Url = cluster["server"].as_str().unwrap().parse().unwrap();
    let (host, port) = (address.host_str().unwrap().to_owned(), address.port().unwrap());
    if let Some(name) = server {
        cluster["server"] = format!("https://{name}:{port}").into();
        cluster["tls-server-name"] = host.clone().into();
    }
    if let Some(proxy) = proxy {
        cluster["proxy-url"] = proxy.into();
    }
    let file = dir.join(format!("{}.kubeconfig", uuid::Uuid::new_v4().simple()));
    std::fs::write(&file, serde_yaml::to_string(&value).unwrap()).unwrap();
    (file, SocketAddr::new(host.parse().unwrap(), port))
}

/// What `kubectl autobuild why nobody` says.
async fn why(kubeconfig: &Path, variables: &[(&str, &str)]) -> String {
    let mut command = Command::new(e2e::paths::built("kubectl-autobuild").unwrap());
    command.args(["why", "nobody", "-n", "default", "--kubeconfig"]).arg(kubeconfig);
    for name in ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "NO_PROXY", "no_proxy"] {
        command.env_remove(name);
    }
    let output = command.envs(variables.iter().copied()).kill_on_drop(true).output().await.unwrap();
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_is_reached_through_a_proxy_as_kubectl_does() {
    let plane = ControlPlane::shared().await.unwrap();
    if !plane.is_own() {
        return; // who named a cluster has a way to it already
    }
    plane.apply_crds().await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (by_name, target) = changed(plane.kubeconfig(), dir.path(), Some(NAME), None);
    let proxy = Proxy::to(target).await;
    let url = format!("http://user:pa%40ss@{}", proxy.address);
    let bare = proxy.address.to_string();
    let there = ["there is no Server \"nobody\""];

    // By the environment, with a login; without a scheme; and what NO_PROXY excepts.
    says(&why(&by_name, &[("HTTPS_PROXY", &url)]).await, &there).unwrap();
    // The login is user:pa@ss.
    says(&proxy.asked(), &[&format!("CONNECT {NAME}:"), "Proxy-Authorization: Basic dXNlcjpwYUBzcw=="])
        .unwrap();
    says(&why(&by_name, &[("https_proxy", &bare), ("NO_PROXY", "a,,.other.test,")]).await, &there).unwrap();
    says(&proxy.asked(), &["CONNECT"]).unwrap();
    let excepted = why(&by_name, &[("HTTPS_PROXY", &url), ("NO_PROXY", ",example.test")]).await;
    says(&excepted, &["the API server cannot be asked", "dns error"]).unwrap();
    assert_eq!(proxy.asked(), "");

    // Loopback needs no proxy, whatever the variable is; what the kubeconfig names is used all the same.
    for unusable in ["http://127.0.0.1:1", "ftp://nowhere", "a b"] {
        says(&why(plane.kubeconfig(), &[("HTTPS_PROXY", unusable)]).await, &there).unwrap();
    }
    let (by_file, _) = changed(plane.kubeconfig(), dir.path(), None, Some(&format!("http://{bare}")));
    says(&why(&by_file, &[("NO_PROXY", "*"), ("HTTPS_PROXY", "http://127.0.0.1:1")]).await, &there).unwrap();
    says(&proxy.asked(), &["CONNECT 127.0.0.1:"]).unwrap();

    // What cannot be used is told by its variable.
    let dead = why(&by_name, &[("HTTPS_PROXY", "http://user:geheim@127.0.0.1:1")]).await;
    says(&dead, &["the proxy http://127.0.0.1:1 of HTTPS_PROXY cannot be used", "refused"]).unwrap();
    let odd = why(&by_name, &[("HTTPS_PROXY", "ftp://user:geheim@nowhere")]).await;
    says(&odd, &["HTTPS_PROXY names no proxy", "http://HOST:PORT", "NO_PROXY"]).unwrap();
    assert!(!format!("{dead}{odd}").contains("geheim"), "{dead}{odd}");
}
