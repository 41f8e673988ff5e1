//! The page: its head, and its sections in the order in which a person asks.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::age::{age, since};
use super::layout::{Entry, Page, Section, Tone};
use super::{Facts, Looked, commands, meaning, obstacle, wishes};
use crate::api::condition::{ConditionType, Truth, find};
use crate::api::{Answer, Reason, Remedy, ServerStatus};
use crate::job::{Action, JobResult, JobState, Step, WaitingFor};

/// How many events are shown.
const EVENTS: usize = 6;

pub(super) fn page(facts: &Facts) -> Page {
    let (head, tone) = head(facts);
    let sections = [
        ("Why", reason(facts)),
        ("What to try", to_try(facts)),
        ("Wish and reality", wishes::rows(facts)),
        ("Job", job(facts)),
        ("Last job", last_job(facts)),
        ("BMC", bmc(facts)),
        ("Events", events(facts)),
    ];
    let sections = sections.into_iter().map(|(title, entries)| Section { title, entries }).collect();
    Page { head, tone, sections }
}

/// The status, if the controller ever wrote it.
fn status(facts: &Facts) -> Option<&ServerStatus> {
    facts.server.status.as_ref().filter(|status| status.was_written())
}

fn seen(facts: &Facts, kind: ConditionType) -> Option<&Condition> {
    find(&status(facts)?.conditions, kind)
}

fn is(condition: Option<&Condition>, truth: Truth) -> bool {
    condition.is_some_and(|condition| condition.status == truth.as_str())
}

fn deleting(facts: &Facts) -> bool {
    facts.server.metadata.deletion_timestamp.is_some()
}

fn head(facts: &Facts) -> (String, Tone) {
    let metadata = &facts.server.metadata;
    let name = metadata.name.as_deref().unwrap_or_default();
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    let who = format!("{name} (namespace {namespace})");
    let is_ready = is(seen(facts, ConditionType::Ready), Truth::True);
    if obstacle::goes_with_its_namespace(facts).is_some() && deleting(facts) && is_ready {
        return (format!("{who}: being deleted; its status is from before"), Tone::Waiting);
    }
    let Some(phase) = status(facts).and_then(|status| status.phase) else {
        return (format!("{who}: not looked at yet"), Tone::Waiting);
    };
    let ready = seen(facts, ConditionType::Ready);
    let for_long = ready.map(|ready| since(facts.now, &ready.last_transition_time)).unwrap_or_default();
    let (word, tone) = if is(ready, Truth::True) {
        (format!("Ready for {for_long}"), Tone::Good)
    } else if is(ready, Truth::False) {
        let stalled = seen(facts, ConditionType::Stalled).is_some();
        (format!("not Ready for {for_long}"), if stalled { Tone::Bad } else { Tone::Waiting })
    } else {
        (format!("not known to be Ready yet, for {for_long}"), Tone::Waiting)
    };
    (
        if phase.as_str() == "Ready" {
            format!("{who}: {word}")
        } else {
            format!("{who}: {}, {word}", phase.as_str())
        },
        tone,
    )
}

/// The condition that says most about why it is as it is.
fn main_condition(facts: &Facts) -> Option<&Condition> {
    let reachable = seen(facts, ConditionType::Reachable).filter(|one| is(Some(one), Truth::False));
    seen(facts, ConditionType::Stalled)
        .or_else(|| seen(facts, ConditionType::Reconciling))
        .or_else(|| seen(facts, ConditionType::Paused))
        .or(reachable)
        .or_else(|| seen(facts, ConditionType::Ready))
}

fn reason(facts: &Facts) -> Vec<Entry> {
    let metadata = &facts.server.metadata;
    let mut entries = obstacle::entries(facts);
    let Some(condition) = main_condition(facts) else {
        if obstacle::refused(facts).is_some() {
            return entries;
        }
        let namespace = metadata.namespace.as_deref().unwrap_or_default();
        let text = format!(
            "No controller has written a status. Does one run, and is {namespace} among its --watch-namespaces? Created \
             {} ago.",
            metadata.creation_timestamp.as_ref().map_or_else(|| "0 s".to_owned(), |at| since(facts.now, at))
        );
        entries.push(Entry::Text(text));
        return entries;
    };
    let for_long = since(facts.now, &condition.last_transition_time);
    entries.push(Entry::row("reason", format!("{}, for {for_long}", condition.reason)));
    let meaning = Reason::parse(&condition.reason).map(|reason| reason.sentence().replace('`', ""));
    let plain = |text: &str| text.trim_end_matches('.').to_lowercase();
    let says_more = meaning.as_deref().is_none_or(|meaning| plain(meaning) != plain(&condition.message));
    entries.extend(meaning.map(|meaning| Entry::row("meaning", meaning)));
    if says_more {
        entries.push(Entry::row("it says", condition.message.clone()));
    }
    entries.extend(holders(facts));
    if let Some(at) = &metadata.deletion_timestamp {
        let policy = format!("{:?}", facts.server.spec.deletion_policy);
        let finalizers = metadata.finalizers.iter().flatten().cloned().collect::<Vec<_>>().join(", ");
        let text =
            format!("asked for {} ago, deletionPolicy {policy}; kept by {finalizers}", since(facts.now, at));
        entries.push(Entry::toned("deletion", text, Tone::Waiting));
    }
    if status(facts).and_then(|status| status.observed_generation) != metadata.generation {
        let text = if obstacle::refused(facts).is_some() {
            "spec was changed, and what the controller makes of it could not be written: what follows is from before"
        } else {
            "spec was changed, and the controller has not looked at the change yet: what follows is from before"
        };
        entries.push(Entry::toned("note", text, Tone::Waiting));
    }
    entries
}

/// Who has the BMC: status names nobody of another namespace, and who asks may have the right to see them.
fn holders(facts: &Facts) -> Option<Entry> {
    let Looked::Found(holders) = &facts.holders else { return None };
    let named: Vec<String> =
        holders.iter().map(|holder| format!("{} (namespace {})", holder.name, holder.namespace)).collect();
    (!named.is_empty()).then(|| Entry::row("same BMC", format!("in the spec of {}", named.join(", "))))
}

fn remedy(facts: &Facts) -> Option<Remedy> {
    let reason = Reason::parse(&main_condition(facts)?.reason)?;
    if deleting(facts) { Some(reason.remedy_in_deletion()) } else { reason.remedy() }
}

fn to_try(facts: &Facts) -> Vec<Entry> {
    let mut entries = obstacle::to_try(facts);
    let Some(remedy) = remedy(facts) else { return entries };
    entries.push(Entry::Text(remedy.text.replace('`', "")));
    let answers = remedy.answers.iter().copied();
    entries.extend(answers.filter_map(|answer: Answer| commands::command(answer, &facts.server, facts.now)));
    entries
}

fn job(facts: &Facts) -> Vec<Entry> {
    let Some(job) = status(facts).and_then(|status| status.job.as_ref()) else { return Vec::new() };
    let with = |name: &str, meaning: Option<String>| match meaning {
        Some(meaning) => format!("{name}: {meaning}"),
        None => name.to_owned(),
    };
    let action = job.action.as_str();
    let mut entries = vec![
        Entry::row("action", with(action, meaning::of::<Action>(action))),
        Entry::row("state", with(job.state.as_str(), meaning::of::<JobState>(job.state.as_str()))),
        Entry::row("step", {
            let step = with(job.step.as_str(), meaning::of::<Step>(job.step.as_str()));
            job.attempt.map_or_else(|| step.clone(), |attempt| format!("{step}; attempt {attempt}"))
        }),
    ];
    let waits_since = job.started_at.as_ref().unwrap_or(&job.enqueued_at);
    if let Some(what) = job.waiting_for {
        let what = meaning::of::<WaitingFor>(what.as_str()).unwrap_or_else(|| what.as_str().to_owned());
        entries.push(Entry::toned("waits for", what, Tone::Waiting));
    }
    if let Some(told) = &job.progress {
        let what = if told.message.is_empty() { String::new() } else { format!(": {}", told.message) };
        entries.push(Entry::row("progress", format!("{} % done{what}", told.percent)));
    }
    let since_when = match job.started_at {
        Some(_) => format!("begun {} ago", since(facts.now, waits_since)),
        None => "not begun".to_owned(),
    };
    let enqueued = since(facts.now, &job.enqueued_at);
    let lane = job.priority.as_str();
    entries.push(Entry::row("since", format!("{since_when}, enqueued {enqueued} ago with priority {lane}")));
    entries.push(Entry::row("id", job.id.clone()));
    entries
}

fn last_job(facts: &Facts) -> Vec<Entry> {
    let Some(last) = status(facts).and_then(|status| status.last_job.as_ref()) else { return Vec::new() };
    let took = last
        .started_at
        .as_ref()
        .map_or_else(String::new, |began| format!(" after {}", age(last.finished_at.0, began.0)));
    let (action, result) = (last.action.as_str(), last.result.as_str());
    let ended = since(facts.now, &last.finished_at);
    let failed = last.result == JobResult::Failed;
    let at_step = if failed { format!(", ended at step {}", last.step.as_str()) } else { String::new() };
    let tone = if failed { Tone::Bad } else { Tone::Plain };
    let text = format!("{result}{at_step}{took}, {ended} ago (job {})", last.id);
    let mut entries = vec![Entry::toned(action, text, tone)];
    // Said already where it is what stands in the way now.
    let is_new = last.why().map(Reason::as_str) != main_condition(facts).map(|one| one.reason.as_str());
    if let Some(reason) = last.why().filter(|_| is_new) {
        let message = last.message.as_deref().unwrap_or_default();
        entries.push(Entry::row("reason", format!("{reason}: {message}")));
        if let Some(remedy) = reason.remedy().filter(|_| failed) {
            entries.push(Entry::row("what to try", remedy.text.replace('`', "")));
        }
    }
    entries
}

fn bmc(facts: &Facts) -> Vec<Entry> {
    let spec = &facts.server.spec;
    let mut entries = vec![Entry::row("address", format!("{} (site {})", spec.bmc.address, spec.site))];
    if let Some(reachable) = seen(facts, ConditionType::Reachable) {
        let for_long = since(facts.now, &reachable.last_transition_time);
        entries.push(match reachable.status.as_str() {
            "True" => Entry::toned("answers", format!("for {for_long}"), Tone::Good),
            "False" => {
                Entry::toned("answers", format!("not for {for_long} ({})", reachable.reason), Tone::Bad)
            }
            _ => Entry::row("answers", "not asked yet"),
        });
    }
    if let Some(fresh) = seen(facts, ConditionType::Fresh).filter(|fresh| is(Some(fresh), Truth::False)) {
        entries.push(Entry::toned("last reading", fresh.message.clone(), Tone::Waiting));
    }
    if let Some(hardware) = status(facts).and_then(|status| status.hardware.as_ref()) {
        let named = [&hardware.manufacturer, &hardware.model].map(|text| text.as_deref().unwrap_or_default());
        let serial = hardware.serial_number.as_deref().map(|serial| format!("serial number {serial}"));
        let text = [named.join(" ").trim(), serial.as_deref().unwrap_or_default()]
            .into_iter()
            .filter(|text| !text.is_empty())
            .collect::<Vec<_>>()
            .join(", ");
        if !text.is_empty() {
            entries.push(Entry::row("machine", text));
        }
    }
    if let Some((mac, why)) = taken_card(facts) {
        entries.push(Entry::row("boots from", format!("{mac}, {why}")));
    }
    if let Some(bmc) = status(facts).and_then(|status| status.bmc.as_ref()) {
        entries.extend(bmc.firmware.clone().map(|firmware| Entry::row("firmware", firmware)));
        entries.extend(bmc.boot_mode.clone().map(|mode| Entry::row("boot mode", mode)));
        if !bmc.habits.is_empty() {
            entries.push(Entry::row("habits", bmc.habits.join(", ")));
        }
    }
    entries.push(secret(facts));
    if let Some(insecure) = seen(facts, ConditionType::InsecureTLS) {
        entries.push(Entry::toned("insecure", insecure.message.clone(), Tone::Bad));
    }
    entries
}

/// The card that is booted from where spec names none, and there are several.
fn taken_card(facts: &Facts) -> Option<(String, String)> {
    let hardware = status(facts)?.hardware.as_ref()?;
    let is_guessed = facts.server.spec.boot_mac_address.is_none() && hardware.cards().len() > 1;
    let (mac, why) = hardware.card_taken().filter(|_| is_guessed)?;
    Some((mac.with_colons(), why))
}

fn secret(facts: &Facts) -> Entry {
    let name = &facts.server.spec.bmc.credentials_ref.name;
    match &facts.secret {
        Looked::Found(secret) => {
            let changed = secret
                .changed
                .map_or_else(String::new, |at| format!(", last changed {} ago", age(facts.now, at)));
            let hosts = secret.hosts.as_ref().map_or_else(String::new, |hosts| format!("; only for {hosts}"));
            Entry::row("Secret", format!("{name} is there{changed}{hosts}"))
        }
        Looked::Missing => Entry::toned("Secret", format!("{name} is not there"), Tone::Bad),
        Looked::Refused(why) => Entry::row("Secret", format!("{name} could not be looked at ({why})")),
        Looked::NotNamed => Entry::row("Secret", name.clone()),
    }
}

fn events(facts: &Facts) -> Vec<Entry> {
    let all = match &facts.events {
        Looked::Found(all) => all,
        Looked::Refused(why) => return vec![Entry::Text(format!("They could not be looked at ({why})."))],
        Looked::Missing | Looked::NotNamed => return Vec::new(),
    };
    let mut newest: Vec<_> = all.iter().collect();
    newest.sort_by_key(|event| std::cmp::Reverse(event.at));
    let shown = newest.into_iter().take(EVENTS).map(|event| {
        let times = if event.times > 1 { format!(" ({} times)", event.times) } else { String::new() };
        let tone = if event.kind == "Warning" { Tone::Waiting } else { Tone::Plain };
        let label = format!("{} ago", age(facts.now, event.at));
        Entry::toned(label, format!("{}: {}{times}", event.reason, event.note), tone)
    });
    shown.collect()
}
