//! Command lines: the short times of tests, and what one test changes about them.

/// The flags of one process. A flag is there once.
#[derive(Debug, Clone)]
pub struct Flags {
    subcommand: &'static str,
    all: Vec<(String, Option<String>)>,
}

impl Flags {
    /// A subcommand without flags.
    pub fn new(subcommand: &'static str) -> Self {
        Self { subcommand, all: Vec::new() }
    }

    /// The subcommand.
    pub fn subcommand(&self) -> &'static str {
        self.subcommand
    }

    /// Sets a flag; a value that it had before is gone.
    #[must_use]
    pub fn set(self, flag: &str, value: impl Into<String>) -> Self {
        let mut flags = self.without(flag);
        flags.all.push((flag.to_owned(), Some(value.into())));
        flags
    }

    /// Sets a flag that takes no value.
    #[must_use]
    pub fn switch(self, flag: &str) -> Self {
        let mut flags = self.without(flag);
        flags.all.push((flag.to_owned(), None));
        flags
    }

    /// Takes a flag away.
    #[must_use]
    pub fn without(mut self, flag: &str) -> Self {
        self.all.retain(|(name, _)| name != flag);
        self
    }

    /// Sets many.
    #[must_use]
    pub fn with(self, pairs: &[(&str, &str)]) -> Self {
        pairs.iter().fold(self, |flags, (flag, value)| flags.set(flag, *value))
    }

    /// Whether it is there.
    pub fn has(&self, flag: &str) -> bool {
        self.all.iter().any(|(name, _)| name == flag)
    }

    /// The arguments.
    pub fn args(&self) -> Vec<String> {
        let mut args = vec![self.subcommand.to_owned()];
        for (flag, value) in &self.all {
            args.push(flag.clone());
            args.extend(value.clone());
        }
        args
    }
}

/// A controller's times, short enough for tests and long enough for a busy machine.
pub(super) fn controller(namespace: &str) -> Flags {
    Flags::new("controller").with(&[
        ("--watch-namespaces", namespace),
        ("--lease-namespace", namespace),
        ("--lease-duration", "3s"),
        ("--renew-period", "500ms"),
        ("--inspect-period", "10s"),
        ("--fresh-bound", "5m"),
        ("--transition-period", "500ms"),
        ("--stalled-after", "10m"),
        ("--undo-wait", "10s"),
        ("--power-off-wait", "20s"),
        ("--worker-lease", "3s"),
    ])
}

/// A worker's times.
pub(super) fn worker(login_key_file: &str) -> Flags {
    Flags::new("worker")
        .with(&[
            ("--site", "default"),
            ("--heartbeat", "300ms"),
            ("--lease", "3s"),
            ("--grace", "10s"),
            ("--bmc-cidr", "127.0.0.0/8"),
            ("--login-key-file", login_key_file),
            ("--request-timeout", "2s"),
            ("--shutdown-deadline", "5s"),
            ("--power-deadline", "10s"),
            ("--power-poll", "200ms"),
        ])
        .switch("--tell-bmcs-who-asks")
}

#[cfg(test)]
mod tests {
    use super::Flags;

    #[test]
    fn the_last_value_of_a_flag_counts() {
        let flags = Flags::new("worker").set("--slots", "1").switch("--allow-plain-http").set("--slots", "2");
        assert_eq!(flags.args(), ["worker", "--allow-plain-http", "--slots", "2"]);
    }
}
