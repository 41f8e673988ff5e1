//! Servers that the user names instead of those that the harness starts.
//!
//! `make up` writes a file for the user's shell that sets `KUBECONFIG` and `DATABASE_URL` too. Whoever sourced it and
//! then runs `make test` or `make up` means neither of them, so the file says what it set, and that does not count.

use std::path::PathBuf;

use anyhow::{Result, bail};

/// What the file of `make up` sets beside `KUBECONFIG`, to the same value.
pub const OUR_KUBECONFIG: &str = "AUTOBUILD_DEV_KUBECONFIG";
/// What the file of `make up` sets beside `DATABASE_URL`, to the same value.
pub const OUR_DATABASE_URL: &str = "AUTOBUILD_DEV_DATABASE_URL";

/// The kubeconfig of the cluster to use, by `KUBECONFIG`.
pub fn kubeconfig() -> Result<Option<PathBuf>> {
    let Some(file) = given("KUBECONFIG", OUR_KUBECONFIG).map(PathBuf::from) else { return Ok(None) };
    // Tests run in another folder than make.
    if !file.is_absolute() || !file.is_file() {
        bail!("KUBECONFIG is {}: give the absolute path of one file, or unset it", file.display());
    }
    Ok(Some(file))
}

/// The database to use, by `DATABASE_URL`.
pub fn database_url() -> Option<String> {
    given("DATABASE_URL", OUR_DATABASE_URL)
}

fn given(variable: &str, ours: &str) -> Option<String> {
    meant(std::env::var(variable).ok(), std::env::var(ours).ok().as_deref())
}

fn meant(value: Option<String>, ours: Option<&str>) -> Option<String> {
    value.filter(|value| !value.is_empty() && Some(value.as_str()) != ours)
}

#[cfg(test)]
mod tests {
    use super::meant;

    #[test]
    fn what_the_file_of_make_up_set_is_not_what_the_user_names() {
        let url = || Some("mysql://a@b/c".to_owned());
        assert_eq!(meant(url(), None), url());
        assert_eq!(meant(url(), Some("mysql://a@b/c")), None);
        assert_eq!(meant(url(), Some("mysql://other")), url());
        assert_eq!(meant(Some(String::new()), None), None);
    }
}
