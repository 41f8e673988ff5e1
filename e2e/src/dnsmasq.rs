//! The real dnsmasq with a configuration of ours, on loopback, and a firmware that asks it what to boot.
//!
//! The firmware asks through a relay agent, itself: so nothing is broadcast, and no privilege is needed.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::net::UdpSocket;

use crate::packages;
use crate::process::{Lifetime, Process, Spec};
use crate::wait::Look;

const READY: Duration = Duration::from_mins(1);
/// How long an answer may take before it counts as none.
const SILENT: Duration = Duration::from_secs(2);
/// Where a PXE firmware asks for what an offer without a file leads to; dnsmasq takes no other port.
const PXE: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 4011);
/// The relay agent, and with it the network that an offer is for.
const RELAY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// dnsmasq's program.
pub fn program() -> Result<PathBuf> {
    packages::DNSMASQ.find()
}

/// What asks.
#[derive(Debug, Clone, Copy)]
pub struct Firmware {
    /// `PXEClient` or `HTTPClient`.
    pub vendor: &'static str,
    /// The client architecture of RFC 4578.
    pub arch: u16,
    /// Its user class: iPXE says `iPXE`.
    pub user_class: Option<&'static str>,
}

/// What it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// The file to boot; empty: the offer names none.
    pub file: String,
    /// The vendor class of the answer.
    pub vendor: String,
}

/// A running dnsmasq. Ends with this value.
#[derive(Debug)]
pub struct Dnsmasq {
    process: Process,
    port: u16,
}

impl Dnsmasq {
    /// Starts it with this configuration, in `dir`.
    pub async fn start(dir: &Path, config: &str) -> Result<Self> {
        let program = program()?;
        std::fs::create_dir_all(dir)?;
        let file = dir.join("dnsmasq.conf");
        std::fs::write(&file, config)?;
        // It takes no port 0, so that a free one is looked for first.
        let free = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = free.local_addr()?.port();
        drop(free);
        let leases = dir.join("leases");
        let process = Process::start(Spec {
            name: "dnsmasq".to_owned(),
            program,
            args: vec![
                "--no-daemon".to_owned(),
                format!("--conf-file={}", file.display()),
                "--interface=lo".to_owned(),
                "--bind-interfaces".to_owned(),
                // Every address of loopback answers.
                "--no-ping".to_owned(),
                format!("--dhcp-alternate-port={port},{}", port.wrapping_add(1)),
                format!("--dhcp-leasefile={}", leases.display()),
                "--pid-file=".to_owned(),
            ],
            env: Vec::new(),
            log_dir: dir.to_owned(),
            lifetime: Lifetime::WithParent,
        })?;
        let dnsmasq = Self { process, port };
        let ipxe = Firmware { vendor: "PXEClient", arch: 0, user_class: Some("iPXE") };
        let answers = async || {
            Ok(match dnsmasq.offer(ipxe).await? {
                Some(_) => Look::Holds(()),
                None => Look::NotYet("no answer".to_owned()),
            })
        };
        dnsmasq.process.wait_ready("dnsmasq to answer", READY, answers).await?;
        Ok(dnsmasq)
    }

    /// What a firmware is offered; `None`: it is not answered.
    pub async fn offer(&self, firmware: Firmware) -> Result<Option<Told>> {
        let server = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        // Answers to a relay agent go to the server's own port there.
        let socket = relay(SocketAddr::from((RELAY, self.port)))?;
        let message = message(1, firmware, Ipv4Addr::UNSPECIFIED, RELAY, &[]);
        ask(&socket, &message, server).await
    }

    /// What a firmware is told that goes on to the boot server of an offer; `item` of its menu, for a BIOS.
    pub async fn boot_server(&self, firmware: Firmware, item: Option<u16>) -> Result<Option<Told>> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let chosen = item.map(|item| {
            let [high, low] = item.to_be_bytes();
            vec![71, 4, high, low, 0, 0, 255]
        });
        let message =
            message(3, firmware, Ipv4Addr::LOCALHOST, Ipv4Addr::UNSPECIFIED, &chosen.unwrap_or_default());
        ask(&socket, &message, SocketAddr::from(PXE)).await
    }
}

/// dnsmasq has the port at every address, and shares it.
fn relay(address: SocketAddr) -> Result<UdpSocket> {
    use socket2::{Domain, Socket, Type};
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(UdpSocket::from_std(socket.into())?)
}

async fn ask(socket: &UdpSocket, message: &[u8], server: SocketAddr) -> Result<Option<Told>> {
    socket.send_to(message, server).await?;
    let mut answer = vec![0; 2048];
    match tokio::time::timeout(SILENT, socket.recv(&mut answer)).await {
        Ok(length) => Ok(Some(told(answer.get(..length?).unwrap_or_default())?)),
        Err(_) => Ok(None),
    }
}

/// A message of DHCP as a firmware sends it: `kind` 1 is a discover, 3 a request.
fn message(kind: u8, firmware: Firmware, own: Ipv4Addr, relay: Ipv4Addr, pxe: &[u8]) -> Vec<u8> {
    let mut bytes = vec![1, 1, 6, 0, 0, 0, 0, 7, 0, 0, 0, 0];
    bytes.extend(own.octets());
    bytes.extend([0; 8]);
    bytes.extend(relay.octets());
    bytes.extend([0x52, 0x54, 0, 0x12, 0x34, 0x56]);
    bytes.resize(236, 0);
    bytes.extend([0x63, 0x82, 0x53, 0x63]);
    let vendor = format!("{}:Arch:{:05}:UNDI:003016", firmware.vendor, firmware.arch);
    let arch = firmware.arch.to_be_bytes();
    for (option, value) in [
        (53, [kind].as_slice()),
        (60, vendor.as_bytes()),
        (93, &arch),
        (94, &[1, 3, 16]),
        (97, &[0; 17]),
        (55, &[1, 3, 6, 43, 54, 60, 66, 67]),
        (77, firmware.user_class.unwrap_or_default().as_bytes()),
        (43, pxe),
    ] {
        if !value.is_empty() {
            bytes.extend([option, value.len() as u8]);
            bytes.extend(value);
        }
    }
    bytes.push(255);
    bytes
}

/// The file stands in its field, or in option 67 where that was asked for.
fn told(answer: &[u8]) -> Result<Told> {
    let text = |bytes: &[u8]| {
        let bytes = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        String::from_utf8_lossy(bytes).into_owned()
    };
    let mut told =
        Told { file: text(answer.get(108..236).context("a short answer")?), vendor: String::new() };
    let mut rest = answer.get(240..).context("an answer without options")?;
    while let [option, more @ ..] = rest {
        match option {
            0 => rest = more,
            255 => break,
            _ => {
                let (length, more) = more.split_first().context("an option without a length")?;
                let (value, more) = more.split_at_checked(usize::from(*length)).context("a cut option")?;
                match option {
                    60 => told.vendor = text(value),
                    67 => told.file = text(value),
                    _ => {}
                }
                rest = more;
            }
        }
    }
    Ok(told)
}
