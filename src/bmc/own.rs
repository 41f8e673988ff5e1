//! The worker's own trouble: it has no descriptor, memory or port left, or its resolver fails. That says nothing about the
//! BMC that was to be asked, so it is neither counted against it nor told as its fault.

use std::io;

use rustix::io::Errno;

use super::error::{BmcError, BmcErrorKind, Delivery};

/// An error whose sentence is about this process.
pub(super) fn trouble(message: impl Into<String>) -> BmcError {
    BmcError::new(BmcErrorKind::Worker, Delivery::NotSent, message)
}

/// What is missing here and what to do, where this process itself is why a system call failed.
pub(super) fn cause(error: &io::Error) -> Option<&'static str> {
    Some(match error.raw_os_error().map(Errno::from_raw_os_error)? {
        Errno::MFILE => {
            "this worker has no file descriptor left: lower its --slots, or raise the limit of open files where it runs"
        }
        Errno::NFILE => {
            "the machine that this worker runs on has no file descriptor left: raise fs.file-max there"
        }
        Errno::NOMEM | Errno::NOBUFS => {
            "this worker has no memory left: lower its --slots, or give it more memory"
        }
        Errno::ADDRNOTAVAIL => {
            "the machine that this worker runs on has no free local port or address: widen net.ipv4.ip_local_port_range there"
        }
        _ => return None,
    })
}

/// An error of the system as a message tells it: most have a name, and the rest tells more by its own words.
pub(super) fn told(error: &io::Error) -> String {
    let kind = error.kind().to_string();
    if matches!(kind.as_str(), "uncategorized error" | "other error") { error.to_string() } else { kind }
}

/// Whether the resolver says that there is no such name, or no address of it. Everything else that it says (a failure for
/// now, a server that refuses) is about itself. The texts are those of glibc and of musl: the standard library gives no
/// code.
pub(super) fn knows_no_address(error: &io::Error) -> bool {
    const UNKNOWN: [&str; 4] = [
        "Name or service not known",
        "No address associated with hostname",
        "Name does not resolve",
        "Name has no usable address",
    ];
    let text = error.to_string();
    // Without a descriptor for its files and its socket the resolver may say that too.
    UNKNOWN.iter().any(|unknown| text.contains(unknown)) && no_descriptor().is_none()
}

/// Why no descriptor can be had right now.
pub(super) fn no_descriptor() -> Option<&'static str> {
    std::fs::File::open("/dev/null").err().as_ref().and_then(cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_process_lacks_is_told_apart_from_what_a_bmc_does() {
        for (errno, part) in [
            (Errno::MFILE, Some("--slots")),
            (Errno::NFILE, Some("fs.file-max")),
            (Errno::NOMEM, Some("memory")),
            (Errno::NOBUFS, Some("memory")),
            (Errno::ADDRNOTAVAIL, Some("ip_local_port_range")),
            (Errno::CONNREFUSED, None),
            (Errno::HOSTUNREACH, None),
            (Errno::NETUNREACH, None),
            (Errno::TIMEDOUT, None),
        ] {
            let said = cause(&io::Error::from(errno));
            assert_eq!(said.is_some(), part.is_some(), "{errno}");
            assert!(said.unwrap_or_default().contains(part.unwrap_or_default()), "{errno}: {said:?}");
        }
    }

    #[test]
    fn an_error_without_a_name_is_told_in_its_own_words() {
        assert_eq!(told(&io::Error::from(Errno::CONNREFUSED)), "connection refused");
        for error in [io::Error::from(Errno::MFILE), io::Error::from(Errno::PROTO), io::Error::other("odd")] {
            assert!(
                !told(&error).contains("uncategorized") && !told(&error).contains("other error"),
                "{error:?}"
            );
        }
    }

    #[test]
    fn a_resolver_that_fails_does_not_say_that_there_is_no_such_name() {
        for (text, unknown) in [
            ("Name or service not known", true),
            ("No address associated with hostname", true),
            ("Name does not resolve", true),
            ("Temporary failure in name resolution", false),
            ("Non-recoverable failure in name resolution", false),
            ("Try again", false),
            ("System error", false),
        ] {
            let error = io::Error::other(format!("failed to lookup address information: {text}"));
            assert_eq!(knows_no_address(&error), unknown, "{text}");
        }
    }
}
