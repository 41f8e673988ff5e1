//! An image for BMCs that fetch what they are told to insert.

use autobuild::bmc::ImageUrl;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// A server that has one small image at every path. Ends with this value.
pub struct Images {
    url: ImageUrl,
    _server: JoinSet<()>,
}

impl Images {
    pub async fn serve() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/installer.iso", listener.local_addr().unwrap());
        let mut server = JoinSet::new();
        server.spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\nCD01";
                let _ = stream.write_all(answer).await;
            }
        });
        Self { url: ImageUrl::parse(&url).unwrap(), _server: server }
    }

    pub fn url(&self) -> &ImageUrl {
        &self.url
    }
}
