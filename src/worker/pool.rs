//! The pool manager: `--processes N` starts N workers and restarts one that ends. It holds no lease and touches no
//! hardware; when it dies, its workers notice and hand back what they hold.
#![expect(
    clippy::disallowed_methods,
    reason = "this is what starts processes, and waits longer after each quick end"
)]

use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::http;
use crate::metrics;

/// The flag that makes a process a member of a pool; its value is its number.
pub const MEMBER_FLAG: &str = "--pool-member";

/// First and longest pause before a worker is started again.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// A worker that lived this long begins with the first pause again.
const STEADY: Duration = Duration::from_mins(1);
/// How long a member may take beyond its grace period.
const LEEWAY: Duration = Duration::from_secs(15);

/// Where member `number` serves its endpoints: on the ports after the manager's, or on a free one.
pub fn member_listen(manager: &http::Args, number: u16) -> http::Args {
    let port = match manager.listen.port() {
        0 => 0,
        port => port.saturating_add(1 + number),
    };
    http::Args {
        listen: SocketAddr::new(manager.listen.ip(), port),
        listen_file: manager.listen_file.as_ref().map(|file| {
            let mut name = file.clone().into_os_string();
            name.push(format!(".{number}"));
            PathBuf::from(name)
        }),
    }
}

/// Cancels `stop` when the manager of this member is gone: it holds the other end of standard input.
pub fn end_with_manager(stop: CancellationToken) {
    std::thread::spawn(move || {
        // Nothing is ever written: reading ends when the manager closes its end, by will or by dying.
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        stop.cancel();
    });
}

/// Keeps `processes` members running, with the arguments of this process, until asked to stop; then waits for them.
pub async fn manage(processes: u16, grace: Duration, stop: CancellationToken) -> io::Result<()> {
    let program = std::env::current_exe()?;
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let mut members = JoinSet::new();
    for number in 0..processes {
        members.spawn(keep(program.clone(), arguments.clone(), number, grace, stop.clone()));
    }
    while let Some(ended) = members.join_next().await {
        if let Err(error) = ended {
            tracing::error!("a keeper of a pool member ended: {error}");
        }
    }
    Ok(())
}

async fn keep(
    program: PathBuf,
    arguments: Vec<OsString>,
    number: u16,
    grace: Duration,
    stop: CancellationToken,
) {
    let mut pause = PAUSE.0;
    while !stop.is_cancelled() {
        let begun = Instant::now();
        match start(&program, &arguments, number) {
            Ok(mut member) => match until_end(&mut member, grace, &stop).await {
                Some(status) => {
                    tracing::warn!(member = number, %status, "a pool member ended; starting it again");
                }
                None => return,
            },
            Err(error) => tracing::error!(member = number, "a pool member cannot be started: {error}"),
        }
        metrics::POOL_RESTARTS.one(&[]);
        pause = if begun.elapsed() >= STEADY { PAUSE.0 } else { (pause * 2).min(PAUSE.1) };
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(pause / 2) => {}
        }
    }
}

fn start(program: &PathBuf, arguments: &[OsString], number: u16) -> io::Result<Child> {
    let member = Command::new(program)
        .args(arguments)
        .args([MEMBER_FLAG, &number.to_string()])
        .stdin(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    tracing::info!(member = number, pid = member.id(), "started a pool member");
    Ok(member)
}

/// `Some`: it ended although nobody asked.
async fn until_end(member: &mut Child, grace: Duration, stop: &CancellationToken) -> Option<ExitStatus> {
    // Held here: `Child::wait` closes it, and closing it asks the member to end.
    let line = member.stdin.take();
    tokio::select! {
        ended = member.wait() => return ended.ok().filter(|_| !stop.is_cancelled()),
        () = stop.cancelled() => {}
    }
    drop(line);
    if tokio::time::timeout(grace + LEEWAY, member.wait()).await.is_err() {
        tracing::warn!("a pool member does not end: killing it");
        let _ = member.kill().await;
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    #[test]
    fn members_listen_on_the_ports_after_the_managers() {
        let fixed = http::Args { listen: "127.0.0.1:9000".parse().unwrap(), listen_file: Some("a/b".into()) };
        let member = member_listen(&fixed, 2);
        assert_eq!(member.listen.port(), 9003);
        assert_eq!(member.listen_file, Some(PathBuf::from("a/b.2")));
        let free = http::Args { listen: "127.0.0.1:0".parse().unwrap(), listen_file: None };
        assert_eq!(member_listen(&free, 2).listen.port(), 0);
    }
}
