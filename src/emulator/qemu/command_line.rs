//! The command line of a virtual machine. Pure.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;

use super::super::inventory::Inventory;
use super::orders::BootFrom;

/// The id of the network card, whose place in the boot order ends with the first boot.
pub(super) const NETWORK_CARD: &str = "nic";

/// What a machine is started with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Start<'a> {
    pub(super) name: &'a str,
    pub(super) inventory: &'a Inventory,
    pub(super) from: BootFrom,
    /// What DHCP names as the file to boot; none: nothing.
    pub(super) boot_file: Option<&'a str>,
    pub(super) disk: &'a Path,
    pub(super) serial_log: &'a Path,
}

/// The arguments. The control channel is the standard input and output.
pub(super) fn arguments(start: Start<'_>) -> Vec<OsString> {
    let Start { name, inventory, from, boot_file, disk, serial_log } = start;
    let mac = inventory.nics.first().map(|nic| nic.mac.as_str()).unwrap_or_default();
    let disk_serial = inventory.disks.first().map(|disk| disk.serial.as_str()).unwrap_or_default();
    let boot_file = boot_file.map(|file| format!(",bootfile={}", escaped(file))).unwrap_or_default();
    // Before the disk, and only for the boots from the network: with `strict` the firmware asks nobody else.
    let place = match from {
        BootFrom::Network => ",bootindex=1",
        BootFrom::Disk => "",
    };
    let mut arguments: Vec<OsString> = [
        "-name",
        name,
        "-uuid",
        &inventory.uuid,
        "-smbios",
        &format!(
            "type=1,manufacturer={},product={},serial={}",
            escaped(inventory.manufacturer),
            escaped(inventory.model),
            escaped(&inventory.serial)
        ),
        // Software emulation, the same everywhere. A small buffer of translated code: a reset clears it.
        "-accel",
        "tcg,tb-size=16",
        // Firmware and boot loaders write to the serial console.
        "-machine",
        "pc,graphics=off",
        "-m",
        "256",
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-serial",
        "chardev:serial",
        "-netdev",
        &format!("user,id=net{boot_file}"),
        "-device",
        &format!("virtio-net-pci,id={NETWORK_CARD},netdev=net,mac={mac}{place}"),
        "-device",
        &format!("virtio-blk-pci,drive=disk,serial={},bootindex=2", escaped(disk_serial)),
        "-boot",
        "strict=on",
        "-qmp",
        "stdio",
    ]
    .into_iter()
    .map(OsString::from)
    .collect();
    arguments.push("-chardev".into());
    arguments.push(with_path("file,id=serial,append=on,path=", serial_log));
    arguments.push("-drive".into());
    arguments.push(with_path("if=none,id=disk,format=raw,file=", disk));
    arguments
}

/// A comma ends a value unless there are two.
fn escaped(value: &str) -> String {
    value.replace(',', ",,")
}

fn with_path(options: &str, path: &Path) -> OsString {
    let path = path.as_os_str().as_bytes().iter();
    let escaped = path.flat_map(|byte| std::iter::repeat_n(*byte, if *byte == b',' { 2 } else { 1 }));
    OsString::from_vec(options.bytes().chain(escaped).collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
mod tests {
    use super::*;

    fn line(from: BootFrom, boot_file: Option<&str>) -> String {
        let inventory = Inventory::of(0, "system-0001");
        let arguments = arguments(Start {
            name: "system-0001",
            inventory: &inventory,
            from,
            boot_file,
            disk: Path::new("/disks,all/system-0001.raw"),
            serial_log: Path::new("/disks/system-0001.serial.log"),
        });
        arguments.iter().map(|argument| argument.to_str().unwrap()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_network_is_in_the_boot_order_only_where_it_shall_be_booted_from() {
        assert!(line(BootFrom::Network, None).contains(",bootindex=1 "));
        let disk = line(BootFrom::Disk, None);
        assert!(!disk.contains("bootindex=1") && disk.contains("bootindex=2 -boot strict=on"), "{disk}");
    }

    #[test]
    fn the_machine_is_the_one_that_its_bmc_describes() {
        let inventory = Inventory::of(0, "system-0001");
        let line = line(BootFrom::Disk, Some("http://10.0.2.2:1/a,b"));
        for part in [
            format!("mac={}", inventory.nics[0].mac),
            format!("-uuid {}", inventory.uuid),
            format!("serial={}", inventory.serial),
            format!("serial={},", inventory.disks[0].serial),
            "bootfile=http://10.0.2.2:1/a,,b".to_owned(),
            "file=/disks,,all/system-0001.raw".to_owned(),
        ] {
            assert!(line.contains(&part), "{part}: {line}");
        }
    }
}
