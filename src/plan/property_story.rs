//! What may happen to a server, for stories of the property tests.

use proptest::prelude::*;

use crate::api::{DeletionPolicy, Power, Provisioning, Reason};

#[derive(Debug, Clone, Copy)]
pub(super) enum Happens {
    Power(Option<Power>),
    Token(Option<u8>),
    Image(Option<u8>),
    Reimage(Option<u8>),
    Provisioning(Provisioning),
    OSImageReplaced(Option<u8>),
    Confirmed,
    Pause(bool),
    Delete(DeletionPolicy),
    Decommission,
    WipeImage(bool),
    BudgetSpent(bool),
    Abandon,
    Address(u8),
    NewSecret,
    LostDatabase,
    Replicated,
    LostCommits,
    ButtonPressed,
    Time(i64),
    WorkerStarts,
    WorkerSends,
    ScriptGiven,
    WorkerFinishes,
    WorkerFails(Reason),
    WorkerParks(Reason),
}

pub(super) fn happens() -> impl Strategy<Value = Happens> {
    use Happens as H;
    let failures = prop_oneof![
        Just(Reason::PowerStateMismatch),
        Just(Reason::CredentialsInvalid),
        Just(Reason::IdentityMismatch),
        Just(Reason::SystemNotFound),
        Just(Reason::CrashLimit),
        Just(Reason::RequestRefused),
    ];
    let powers = prop_oneof![Just(None), Just(Some(Power::PoweredOn)), Just(Some(Power::PoweredOff))];
    let policies =
        prop_oneof![Just(DeletionPolicy::Retain), Just(DeletionPolicy::PowerOff), Just(DeletionPolicy::Wipe)];
    let parks =
        prop_oneof![Just(Reason::Unreachable), Just(Reason::CredentialsInvalid), Just(Reason::BMCBusy)];
    // Weighted so that most stories get as far as work that fails.
    prop_oneof![
        4 => powers.prop_map(H::Power),
        3 => proptest::option::of(0_u8..4).prop_map(H::Token),
        3 => proptest::option::of(0_u8..3).prop_map(H::Image),
        2 => proptest::option::of(0_u8..4).prop_map(H::Reimage),
        1 => prop_oneof![Just(Provisioning::Install), Just(Provisioning::Adopt)].prop_map(H::Provisioning),
        1 => proptest::option::of(0_u8..3).prop_map(H::OSImageReplaced),
        2 => Just(H::Confirmed),
        1 => any::<bool>().prop_map(H::Pause),
        1 => policies.prop_map(H::Delete),
        1 => Just(H::Decommission),
        1 => any::<bool>().prop_map(H::WipeImage),
        1 => any::<bool>().prop_map(H::BudgetSpent),
        1 => Just(H::Abandon),
        1 => (0_u8..2).prop_map(H::Address),
        1 => Just(H::NewSecret),
        1 => Just(H::LostDatabase),
        2 => Just(H::Replicated),
        1 => Just(H::LostCommits),
        2 => Just(H::ButtonPressed),
        2 => (0_i64..1_000_000).prop_map(H::Time),
        9 => Just(H::WorkerStarts),
        3 => Just(H::WorkerSends),
        2 => Just(H::ScriptGiven),
        7 => Just(H::WorkerFinishes),
        3 => failures.prop_map(H::WorkerFails),
        2 => parks.prop_map(H::WorkerParks),
    ]
}
