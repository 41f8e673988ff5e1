//! `/livez`, `/readyz` and `/metrics` of every long-running process.
#![expect(clippy::disallowed_types, reason = "this is where a process serves")]
#![expect(
    clippy::disallowed_methods,
    reason = "the server ends with its token, and a watch was heard of some time ago"
)]

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::connections::{self, Limits};
use crate::metrics;

/// A probe or a scrape has one connection.
const LIMITS: Limits =
    Limits { connections: 128, head: Duration::from_secs(10), stall: Duration::from_secs(30) };

/// What a process waits for before it can do its work. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    waits_for: Arc<Mutex<Vec<Line>>>,
    told: Arc<Mutex<Vec<Line>>>,
    remark: Arc<Mutex<Option<&'static str>>>,
    heard: Arc<Mutex<BTreeMap<String, Instant>>>,
    checks: Arc<Mutex<Vec<(&'static str, Check)>>>,
    notes: Arc<Mutex<Vec<(&'static str, Check)>>>,
}

/// One line of `/readyz`.
#[derive(Debug, Clone)]
struct Line {
    part: &'static str,
    /// What of the part it is about, such as a namespace.
    about: String,
    what: String,
}

/// Sets the line of a part, or of what of it the line is about.
fn set(lines: &Mutex<Vec<Line>>, part: &'static str, about: &str, what: String) {
    let mut all = lines.lock().unwrap_or_else(PoisonError::into_inner);
    match all.iter_mut().find(|line| line.part == part && line.about == about) {
        Some(line) => line.what = what,
        None => all.push(Line { part, about: about.to_owned(), what }),
    }
}

fn take_away(lines: &Mutex<Vec<Line>>, gone: impl Fn(&Line) -> bool) {
    lines.lock().unwrap_or_else(PoisonError::into_inner).retain(|line| !gone(line));
}

/// Run with each request: what there is to say, if there is anything.
struct Check(Box<dyn Fn() -> Option<String> + Send + Sync>);

impl std::fmt::Debug for Check {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Check")
    }
}

impl Readiness {
    /// `part` waits for something; the text is what `/readyz` says.
    pub fn waits(&self, part: &'static str, what: impl Into<String>) {
        self.waits_about(part, "", what);
    }

    /// Something of `part` waits, such as what it does in one namespace.
    pub fn waits_about(&self, part: &'static str, about: &str, what: impl Into<String>) {
        set(&self.waits_for, part, about, what.into());
    }

    /// `part` waits for nothing any more.
    pub fn ready(&self, part: &'static str) {
        self.ready_about(part, "");
    }

    /// What waited of `part` waits for nothing any more.
    pub fn ready_about(&self, part: &'static str, about: &str) {
        take_away(&self.waits_for, |line| line.part == part && line.about == about);
    }

    /// Says something of `part` beside everything else; nothing waits for it.
    pub fn tells(&self, part: &'static str, about: &str, what: impl Into<String>) {
        set(&self.told, part, about, what.into());
    }

    /// That is over.
    pub fn told(&self, part: &'static str, about: &str) {
        take_away(&self.told, |line| line.part == part && line.about == about);
    }

    /// Nothing is left of `part`: neither does it wait, nor is there anything to say of it.
    pub fn is_over(&self, part: &'static str) {
        for lines in [&self.waits_for, &self.told] {
            take_away(lines, |line| line.part == part);
        }
    }

    /// Runs `check` with each `/readyz`; it says what `part` waits for, if it does.
    pub fn add_check(&self, part: &'static str, check: impl Fn() -> Option<String> + Send + Sync + 'static) {
        let mut checks = self.checks.lock().unwrap_or_else(PoisonError::into_inner);
        checks.push((part, Check(Box::new(check))));
    }

    /// Runs `note` with each `/readyz`; what it says of `part` stands beside everything else, and nothing waits for it.
    pub fn add_note(&self, part: &'static str, note: impl Fn() -> Option<String> + Send + Sync + 'static) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        notes.push((part, Check(Box::new(note))));
    }

    /// What `/readyz` says beside `ok`; `None`: nothing.
    pub fn remark(&self, text: Option<&'static str>) {
        *self.remark.lock().unwrap_or_else(PoisonError::into_inner) = text;
    }

    /// A watch showed something now: `/readyz` says how long ago that was.
    pub fn heard(&self, watch: &str) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        match heard.get_mut(watch) {
            Some(at) => *at = Instant::now(),
            None => {
                heard.insert(watch.to_owned(), Instant::now());
            }
        }
    }

    /// No watch is open any more.
    pub fn hears_nothing(&self) {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn text(&self) -> (StatusCode, String) {
        let copy = |lines: &Mutex<Vec<Line>>| -> Vec<(&'static str, String)> {
            let lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
            lines.iter().map(|line| (line.part, line.what.clone())).collect()
        };
        let mut all = copy(&self.waits_for);
        let told = copy(&self.told).into_iter().map(|(part, what)| format!("{part}: {what}\n"));
        let checks = self.checks.lock().unwrap_or_else(PoisonError::into_inner);
        all.extend(checks.iter().filter_map(|(part, check)| Some((*part, check.0()?))));
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        let notes = notes.iter().filter_map(|(part, note)| note.0().map(|note| format!("{part}: {note}\n")));
        let watches = told.chain(notes).chain(heard.iter().map(|(watch, at)| {
            format!("the watch of {watch} showed something {} s ago\n", at.elapsed().as_secs())
        }));
        if all.is_empty() {
            let remark = *self.remark.lock().unwrap_or_else(PoisonError::into_inner);
            let ok = remark.map_or("ok\n".to_owned(), |remark| format!("ok: {remark}\n"));
            return (StatusCode::OK, std::iter::once(ok).chain(watches).collect());
        }
        let lines = all.iter().map(|(part, what)| format!("{part}: {what}\n"));
        (StatusCode::SERVICE_UNAVAILABLE, lines.chain(watches).collect())
    }
}

/// Where to serve.
#[derive(Debug, Clone, clap::Args)]
#[group(id = "endpoints")]
pub struct Args {
    /// Address of /livez, /readyz and /metrics (port 0 takes a free one)
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// Write the bound host:port of --listen to this file
    #[arg(long, value_name = "FILE")]
    pub listen_file: Option<PathBuf>,
}

/// The endpoints could not be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address is taken or not ours.
    #[error("--listen {address} cannot be bound: {source}; give a free address of this host")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The file cannot be written.
    #[error("--listen-file {path} cannot be written: {source}; give a path in a writable directory")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Binds the port, tells where, and serves until `stop`. Returns once the port is bound.
pub async fn serve(args: &Args, readiness: Readiness, stop: CancellationToken) -> Result<(), ServeError> {
    let listener = TcpListener::bind(args.listen)
        .await
        .map_err(|source| ServeError::Bind { address: args.listen, source })?;
    let bound = listener.local_addr().map_err(|source| ServeError::Bind { address: args.listen, source })?;
    if let Some(path) = &args.listen_file {
        write_whole(path, &bound.to_string())
            .map_err(|source| ServeError::File { path: path.clone(), source })?;
    }
    tracing::info!(address = %bound, "serving /livez, /readyz and /metrics");
    let router = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(|State(readiness): State<Readiness>| async move { readiness.text() }))
        .route(
            "/metrics",
            get(|| async { ([("content-type", "text/plain; version=0.0.4")], metrics::page()) }),
        )
        .with_state(readiness);
    tokio::spawn(connections::serve(listener, router, LIMITS, stop));
    Ok(())
}

/// Whoever waits for the file never sees half of it.
pub(crate) fn write_whole(path: &std::path::Path, text: &str) -> io::Result<()> {
    let unfinished = path.with_extension("new");
    std::fs::write(&unfinished, text)?;
    std::fs::rename(&unfinished, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_says_what_is_waited_for() {
        let readiness = Readiness::default();
        readiness.waits("database", "connecting");
        readiness.waits("database", "migrating");
        assert_eq!(readiness.text(), (StatusCode::SERVICE_UNAVAILABLE, "database: migrating\n".to_owned()));
        readiness.ready("database");
        assert_eq!(readiness.text(), (StatusCode::OK, "ok\n".to_owned()));
        let full = Arc::new(std::sync::atomic::AtomicBool::new(true));
        let disk = Arc::clone(&full);
        readiness.add_check("cache", move || {
            disk.load(std::sync::atomic::Ordering::Relaxed).then(|| "full".into())
        });
        assert_eq!(readiness.text(), (StatusCode::SERVICE_UNAVAILABLE, "cache: full\n".to_owned()));
        full.store(false, std::sync::atomic::Ordering::Relaxed);
        readiness.add_note("disk", || Some("nearly full".into()));
        assert_eq!(readiness.text(), (StatusCode::OK, "ok\ndisk: nearly full\n".to_owned()));
        readiness.tells("secrets", "lab", "namespace lab: forbidden");
        assert_eq!(
            readiness.text(),
            (StatusCode::OK, "ok\nsecrets: namespace lab: forbidden\ndisk: nearly full\n".to_owned())
        );
        readiness.told("secrets", "lab");
        for namespace in ["lab", "shop"] {
            readiness.waits_about("servers", namespace, namespace);
        }
        readiness.ready_about("servers", "lab");
        assert!(readiness.text().1.starts_with("servers: shop\n"), "each namespace has its own line");
        readiness.is_over("servers");
        readiness.heard("servers in lab");
        assert!(readiness.text().1.ends_with("the watch of servers in lab showed something 0 s ago\n"));
    }
}
