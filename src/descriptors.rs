//! File descriptors: how many this process may have. Most systems give 1,024 and allow a process to take more.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Takes as many as this process may take; tells how many those are. `None`: there is no limit.
pub fn raise() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return limit.current;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        Ok(()) => limit.maximum,
        Err(error) => {
            tracing::warn!("the limit of open files stays as it is: {error}");
            limit.current
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    #[test]
    fn a_process_takes_as_many_descriptors_as_it_may() {
        let before = getrlimit(Resource::Nofile);
        let lower = before.maximum.map_or(1 << 20, |most| most - 1);
        setrlimit(Resource::Nofile, Rlimit { current: Some(lower), ..before }).unwrap();
        assert_eq!(raise(), before.maximum);
        assert_eq!(getrlimit(Resource::Nofile).current, before.maximum);
    }
}
