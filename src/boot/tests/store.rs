//! A store in memory.

use std::sync::Mutex;

use futures::future::BoxFuture;

use crate::api::Mac;
use crate::boot::{Armed, AtMac, CallHome, Heard, Medium, Sessions, StoreAway, TokenHash};

#[derive(Default)]
pub(super) struct Store(pub(super) Mutex<Kept>);

#[derive(Default)]
pub(super) struct Kept {
    pub(super) armed: Option<Armed>,
    pub(super) idle: Option<Mac>,
    pub(super) token: Option<TokenHash>,
    pub(super) media: Option<TokenHash>,
    pub(super) heard: Vec<CallHome>,
    pub(super) not_served: Vec<String>,
    pub(super) waits: Vec<String>,
    pub(super) other_cards: Vec<Mac>,
    pub(super) other_machines: Vec<String>,
    /// A card that the machine of the session has beside the one that is waited for.
    pub(super) second: Option<Mac>,
    pub(super) away: bool,
    /// The database was failed over since the first script was given.
    pub(super) failed_over: bool,
    /// How often it gave no answer.
    pub(super) refused: u32,
}

impl Store {
    fn with<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut Kept) -> T,
    ) -> BoxFuture<'static, Result<T, StoreAway>> {
        let mut kept = self.0.lock().unwrap();
        let answer = if kept.away {
            kept.refused += 1;
            Err(StoreAway("it is away".into()))
        } else {
            Ok(act(&mut kept))
        };
        Box::pin(std::future::ready(answer))
    }
}

impl Sessions for Store {
    fn at_mac<'a>(&'a self, mac: &'a Mac) -> BoxFuture<'a, Result<AtMac, StoreAway>> {
        self.with(|kept| match &kept.armed {
            Some(armed) if armed.mac == *mac => AtMac::Armed(armed.clone()),
            Some(armed) if kept.second == Some(*mac) => AtMac::OtherCard(armed.clone()),
            _ if kept.idle == Some(*mac) => AtMac::Idle,
            _ => AtMac::Unknown,
        })
    }

    fn hand_out<'a>(
        &'a self,
        armed: &'a Armed,
        token: TokenHash,
        data: String,
    ) -> BoxFuture<'a, Result<Heard, StoreAway>> {
        self.with(|kept| {
            if kept.armed.as_ref() != Some(armed) {
                return Heard::Refused;
            }
            if kept.failed_over && armed.data_version.is_some() {
                return Heard::GivenBefore;
            }
            kept.token = Some(token);
            if let Some(armed) = &mut kept.armed {
                armed.data_version.get_or_insert(data);
            }
            Heard::Recorded
        })
    }

    fn by_token<'a>(&'a self, token: &'a TokenHash) -> BoxFuture<'a, Result<Option<Armed>, StoreAway>> {
        self.with(|kept| kept.armed.clone().filter(|_| kept.token == Some(*token)))
    }

    fn by_media<'a>(&'a self, token: &'a TokenHash) -> BoxFuture<'a, Result<Option<Armed>, StoreAway>> {
        self.with(|kept| kept.armed.clone().filter(|_| kept.media == Some(*token)))
    }

    fn with_media(&self) -> BoxFuture<'_, Result<Vec<Armed>, StoreAway>> {
        self.with(|kept| {
            let armed = kept.armed.iter().filter(|armed| armed.medium != Medium::Absent);
            armed.cloned().collect()
        })
    }

    fn media_read<'a>(&'a self, token: &'a TokenHash) -> BoxFuture<'a, Result<(), StoreAway>> {
        self.with(|kept| {
            if let Some(armed) = kept.armed.as_mut().filter(|_| kept.media == Some(*token)) {
                armed.medium = Medium::Read;
            }
        })
    }

    fn not_served<'a>(&'a self, _: &'a Armed, why: String) -> BoxFuture<'a, Result<Heard, StoreAway>> {
        self.with(|kept| {
            kept.not_served.push(why);
            Heard::Recorded
        })
    }

    fn waits<'a>(&'a self, _: &'a Armed, why: String) -> BoxFuture<'a, Result<Heard, StoreAway>> {
        self.with(|kept| {
            kept.waits.push(why);
            Heard::Recorded
        })
    }

    fn other_card<'a>(&'a self, _: &'a Armed, mac: &'a Mac) -> BoxFuture<'a, Result<Heard, StoreAway>> {
        self.with(|kept| {
            kept.other_cards.push(*mac);
            Heard::Recorded
        })
    }

    fn other_machine<'a>(&'a self, _: &'a Armed, said: String) -> BoxFuture<'a, Result<Heard, StoreAway>> {
        self.with(|kept| {
            kept.other_machines.push(said);
            Heard::Recorded
        })
    }

    fn call_home<'a>(
        &'a self,
        _: &'a Armed,
        token: &'a TokenHash,
        call: CallHome,
    ) -> BoxFuture<'a, Result<Heard, StoreAway>> {
        self.with(|kept| {
            if kept.token != Some(*token) || kept.armed.is_none() {
                return Heard::Refused;
            }
            if call == CallHome::Installed {
                kept.armed = None;
                kept.token = None;
            }
            kept.heard.push(call);
            Heard::Recorded
        })
    }
}
