//! The arguments of an installer's kernel, as an `OSImage` has them: what each of them may be, and how much all of them
//! together. Pure.
//!
//! The definition of `OSImage` says the same as far as the API server can tell. It is judged again before anything is sent to
//! a machine, because objects that were stored before a definition are there too.

/// Longest argument, in characters.
const LONGEST: usize = 256;
/// Most arguments.
const MOST: usize = 64;
/// Most bytes of all arguments together, with the space before each. With what the boot service adds, no line is longer than
/// kernels take: 2,047 characters on x86 and Arm (`COMMAND_LINE_SIZE`), and what is beyond is lost without a word.
pub const MOST_BYTES: usize = 1024;
/// Most arguments NAME=VALUE that kernels do not know. A kernel hands those to its first process as variables, has room for 31
/// (`CONFIG_INIT_ENV_ARG_LIMIT` is 32, and two are its own) and stops with one more; up to seven are added by the boot service.
pub const MOST_VARIABLES: usize = 24;
/// Most arguments that are one word. A kernel hands those that it does not know to its first process as arguments, has room for
/// 32 of them (`CONFIG_INIT_ENV_ARG_LIMIT` again) and stops with one more; up to two are added on the way.
const MOST_WORDS: usize = 24;
/// NAMEs that every kernel knows, of those that images are likely to have. A NAME with a dot is never handed on.
const KNOWN: [&str; 22] = [
    "console",
    "earlycon",
    "earlyprintk",
    "fbcon",
    "initrd",
    "intel_iommu",
    "amd_iommu",
    "iommu",
    "init",
    "rdinit",
    "isolcpus",
    "loglevel",
    "maxcpus",
    "mem",
    "panic",
    "pci",
    "root",
    "rootdelay",
    "rootflags",
    "rootfstype",
    "vga",
    "video",
];

/// Whether a kernel hands it to its first process as a variable.
pub fn is_variable(arg: &str) -> bool {
    arg.split_once('=').is_some_and(|(name, _)| !name.contains('.') && !KNOWN.contains(&name))
}

/// The part that names what is told: all before the first `=`.
pub fn name(arg: &str) -> &str {
    arg.split_once('=').map_or(arg, |(name, _)| name)
}

/// Why a kernel cannot be given these; `None`: nothing is wrong with them. Names the field, what is in it, and the way out.
pub fn flaw(args: &[String]) -> Option<String> {
    if args.len() > MOST {
        return Some(format!("spec.source.args has {} items, and {MOST} is the most", args.len()));
    }
    if let Some(bad) = args.iter().find(|arg| !is_argument(arg)) {
        let shown: String = bad.chars().take(LONGEST).collect();
        return Some(format!(
            "spec.source.args has {shown:?}: write NAME or NAME=VALUE without spaces, quotes, backslashes and $ {{ }} ; & | < >"
        ));
    }
    let bytes: usize = args.iter().map(|arg| arg.len() + 1).sum();
    if bytes > MOST_BYTES {
        return Some(format!(
            "spec.source.args has {bytes} bytes in all, the space before each item counted, and {MOST_BYTES} is the most, because \
             kernels lose what is beyond 2047 without a word: take some away, or have the install data say it"
        ));
    }
    let variables = args.iter().filter(|arg| is_variable(arg)).count();
    if variables > MOST_VARIABLES {
        return Some(format!(
            "spec.source.args has {variables} items NAME=VALUE that kernels do not know, and {MOST_VARIABLES} is the most, because \
             kernels stop where there are more: take some away, or have the install data say it"
        ));
    }
    let words = args.iter().filter(|arg| !arg.contains(['=', '.'])).count();
    if words > MOST_WORDS {
        return Some(format!(
            "spec.source.args has {words} items that are one word without a dot, and {MOST_WORDS} is the most, because kernels stop \
             where there are more that they do not know: take some away, or have the install data say it"
        ));
    }
    None
}

/// `^[A-Za-z0-9_.:/\-]+\??(=[^\s"'\\${}\n\r;&|<>]*)?$`, no control characters, and none of what the boot service tells alone.
fn is_argument(arg: &str) -> bool {
    let (name, value) = arg.split_once('=').unwrap_or((arg, ""));
    // `NAME?=VALUE` is a proposal to Debian's installer.
    let name = name.strip_suffix('?').unwrap_or(name);
    let named = |byte: u8| byte.is_ascii_alphanumeric() || b"_.:/-".contains(&byte);
    let ends = |c: char| c.is_whitespace() || c.is_control() || "\"'\\${};&|<>".contains(c);
    let own = matches!(name, "autobuild.url" | "autobuild.image" | "autobuild.action");
    !name.is_empty()
        && arg.chars().count() <= LONGEST
        && name.bytes().all(named)
        && !value.contains(ends)
        && !own
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    fn of(args: &[&str]) -> Option<String> {
        flaw(&args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn names_are_those_of_kernels_and_of_debians_installer() {
        let good = [
            "quiet",
            "console=ttyS0,115200",
            "inst.repo=https://mirror.example.com/os",
            "netcfg/get_hostname=node",
            "debian-installer/locale?=de_DE.UTF-8",
            "tasksel:tasksel/first=standard",
            "---",
            "url=https://[2001:db8::1]/a?b=c",
        ];
        assert_eq!(of(&good), None);
    }

    #[test]
    fn what_could_leave_its_place_is_refused_by_name() {
        for bad in [
            "",
            "=x",
            "?=x",
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
            let told = of(&[bad]).unwrap();
            assert!(told.contains(&format!("{bad:?}")) && told.contains("write NAME"), "{told}");
        }
        assert!(of(&[&"a".repeat(257)]).is_some());
        assert!(of(&["a"; 65]).unwrap().contains("64 is the most"));
    }

    #[test]
    fn more_than_a_kernel_takes_is_refused_with_the_way_out() {
        let long = format!("a.b={}", "x".repeat(252));
        let fits = [long.as_str(), &long, &long, &long[..252]];
        assert_eq!(fits.iter().map(|arg| arg.len() + 1).sum::<usize>(), MOST_BYTES);
        assert_eq!(of(&fits), None);
        let told = of(&[&long, &long, &long, &long[..253]]).unwrap();
        assert!(told.contains("has 1025 bytes") && told.contains("take some away"), "{told}");
    }

    #[test]
    fn what_kernels_hand_on_is_counted_and_what_they_know_or_drop_is_not() {
        let unknown: Vec<String> = (0..25).map(|n| format!("netcfg/n{n}=x")).collect();
        assert_eq!(flaw(&unknown[..24]), None);
        let told = flaw(&unknown).unwrap();
        assert!(told.contains("has 25 items NAME=VALUE") && told.contains("24 is the most"), "{told}");
        let mut others: Vec<String> = (0..20).map(|n| format!("rd.luks.n{n}=x")).collect();
        others.extend((0..10).map(|n| format!("console=ttyS{n}")));
        others.extend((0..10).map(|n| format!("word{n}")));
        others.extend_from_slice(&unknown[..24]);
        assert_eq!(flaw(&others), None);
        let words: Vec<String> = (0..25).map(|n| format!("word{n}")).collect();
        assert_eq!(flaw(&words[..24]), None);
        let told = flaw(&words).unwrap();
        assert!(told.contains("has 25 items that are one word") && told.contains("24 is the most"), "{told}");
    }
}
