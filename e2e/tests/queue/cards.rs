//! One network card, one server: claims of cards, and whom a boot session serves.

use autobuild::api::Mac;
use autobuild::job::{
    Action, BootPurpose, Lane, PermitClass, RequestKind, ServerUid, StoredRequest, TokenValue,
};
use autobuild::queue::{
    AtMac, CallHome, CardClaim, CardOwner, Claim, Effects, Heard, NewBootSession, PlaceInQueue, QueueError,
    Released,
};
use futures::FutureExt as _;

use crate::Case;
use crate::fixture::{Fixture, SITE, done};

pub const CASES: &[Case] = &[
    ("the first machine whose BMC tells of a card has it, and others keep their own", |f| {
        first_come(f).boxed_local()
    }),
    ("a card that only spec names yields to the machine whose BMC tells of it", |f| yields(f).boxed_local()),
    ("cards that a BMC tells of no more are let go, and one that tells of none keeps them", |f| {
        moved(f).boxed_local()
    }),
    ("a card goes with its server, and its holder in another namespace is not named", |f| {
        released(f).boxed_local()
    }),
    ("a session for another machine's card serves nobody, and its machine boots from its disk", |f| {
        foreign_session(f).boxed_local()
    }),
    ("whose card it is opens a session in place of somebody else's", |f| rightful(f).boxed_local()),
    ("another card of the machine and another machine are told to the job once", |f| met(f).boxed_local()),
    ("twenty servers that claim one card at once: one gets it", |f| race(f).boxed_local()),
];

const ONE: &str = "52:54:00:00:00:01";
const TWO: &str = "52:54:00:00:00:02";
const THREE: &str = "52:54:00:00:00:03";

fn macs(texts: &[&str]) -> Vec<Mac> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn owner(uid: &ServerUid, namespace: &str) -> CardOwner {
    CardOwner { uid: uid.clone(), namespace: namespace.into(), name: uid.0.clone() }
}

fn another(name: &str) -> CardClaim {
    CardClaim::Another { holder: Some(name.to_owned()) }
}

impl Fixture {
    async fn told(&self, uid: &ServerUid, cards: &[&str]) {
        self.queue.claim_cards(owner(uid, "ns"), &macs(cards)).await.unwrap();
    }

    async fn wished(&self, uid: &ServerUid, card: &str) -> CardClaim {
        self.queue.claim_wished_card(owner(uid, "ns"), &macs(&[card])[0]).await.unwrap()
    }

    async fn whose(&self, uid: &ServerUid, card: &str) -> CardClaim {
        self.queue.card_claim(&owner(uid, "ns"), card).await.unwrap()
    }

    async fn installs(&self, uid: &ServerUid) -> Claim {
        self.queue.set_permits(SITE, PermitClass::Install, 50).await.unwrap();
        self.enqueue(uid, Action::Reimage, Lane::Normal).await;
        self.claim_one(&self.worker().await, PlaceInQueue::QueuedBounded).await
    }

    async fn opens(&self, claim: Claim, mac: &str) -> Result<Claim, QueueError> {
        let session = NewBootSession {
            mac: mac.to_owned(),
            image: "debian".to_owned(),
            digest: "sha256:1".to_owned(),
            purpose: BootPurpose::Install,
            media_hash: None,
        };
        let effects = Effects { session: Some(session), ..Effects::handling([TokenValue::reimage("t")]) };
        let request = StoredRequest { kind: RequestKind::BootFromNetworkOnce, settle_ms: 1000 };
        self.queue.store_request(claim, request, String::new(), effects).await.map(done)
    }

    async fn serves(&self, mac: &str) -> Option<ServerUid> {
        match self.queue.boot_at_mac(mac).await.unwrap() {
            AtMac::Armed(session) => Some(session.uid),
            _ => None,
        }
    }
}

async fn first_come(f: Fixture) {
    let (a, b) = (f.server("a").await, f.server("b").await);
    f.told(&a, &[ONE, TWO]).await;
    // One that tells of another machine's card as well gets the one that is its own.
    f.told(&b, &[TWO, THREE]).await;
    assert_eq!(f.whose(&a, TWO).await, CardClaim::Own);
    assert_eq!((f.whose(&b, TWO).await, f.whose(&b, THREE).await), (another("uid-a"), CardClaim::Own));
    assert_eq!(f.wished(&b, ONE).await, another("uid-a"));
    assert_eq!(f.whose(&b, THREE).await, CardClaim::Own, "a wish takes nothing that was told away");
    assert_eq!(f.count("bmc_claim").await, 3);
}

async fn yields(f: Fixture) {
    let (a, b, c) = (f.server("a").await, f.server("b").await, f.server("c").await);
    assert_eq!(f.wished(&a, ONE).await, CardClaim::Own);
    assert_eq!(f.wished(&b, ONE).await, another("uid-a"), "the first wish counts");
    f.told(&c, &[ONE]).await;
    assert_eq!((f.whose(&a, ONE).await, f.whose(&c, ONE).await), (another("uid-c"), CardClaim::Own));
    // Another wish is another card.
    assert_eq!(f.wished(&a, TWO).await, CardClaim::Own);
    assert_eq!(f.wished(&a, THREE).await, CardClaim::Own);
    assert_eq!(f.whose(&a, TWO).await, CardClaim::Free);
}

async fn moved(f: Fixture) {
    let (a, b) = (f.server("a").await, f.server("b").await);
    f.told(&a, &[ONE, TWO]).await;
    f.told(&a, &[]).await;
    assert_eq!(f.whose(&a, TWO).await, CardClaim::Own, "a BMC that tells of none says nothing");
    f.told(&a, &[ONE]).await;
    assert_eq!(f.whose(&a, TWO).await, CardClaim::Free);
    f.told(&b, &[TWO]).await;
    assert_eq!(f.whose(&b, TWO).await, CardClaim::Own);
}

async fn released(f: Fixture) {
    let (a, b) = (f.server("a").await, f.server("b").await);
    f.queue.claim_cards(owner(&a, "theirs"), &macs(&[ONE])).await.unwrap();
    assert_eq!(f.wished(&b, ONE).await, CardClaim::Another { holder: None });
    assert_eq!(f.queue.release(&a).await.unwrap(), Released::Released);
    assert_eq!(f.wished(&b, ONE).await, CardClaim::Own);
}

async fn foreign_session(f: Fixture) {
    let (a, b) = (f.server("a").await, f.server("b").await);
    f.wished(&a, ONE).await;
    let claim = f.installs(&a).await;
    f.opens(claim, ONE).await.unwrap();
    assert_eq!(f.serves(ONE).await, Some(a));
    f.told(&b, &[ONE]).await;
    assert_eq!(f.queue.boot_at_mac(ONE).await.unwrap(), AtMac::Idle);
    f.told(&b, &[ONE, TWO]).await;
    // Nor can it be opened once more.
    let c = f.server("c").await;
    let claim = f.installs(&c).await;
    assert!(matches!(f.opens(claim, TWO).await, Err(QueueError::Duplicate(_))));
}

async fn rightful(f: Fixture) {
    let (a, b) = (f.server("a").await, f.server("b").await);
    f.wished(&a, ONE).await;
    let claim = f.installs(&a).await;
    let (other, job) = (claim.uid().clone(), claim.job().id);
    f.opens(claim, ONE).await.unwrap();
    f.told(&b, &[ONE]).await;
    let claim = f.installs(&b).await;
    f.opens(claim, ONE).await.unwrap();
    assert_eq!(f.serves(ONE).await, Some(b));
    assert_eq!(f.queue.boot_evidence(&other, job).await.unwrap(), None);
}

async fn met(f: Fixture) {
    let a = f.server("a").await;
    f.told(&a, &[ONE, TWO]).await;
    let claim = f.installs(&a).await;
    let job = claim.job().id;
    f.opens(claim, ONE).await.unwrap();
    let AtMac::OtherCard(session) = f.queue.boot_at_mac(TWO).await.unwrap() else {
        panic!("nothing is known")
    };
    assert_eq!((&session.uid, session.what.mac.as_str()), (&a, ONE));
    assert_eq!(f.queue.boot_at_mac(THREE).await.unwrap(), AtMac::Unknown);
    let tell = async |what: CallHome| f.queue.call_home(&a, job, None, what).await.unwrap();
    assert_eq!(tell(CallHome::OtherCard { mac: TWO.to_owned() }).await, Heard::Recorded);
    let version = f.version(&a).await;
    assert_eq!(tell(CallHome::OtherCard { mac: TWO.to_owned() }).await, Heard::Recorded);
    assert_eq!(f.version(&a).await, version, "a machine that starts over and over tells nothing new");
    tell(CallHome::OtherMachine { said: "it says so".to_owned() }).await;
    let told = f.queue.boot_evidence(&a, job).await.unwrap().unwrap();
    assert_eq!(told.other_card.as_deref(), Some(TWO));
    assert!(told.other_card_at_ms.is_some() && told.fetched_at_ms.is_none());
    assert_eq!(told.other_machine.as_deref(), Some("it says so"));
    // The right one came after all.
    tell(CallHome::ScriptFetched { token_hash: "h".to_owned(), data_version: "d".to_owned() }).await;
    let told = f.queue.boot_evidence(&a, job).await.unwrap().unwrap();
    assert_eq!((told.other_card, told.other_machine), (None, None));
}

async fn race(f: Fixture) {
    let mut claims = Vec::new();
    for number in 0..20 {
        let (uid, queue) = (f.server(&number.to_string()).await, f.queue.clone());
        claims.push(tokio::spawn(async move {
            queue.claim_cards(owner(&uid, "ns"), &macs(&[ONE, TWO])).await.unwrap();
            queue.card_claim(&owner(&uid, "ns"), ONE).await.unwrap()
        }));
    }
    let outcomes = futures::future::join_all(claims).await;
    let own = outcomes.iter().filter(|it| matches!(it, Ok(CardClaim::Own))).count();
    assert_eq!((own, f.count("bmc_claim").await), (1, 2));
}
