//! The iPXE scripts. Pure: nothing in an argument can leave its place, because what could is refused.

use super::public_url::PublicUrl;
use super::token::BootToken;
use crate::api::InstallFormat;
use crate::job::BootPurpose;

/// Longest argument and most arguments, as the definition of `OSImage` has them.
const LONGEST_ARG: usize = 256;
const MOST_ARGS: usize = 64;

/// What a machine without a session gets: it goes on with its next boot device.
pub const LOCAL_BOOT: &str = "#!ipxe\nexit\n";

/// What DHCP names: asks again with the machine's own address, and with what tells whether it is the right machine.
pub fn chain(base: &PublicUrl) -> String {
    format!(
        "#!ipxe\nchain --autofree {base}/boot/${{mac:hexhyp}}?uuid=${{uuid}}&serial=${{serial:uristring}} || exit\n"
    )
}

/// Where a session is, for what runs from a medium: the arguments that a kernel from the network would have been given,
/// one to a line.
pub fn session(
    base: &PublicUrl,
    token: &BootToken,
    digest: &str,
    purpose: BootPurpose,
) -> Result<String, ScriptRefused> {
    if !is_digest(digest) {
        return Err(ScriptRefused::Digest(digest.to_owned()));
    }
    let args = own_args(&base.session(token), digest, purpose);
    Ok(args.join("\n") + "\n")
}

/// What the boot service tells every installer.
fn own_args(url: &str, digest: &str, purpose: BootPurpose) -> Vec<String> {
    let mut args = vec![format!("autobuild.url={url}"), format!("autobuild.image={digest}")];
    if purpose == BootPurpose::Wipe {
        args.push("autobuild.action=wipe".to_owned());
    }
    args
}

/// What an installer is started with.
#[derive(Debug, Clone, Copy)]
pub struct Boot<'a> {
    /// Where machines reach the boot service.
    pub base: &'a PublicUrl,
    /// The session's newest token.
    pub token: &'a BootToken,
    /// The image's arguments.
    pub args: &'a [String],
    /// The image's digest.
    pub digest: &'a str,
    /// What it is for.
    pub purpose: BootPurpose,
    /// How the installer finds its data.
    pub format: InstallFormat,
}

/// An argument or a digest that a script must not carry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScriptRefused {
    /// An argument.
    #[error(
        "spec.source.args has {0:?}: write NAME or NAME=VALUE without spaces, quotes, backslashes and $ {{ }} ; & | < >"
    )]
    Argument(String),
    /// More arguments than the definition allows.
    #[error("spec.source.args has {0} items, and {MOST_ARGS} is the most")]
    TooMany(usize),
    /// A digest that is none.
    #[error("the digest {0:?} of the image is no sha256:…")]
    Digest(String),
}

/// The script that starts an installer.
pub fn install(boot: Boot<'_>) -> Result<String, ScriptRefused> {
    let Boot { base, token, args, digest, purpose, format } = boot;
    if args.len() > MOST_ARGS {
        return Err(ScriptRefused::TooMany(args.len()));
    }
    if let Some(bad) = args.iter().find(|arg| !is_argument(arg)) {
        return Err(ScriptRefused::Argument(bad.chars().take(LONGEST_ARG).collect()));
    }
    if !is_digest(digest) {
        return Err(ScriptRefused::Digest(digest.to_owned()));
    }
    let url = base.session(token);
    let mut line = format!("kernel {url}/kernel");
    let own = own_args(&url, digest, purpose);
    for arg in args.iter().chain(&own).chain(&data_args(format, &url)) {
        line.push(' ');
        line.push_str(arg);
    }
    Ok(format!("#!ipxe\n{line}\ninitrd {url}/initrd\nboot\n"))
}

/// Where each kind of installer looks for its data.
fn data_args(format: InstallFormat, url: &str) -> Vec<String> {
    match format {
        InstallFormat::Kickstart => vec![format!("inst.ks={url}/install")],
        InstallFormat::Preseed => {
            vec!["auto=true".to_owned(), "priority=critical".to_owned(), format!("url={url}/install")]
        }
        InstallFormat::Autoinstall => {
            vec!["autoinstall".to_owned(), format!("ds=nocloud-net;s={url}/install/")]
        }
        InstallFormat::CloudInit => vec![format!("ds=nocloud-net;s={url}/install/")],
        InstallFormat::Ignition => {
            vec!["ignition.firstboot".to_owned(), format!("ignition.config.url={url}/install")]
        }
        InstallFormat::None => Vec::new(),
    }
}

/// `^[A-Za-z0-9_.\-]+(=[^\s"'\\${}\n\r;&|<>]*)?$`, and no control characters: as the definition has it, judged again
/// here because objects that were stored before a definition are served too.
fn is_argument(arg: &str) -> bool {
    let (name, value) = arg.split_once('=').unwrap_or((arg, ""));
    let named = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    let ends = |c: char| c.is_whitespace() || c.is_control() || "\"'\\${};&|<>".contains(c);
    let own = matches!(name, "autobuild.url" | "autobuild.image" | "autobuild.action");
    !name.is_empty()
        && arg.chars().count() <= LONGEST_ARG
        && name.bytes().all(named)
        && !value.contains(ends)
        && !own
}

fn is_digest(digest: &str) -> bool {
    let digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    digest.strip_prefix("sha256:").is_some_and(|hex| hex.len() == 64 && hex.bytes().all(digit))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn base() -> PublicUrl {
        "http://10.0.0.5:8080".parse().unwrap()
    }

    fn token() -> BootToken {
        BootToken::parse(&"ab".repeat(32)).unwrap()
    }

    fn script(args: &[String], format: InstallFormat) -> Result<String, ScriptRefused> {
        let digest = format!("sha256:{}", "cd".repeat(32));
        let purpose = BootPurpose::Install;
        install(Boot { base: &base(), token: &token(), args, digest: &digest, purpose, format })
    }

    #[test]
    fn the_script_is_what_the_protocol_says() {
        let url = format!("http://10.0.0.5:8080/s/{}", "ab".repeat(32));
        let digest = "cd".repeat(32);
        assert_eq!(
            script(&["quiet".into(), "console=ttyS0,115200".into()], InstallFormat::None).unwrap(),
            format!(
                "#!ipxe\nkernel {url}/kernel quiet console=ttyS0,115200 autobuild.url={url} \
                 autobuild.image=sha256:{digest}\ninitrd {url}/initrd\nboot\n"
            )
        );
        assert_eq!(
            chain(&base()),
            "#!ipxe\nchain --autofree http://10.0.0.5:8080/boot/${mac:hexhyp}?uuid=${uuid}&serial=${serial:uristring} || exit\n"
        );
    }

    #[test]
    fn each_installer_is_told_where_its_data_is() {
        for (format, wanted) in [
            (InstallFormat::Kickstart, " inst.ks=http://"),
            (InstallFormat::Preseed, " url=http://"),
            (InstallFormat::Autoinstall, " autoinstall ds=nocloud-net;s=http://"),
            (InstallFormat::CloudInit, " ds=nocloud-net;s=http://"),
            (InstallFormat::Ignition, " ignition.config.url=http://"),
        ] {
            let script = script(&[], format).unwrap();
            assert!(script.contains(wanted), "{script}");
        }
    }

    #[test]
    fn an_argument_that_could_break_out_is_refused_by_name() {
        for bad in [
            "",
            "=x",
            "a b",
            "a\nchain http://evil",
            "a=\r",
            "a=${net0/mac}",
            "a=b;c",
            "a=b||c",
            "a='b'",
            "a=\\",
            "a=\u{2028}",
            "a=\u{0}",
            "#!ipxe",
            "autobuild.url=http://elsewhere",
            "autobuild.image=x",
            "autobuild.action=wipe",
        ] {
            let refused = script(&[bad.to_owned()], InstallFormat::None);
            assert!(matches!(refused, Err(ScriptRefused::Argument(_))), "{bad:?}");
        }
        assert!(script(&vec!["a".to_owned(); 65], InstallFormat::None).is_err());
    }

    #[test]
    fn what_erases_disks_is_told_so() {
        let digest = format!("sha256:{}", "cd".repeat(32));
        let (token, purpose, format) = (token(), BootPurpose::Wipe, InstallFormat::None);
        let boot = Boot { base: &base(), token: &token, args: &[], digest: &digest, purpose, format };
        let script = install(boot).unwrap();
        assert!(script.contains(&format!(" autobuild.image={digest} autobuild.action=wipe\n")), "{script}");
    }

    #[test]
    fn a_digest_is_nothing_else() {
        let digest = "sha256:abc\nboot";
        let (token, purpose, format) = (token(), BootPurpose::Wipe, InstallFormat::None);
        let boot = Boot { base: &base(), token: &token, args: &[], digest, purpose, format };
        assert_eq!(install(boot), Err(ScriptRefused::Digest(digest.to_owned())));
    }

    proptest! {
        #[test]
        fn a_script_has_its_four_lines_and_each_argument_its_own_word(
            args in prop::collection::vec(prop_oneof![
                "[A-Za-z0-9_.\\-]{1,8}(=[A-Za-z0-9_.,:/\\-\"' \\n\\r;$]{0,8})?",
                any::<String>(),
            ], 0..6)
        ) {
            if let Ok(script) = script(&args, InstallFormat::None) {
                let lines: Vec<&str> = script.split('\n').collect();
                prop_assert_eq!(lines.len(), 5);
                let meaning = ['\r', '$', '{', ';', '|', '"', '\'', '\\'];
                prop_assert!(!script.contains(meaning), "{:?}", script);
                let words: Vec<&str> = lines[1].split_whitespace().collect();
                prop_assert_eq!(words.len(), args.len() + 4);
                for (word, arg) in words[2..].iter().zip(&args) {
                    prop_assert_eq!(*word, arg.as_str());
                }
            }
        }
    }
}
