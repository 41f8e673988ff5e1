//! A small boot service: one script per machine, a new token with every script, and a list of what was asked.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::response::{IntoResponse, Response};
use http::{Method, StatusCode, Uri};
use tokio_util::sync::{CancellationToken, DropGuard};

/// What the boot service has for a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Armed {
    Install(&'static str),
    Wipe,
    /// What runs from a medium installs this.
    Medium(&'static str),
    /// No session: boot from the disk.
    Exit,
    /// Whatever text.
    Text(String),
}

#[derive(Debug, Default)]
struct Book {
    armed: HashMap<String, Armed>,
    /// Token to machine, while it counts.
    tokens: HashMap<String, String>,
    made: u64,
    asked: Vec<String>,
    /// So many requests are answered with 503.
    unavailable: u32,
    /// This is answered with 404.
    refused: Option<&'static str>,
    /// Requests that are under way, and the most that ever were.
    under_way: usize,
    most_under_way: usize,
}

pub(super) struct BootServer {
    pub(super) url: String,
    book: Arc<Mutex<Book>>,
    _stop: DropGuard,
}

impl BootServer {
    pub(super) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let book = Arc::new(Mutex::new(Book::default()));
        let (shared, base) = (Arc::clone(&book), url.clone());
        let answer = move |method: Method, uri: Uri, body: String| {
            let (book, base) = (Arc::clone(&shared), base.clone());
            async move {
                book.lock().unwrap().begin();
                // Others that may come meanwhile do.
                for _ in 0..100 {
                    tokio::task::yield_now().await;
                }
                let mut book = book.lock().unwrap();
                book.under_way -= 1;
                book.answer(&base, &method, uri.path(), &body)
            }
        };
        let stop = CancellationToken::new();
        let ended = stop.clone().cancelled_owned();
        let router = Router::new().fallback(answer);
        tokio::spawn(async move { axum::serve(listener, router).with_graceful_shutdown(ended).await });
        Self { url, book, _stop: stop.drop_guard() }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Book) -> T) -> T {
        act(&mut self.book.lock().unwrap())
    }

    pub(super) fn arm(&self, mac: &str, armed: Armed) {
        self.with(|book| book.armed.insert(mac.replace(':', "-"), armed));
    }

    pub(super) fn be_unavailable(&self, times: u32) {
        self.with(|book| book.unavailable = times);
    }

    pub(super) fn refuse(&self, what: &'static str) {
        self.with(|book| book.refused = Some(what));
    }

    pub(super) fn revoke_all(&self) {
        self.with(|book| book.tokens.clear());
    }

    /// Method and last part of the path of every request, with the body where there was one.
    pub(super) fn asked(&self) -> Vec<String> {
        self.with(|book| book.asked.clone())
    }

    pub(super) fn most_under_way(&self) -> usize {
        self.with(|book| book.most_under_way)
    }

    pub(super) fn count(&self, start: &str) -> usize {
        self.asked().iter().filter(|asked| asked.starts_with(start)).count()
    }
}

impl Book {
    fn begin(&mut self) {
        self.under_way += 1;
        self.most_under_way = self.most_under_way.max(self.under_way);
    }

    fn answer(&mut self, base: &str, method: &Method, path: &str, body: &str) -> Response {
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let last =
            if parts[0] == "boot" && parts.len() == 2 { "script" } else { parts.last().unwrap_or(&"") };
        self.asked.push(format!("{method} {last} {body}").trim_end().to_owned());
        if self.unavailable > 0 {
            self.unavailable -= 1;
            return (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "1")]).into_response();
        }
        if self.refused == Some(last) {
            return StatusCode::NOT_FOUND.into_response();
        }
        match parts.as_slice() {
            ["boot", mac] => self.script(base, mac),
            ["boot", mac, "session"] => self.session(base, mac),
            ["boot.iso"] => vec![7_u8; 100_000].into_response(),
            ["s", token, what] if self.tokens.contains_key(*token) => {
                if *what == "installed" {
                    self.tokens.remove(*token);
                }
                match (method.as_str(), *what) {
                    ("GET" | "HEAD", "kernel" | "initrd") => vec![7_u8; 100_000].into_response(),
                    ("GET", "install" | "user-data" | "meta-data") => "data".into_response(),
                    ("POST", "booted" | "progress" | "failed" | "installed") => {
                        StatusCode::OK.into_response()
                    }
                    _ => StatusCode::NOT_FOUND.into_response(),
                }
            }
            ["efi"] => vec![b'M', b'Z', 0, 255].into_response(),
            _ => StatusCode::NOT_FOUND.into_response(),
        }
    }

    fn script(&mut self, base: &str, mac: &str) -> Response {
        let args = match self.armed.get(mac) {
            None => return StatusCode::NOT_FOUND.into_response(),
            Some(Armed::Exit | Armed::Medium(_)) => return "#!ipxe\nexit\n".into_response(),
            Some(Armed::Text(text)) => return text.clone().into_response(),
            Some(Armed::Install(digest)) => format!("autobuild.image={digest}"),
            Some(Armed::Wipe) => "autobuild.image=none autobuild.action=wipe".to_owned(),
        };
        let session = self.begun(base, mac);
        format!(
            "#!ipxe\nkernel {session}/kernel console=ttyS0 autobuild.url={session} {args}\n\
             initrd {session}/initrd\nboot\n"
        )
        .into_response()
    }

    fn session(&mut self, base: &str, mac: &str) -> Response {
        match self.armed.get(mac).cloned() {
            Some(Armed::Medium(digest)) => {
                let session = self.begun(base, mac);
                format!("autobuild.url={session}\nautobuild.image={digest}\n").into_response()
            }
            _ => StatusCode::NOT_FOUND.into_response(),
        }
    }

    /// The address of a new session; the newest one counts.
    fn begun(&mut self, base: &str, mac: &str) -> String {
        self.made += 1;
        let token = format!("{:064x}", self.made);
        self.tokens.retain(|_, machine| machine != mac);
        self.tokens.insert(token.clone(), mac.to_owned());
        format!("{base}/s/{token}")
    }
}
