//! Wish and reality, one row for each wish.

use super::age::since;
use super::layout::{Entry, Tone};
use super::{Facts, Looked};
use crate::api::condition::{ConditionType, find};
use crate::api::hardware::PowerState;
use crate::api::{JobStatus, Lifecycle, OSImage, Power, Provisioning, Reason, ServerStatus};
use crate::job::{Action, HandledTokens, TokenKind};

/// The rows; wishes that nobody has are left out, what is left alone is said.
pub(super) fn rows(facts: &Facts) -> Vec<Entry> {
    let mut rows: Vec<Entry> = lifecycle(facts).into_iter().collect();
    if rows.is_empty() {
        rows = vec![power(facts), image(facts)];
    }
    rows.extend(TokenKind::ALL.into_iter().filter_map(|kind| token(facts, kind)));
    rows.extend(boot_mac(facts));
    if facts.server.spec.paused == Some(true) {
        rows.push(Entry::toned("paused", "nothing is done while spec.paused is true", Tone::Waiting));
    }
    rows
}

fn status(facts: &Facts) -> Option<&ServerStatus> {
    facts.server.status.as_ref()
}

fn same(label: &str, text: String) -> Entry {
    Entry::toned(label, text, Tone::Good)
}

fn differs(label: &str, text: String) -> Entry {
    Entry::toned(label, text, Tone::Waiting)
}

/// The end of a life: nothing else counts then.
fn lifecycle(facts: &Facts) -> Option<Entry> {
    if facts.server.spec.lifecycle == Lifecycle::InService {
        return None;
    }
    let wiped = status(facts).and_then(|status| status.wiped_at.as_ref());
    Some(match wiped {
        Some(at) => {
            same("lifecycle", format!("Decommissioned, its disks were erased {} ago", since(facts.now, at)))
        }
        None => differs("lifecycle", "Decommissioned is wished, and its disks are not erased".to_owned()),
    })
}

fn power(facts: &Facts) -> Entry {
    let found = status(facts).and_then(|status| status.power).map(PowerState::as_str);
    match (facts.server.spec.power.map(Power::as_str), found) {
        (None, None) => Entry::row("power", "not read yet; nothing is wished"),
        (None, Some(found)) => match owed(facts).filter(|_| found == PowerState::PoweredOff.as_str()) {
            Some(by) => differs("power", format!("{found}; {by}")),
            None => Entry::row("power", format!("{found}; nothing is wished, so it is left alone")),
        },
        (Some(wish), None) => differs("power", format!("{wish} is wished, and it was not read yet")),
        (Some(wish), Some(found)) if wish == found => same("power", format!("{found}, as wished")),
        (Some(wish), Some(found)) => differs("power", format!("{wish} is wished, found {found}")),
    }
}

/// What switches on a machine that is off although nobody wishes its power, where anything does.
fn owed(facts: &Facts) -> Option<String> {
    let status = status(facts)?;
    let ends_on = |job: &&JobStatus| {
        job.started_at.is_some() && matches!(job.action, Action::Reboot | Action::Build | Action::Reimage)
    };
    let is_left_off = || {
        let stalled = find(&status.conditions, ConditionType::Stalled);
        stalled.is_some_and(|stalled| stalled.reason == Reason::LeftPoweredOff.as_str())
    };
    let job = status.job.as_ref().filter(ends_on);
    job.map(|job| format!("the {} under way ends with it on", job.action.as_str().to_lowercase()))
        .or_else(|| is_left_off().then(|| "a job left it so, and it is to be on".to_owned()))
}

fn image(facts: &Facts) -> Entry {
    let there = status(facts).and_then(|status| status.image.as_ref());
    let found = there.map(|image| {
        let how = if image.adopted { "adopted" } else { "installed" };
        format!("{}, {how} {} ago", image.name, since(facts.now, &image.installed_at))
    });
    let Some(wish) = &facts.server.spec.image else {
        return Entry::row(
            "image",
            match found {
                Some(found) => format!("{found}; nothing is wished, so it is left alone"),
                None => "nothing is known to be installed, and nothing is wished".to_owned(),
            },
        );
    };
    let adopting = match facts.server.spec.provisioning {
        Provisioning::Adopt => " (to be recorded, not installed)",
        Provisioning::Install => "",
    };
    match (found, there) {
        (Some(found), Some(there)) if there.name == wish.name => {
            let digest = |image: &OSImage| image.spec.digest();
            match &facts.image {
                Looked::Found(image) if digest(image) != there.digest => differs(
                    "image",
                    format!("{found}; the OSImage of this name is another one by now, and installs nothing"),
                ),
                Looked::Missing => Entry::row(
                    "image",
                    format!("{found}, as wished; there is no OSImage of this name any more"),
                ),
                _ => same("image", format!("{found}, as wished")),
            }
        }
        (found, _) => {
            let found = found.unwrap_or_else(|| "nothing known to be installed".to_owned());
            let beside = match &facts.image {
                Looked::Missing => "; there is no OSImage of this name".to_owned(),
                Looked::Refused(why) => format!("; its OSImage could not be looked at ({why})"),
                Looked::Found(_) | Looked::NotNamed => String::new(),
            };
            differs("image", format!("{} is wished{adopting}, found {found}{beside}", wish.name))
        }
    }
}

fn token(facts: &Facts, kind: TokenKind) -> Option<Entry> {
    let token = kind.of(&facts.server.spec)?;
    let field = kind.field();
    let handled = HandledTokens::shown(status(facts)).is_handled(kind, Some(token));
    Some(if handled {
        same(field, format!("{token:?} is handled; another value is another request"))
    } else {
        let action = kind.action().as_str().to_lowercase();
        differs(field, format!("{token:?} asks for a {action}, which has not begun yet"))
    })
}

/// A MAC address that no interface has is the usual cause of a machine that never boots.
fn boot_mac(facts: &Facts) -> Option<Entry> {
    let wish = facts.server.spec.boot_mac_address.as_deref()?;
    let nics = &status(facts)?.hardware.as_ref()?.nics;
    let plain = |mac: &str| mac.to_ascii_lowercase().replace('-', ":");
    let known: Vec<String> = nics.iter().filter_map(|nic| nic.mac_address.as_deref()).map(plain).collect();
    if known.is_empty() || known.contains(&plain(wish)) {
        return None;
    }
    Some(differs("bootMAC", format!("{wish} is wished, and the BMC shows {}", known.join(", "))))
}
