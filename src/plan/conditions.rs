//! The conditions of a situation.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::Observation;
use super::image::{self, ImageSync};
use super::power::{self, PowerSync};
use super::situation::{self, Patience, Situation};
use crate::api::condition::{ConditionType, Truth, condition, time};
use crate::api::hardware::Hardware;
use crate::api::{Reason, TlsVerify};
use crate::job::Problem;

type Said = (Truth, Reason, String);

fn say(truth: Truth, reason: Reason, message: &str) -> Said {
    (truth, reason, message.to_owned())
}

fn tell(truth: Truth, problem: &Problem) -> Said {
    (truth, problem.reason, problem.message.clone())
}

/// Every condition that exists in this situation, in their fixed order.
pub(super) fn conditions(seen: &Observation, situation: &Situation) -> Vec<Condition> {
    let before = seen.shown().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let now = time(seen.now_ms);
    let all = ConditionType::ALL.into_iter().filter_map(|kind| Some((kind, said(seen, situation, kind)?)));
    all.map(|(kind, (truth, reason, message))| {
        condition(before, kind, truth, (reason, message), seen.generation(), &now)
    })
    .collect()
}

fn said(seen: &Observation, situation: &Situation, kind: ConditionType) -> Option<Said> {
    match kind {
        ConditionType::Ready => Some(ready(situation)),
        ConditionType::Reachable => Some(reachable(seen)),
        ConditionType::Fresh => Some(fresh(seen)),
        ConditionType::PowerSynced => power_synced(seen),
        ConditionType::ImageSynced => image_synced(seen),
        ConditionType::Reconciling => reconciling(situation),
        ConditionType::Stalled => stalled(situation),
        ConditionType::Paused => paused(situation),
        ConditionType::InsecureTLS => insecure_tls(seen),
    }
}

fn ready(situation: &Situation) -> Said {
    match situation {
        Situation::Pending(why) => tell(Truth::Unknown, why),
        Situation::AsDeclared => say(Truth::True, Reason::AsDeclared, "the machine is as declared"),
        Situation::Ended => say(
            Truth::True,
            Reason::Decommissioned,
            "the disks were erased, and nothing is done to the machine any more",
        ),
        // Not knowing does not make it unready: Reachable and Fresh say that the knowledge is old.
        Situation::UnreachableIdle => {
            say(Truth::True, Reason::AsDeclared, "the machine was as declared when it was last read")
        }
        Situation::Queued(why)
        | Situation::Working(_, why)
        | Situation::UnreachableAtWork(why, _)
        | Situation::Stalled(why)
        | Situation::PausedLeftOff(why)
        | Situation::Deleting(why)
        | Situation::DeletingStalled(why) => tell(Truth::False, why),
        Situation::PausedInSync => say(Truth::True, Reason::Paused, "paused; the machine is as declared"),
        Situation::PausedWithDifference => say(
            Truth::False,
            Reason::Paused,
            "paused; the machine is not as declared: set spec.paused to false to go on",
        ),
        Situation::PausedUnseen => {
            say(Truth::Unknown, Reason::Paused, "paused before the machine was looked at")
        }
    }
}

fn reachable(seen: &Observation) -> Said {
    if let Some(problem) = situation::credentials(seen) {
        return tell(Truth::False, &problem);
    }
    match seen.unanswered() {
        Some(silence) => tell(Truth::False, &silence.problem),
        None => match seen.reading() {
            Some(reading) => (Truth::True, Reason::Answered, answered(&reading.hardware)),
            None if seen.is_read_elsewhere() => {
                say(Truth::Unknown, Reason::Pending, situation::READ_ELSEWHERE)
            }
            None => say(Truth::Unknown, Reason::Pending, "the BMC was not asked yet"),
        },
    }
}

/// The same text as long as the same parts cannot be read.
fn answered(hardware: &Hardware) -> String {
    let unread: Vec<&str> = hardware.unread.iter().map(|part| part.in_words()).collect();
    let but = match unread.as_slice() {
        [] => String::new(),
        parts => {
            format!(", but {} could not be read: what was known of them before is shown", parts.join(" and "))
        }
    };
    format!("the BMC answered the last time that it was asked{but}")
}

fn fresh(seen: &Observation) -> Said {
    let Some(last) = seen.last_good_read_ms() else {
        if seen.is_read_elsewhere() {
            return say(Truth::Unknown, Reason::Pending, situation::READ_ELSEWHERE);
        }
        return say(Truth::Unknown, Reason::Pending, "the BMC was not read yet");
    };
    let bound_s = seen.settings.fresh_bound_ms / 1000;
    if seen.now_ms - last < seen.settings.fresh_bound_ms {
        (Truth::True, Reason::RecentlyRead, format!("the last good reading is younger than {bound_s} s"))
    } else {
        (Truth::False, Reason::ReadingTooOld, format!("the last good reading is older than {bound_s} s"))
    }
}

fn power_synced(seen: &Observation) -> Option<Said> {
    match power::sync(seen) {
        PowerSync::NoWish => None,
        PowerSync::NeverRead => {
            Some(say(Truth::Unknown, Reason::Pending, "the power state was not read yet"))
        }
        PowerSync::Synced => Some(say(Truth::True, Reason::InSync, "the power state is the wished one")),
        PowerSync::NotYet | PowerSync::Opposite(_) => {
            Some(say(Truth::False, Reason::OutOfSync, "the power state is not the wished one"))
        }
    }
}

fn image_synced(seen: &Observation) -> Option<Said> {
    match image::sync(seen) {
        ImageSync::NoWish => None,
        ImageSync::NeverRead => {
            Some(say(Truth::Unknown, Reason::Pending, "the machine was not looked at yet"))
        }
        ImageSync::Synced => Some(say(Truth::True, Reason::ImageInSync, "the wished image is installed")),
        ImageSync::ToAdopt(_) | ImageSync::ToInstall(_) => {
            Some(say(Truth::False, Reason::ImageOutOfSync, "the wished image is not installed yet"))
        }
        ImageSync::Blocked(problem) => Some(tell(Truth::False, &problem)),
    }
}

fn reconciling(situation: &Situation) -> Option<Said> {
    match situation {
        Situation::Pending(why)
        | Situation::Queued(why)
        | Situation::Working(_, why)
        | Situation::UnreachableAtWork(why, Patience::Left)
        | Situation::Deleting(why) => Some(tell(Truth::True, why)),
        _ => None,
    }
}

fn stalled(situation: &Situation) -> Option<Said> {
    match situation {
        Situation::UnreachableAtWork(why, Patience::Over)
        | Situation::Stalled(why)
        | Situation::PausedLeftOff(why)
        | Situation::DeletingStalled(why) => Some(tell(Truth::True, why)),
        _ => None,
    }
}

fn paused(situation: &Situation) -> Option<Said> {
    match situation {
        Situation::PausedInSync
        | Situation::PausedWithDifference
        | Situation::PausedUnseen
        | Situation::PausedLeftOff(_) => {
            Some(say(Truth::True, Reason::Paused, "spec.paused is true: nothing is enqueued"))
        }
        _ => None,
    }
}

fn insecure_tls(seen: &Observation) -> Option<Said> {
    let off = seen.spec().bmc.tls.as_ref().and_then(|tls| tls.verify) == Some(TlsVerify::Disabled);
    off.then(|| {
        say(
            Truth::True,
            Reason::VerificationDisabled,
            "spec.bmc.tls.verify is Disabled: whoever sits between can read the password; pin certificateSHA256 instead",
        )
    })
}
