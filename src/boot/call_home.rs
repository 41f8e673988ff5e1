//! How a system that was installed says so: a unit of systemd, one text for all formats, that calls until it is answered, and
//! takes itself away. Pure.
//!
//! It needs nothing that a small installation lacks: it calls with curl or python3 where they are there, else with bash alone,
//! which speaks no HTTPS.

use url::Url;

use super::escape::shell;
use crate::api::InstallFormat;

/// Its name.
pub(super) const UNIT: &str = "autobuild-installed.service";
/// Where units of the system's administrator are.
const FOLDER: &str = "/etc/systemd/system";

/// What stands in the install data for `{{ call_home() }}`; `None`: the address is none.
pub(super) fn call_home(format: InstallFormat, session: &str) -> Option<Text> {
    let unit = unit(&script(&format!("{session}/installed"))?);
    Some(match format {
        // Run in the system that is being written.
        InstallFormat::Kickstart => Text::Shell(place("", &unit)?),
        // Run in the installer, with that system below /target.
        InstallFormat::Preseed => Text::Shell(place("/target", &unit)?),
        InstallFormat::Autoinstall => Text::Value(place("/target", &unit)?),
        // Run in the system itself, with its first start.
        InstallFormat::CloudInit => Text::Value(format!(
            "{}; systemctl daemon-reload; systemctl --no-block start {UNIT}",
            place("", &unit)?
        )),
        // It takes whole units.
        InstallFormat::Ignition | InstallFormat::None => Text::Value(unit),
    })
}

/// How the text stands in the data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Text {
    /// As it is: a shell reads it.
    Shell(String),
    /// As any other value.
    Value(String),
}

/// Commands of a shell, in one line, that put the unit into the system below `root` and have its first start start it.
fn place(root: &str, unit: &str) -> Option<String> {
    let lines: Option<Vec<String>> = unit.lines().map(shell).collect();
    let (folder, lines) = (format!("{root}{FOLDER}"), lines?.join(" "));
    Some(format!(
        "mkdir -p {folder}/multi-user.target.wants; printf '%s\\n' {lines} > {folder}/{UNIT}; \
         ln -sf ../{UNIT} {folder}/multi-user.target.wants/{UNIT}"
    ))
}

/// No `Type=oneshot`: systemd before 244 refuses one that is started again.
fn unit(script: &str) -> String {
    format!(
        "[Unit]\nDescription=Tell AutoBuild that this system is installed\nAfter=network.target\n[Service]\n\
         ExecStart=/bin/bash -c {}\nRestart=on-failure\nRestartSec=5\n[Install]\nWantedBy=multi-user.target\n",
        word(script)
    )
}

/// One word of a command line of systemd, which would otherwise replace what begins with `%` and `$`.
fn word(text: &str) -> String {
    let text = text.replace('\\', "\\\\").replace('\'', "\\'").replace('%', "%%").replace('$', "$$");
    format!("'{text}'")
}

/// In one line of bash: calls until it is answered with 200 or 404, which is the end of it, and takes itself away.
fn script(url: &str) -> Option<String> {
    let parsed = Url::parse(url).ok()?;
    let host = parsed.host_str()?;
    let port = parsed.port_or_known_default()?;
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let to = parsed.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    let path = parsed.path();
    let (connection, by_bash) = match parsed.scheme() {
        "https" => ("HTTPSConnection", String::new()),
        _ => (
            "HTTPConnection",
            format!(
                "[[ $s == [1-5]?? ]] || s=$(exec 2>/dev/null 3<>\"/dev/tcp/{bare}/{port}\" && printf \"POST %s HTTP/1.0\\r\\nHost: \
                 %s\\r\\nContent-Length: 0\\r\\n\\r\\n\" \"{path}\" \"{to}\" >&3 && read -r -t 60 _ s _ <&3 && echo \"$s\"); "
            ),
        ),
    };
    Some(format!(
        "while s=; do \
         command -v curl >/dev/null && s=$(curl -s -m 60 -o /dev/null -w \"%{{http_code}}\" -d \"\" \"{url}\"); \
         [[ $s == [1-5]?? ]] || s=$(command -v python3 >/dev/null && python3 -c \"import sys, http.client as c; k = \
         c.{connection}(sys.argv[1], timeout=60); k.request(*sys.argv[2:]); print(k.getresponse().status)\" \"{to}\" POST \
         \"{path}\" 2>/dev/null); \
         {by_bash}\
         case $s in 200|404) break;; esac; \
         echo \"AutoBuild answers ${{s:-nothing}}: calling again\"; sleep 5; done; \
         echo \"AutoBuild knows: $s\"; systemctl disable {UNIT}; rm -f {FOLDER}/{UNIT}"
    ))
}
