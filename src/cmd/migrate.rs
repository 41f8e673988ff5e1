//! `autobuild migrate`: the only process that needs a user with DDL rights.

use super::connect::AddressArgs;
use crate::queue::{QueueError, migrate};

/// Brings the database's schema to this release's version.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The user needs DDL rights.
    #[command(flatten)]
    address: AddressArgs,
    /// The database was restored from a backup: workers stop what they hold, and every job is decided again.
    #[arg(long)]
    new_epoch: bool,
}

pub(super) async fn run(args: Args) -> Result<(), QueueError> {
    let migrated = migrate(args.address.address(), args.new_epoch).await?;
    tracing::info!(
        version = migrated.version,
        serves_releases_from = migrated.serves_from,
        epoch = migrated.epoch,
        "the schema is up to date"
    );
    Ok(())
}
