//! The part of iPXE's scripts that boot services use: comments, `kernel`, `initrd`, `boot`, `chain`, `exit`.

use std::fmt::Write as _;

use url::Url;

/// What a script leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Script {
    /// A kernel is started.
    Boot(Boot),
    /// Another script takes over.
    Chain(Url),
    /// The firmware goes on with its next boot device.
    Exit,
}

/// A kernel, what it is told, and its initial RAM disks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Boot {
    pub(super) kernel: Url,
    pub(super) args: Vec<String>,
    pub(super) initrds: Vec<Url>,
}

/// Why a script cannot be followed. Addresses carry a token: none is in a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ScriptError {
    #[error("the first line is not #!ipxe")]
    NoScript,
    #[error("line {line}: the command '{command}' is not known here")]
    Command { line: usize, command: String },
    #[error("line {line}: '{command}' has no address")]
    NoAddress { line: usize, command: &'static str },
    #[error("line {line}: '{command}' names no http:// address")]
    Address { line: usize, command: &'static str },
    #[error("line {line}: 'boot' comes before any kernel")]
    NoKernel { line: usize },
    #[error("it ends without boot, chain or exit")]
    NoEnd,
}

/// What a script can ask the machine.
#[derive(Debug, Clone, Copy)]
pub(super) struct Machine<'a> {
    /// Lower case, with colons.
    pub(super) mac: &'a str,
    pub(super) uuid: &'a str,
    pub(super) serial: &'a str,
}

/// The MAC address as `${mac:hexhyp}` gives it.
pub(super) fn hexhyp(mac: &str) -> String {
    mac.to_ascii_lowercase().replace(':', "-")
}

/// Follows a script that came from `base`.
pub(super) fn follow(text: &str, base: &Url, machine: Machine<'_>) -> Result<Script, ScriptError> {
    let mut lines = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
    if !lines.next().is_some_and(|(_, line)| line == "#!ipxe" || line.starts_with("#!ipxe ")) {
        return Err(ScriptError::NoScript);
    }
    let mut kernel = None;
    let mut initrds = Vec::new();
    for (line, text) in lines {
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let text = expanded(text, machine);
        // What follows where a command fails is the next boot device, whatever the script says.
        let first = text.split_once("||").map_or(text.as_str(), |(first, _)| first);
        let mut words = first.split_whitespace();
        let command = words.next().unwrap_or_default().to_owned();
        let mut words = words.skip_while(|word| word.starts_with('-'));
        let mut address = |command: &'static str| {
            let word = words.next().ok_or(ScriptError::NoAddress { line, command })?;
            base.join(word)
                .ok()
                .filter(|url| url.scheme() == "http")
                .ok_or(ScriptError::Address { line, command })
        };
        match command.as_str() {
            "kernel" => {
                let url = address("kernel")?;
                kernel = Some((url, words.map(str::to_owned).collect::<Vec<_>>()));
            }
            "initrd" => initrds.push(address("initrd")?),
            "boot" => {
                let (kernel, args) = kernel.ok_or(ScriptError::NoKernel { line })?;
                return Ok(Script::Boot(Boot { kernel, args, initrds }));
            }
            "chain" => return Ok(Script::Chain(address("chain")?)),
            "exit" => return Ok(Script::Exit),
            // What these say or set, no emulated machine looks at.
            "echo" | "dhcp" | "ifopen" | "set" | "sleep" => {}
            _ => return Err(ScriptError::Command { line, command }),
        }
    }
    Err(ScriptError::NoEnd)
}

/// The line with its `${…}`; a setting that does not exist is nothing, as in iPXE.
fn expanded(line: &str, machine: Machine<'_>) -> String {
    let mut text = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("${") {
        let Some((name, after)) = after.split_once('}') else { break };
        text.push_str(before);
        let name = name.strip_prefix("net0/").unwrap_or(name);
        let _ = match name {
            "mac" => write!(text, "{}", machine.mac),
            "mac:hexhyp" => write!(text, "{}", hexhyp(machine.mac)),
            "uuid" => write!(text, "{}", machine.uuid),
            "serial" => write!(text, "{}", machine.serial),
            "serial:uristring" => write!(text, "{}", percent_encoded(machine.serial)),
            _ => Ok(()),
        };
        rest = after;
    }
    text.push_str(rest);
    text
}

/// As iPXE writes what goes into an address.
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        let _ = match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                write!(encoded, "{}", char::from(byte))
            }
            _ => write!(encoded, "%{byte:02X}"),
        };
    }
    encoded
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
mod tests {
    use super::*;

    const MACHINE: Machine<'static> = Machine { mac: "02:00:5E:00:00:01", uuid: "u-1", serial: "EMU1" };

    fn read(text: &str) -> Result<Script, ScriptError> {
        follow(text, &Url::parse("http://192.0.2.1:8080/boot/02-00-5e-00-00-01").unwrap(), MACHINE)
    }

    #[test]
    fn a_script_with_kernel_initrd_and_boot_is_followed() {
        let script = "#!ipxe\n# an install\n\nkernel -v http://192.0.2.1:8080/s/t/kernel \
                      console=ttyS0 autobuild.url=http://192.0.2.1:8080/s/t\ninitrd /s/t/initrd\nboot\nexit\n";
        let Script::Boot(boot) = read(script).unwrap() else { panic!() };
        assert_eq!(boot.kernel.as_str(), "http://192.0.2.1:8080/s/t/kernel");
        assert_eq!(boot.args, ["console=ttyS0", "autobuild.url=http://192.0.2.1:8080/s/t"]);
        assert_eq!(boot.initrds[0].as_str(), "http://192.0.2.1:8080/s/t/initrd");
    }

    #[test]
    fn a_chain_names_the_machine() {
        let next = Url::parse("http://192.0.2.1:8080/boot/02-00-5e-00-00-01?u=u-1&s=EMU1&x=").unwrap();
        let address = "http://192.0.2.1:8080/boot/${mac:hexhyp}?u=${uuid}&s=${serial}&x=${nothing}";
        let text = format!("#!ipxe\nchain --autofree {address} || exit\n");
        assert_eq!(read(&text), Ok(Script::Chain(next)));
        assert_eq!(read("#!ipxe\nexit\n"), Ok(Script::Exit));
        assert_eq!(percent_encoded("A 1/&b"), "A%201%2F%26b");
    }

    #[test]
    fn what_cannot_be_followed_is_named_without_an_address() {
        for (text, said) in [
            ("<html>", "#!ipxe"),
            ("", "#!ipxe"),
            ("#!ipxe\nsanboot http://192.0.2.1/secret", "line 2: the command 'sanboot'"),
            ("#!ipxe\nkernel", "line 2: 'kernel' has no address"),
            ("#!ipxe\n\nkernel https://192.0.2.1/secret", "line 3: 'kernel' names no http"),
            ("#!ipxe\ninitrd http://192.0.2.1/secret\nboot", "line 3: 'boot' comes before"),
            ("#!ipxe\nkernel http://192.0.2.1/secret", "ends without"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(said) && !error.contains("secret"), "{text}: {error}");
        }
    }
}
