//! The iPXE scripts. Pure: nothing in an argument can leave its place, because what could is refused.

use super::arguments::{Told, added_to};
use super::public_url::PublicUrl;
use super::token::BootToken;
use crate::api::{InstallFormat, Mac, kernel_args};
use crate::job::BootPurpose;

/// Longest line of arguments that a kernel keeps whole, on x86 and Arm (`COMMAND_LINE_SIZE`, its end not counted).
const LONGEST_LINE: usize = 2047;
/// What the EFI programs of iPXE write before the arguments: the name of the kernel, which is the end of its URL.
const BEFORE_THEM: &str = "kernel ";
/// Most arguments NAME=VALUE that a kernel does not know, and most words that it does not know.
const MOST_VARIABLES: usize = 31;

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
    /// The card that boots.
    pub mac: &'a Mac,
    /// Name of the `Server`.
    pub name: &'a str,
}

/// Arguments or a digest that a script must not carry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScriptRefused {
    /// The image's own arguments.
    #[error("{0}")]
    Arguments(String),
    /// A digest that is none.
    #[error("the digest {0:?} of the image is no sha256:…")]
    Digest(String),
    /// All arguments together.
    #[error(
        "the kernel would be given {0} bytes of arguments, {1} of them by the boot service, and loses what is beyond \
         {LONGEST_LINE} without a word: take some away from spec.source.args of the OSImage, or have the install data say it"
    )]
    Line(usize, usize),
    /// All of those that a kernel keeps as variables of its first process.
    #[error(
        "the kernel would be given {0} arguments NAME=VALUE that it does not know, and stops with more than {MOST_VARIABLES}: \
         take some away from spec.source.args of the OSImage, or have the install data say it"
    )]
    Variables(usize),
}

/// The script that starts an installer.
pub fn install(boot: Boot<'_>) -> Result<String, ScriptRefused> {
    let Boot { base, token, args, digest, purpose, format, mac, name } = boot;
    if let Some(flaw) = kernel_args::flaw(args) {
        return Err(ScriptRefused::Arguments(flaw));
    }
    if !is_digest(digest) {
        return Err(ScriptRefused::Digest(digest.to_owned()));
    }
    let url = base.session(token);
    let mut own = own_args(&url, digest, purpose);
    own.extend(added_to(args, format, Told { url: &url, mac, name }));
    let of_ours = own.iter().map(|arg| arg.len() + 1).sum();
    let line = [own.as_slice(), args].concat().join(" ");
    let all = BEFORE_THEM.len() + line.len();
    if all > LONGEST_LINE {
        return Err(ScriptRefused::Line(all, of_ours));
    }
    let variables = own.iter().chain(args).filter(|arg| kernel_args::is_variable(arg)).count();
    if variables > MOST_VARIABLES {
        return Err(ScriptRefused::Variables(variables));
    }
    Ok(format!("#!ipxe\nkernel {url}/kernel {line}\ninitrd {url}/initrd\nboot\n"))
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

    fn boot<'a>(base: &'a PublicUrl, token: &'a BootToken, digest: &'a str, mac: &'a Mac) -> Boot<'a> {
        let (purpose, format) = (BootPurpose::Install, InstallFormat::None);
        Boot { base, token, args: &[], digest, purpose, format, mac, name: "node-1" }
    }

    fn script(args: &[String], format: InstallFormat) -> Result<String, ScriptRefused> {
        let (digest, mac) = (format!("sha256:{}", "cd".repeat(32)), "52:54:00:12:34:56".parse().unwrap());
        let (base, token) = (base(), token());
        install(Boot { args, format, ..boot(&base, &token, &digest, &mac) })
    }

    #[test]
    fn the_script_is_what_the_protocol_says() {
        let url = format!("http://10.0.0.5:8080/s/{}", "ab".repeat(32));
        let digest = "cd".repeat(32);
        assert_eq!(
            script(&["quiet".into(), "console=ttyS0,115200".into()], InstallFormat::None).unwrap(),
            format!(
                "#!ipxe\nkernel {url}/kernel autobuild.url={url} autobuild.image=sha256:{digest} initrd=initrd \
                 BOOTIF=01-52-54-00-12-34-56 quiet console=ttyS0,115200\ninitrd {url}/initrd\nboot\n"
            )
        );
        assert_eq!(
            chain(&base()),
            "#!ipxe\nchain --autofree http://10.0.0.5:8080/boot/${mac:hexhyp}?uuid=${uuid}&serial=${serial:uristring} || exit\n"
        );
    }

    #[test]
    fn what_the_boot_service_says_comes_before_what_the_image_says() {
        let script = script(&["---".into(), "quiet".into()], InstallFormat::Preseed).unwrap();
        assert!(script.contains("/install --- quiet\n"), "{script}");
    }

    #[test]
    fn an_argument_that_could_break_out_is_refused_by_name() {
        let refused = script(&["a\nchain http://evil".to_owned()], InstallFormat::None).unwrap_err();
        assert!(refused.to_string().contains("a\\nchain http://evil"), "{refused}");
    }

    #[test]
    fn the_ram_disk_of_what_erases_disks_is_named_too() {
        let (digest, mac) = (format!("sha256:{}", "cd".repeat(32)), "52:54:00:12:34:56".parse().unwrap());
        let (base, token) = (base(), token());
        let wipe = Boot { purpose: BootPurpose::Wipe, ..boot(&base, &token, &digest, &mac) };
        let script = install(wipe).unwrap();
        let wanted = format!(" autobuild.image={digest} autobuild.action=wipe initrd=initrd BOOTIF=");
        assert!(script.contains(&wanted), "{script}");
    }

    /// Where DHCP names the first script to everybody and not to iPXE alone, Debian's installer reads it as a preseed file before
    /// its own. It stops at a line of fewer than three words, and sets the question that the second word names: one that has no
    /// slash is none of Debian's, and is not looked at by anything.
    #[test]
    fn the_first_script_sets_nothing_where_debians_installer_takes_it_for_a_preseed_file() {
        for line in chain(&base()).lines().filter(|line| !line.starts_with('#')) {
            let words: Vec<&str> = line.split_whitespace().collect();
            assert!(words.len() >= 3 && !words[1].contains('/') && !line.ends_with('\\'), "{line}");
        }
    }

    #[test]
    fn a_digest_is_nothing_else() {
        let (digest, mac) = ("sha256:abc\nboot", "52:54:00:12:34:56".parse().unwrap());
        let (base, token) = (base(), token());
        let refused = install(boot(&base, &token, digest, &mac));
        assert_eq!(refused, Err(ScriptRefused::Digest(digest.to_owned())));
    }

    /// What an image may have, with the most that the boot service can have to say.
    #[test]
    fn whatever_an_image_may_have_fits_with_what_is_added() {
        let longest = "x".repeat(PublicUrl::LONGEST - "http://".len());
        let base: PublicUrl = format!("http://{longest}").parse().unwrap();
        let (digest, mac) = (format!("sha256:{}", "cd".repeat(32)), "52:54:00:12:34:56".parse().unwrap());
        let (token, name) = (token(), "n".repeat(63));
        let filler = |left: usize| format!("a.b={}", "x".repeat(left - 4));
        let most: Vec<String> = [256, 256, 256, 252].map(filler).to_vec();
        let variables: Vec<String> = (0..kernel_args::MOST_VARIABLES).map(|n| format!("n{n}=x")).collect();
        assert_eq!(most.iter().map(|arg| arg.len() + 1).sum::<usize>(), kernel_args::MOST_BYTES);
        for format in super::super::arguments::FORMATS {
            for args in [&most, &variables] {
                let purpose = BootPurpose::Wipe;
                let boot = Boot { args, purpose, format, name: &name, ..boot(&base, &token, &digest, &mac) };
                install(boot).unwrap();
            }
        }
    }

    #[test]
    fn a_line_that_a_kernel_would_lose_the_end_of_is_refused() {
        let refused = ScriptRefused::Line(2048, 600).to_string();
        assert!(refused.contains("spec.source.args") && refused.contains("take some away"), "{refused}");
        let longest = "x".repeat(PublicUrl::LONGEST - "http://".len());
        assert!(format!("http://{longest}x").parse::<PublicUrl>().is_err(), "no base is longer");
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
                let ours = words.len() - args.len();
                prop_assert!((4..=6).contains(&ours), "{:?}", words);
                for (word, arg) in words[ours..].iter().zip(&args) {
                    prop_assert_eq!(*word, arg.as_str());
                }
            }
        }
    }
}
