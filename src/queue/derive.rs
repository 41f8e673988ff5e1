//! The end of the time after another history in which nobody claims: every live job was derived from its Server.

use std::collections::HashSet;
use std::sync::Arc;

use sqlx::{MySqlConnection, Row};

use super::history::{Underived, write};
use super::hold_back::{HELD_BACK, LEFT};
use super::transaction::{Ending, Pass, Transaction};
use super::{Queue, QueueError};
use crate::job::ServerUid;

/// What came of an attempt to let workers claim again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Derived {
    /// They may, or another history has begun since.
    Over,
    /// This job was not derived yet. Another controller may watch its namespace.
    NotYet {
        /// The namespace of its server.
        namespace: String,
        /// The name of its server.
        name: String,
    },
}

struct Derive {
    mark: Underived,
    namespaces: Vec<String>,
    servers: Arc<HashSet<ServerUid>>,
}

/// The row of `meta` that says for which history a namespace was derived. Names of namespaces have no `@`.
fn note(namespace: &str) -> String {
    format!("@{namespace}")
}

impl Transaction for Derive {
    type Output = Derived;
    const NAME: &'static str = "derive";

    async fn run(&self, connection: &mut MySqlConnection, _: Pass) -> Result<Ending<Derived>, QueueError> {
        let row: Option<String> =
            sqlx::query_scalar("SELECT value FROM meta WHERE name = 'histories' FOR UPDATE")
                .fetch_optional(&mut *connection)
                .await?;
        if row.as_ref() != Some(&self.mark.0) {
            return Ok(Ending::Rollback(Derived::Over));
        }
        let left = self.left(connection).await?;
        let (ours, foreign): (Vec<_>, Vec<_>) =
            left.into_iter().partition(|(namespace, _)| self.namespaces.contains(namespace));
        if let Some((namespace, name)) = ours.into_iter().next() {
            return Ok(Ending::Rollback(Derived::NotYet { namespace, name }));
        }
        // Controllers that watch different namespaces each vouch for their own: the last of them ends it.
        for namespace in &self.namespaces {
            write(connection, &note(namespace), &self.mark.0).await?;
        }
        let vouched = self.vouched(connection).await?;
        let left = foreign.into_iter().find(|(namespace, _)| !vouched.contains(&note(namespace)));
        if let Some((namespace, name)) = left {
            return Ok(Ending::Commit(Derived::NotYet { namespace, name }));
        }
        sqlx::query("DELETE FROM meta WHERE name LIKE '@%'").execute(&mut *connection).await?;
        write(connection, "histories", self.mark.derived()).await?;
        Ok(Ending::Commit(Derived::Over))
    }
}

impl Derive {
    /// Namespaces and names of the servers with a live job that were not derived. A job that was asked to stop does
    /// nothing but undo, and one that is held back nothing at all.
    async fn left(&self, connection: &mut MySqlConnection) -> Result<Vec<(String, String)>, QueueError> {
        let rows = sqlx::query(LEFT).bind(HELD_BACK).fetch_all(connection).await?;
        let mut left = Vec::new();
        for row in rows {
            if !self.servers.contains(&ServerUid(row.try_get("server_uid")?)) {
                left.push((row.try_get("namespace")?, row.try_get("name")?));
            }
        }
        Ok(left)
    }

    async fn vouched(&self, connection: &mut MySqlConnection) -> Result<HashSet<String>, QueueError> {
        let names = sqlx::query_scalar("SELECT name FROM meta WHERE name LIKE '@%' AND value = ?")
            .bind(&self.mark.0)
            .fetch_all(connection)
            .await?;
        Ok(names.into_iter().collect())
    }
}

impl Queue {
    /// Says that the servers of these namespaces were derived since the mark was seen, and lets workers claim again if
    /// that is every live job. An unknown COMMIT is repeated, and then finds the mark gone.
    pub async fn derived(
        &self,
        mark: &Underived,
        namespaces: &[String],
        servers: Arc<HashSet<ServerUid>>,
    ) -> Result<Derived, QueueError> {
        self.transact(Derive { mark: mark.clone(), namespaces: namespaces.to_vec(), servers }).await
    }
}
