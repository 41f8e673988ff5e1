//! `autobuild explain`: reads a Server and an observation, prints the decision and the status that follows.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use crate::api::Server;
use crate::plan::{Facts, explain};

/// Flags of `autobuild explain`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The Server, as `kubectl get server NAME -o yaml` prints it.
    #[arg(long, value_name = "FILE")]
    pub server: PathBuf,
    /// What is known beside it (YAML): known, job, secret, site, nowMs. Without it nothing is known.
    #[arg(long, value_name = "FILE")]
    pub known: Option<PathBuf>,
}

/// Why nothing could be explained.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// A file could not be read.
    #[error("cannot read {0}: {1}")]
    Read(PathBuf, std::io::Error),
    /// A file is not what it should be.
    #[error("{0} does not hold what is expected: {1}")]
    Parse(PathBuf, serde_yaml::Error),
    /// The answer cannot be written.
    #[error("the answer cannot be written as YAML: {0}")]
    Print(#[from] serde_yaml::Error),
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T, ExplainError> {
    let text = std::fs::read_to_string(path).map_err(|error| ExplainError::Read(path.to_owned(), error))?;
    // Through a value: two occurrences of one key are an error then, and tagged enums read as in JSON.
    let value: serde_json::Value =
        serde_yaml::from_str(&text).map_err(|error| ExplainError::Parse(path.to_owned(), error))?;
    serde_json::from_value(value)
        .map_err(|error| ExplainError::Parse(path.to_owned(), serde::de::Error::custom(error)))
}

/// Prints the decision, the status and the events.
#[expect(clippy::print_stdout, reason = "printing is what this subcommand is for")]
pub fn run(args: &Args) -> Result<(), ExplainError> {
    let server: Server = read(&args.server)?;
    let facts: Facts = args.known.as_deref().map(read).transpose()?.unwrap_or_default();
    let explanation = explain(&facts.about(server));
    // Through JSON, so that enums print as they stand in the API and not as YAML tags.
    let value =
        serde_json::to_value(&explanation).map_err(serde::de::Error::custom).map_err(ExplainError::Print)?;
    print!("{}", serde_yaml::to_string(&value)?);
    Ok(())
}
