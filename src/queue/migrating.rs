//! Who migrates a Galera cluster. A lock of one node (`GET_LOCK`) says nothing to another one, and two who migrate at two nodes
//! take each other's transactions back in the middle of a migration, which is then half done at both. So the right to migrate is a
//! row, which the whole cluster certifies, and whoever has it shows that it lives.

use std::time::Duration;

use sqlx::mysql::MySqlConnectOptions;
use sqlx::{Connection as _, MySqlConnection, Row as _};
use tokio::task::JoinHandle;

use super::error::is_no_table;
use super::{QueueError, connection};

/// Row 0 says who migrates; who waits has a row of its own.
const TABLE: &str = "CREATE TABLE IF NOT EXISTS autobuild_migrating (id BIGINT NOT NULL PRIMARY KEY, holder BIGINT NOT NULL, \
    beat BIGINT NOT NULL) ENGINE = InnoDB";

/// Between two signs of life, and two looks.
const EVERY: Duration = Duration::from_millis(500);
/// So many writes of one's own without a sign of life of the other one: it has died. Not a time: a statement that changes a table
/// holds up all writes of the cluster, those of both alike.
const DEAD: u32 = 40;
/// How many looks the other one is waited for while it lives.
const LOOKS: u32 = 600;

/// The right to migrate. It goes by [`Turn::end`], or some looks after the process.
#[derive(Debug)]
pub(super) struct Turn {
    holder: i64,
    beats: JoinHandle<()>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.beats.abort();
    }
}

impl Turn {
    /// Waits until nobody else migrates at any node. `connection` is the one to migrate with: it is asked all the time, as one that
    /// lies idle is cut off.
    pub(super) async fn take(
        connection: &mut MySqlConnection,
        options: &MySqlConnectOptions,
    ) -> Result<Self, QueueError> {
        let there =
            sqlx::raw_sql("SELECT 1 FROM autobuild_migrating LIMIT 1").execute(&mut *connection).await;
        if there.is_err_and(|error| is_no_table(&error)) {
            sqlx::raw_sql(TABLE).execute(&mut *connection).await?;
        }
        let holder = rand::random_range(1..i64::MAX);
        let taken = wait(connection, holder).await;
        let _ = sqlx::query("DELETE FROM autobuild_migrating WHERE id = ?")
            .bind(holder)
            .execute(&mut *connection)
            .await;
        taken?;
        let mut connection = connection::single(options).await?;
        let beats = tokio::spawn(async move {
            loop {
                // What is refused is tried again: the one that waits counts its own tries.
                let _ =
                    sqlx::query("UPDATE autobuild_migrating SET beat = beat + 1 WHERE id = 0 AND holder = ?")
                        .bind(holder)
                        .execute(&mut connection)
                        .await;
                tokio::time::sleep(EVERY).await;
            }
        });
        Ok(Self { holder, beats })
    }

    /// An error where another one took this one for dead.
    pub(super) async fn holds(&self, connection: &mut MySqlConnection) -> Result<(), QueueError> {
        let found: Option<i64> = sqlx::query_scalar("SELECT holder FROM autobuild_migrating WHERE id = 0")
            .fetch_optional(connection)
            .await?;
        if found == Some(self.holder) {
            return Ok(());
        }
        Err(QueueError::Unavailable(
            "another `autobuild migrate` took over while this one hung: see what it does".to_owned(),
        ))
    }

    /// Lets the next one.
    pub(super) async fn end(self, options: &MySqlConnectOptions) {
        let left = async {
            let mut connection = connection::single(options).await?;
            sqlx::query("DELETE FROM autobuild_migrating WHERE id = 0 AND holder = ?")
                .bind(self.holder)
                .execute(&mut connection)
                .await?;
            connection.close().await.ok();
            Ok::<_, QueueError>(())
        };
        if let Err(error) = left.await {
            tracing::warn!(reason = error.class(), "the next `autobuild migrate` waits for a while: {error}");
        }
    }
}

async fn wait(connection: &mut MySqlConnection, holder: i64) -> Result<(), QueueError> {
    let (mut last, mut same) = (None, 0);
    for look in 0..LOOKS {
        match try_take(connection, holder, i64::from(look)).await {
            Ok(None) => return Ok(()),
            Ok(Some(seen)) => {
                same = if last == Some(seen) { same + 1 } else { 0 };
                last = Some(seen);
                if same >= DEAD {
                    let (other, beat) = seen;
                    tracing::warn!("another `autobuild migrate` has ended without a word: takes over");
                    sqlx::query("DELETE FROM autobuild_migrating WHERE id = 0 AND holder = ? AND beat = ?")
                        .bind(other)
                        .bind(beat)
                        .execute(&mut *connection)
                        .await?;
                    same = 0;
                    continue;
                }
            }
            Err(QueueError::Conflict { .. }) => {}
            Err(error) => return Err(error),
        }
        tokio::time::sleep(EVERY).await;
    }
    Err(QueueError::Unavailable(format!(
        "another `autobuild migrate` has run for {} s at a node of this cluster: see what it does",
        LOOKS * EVERY.as_millis() as u32 / 1_000
    )))
}

/// `None`: taken; else who has it, and that one's last sign of life.
async fn try_take(
    connection: &mut MySqlConnection,
    holder: i64,
    look: i64,
) -> Result<Option<(i64, i64)>, QueueError> {
    let row = sqlx::query("SELECT holder, beat FROM autobuild_migrating WHERE id = 0")
        .fetch_optional(&mut *connection)
        .await?;
    if let Some(row) = row {
        // A write of its own: behind it in the order of the cluster is what the other one wrote by then.
        sqlx::query("REPLACE INTO autobuild_migrating (id, holder, beat) VALUES (?, ?, ?)")
            .bind(holder)
            .bind(holder)
            .bind(look)
            .execute(connection)
            .await?;
        return Ok(Some((row.try_get("holder")?, row.try_get("beat")?)));
    }
    let inserted = sqlx::query("INSERT INTO autobuild_migrating (id, holder, beat) VALUES (0, ?, 0)")
        .bind(holder)
        .execute(connection)
        .await;
    match inserted.map_err(QueueError::from) {
        Ok(_) => Ok(None),
        // Another one was first; which one the next look says.
        Err(QueueError::Duplicate(_)) => Err(QueueError::Conflict { code: 1062 }),
        Err(error) => Err(error),
    }
}
