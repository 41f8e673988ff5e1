//! The kernel's arguments of a boot script, given to the programs of installers that set the network up: they choose the card
//! that the machine booted from, whichever others it has.

use std::process::Command;

use autobuild::api::InstallFormat;
use autobuild::boot::{BootToken, Script, install_script};
use autobuild::job::BootPurpose;
use e2e::packages::{INITRAMFS_TOOLS, NETWORK_MANAGER};

/// The kernel's command line, as the boot service hands it out for an image with these arguments.
fn command_line(format: InstallFormat, args: &[&str], mac: &str) -> String {
    let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
    let script = install_script(Script {
        base: &"http://10.0.0.5:8080".parse().unwrap(),
        token: &BootToken::parse(&"ab".repeat(32)).unwrap(),
        args: &args,
        digest: &format!("sha256:{}", "ab".repeat(32)),
        purpose: BootPurpose::Install,
        format,
        mac: &mac.parse().unwrap(),
        name: "node-1",
    })
    .unwrap();
    let line = script.lines().find_map(|line| line.strip_prefix("kernel ")).unwrap();
    line.split_once(' ').unwrap().1.to_owned()
}

fn said(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// What NetworkManager makes of a command line in a RAM disk of dracut: Anaconda and Fedora CoreOS have it there.
fn connections(line: &str) -> Vec<String> {
    let program = NETWORK_MANAGER.find().unwrap().root.join("usr/lib/NetworkManager/nm-initrd-generator");
    let written = said(Command::new(program).args(["--stdout", "--"]).args(line.split(' ')));
    written.split("*** Connection ").skip(1).map(ToOwned::to_owned).collect()
}

#[test]
fn network_manager_takes_the_card_that_booted_and_no_other_one() {
    let coreos = ["coreos.inst.install_dev=/dev/sda"];
    for (format, args) in [
        (InstallFormat::Kickstart, &[] as &[&str]),
        (InstallFormat::Ignition, &[]),
        (InstallFormat::Ignition, &coreos),
    ] {
        let all = connections(&command_line(format, args, "52:54:00:12:34:56"));
        assert_eq!(all.len(), 1, "{format:?}: {all:?}");
        assert!(all[0].contains("mac-address=52:54:00:12:34:56"), "{format:?}: {all:?}");
        assert!(all[0].contains("[ipv4]") && all[0].contains("method=auto"), "{format:?}: {all:?}");
    }
}

/// What the RAM disk of Debian's and Ubuntu's installations and cloud images asks of its DHCP client, on a machine with these
/// cards.
fn asked_of_ipconfig(line: &str, cards: &[(&str, &str)]) -> String {
    let folder = tempfile::tempdir().unwrap();
    for (name, mac) in cards {
        let card = folder.path().join(name);
        std::fs::create_dir(&card).unwrap();
        std::fs::write(card.join("address"), format!("{mac}\n")).unwrap();
    }
    let root = INITRAMFS_TOOLS.find().unwrap().root.join("usr/share/initramfs-tools");
    let read = |name: &str| {
        let text = std::fs::read_to_string(root.join(name)).unwrap();
        text.replace("/sys/class/net", folder.path().to_str().unwrap())
    };
    let init = read("init");
    // Its second look at the command line is the one that keeps what it reads.
    let reads = init.rsplit_once("for x in $(cat /proc/cmdline); do").unwrap().1;
    let reads = reads.split_once("\ndone\n").unwrap().0;
    let script = format!(
        "{}\n\
         log_begin_msg() {{ :; }}; log_end_msg() {{ :; }}; wait_for_udev() {{ :; }}; time_elapsed() {{ echo 0; }}\n\
         ipconfig() {{ echo \"$*\"; exit 0; }}\n\
         for x in $1; do {reads}\ndone\n\
         configure_networking\n",
        read("scripts/functions")
    );
    said(Command::new("sh").args(["-c", &script, "sh", line]))
}

#[test]
fn initramfs_tools_takes_the_card_that_booted_and_no_other_one() {
    let cards = [("eth0", "52:54:00:12:34:55"), ("eth1", "52:54:00:12:34:56"), ("eth2", "52:54:00:12:34:57")];
    for format in [InstallFormat::Autoinstall, InstallFormat::CloudInit] {
        let asked = asked_of_ipconfig(&command_line(format, &[], "52:54:00:12:34:56"), &cards);
        assert!(asked.contains("-c dhcp") && asked.trim_end().ends_with("-d eth1"), "{format:?}: {asked}");
    }
}
