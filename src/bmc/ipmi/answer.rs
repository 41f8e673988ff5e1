//! What ipmitool's output means: done, a cipher suite that the BMC refuses, or the class of an error. Pure.

use super::tool::Output;
use crate::bmc::error::{BmcErrorKind, Delivery};

/// One call of ipmitool, and how its output is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Verb {
    /// Its arguments.
    pub(super) arguments: &'static [&'static str],
    /// What it calls itself in messages.
    pub(super) name: &'static str,
    /// What a success looks like: the exit status is 0 after some refusals too.
    pub(super) done: Done,
    /// A line with this and an answer code after it is the BMC's refusal.
    pub(super) refusal: &'static str,
}

/// What a success looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Done {
    /// This is written.
    Shows(&'static str),
    /// Whatever is written, as long as it is not this.
    Unless(&'static str),
}

impl Verb {
    pub(super) const POWER_STATUS: Self = Self {
        arguments: &["chassis", "power", "status"],
        name: "the power state",
        done: Done::Shows("Chassis Power is "),
        refusal: "Get Chassis Power Status failed",
    };
    pub(super) const GUID: Self = Self {
        arguments: &["mc", "guid"],
        name: "the GUID",
        done: Done::Shows("System GUID"),
        refusal: "IPMI command failed",
    };
    /// Of the one device that every BMC has: asking for all of them also searches the SDR repository, which ipmitool
    /// rebuilds where it is empty.
    pub(super) const FRU: Self = Self {
        arguments: &["fru", "print", "0"],
        name: "the inventory",
        done: Done::Unless("Device not present"),
        refusal: "Device not present (",
    };
    pub(super) const CONTROLLER: Self = Self {
        arguments: &["mc", "info"],
        name: "the BMC's description",
        done: Done::Shows("Device ID"),
        refusal: "Get Device ID command failed",
    };
    pub(super) const BOOT_FLAGS: Self = Self {
        arguments: &["chassis", "bootparam", "get", "5"],
        name: "the boot flags",
        done: Done::Shows("Boot parameter data:"),
        refusal: "Get Chassis Boot Parameter 5 failed",
    };
    pub(super) const ON: Self = power("on", &["chassis", "power", "on"], "Chassis Power Control: Up/On");
    pub(super) const OFF: Self =
        power("off", &["chassis", "power", "off"], "Chassis Power Control: Down/Off");
    pub(super) const SOFT: Self = power("soft", &["chassis", "power", "soft"], "Chassis Power Control: Soft");
    /// Without it many BMCs forget boot flags after a minute without a restart, and a graceful shutdown takes longer.
    pub(super) const KEEP_BOOT_FLAGS: Self = Self {
        arguments: &["raw", "0x00", "0x08", "0x03", "0x08"],
        name: "keep boot flags",
        // It writes an empty line.
        done: Done::Shows("\n"),
        refusal: "Unable to send RAW command",
    };
    pub(super) const BOOT_PXE: Self = Self {
        arguments: &["chassis", "bootdev", "pxe", "options=efiboot"],
        name: "bootdev pxe",
        done: Done::Shows("Set Boot Device to pxe"),
        refusal: "Set Chassis Boot Parameter 5 failed",
    };
    pub(super) const BOOT_NONE: Self = Self {
        arguments: &["chassis", "bootdev", "none"],
        name: "bootdev none",
        done: Done::Shows("Set Boot Device to none"),
        refusal: "Set Chassis Boot Parameter 5 failed",
    };
}

const fn power(name: &'static str, arguments: &'static [&'static str], done: &'static str) -> Verb {
    Verb { arguments, name, done: Done::Shows(done), refusal: "Set Chassis Power Control to " }
}

const LOGIN: &str = "refuses the user name or password: correct the Secret of spec.bmc.credentialsRef";
const PRIVILEGE: &str = "does not give the account of spec.bmc.credentialsRef the privilege Operator over LAN, which is \
                         needed to control the machine";

/// What an output means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Meaning {
    /// It was done.
    Done,
    /// The BMC does not speak the cipher suite; nothing else was sent.
    SuiteRefused,
    /// Neither.
    Failed(Failure),
}

/// The class of an error, and its sentence after the name of the BMC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) kind: BmcErrorKind,
    pub(super) delivery: Delivery,
    pub(super) text: String,
}

impl Failure {
    fn new(kind: BmcErrorKind, delivery: Delivery, text: impl Into<String>) -> Self {
        Self { kind, delivery, text: text.into() }
    }
}

/// Judges an output. ipmitool reports what it did on its own account too (capabilities that the BMC lacks): only lines
/// about the session and about the verb count.
pub(super) fn judge(verb: Verb, output: &Output) -> Meaning {
    for line in output.stderr.lines() {
        if let Some(meaning) = session(line) {
            return meaning;
        }
    }
    if output.stderr.contains("Unable to establish") {
        return Meaning::Failed(Failure::new(
            BmcErrorKind::Unreachable,
            Delivery::NotSent,
            "does not answer as an IPMI 2.0 BMC: check spec.bmc.address, the BMC, and whether IPMI over LAN is enabled \
             there",
        ));
    }
    match verb.done {
        Done::Shows(text) if output.stdout.contains(text) => return Meaning::Done,
        Done::Unless(text) if !output.stdout.contains(text) => return Meaning::Done,
        Done::Shows(_) | Done::Unless(_) => {}
    }
    let lines = output.stderr.lines().chain(output.stdout.lines());
    let code = lines.filter_map(|line| line.split_once(verb.refusal)).find_map(|(_, rest)| code(verb, rest));
    Meaning::Failed(match code {
        Some(code) => refused(verb, &code),
        None => Failure::new(
            BmcErrorKind::Timeout,
            Delivery::Unknown,
            format!("did not answer to {} in time", verb.name),
        ),
    })
}

/// What a line tells of a session that could not be opened.
fn session(line: &str) -> Option<Meaning> {
    let failed =
        |kind, text: &str| Some(Meaning::Failed(Failure::new(kind, Delivery::NotSent, text.to_owned())));
    let refused = |text| failed(BmcErrorKind::Credentials, text);
    // The name is known, and no password was judged yet, or it was right.
    let forbidden = |text| failed(BmcErrorKind::Forbidden, text);
    if line.contains("HMAC is invalid") || line.contains("has invalid integrity check value") {
        return refused(LOGIN);
    }
    if line.contains("Set Session Privilege Level to ") && line.contains("failed") {
        return forbidden(PRIVILEGE);
    }
    let opening = line.split_once("Error in open session response message : ").map(|(_, status)| status);
    let keys = line.split_once("message indicates an error : ").map(|(_, status)| status);
    let status = opening.or(keys)?.trim();
    if status.contains("insufficient resources") {
        return Some(Meaning::Failed(Failure::new(
            BmcErrorKind::Busy(None),
            Delivery::NotSent,
            "has no free IPMI session and is asked again later",
        )));
    }
    let suite = ["algorithm", "cipher suite", "payload"];
    if opening.is_some() && suite.iter().any(|word| status.contains(word)) {
        return Some(Meaning::SuiteRefused);
    }
    if status.contains("role or privilege") {
        return forbidden(PRIVILEGE);
    }
    if status.contains("unauthorized") || status.contains("integrity check value") {
        return refused(LOGIN);
    }
    Some(Meaning::Failed(Failure::new(
        BmcErrorKind::Protocol,
        Delivery::NotSent,
        format!("refuses the IPMI session ({status})"),
    )))
}

/// The answer code in words, in the rest of a line after `… failed`.
fn code(verb: Verb, rest: &str) -> Option<String> {
    let code =
        if verb == Verb::FRU { rest.split(')').next() } else { rest.rsplit_once(": ").map(|(_, c)| c) };
    let code = code?.trim();
    (!code.is_empty() && !code.contains("No Response")).then(|| code.to_owned())
}

/// Completion codes (IPMI 2.0 table 5-2) that mean "not yet", in ipmitool's words: C0, C3, C4, C5, CE, CF, D0 to D3, D5, FF.
/// Firmware that is written anew, or a machine in another state than the command wants, is past after a while.
const NOT_YET: &[&str] = &[
    "node busy",
    "timeout",
    "out of space",
    "reservation cancelled or invalid",
    "command response could not be provided",
    "cannot execute duplicated request",
    "in update mode",
    "nitialization",
    "destination unavailable",
    "not supported in present state",
    "unspecified error",
];
/// C1, C2, and CC where the one thing that the data says is what is asked for.
const NO_SUCH_THING: &[&str] = &["invalid command"];
const INVALID_DATA: &str = "invalid data field in request";

/// The BMC answered, with a code other than success.
fn refused(verb: Verb, code: &str) -> Failure {
    let name = verb.name;
    let told = code.to_ascii_lowercase();
    let is_one_of = |all: &[&str]| all.iter().any(|one| told.contains(one));
    if told == "timeout" {
        // It may have gone on without its own answer.
        let text = format!("tells of a timeout of its own while it worked on {name}");
        return Failure::new(BmcErrorKind::Busy(None), Delivery::Unknown, text);
    }
    if told == "insufficient privilege level" {
        let text = format!(
            "forbids {name}: the account of spec.bmc.credentialsRef needs the privilege Operator over LAN"
        );
        return Failure::new(BmcErrorKind::Forbidden, Delivery::Answered, text);
    }
    if is_one_of(NOT_YET) {
        let text = format!("does not do {name} yet ({code}) and is asked again later");
        return Failure::new(BmcErrorKind::Busy(None), Delivery::Answered, text);
    }
    if is_one_of(NO_SUCH_THING) || (verb == Verb::SOFT && told == INVALID_DATA) {
        let text = format!("does not offer {name}: {code:?}");
        return Failure::new(BmcErrorKind::Unsupported, Delivery::Answered, text);
    }
    Failure::new(BmcErrorKind::Refused, Delivery::Answered, format!("refuses {name}: {code:?}"))
}

#[cfg(test)]
#[allow(clippy::panic, missing_docs)]
mod tests {
    use super::*;

    /// What ipmitool 1.8.19 writes in every verbose session of an operator.
    const NOISE: &str = "Loading IANA PEN Registry...\n\
        Get HPM.x Capabilities request failed, compcode = d4\n\
        Running Get VSO Capabilities my_addr 0x20, transit 0, target 0x20\n\
        Invalid completion code received: Insufficient privilege level\n\
        Discovered IPMB address 0x0\n";

    fn wrote(stdout: &str, stderr: &str) -> Output {
        Output { stdout: stdout.to_owned(), stderr: format!("{NOISE}{stderr}") }
    }

    fn failed(verb: Verb, stdout: &str, stderr: &str) -> (BmcErrorKind, Delivery, String) {
        match judge(verb, &wrote(stdout, stderr)) {
            Meaning::Failed(Failure { kind, delivery, text }) => (kind, delivery, text),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn success_is_what_the_verb_prints_and_nothing_else() {
        for (verb, printed) in [
            (Verb::POWER_STATUS, "Chassis Power is off\n"),
            (Verb::ON, "Chassis Power Control: Up/On\n"),
            (Verb::OFF, "Chassis Power Control: Down/Off\n"),
            (Verb::SOFT, "Chassis Power Control: Soft\n"),
            (Verb::BOOT_PXE, "Set Boot Device to pxe\n"),
            (Verb::BOOT_NONE, "Set Boot Device to none\n"),
            (Verb::KEEP_BOOT_FLAGS, "\n"),
            (Verb::FRU, " Board Mfg             : Example\n"),
            (Verb::GUID, "System GUID   : 5a5b5c5d-0000-4000-8000-000000000001\n"),
            (Verb::BOOT_FLAGS, "Boot parameter version: 1\nBoot parameter data: 0004000000\n"),
        ] {
            assert_eq!(judge(verb, &wrote(printed, "")), Meaning::Done, "{verb:?}");
            if verb != Verb::FRU {
                assert_ne!(judge(verb, &wrote("", "")), Meaning::Done, "{verb:?}");
            }
        }
    }

    #[test]
    fn a_session_that_was_not_opened_has_sent_nothing() {
        const END: &str = "Error: Unable to establish IPMI v2 / RMCP+ session\n";
        for (line, kind, part) in [
            ("> RAKP 2 HMAC is invalid\n", BmcErrorKind::Credentials, "user name or password"),
            (
                "RAKP 2 message indicates an error : unauthorized name\n",
                BmcErrorKind::Credentials,
                "user name or password",
            ),
            (
                "RAKP 2 message indicates an error : unauthorized role or privilege level requested\n",
                BmcErrorKind::Forbidden,
                "Operator",
            ),
            (
                "Error in open session response message : insufficient resources for session\n\n",
                BmcErrorKind::Busy(None),
                "no free IPMI session",
            ),
            ("RAKP 2 message indicates an error : invalid role\n", BmcErrorKind::Protocol, "invalid role"),
            (
                "Get Auth Capabilities error\nError issuing Get Channel Authentication Capabilities request\n",
                BmcErrorKind::Unreachable,
                "does not answer",
            ),
            ("", BmcErrorKind::Unreachable, "does not answer"),
        ] {
            let (is, delivery, text) = failed(Verb::ON, "", &format!("{line}{END}"));
            assert_eq!((is, delivery), (kind, Delivery::NotSent), "{line}");
            assert!(text.contains(part), "{text}");
        }
        let refused = "Error in open session response message : invalid authentication algorithm\n\n";
        assert_eq!(judge(Verb::ON, &wrote("", &format!("{refused}{END}"))), Meaning::SuiteRefused);
    }

    #[test]
    fn a_refusal_is_an_answer_and_silence_may_have_been_heard() {
        for (verb, stdout, stderr, kind, delivery) in [
            (
                Verb::ON,
                "",
                "Set Chassis Power Control to Up/On failed: Command not supported in present state\n",
                BmcErrorKind::Busy(None),
                Delivery::Answered,
            ),
            (
                Verb::ON,
                "",
                "Set Chassis Power Control to Up/On failed: Insufficient privilege level\n",
                BmcErrorKind::Forbidden,
                Delivery::Answered,
            ),
            (
                Verb::OFF,
                "",
                "Set Chassis Power Control to Down/Off failed: Node busy\n",
                BmcErrorKind::Busy(None),
                Delivery::Answered,
            ),
            (
                Verb::OFF,
                "",
                "Set Chassis Power Control to Down/Off failed: Timeout\n",
                BmcErrorKind::Busy(None),
                Delivery::Unknown,
            ),
            (
                Verb::SOFT,
                "",
                "Unable to set Chassis Power Control to Soft\n",
                BmcErrorKind::Timeout,
                Delivery::Unknown,
            ),
            (
                Verb::BOOT_PXE,
                "",
                "Set Chassis Boot Parameter 4 failed: Insufficient privilege level\n\
                 Set Chassis Boot Parameter 5 failed: Insufficient privilege level\n",
                BmcErrorKind::Forbidden,
                Delivery::Answered,
            ),
            (
                Verb::FRU,
                " Device not present (Invalid data field in request)\n",
                "",
                BmcErrorKind::Refused,
                Delivery::Answered,
            ),
            (Verb::FRU, " Device not present (No Response)\n", "", BmcErrorKind::Timeout, Delivery::Unknown),
            (
                Verb::GUID,
                "",
                "IPMI command failed: Invalid command\n",
                BmcErrorKind::Unsupported,
                Delivery::Answered,
            ),
        ] {
            let (is, how, text) = failed(verb, stdout, stderr);
            assert_eq!((is, how), (kind, delivery), "{stderr}{stdout}: {text}");
        }
    }

    #[test]
    fn a_completion_code_has_one_class() {
        for (verb, code, kind) in [
            (Verb::OFF, "Node busy", BmcErrorKind::Busy(None)),
            (Verb::OFF, "Device firmeware in update mode", BmcErrorKind::Busy(None)),
            (Verb::OFF, "BMC initialization in progress", BmcErrorKind::Busy(None)),
            (Verb::SOFT, "Command not supported in present state", BmcErrorKind::Busy(None)),
            (Verb::SOFT, "Unspecified error", BmcErrorKind::Busy(None)),
            (Verb::SOFT, "Invalid command", BmcErrorKind::Unsupported),
            (Verb::SOFT, "Invalid command on LUN", BmcErrorKind::Unsupported),
            (Verb::SOFT, "Invalid data field in request", BmcErrorKind::Unsupported),
            (Verb::BOOT_PXE, "Invalid data field in request", BmcErrorKind::Refused),
            (Verb::SOFT, "Cannot execute command, command disabled", BmcErrorKind::Refused),
            (Verb::SOFT, "Unknown (0x80)", BmcErrorKind::Refused),
            (Verb::SOFT, "Insufficient privilege level", BmcErrorKind::Forbidden),
        ] {
            assert_eq!(refused(verb, code).kind, kind, "{code}");
        }
    }
}
