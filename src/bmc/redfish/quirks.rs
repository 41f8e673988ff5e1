//! The habits of BMCs that differ from the standard, or from each other: one row each. Everything else asks here for a
//! name, so that a person sees which habits were met and can tell the maker.
//!
//! A habit is known by an answer of the BMC; maker and model decide only where no answer tells. What was met is kept for each
//! BMC by [`super::learnt`].

/// A habit that a BMC was seen to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Habit {
    /// A change needs `If-Match`.
    IfMatchDemanded,
    /// An ETag that was given is refused as it was given.
    IfMatchRefused,
}

/// What is to be known of a habit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    /// Its name in status.
    pub(super) name: &'static str,
    /// Who was seen to have it.
    pub(super) seen_at: &'static str,
    /// How it is known.
    pub(super) known_by: &'static str,
    /// What is done about it.
    pub(super) done: &'static str,
    /// Where it was reported, or which document has it.
    pub(super) source: &'static str,
}

impl Habit {
    /// All of them, in the order of the table.
    pub(super) const ALL: &'static [Self] = &[Self::IfMatchDemanded, Self::IfMatchRefused];

    /// Its name in status.
    pub(super) const fn name(self) -> &'static str {
        self.row().name
    }

    /// Its row.
    pub(super) const fn row(self) -> Row {
        match self {
            Self::IfMatchDemanded => Row {
                name: "IfMatchDemanded",
                seen_at: "AMI MegaRAC, some Lenovo, NVIDIA DGX",
                known_by: "428 to a change, or 412 to one without If-Match",
                done: "the resource is read again, and its ETag sent as it was given, weak or not; * where there is none",
                source: "gofish 171, Redfish-Tacklebox 22, community.general 6434",
            },
            Self::IfMatchRefused => Row {
                name: "IfMatchRefused",
                seen_at: "Lenovo, Huawei, Gigabyte; BMCs that compare with the ETag of the action",
                known_by: "412 to an ETag that was read right before",
                done: "the ETag is spelled as a strong one, then without quotes, then left out",
                source: "sushy's connector, smart-proxy 930",
            },
        }
    }
}

#[cfg(test)]
#[allow(missing_docs)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_habit_has_a_row_and_a_name_of_its_own() {
        let names: BTreeSet<_> = Habit::ALL.iter().map(|habit| habit.name()).collect();
        assert_eq!(names.len(), Habit::ALL.len());
        for habit in Habit::ALL {
            let row = habit.row();
            let texts = [row.name, row.seen_at, row.known_by, row.done, row.source];
            assert!(texts.iter().all(|text| !text.is_empty()), "{habit:?}");
            assert!(row.name.bytes().all(|b| b.is_ascii_alphanumeric()), "{habit:?}");
        }
    }
}
