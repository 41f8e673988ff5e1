//! A snapshot that is held open elsewhere: while it is, the server keeps every old row version and delete mark.

use sqlx::{Connection as _, MySqlConnection};

use super::{QueueError, Scratch};

/// An open REPEATABLE READ transaction. Ends when it is dropped.
#[derive(Debug)]
pub struct Snapshot {
    connection: MySqlConnection,
}

impl Snapshot {
    /// Opens one over everything that is committed now.
    pub async fn open(scratch: &Scratch) -> Result<Self, QueueError> {
        let mut connection = scratch.connect().await?;
        for statement in [
            "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",
            "START TRANSACTION WITH CONSISTENT SNAPSHOT",
        ] {
            sqlx::raw_sql(statement).execute(&mut connection).await?;
        }
        Ok(Self { connection })
    }

    /// Lets go of it.
    pub async fn close(mut self) -> Result<(), QueueError> {
        sqlx::raw_sql("ROLLBACK").execute(&mut self.connection).await?;
        self.connection.close().await.ok();
        Ok(())
    }
}
