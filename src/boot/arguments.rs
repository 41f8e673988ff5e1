//! What the boot service adds to the arguments of an image's kernel: where the session is, and what an installer has to know
//! before it has its data, because it needs it to get there. Pure.
//!
//! It comes first: what an image has behind `---` is what some installers give to the system that they write, and a line that
//! is too long loses its end. An argument of the image has precedence over one of the same name here, so that none is there
//! twice.

use crate::api::{InstallFormat, Mac, kernel_args};

/// Longest name of a machine that Linux takes, in bytes.
const LONGEST_NAME: usize = 64;
/// Longest part of such a name between two dots.
const LONGEST_LABEL: usize = 63;

/// Of one machine.
#[derive(Debug, Clone, Copy)]
pub(super) struct Told<'a> {
    /// Where everything of the session is.
    pub url: &'a str,
    /// The card that boots.
    pub mac: &'a Mac,
    /// Name of the `Server`.
    pub name: &'a str,
}

/// An argument, and other names under which its reader knows the same.
struct Added {
    text: String,
    synonyms: &'static [&'static str],
}

fn added(text: impl Into<String>) -> Added {
    known_as(text, &[])
}

fn known_as(text: impl Into<String>, synonyms: &'static [&'static str]) -> Added {
    Added { text: text.into(), synonyms }
}

/// All that is added for a format, without those that `args` has itself.
pub(super) fn added_to(args: &[String], format: InstallFormat, told: Told<'_>) -> Vec<String> {
    // Older EFI programs of iPXE, such as those of Debian 12, hand the kernel no RAM disk unless an argument has its name, which
    // is the end of its URL. Later ones, and BIOS, need none and do not mind.
    let mut all = vec![added("initrd=initrd"), added(format!("BOOTIF=01-{}", told.mac))];
    let has = |name: &str| args.iter().any(|arg| kernel_args::name(arg).trim_end_matches('?') == name);
    all.extend(for_its_reader(format, told, has("coreos.inst.install_dev")));
    all.into_iter()
        .filter(|one| !has(kernel_args::name(&one.text)) && !one.synonyms.iter().any(|name| has(name)))
        .map(|one| one.text)
        .collect()
}

/// What each kind of installer reads. `BOOTIF`, as PXELINUX writes it, is read by all of them: by the network setup of Debian's
/// installer (`netcfg`), by dracut's (Anaconda, Fedora CoreOS) and by that of initramfs-tools (casper, cloud images).
fn for_its_reader(format: InstallFormat, told: Told<'_>, coreos_installs: bool) -> Vec<Added> {
    let url = told.url;
    match format {
        // Anaconda sets the network up for `inst.ks` by itself, and the name is set by the kickstart file.
        InstallFormat::Kickstart => vec![added(format!("inst.ks={url}/install"))],
        InstallFormat::Preseed => {
            let mut all = vec![
                known_as("auto=true", &["auto-install/enable"]),
                known_as("priority=critical", &["debconf/priority"]),
                // Takes the card of BOOTIF; without it a machine with two cards is asked for one.
                known_as("interface=auto", &["netcfg/choose_interface"]),
            ];
            if let Some(name) = hostname(told.name) {
                // The name is set before there is a network, so not from the data. The first one asks nothing, and the second
                // one is not replaced by what DHCP says.
                all.push(known_as(format!("hostname={name}"), &["netcfg/get_hostname"]));
                all.push(added(format!("netcfg/hostname={name}")));
            }
            all.push(known_as(format!("url={url}/install"), &["preseed/url"]));
            all
        }
        InstallFormat::Autoinstall => {
            // casper gets its files over the network, and sets it up only if told so.
            vec![added("ip=dhcp"), added("autoinstall"), nocloud(url)]
        }
        InstallFormat::CloudInit => vec![added("ip=dhcp"), nocloud(url)],
        InstallFormat::Ignition => vec![
            added("ip=dhcp"),
            added("rd.neednet=1"),
            added("ignition.firstboot"),
            // The same, as Flatcar reads it.
            known_as("flatcar.first_boot=1", &["coreos.first_boot"]),
            known_as("ignition.platform.id=metal", &["flatcar.oem.id", "coreos.oem.id"]),
            // What is booted installs itself on a disk, and the data is for the system there; else it is that system.
            if coreos_installs {
                added(format!("coreos.inst.ignition_url={url}/install"))
            } else {
                known_as(format!("ignition.config.url={url}/install"), &["flatcar.config.url"])
            },
        ],
        InstallFormat::None => Vec::new(),
    }
}

/// `nocloud-net`, because older releases of cloud-init look for `nocloud` before there is a network.
fn nocloud(url: &str) -> Added {
    added(format!("ds=nocloud-net;s={url}/install/"))
}

/// The name that the machine is given; `None`: it has none that Linux takes.
fn hostname(name: &str) -> Option<&str> {
    let label = name.split('.').next().unwrap_or_default();
    let chosen = if name.len() <= LONGEST_NAME { name } else { label };
    (!label.is_empty() && label.len() <= LONGEST_LABEL).then_some(chosen)
}

/// Every format.
#[cfg(test)]
pub(super) const FORMATS: [InstallFormat; 6] = [
    InstallFormat::Kickstart,
    InstallFormat::Preseed,
    InstallFormat::Autoinstall,
    InstallFormat::CloudInit,
    InstallFormat::Ignition,
    InstallFormat::None,
];

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    fn of(args: &[&str], format: InstallFormat) -> Vec<String> {
        named(args, format, "node-1")
    }

    fn named(args: &[&str], format: InstallFormat, name: &str) -> Vec<String> {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let mac = "52:54:00:12:34:56".parse().unwrap();
        added_to(&args, format, Told { url: "http://boot/s/ab", mac: &mac, name })
    }

    #[test]
    fn every_installer_is_told_its_ram_disk_its_card_and_where_its_data_is() {
        for (format, wanted) in [
            (InstallFormat::Kickstart, "inst.ks=http://boot/s/ab/install"),
            (
                InstallFormat::Preseed,
                "auto=true priority=critical interface=auto hostname=node-1 netcfg/hostname=node-1 url=http://boot/s/ab/install",
            ),
            (InstallFormat::Autoinstall, "ip=dhcp autoinstall ds=nocloud-net;s=http://boot/s/ab/install/"),
            (InstallFormat::CloudInit, "ip=dhcp ds=nocloud-net;s=http://boot/s/ab/install/"),
            (
                InstallFormat::Ignition,
                "ip=dhcp rd.neednet=1 ignition.firstboot flatcar.first_boot=1 ignition.platform.id=metal \
                 ignition.config.url=http://boot/s/ab/install",
            ),
            (InstallFormat::None, ""),
        ] {
            let all = of(&[], format).join(" ");
            let always = "initrd=initrd BOOTIF=01-52-54-00-12-34-56";
            assert_eq!(all, format!("{always} {wanted}").trim_end());
        }
    }

    #[test]
    fn an_installer_of_fedora_coreos_is_not_configured_as_the_system_that_it_installs() {
        let all = of(&["coreos.inst.install_dev=/dev/sda"], InstallFormat::Ignition);
        assert!(all.contains(&"coreos.inst.ignition_url=http://boot/s/ab/install".to_owned()), "{all:?}");
        assert!(!all.iter().any(|arg| arg.starts_with("ignition.config.url")), "{all:?}");
    }

    #[test]
    fn the_boot_protocol_tells_what_is_added() {
        let page = include_str!("../../docs/src/boot-protocol.md");
        for format in FORMATS {
            let row =
                page.lines().find(|line| line.starts_with(&format!("| `{}` |", format.as_str()))).unwrap();
            let all = of(&[], format).split_off(2).join(" ");
            let all = all.replace("http://boot/s/ab", "BASE/s/TOKEN").replace("node-1", "NAME");
            let told = row.split('|').nth(2).unwrap().trim().trim_matches('`');
            assert_eq!(told, all, "{format:?}");
        }
    }

    #[test]
    fn what_the_image_says_itself_is_said_once() {
        for format in FORMATS {
            for whole in of(&[], format) {
                let own = format!("{}=own", kernel_args::name(&whole));
                let left = of(&[&own], format);
                assert!(!left.contains(&whole), "{format:?}: {whole} beside {own}");
                assert_eq!(left.len() + 1, of(&[], format).len(), "{format:?}: {own} takes away another");
            }
        }
        let aliases = ["netcfg/choose_interface=eth1", "debconf/priority?=high", "netcfg/get_hostname=x"];
        let left = of(&aliases, InstallFormat::Preseed).join(" ");
        for gone in [" interface=", " priority=", " hostname="] {
            assert!(!left.contains(gone), "{left}");
        }
    }

    #[test]
    fn a_name_that_is_too_long_for_a_machine_is_its_first_part_or_none() {
        let label = "a".repeat(63);
        for (name, told) in [
            ("node-1.example.com".to_owned(), Some("hostname=node-1.example.com".to_owned())),
            (format!("{label}.example.com"), Some(format!("hostname={label}"))),
            ("a".repeat(64), None),
        ] {
            let all = named(&[], InstallFormat::Preseed, &name);
            assert_eq!(all.iter().find(|arg| arg.starts_with("hostname=")), told.as_ref());
        }
    }
}
