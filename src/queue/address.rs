//! Where the database is: `--database-url`, or a file that has it and may change. And that nobody between can read or change
//! what is said there.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr as _;
use std::sync::Arc;

use sqlx::mysql::{MySqlConnectOptions, MySqlSslMode};

use super::QueueError;

/// Prepared statements that a connection keeps, those for several rows counted for each number: more than one task uses.
/// The server's default, `max_prepared_stmt_count`, allows 16,382 over all connections.
pub(super) const STATEMENTS: usize = 100;

/// What verifies the server: everything else is refused unless it is written out, or leads to this machine.
const VERIFIED: &str = "add ?ssl-mode=VERIFY_IDENTITY, with &ssl-ca=FILE for a CA of your own";

/// Where the database is. Never printed with its password.
#[derive(Clone)]
pub struct DatabaseAddress(Source);

#[derive(Clone)]
enum Source {
    Url(Arc<str>),
    File(PathBuf),
}

impl fmt::Debug for DatabaseAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Source::Url(_) => f.write_str("--database-url"),
            Source::File(path) => write!(f, "--database-url-file {}", path.display()),
        }
    }
}

impl From<&str> for DatabaseAddress {
    fn from(url: &str) -> Self {
        Self(Source::Url(url.into()))
    }
}

impl From<&String> for DatabaseAddress {
    fn from(url: &String) -> Self {
        url.as_str().into()
    }
}

impl DatabaseAddress {
    /// In the first line of a file, which is read again before each new connection of its own and every few seconds.
    pub fn in_file(path: PathBuf) -> Self {
        Self(Source::File(path))
    }

    /// The URL as it stands now.
    pub(super) fn url(&self) -> Result<Arc<str>, QueueError> {
        match &self.0 {
            Source::Url(url) => Ok(Arc::clone(url)),
            Source::File(path) => {
                let text = std::fs::read_to_string(path).map_err(|error| {
                    QueueError::Unfit(format!(
                        "--database-url-file {} cannot be read: {error}; write mysql://USER:PASSWORD@HOST:PORT/DATABASE into it",
                        path.display()
                    ))
                })?;
                Ok(text.lines().next().unwrap_or_default().trim().into())
            }
        }
    }

    /// The options of connections that are opened now.
    pub(super) fn options(&self) -> Result<MySqlConnectOptions, QueueError> {
        let options = options(&self.url()?);
        match (&self.0, options) {
            // A file may be right the next time.
            (Source::File(path), Err(QueueError::Url(message))) => Err(QueueError::Unfit(format!(
                "--database-url-file {}: {message}; expected mysql://USER:PASSWORD@HOST:PORT/DATABASE",
                path.display()
            ))),
            (_, options) => options,
        }
    }
}

/// The connection options for a URL.
fn options(url: &str) -> Result<MySqlConnectOptions, QueueError> {
    if !(url.starts_with("mysql://") || url.starts_with("mariadb://")) {
        return Err(QueueError::Url("the scheme is not mysql".to_owned()));
    }
    let options = MySqlConnectOptions::from_str(url)
        .map_err(|_| QueueError::Url("it cannot be parsed".to_owned()))?
        .statement_cache_capacity(STATEMENTS)
        // All of this is in what each connection sets first.
        .pipes_as_concat(false)
        .no_engine_substitution(false)
        .timezone(None)
        .set_names(false);
    if options.get_database().unwrap_or_default().is_empty() {
        return Err(QueueError::Url("it names no database".to_owned()));
    }
    if is_away(&options) && !is_verified(&options) && !is_written_out(url) {
        return Err(QueueError::Url(format!(
            "whoever is between here and {} could read the password and change what is said: {VERIFIED}; or write ssl-mode=REQUIRED \
             or ssl-mode=DISABLED out where that network is trusted",
            options.get_host()
        )));
    }
    Ok(options)
}

/// What a person should hear who wrote a weak mode out; `None`: nothing.
pub(super) fn warning(options: &MySqlConnectOptions) -> Option<String> {
    (is_away(options) && !is_verified(options)).then(|| {
        format!(
            "nobody proves to be the database at {}, as --database-url asks for: {VERIFIED}",
            options.get_host()
        )
    })
}

/// Whether the connection leaves this machine.
fn is_away(options: &MySqlConnectOptions) -> bool {
    let host = options.get_host().trim_matches(['[', ']']);
    let is_loopback = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|host| host.is_loopback());
    options.get_socket().is_none() && !is_loopback
}

fn is_verified(options: &MySqlConnectOptions) -> bool {
    matches!(options.get_ssl_mode(), MySqlSslMode::VerifyCa | MySqlSslMode::VerifyIdentity)
}

fn is_written_out(url: &str) -> bool {
    url::Url::parse(url)
        .is_ok_and(|url| url.query_pairs().any(|(name, _)| matches!(&*name, "ssl-mode" | "sslmode")))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    fn refused(url: &str) -> Option<String> {
        DatabaseAddress::from(url).options().err().map(|error| error.to_string())
    }

    #[test]
    fn a_database_elsewhere_has_to_prove_what_it_is_unless_that_is_written_out() {
        for url in [
            "mysql://u:geheim@127.0.0.1/d",
            "mysql://u:geheim@127.4.5.6:3307/d",
            "mysql://u:geheim@localhost/d",
            "mysql://u:geheim@[::1]/d",
            "mysql://u:geheim@db.example.com/d?socket=/run/mysqld.sock",
            "mysql://u:geheim@db.example.com/d?ssl-mode=VERIFY_CA&ssl-ca=/ca.pem",
            "mysql://u:geheim@db.example.com/d?ssl-mode=VERIFY_IDENTITY",
            "mysql://u:geheim@db.example.com/d?ssl-mode=REQUIRED",
            "mysql://u:geheim@db.example.com/d?charset=utf8mb4&sslmode=disabled",
        ] {
            assert_eq!(refused(url), None, "{url}");
        }
        for url in [
            "mysql://u:geheim@db.example.com/d",
            "mysql://u:geheim@192.0.2.1/d",
            "mysql://u:geheim@localhost.example.com/d",
            "mysql://u:geheim@[2001:db8::1]/d?ssl-ca=/ca.pem",
        ] {
            let message = refused(url).unwrap();
            assert!(
                message.contains("--database-url") && message.contains("ssl-mode=VERIFY_IDENTITY"),
                "{message}"
            );
            assert!(!message.contains("geheim"), "{message}");
        }
    }

    #[test]
    fn a_weak_mode_that_is_written_out_is_told() {
        let of = |url: &str| warning(&DatabaseAddress::from(url).options().unwrap());
        assert!(of("mysql://u@db.example.com/d?ssl-mode=REQUIRED").unwrap().contains("db.example.com"));
        assert_eq!(of("mysql://u@db.example.com/d?ssl-mode=VERIFY_CA"), None);
        assert_eq!(of("mysql://u@127.0.0.1/d"), None);
    }

    #[test]
    fn a_file_is_read_as_it_stands_and_may_be_right_the_next_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("url");
        let address = DatabaseAddress::in_file(path.clone());
        let error = address.options().unwrap_err();
        assert!(matches!(error, QueueError::Unfit(_)), "{error}");
        assert!(error.to_string().contains("--database-url-file"), "{error}");
        std::fs::write(&path, "postgres://u:geheim@127.0.0.1/d").unwrap();
        let error = address.options().unwrap_err();
        assert!(matches!(&error, QueueError::Unfit(text) if !text.contains("geheim")), "{error}");
        for user in ["one", "two"] {
            std::fs::write(&path, format!("mysql://{user}:p@127.0.0.1/d\n")).unwrap();
            assert_eq!(address.options().unwrap().get_username(), user);
        }
        assert!(!format!("{address:?}").contains("mysql://"));
    }
}
