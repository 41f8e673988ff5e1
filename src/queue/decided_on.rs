//! Which object a decision was made on: one that was made on an older object than the last one is refused.

use sqlx::MySqlConnection;

use super::state::Tell;
use super::{Queue, QueueError, now_ms};
use crate::job::ServerUid;

/// The generation of the object that a decision was made on, and which newer decision does not refuse it.
///
/// A generation only grows, but for an etcd that was restored: an object that was read live after the newer generation
/// was known is the truth, and may go back behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecidedOn {
    generation: i64,
    not_after: i64,
}

impl DecidedOn {
    /// An object of this generation, which may be older than the present one.
    pub const fn object(generation: i64) -> Self {
        Self { generation, not_after: generation }
    }

    /// An object of this generation that was read live when the last decision was known to be that of `last`.
    pub fn read_live(generation: i64, last: i64) -> Self {
        Self { generation, not_after: generation.max(last) }
    }

    /// Whether a decision on it is refused where the last one was made on `last`.
    pub const fn is_outdated(self, last: i64) -> bool {
        self.not_after < last
    }

    /// Its generation.
    pub const fn generation(self) -> i64 {
        self.generation
    }
}

/// Raises the version of a row whose last decision was not made on a newer object; whether it was so.
pub(super) async fn touch(
    connection: &mut MySqlConnection,
    uid: &ServerUid,
    on: DecidedOn,
    tell: Tell,
) -> Result<bool, QueueError> {
    let done = sqlx::query(concat!(
        "UPDATE server_state SET version = version + 1, generation = ?, changed_at_ms = IF(?, COALESCE(changed_at_ms, ",
        now_ms!(),
        "), changed_at_ms) WHERE server_uid = ? AND generation <= ?"
    ))
    .bind(on.generation)
    .bind(tell == Tell::Controller)
    .bind(uid.as_str())
    .bind(on.not_after)
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

impl Queue {
    /// Takes back the generation of the last decision, where the object that was read live is older: etcd was restored.
    /// `false`: something was decided since `version`; look again.
    pub async fn go_back_to(
        &self,
        uid: &ServerUid,
        generation: i64,
        version: i64,
    ) -> Result<bool, QueueError> {
        let done = sqlx::query(
            "UPDATE server_state SET generation = ?, version = version + 1 WHERE server_uid = ? AND version = ?",
        )
        .bind(generation)
        .bind(uid.as_str())
        .bind(version)
        .execute(self.pool())
        .await?;
        Ok(done.rows_affected() == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_object_that_was_read_after_the_newer_decision_was_known_may_be_older() {
        assert!(!DecidedOn::object(5).is_outdated(5));
        assert!(DecidedOn::object(4).is_outdated(5));
        assert!(!DecidedOn::read_live(4, 5).is_outdated(5));
        assert!(DecidedOn::read_live(4, 5).is_outdated(6), "decided since");
        assert!(!DecidedOn::read_live(7, 5).is_outdated(7));
    }
}
