//! What the kernel's command line tells an installer.

use url::Url;

use super::disk::digest;

/// What an installer shall do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Task {
    /// Write an image.
    Install {
        /// Its digest.
        digest: String,
    },
    /// Erase the disks.
    Wipe,
}

/// The installer's orders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Orders {
    /// The address of the boot session, token included.
    pub(super) session: Session,
    pub(super) task: Task,
}

/// The address of a boot session. It carries the token: nothing prints it.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Session(Url);

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Session(…)")
    }
}

impl Session {
    /// The address of something below it.
    pub(super) fn at(&self, name: &str) -> Url {
        let mut url = self.0.clone();
        url.set_path(&format!("{}/{name}", self.0.path().trim_end_matches('/')));
        url
    }
}

/// A command line without orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum OrdersError {
    #[error("the kernel's arguments have no autobuild.url=http://…")]
    NoSession,
    #[error("the kernel's arguments have neither autobuild.image=sha256:… nor autobuild.action=wipe")]
    NoTask,
}

/// Reads the arguments; the last of a name counts, as in the kernel.
pub(super) fn orders(args: &[String]) -> Result<Orders, OrdersError> {
    let last = |name: &str| {
        args.iter().rev().find_map(|arg| {
            let (found, value) = arg.split_once('=')?;
            (found == name).then_some(value)
        })
    };
    let session = last("autobuild.url")
        .and_then(|url| Url::parse(url).ok())
        .filter(|url| url.scheme() == "http")
        .ok_or(OrdersError::NoSession)?;
    let task = if last("autobuild.action") == Some("wipe") {
        Task::Wipe
    } else {
        let digest = last("autobuild.image").and_then(digest).ok_or(OrdersError::NoTask)?;
        Task::Install { digest }
    };
    Ok(Orders { session: Session(session), task })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Orders, OrdersError> {
        orders(&line.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn orders_are_read_from_the_last_arguments_of_their_names() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        let line =
            format!("quiet autobuild.url=http://x/s/old autobuild.url=http://x/s/t autobuild.image={digest}");
        let found = read(&line).unwrap();
        assert_eq!(found.task, Task::Install { digest });
        assert_eq!(found.session.at("booted").as_str(), "http://x/s/t/booted");
        assert_eq!(format!("{:?}", found.session), "Session(…)");
        let wipe = read(&format!("{line} autobuild.action=wipe")).unwrap();
        assert_eq!(wipe.task, Task::Wipe);
    }

    #[test]
    fn a_command_line_without_orders_is_refused() {
        assert_eq!(read("quiet"), Err(OrdersError::NoSession));
        assert_eq!(read("autobuild.url=ftp://x/s/t"), Err(OrdersError::NoSession));
        assert_eq!(read("autobuild.url=http://x/s/t autobuild.image=sha256:12"), Err(OrdersError::NoTask));
    }
}
