//! `ipmi_sim` of OpenIPMI: an IPMI 2.0 BMC that somebody else wrote, with one machine.
//!
//! It knows cipher suite 3 and not 17, and it forgets whether boot flags are valid and for how long: it tells the device
//! alone.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::net::UdpSocket;

use crate::packages;
use crate::process::{Lifetime, Process, Spec};
use crate::wait::{Look, say};

const READY: Duration = Duration::from_mins(1);
/// The GUID of its machine.
pub const UUID: &str = "5a5b5c5d-0000-4000-8000-0000000000a1";
/// What its FRU has for the product: maker, name, serial number.
pub const PRODUCT: [&str; 3] = ["Example Computers", "Rack 3", "SN-0001"];

/// A running `ipmi_sim`. Ends with this value, unless it was started detached.
#[derive(Debug)]
pub struct IpmiSim {
    process: Process,
    address: SocketAddr,
}

/// Switches the machine, and remembers the boot device, in files.
const CHASSIS: &str = r#"#!/bin/sh
cd "${0%/*}" || exit 1
shift
verb=$1
shift
case $verb in
get)
    for name; do
        case $name in
        power) echo "power:$(cat power 2>/dev/null || echo 0)" ;;
        boot) echo "boot:$(cat boot 2>/dev/null || echo none)" ;;
        *) echo "no $name"; exit 1 ;;
        esac
    done ;;
set)
    while [ $# -gt 1 ]; do
        case $1 in
        shutdown) echo 0 > power ;;
        *) echo "$2" > "$1" ;;
        esac
        shift 2
    done ;;
esac
"#;

impl IpmiSim {
    /// Starts it with its machine off; one account, an operator at least, opens it. Its files lie in `dir`.
    pub async fn start(dir: &Path, (username, password): (&str, &str), lifetime: Lifetime) -> Result<Self> {
        let program = packages::IPMI_SIM.find()?;
        packages::IPMITOOL.find()?;
        let state = dir.join("ipmi-state");
        std::fs::create_dir_all(&state)?;
        let chassis = dir.join("chassis");
        std::fs::write(&chassis, CHASSIS)?;
        std::fs::set_permissions(&chassis, std::fs::Permissions::from_mode(0o755))?;
        // It takes no port 0, so that a free one is looked for first.
        let free = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = free.local_addr()?;
        drop(free);
        let auths = ["callback", "user", "operator", "admin"];
        let auths = auths.map(|level| format!("    allowed_auths_{level} md5\n")).concat();
        let config = format!(
            "name \"bmc\"\nset_working_mc 0x20\n  startlan 1\n    addr {} {}\n    priv_limit admin\n{auths}    guid {guid}\n  \
             endlan\n  chassis_control \"{} 0x20\"\n  user 2 true \"{username}\" \"{password}\" admin 10 md5\n",
            address.ip(),
            address.port(),
            chassis.display(),
            guid = UUID.replace('-', ""),
        );
        let config_file = dir.join("ipmi-lan.conf");
        std::fs::write(&config_file, config)?;
        let fru: Vec<String> = fru().iter().map(|byte| format!("0x{byte:02x}")).collect();
        let commands = format!(
            "mc_setbmc 0x20\nmc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr\n\
             mc_set_guid 0x20 {guid}\nmc_add_fru_data 0x20 0 {size} data {fru}\nmc_enable 0x20\n",
            guid = UUID.replace('-', ""),
            size = fru.len(),
            fru = fru.join(" "),
        );
        let command_file = dir.join("ipmi-commands");
        std::fs::write(&command_file, commands)?;
        say("starting ipmi_sim, and waiting for its first answer");
        let path = |file: &Path| file.display().to_string();
        let process = Process::start(Spec {
            name: "ipmi_sim".to_owned(),
            program,
            args: vec![
                "-n".to_owned(),
                "-c".to_owned(),
                path(&config_file),
                "-f".to_owned(),
                path(&command_file),
                "-s".to_owned(),
                path(&state),
            ],
            env: Vec::new(),
            log_dir: dir.join("logs"),
            lifetime,
        })?;
        let asker = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        asker.connect(address).await?;
        process
            .wait_ready("ipmi_sim to answer a ping", READY, async || {
                // RMCP, class ASF: presence ping of the ASF consortium.
                asker.send(&[6, 0, 0xff, 6, 0, 0, 0x11, 0xbe, 0x80, 0, 0, 0]).await?;
                let mut answer = [0; 64];
                let heard = tokio::time::timeout(Duration::from_millis(300), asker.recv(&mut answer)).await;
                Ok(match heard {
                    Ok(Ok(length)) if length > 12 => Look::Holds(()),
                    _ => Look::NotYet("no answer".to_owned()),
                })
            })
            .await
            .context("start ipmi_sim")?;
        Ok(Self { process, address })
    }

    /// Its process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// What `spec.bmc.address` has for its machine.
    pub fn bmc_address(&self) -> String {
        format!("ipmi://{}", self.address)
    }
}

/// A FRU with a board and a product.
fn fru() -> Vec<u8> {
    let board = area(&[1, 0, 25, 0, 0, 0], &["Example", "Board 7", "BRD-0001", "PN-1", ""]);
    let [maker, name, serial] = PRODUCT;
    let product = area(&[1, 0, 25], &[maker, name, "PN-2", "01", serial, "", ""]);
    let mut all = vec![1, 0, 0, 1, 1 + (board.len() / 8) as u8, 0, 0];
    all.push(checksum(&all));
    all.extend(board);
    all.extend(product);
    all
}

/// An area of a FRU: its head, texts, the end mark, blanks up to a multiple of eight bytes with a checksum.
fn area(head: &[u8], texts: &[&str]) -> Vec<u8> {
    let mut area = head.to_vec();
    for text in texts {
        area.push(0xc0 | text.len() as u8);
        area.extend(text.bytes());
    }
    area.push(0xc1);
    let whole = (area.len() + 1).next_multiple_of(8);
    area.resize(whole - 1, 0);
    area[1] = (whole / 8) as u8;
    area.push(checksum(&area));
    area
}

fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)).wrapping_neg()
}
