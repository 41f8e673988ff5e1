//! QEMU's control channel: JSON, one object a line. Four commands, on the standard input and output of the process.

use std::io;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{ChildStdin, ChildStdout};

/// A virtual machine that does not answer for so long is broken. Long: two cores may run many.
const PATIENCE: Duration = Duration::from_mins(1);

/// What came of a command.
#[derive(Debug, thiserror::Error)]
pub(super) enum QmpError {
    /// The process is gone, or closed the channel.
    #[error("QEMU ended")]
    Ended,
    #[error("QEMU does not answer")]
    Silent,
    #[error("QEMU refuses {command}: {why}")]
    Refused { command: &'static str, why: String },
    #[error("the control channel: {0}")]
    Channel(#[from] io::Error),
}

/// One line of the channel that matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Line {
    Done,
    Refused(String),
    /// The greeting, or an event.
    Other,
}

fn read(line: &str) -> Line {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(rename = "return")]
        returned: Option<Value>,
        error: Option<Refusal>,
    }
    #[derive(Deserialize)]
    struct Refusal {
        desc: String,
    }
    match serde_json::from_str(line) {
        Ok(Answer { error: Some(Refusal { desc }), .. }) => Line::Refused(desc),
        Ok(Answer { returned: Some(_), .. }) => Line::Done,
        _ => Line::Other,
    }
}

/// The channel to one process.
#[derive(Debug)]
pub(super) struct Qmp {
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Qmp {
    /// Opens the channel of a process that was just started.
    pub(super) async fn open(input: ChildStdin, output: ChildStdout) -> Result<Self, QmpError> {
        let mut qmp = Self { input, output: BufReader::new(output).lines() };
        qmp.execute("qmp_capabilities", &Value::Null).await?;
        Ok(qmp)
    }

    /// Runs a command, and waits until it is done.
    pub(super) async fn execute(&mut self, command: &'static str, arguments: &Value) -> Result<(), QmpError> {
        let mut line = match arguments {
            Value::Null => json!({ "execute": command }),
            arguments => json!({ "execute": command, "arguments": arguments }),
        }
        .to_string();
        line.push('\n');
        let answered = async {
            self.input.write_all(line.as_bytes()).await?;
            loop {
                let line = self.output.next_line().await?.ok_or(QmpError::Ended)?;
                match read(&line) {
                    Line::Done => return Ok(()),
                    Line::Refused(why) => return Err(QmpError::Refused { command, why }),
                    Line::Other => {}
                }
            }
        };
        tokio::time::timeout(PATIENCE, answered).await.unwrap_or(Err(QmpError::Silent))
    }

    /// Reads what QEMU tells by itself until it ends: a channel that nobody reads would stop it. May be dropped at any
    /// time.
    pub(super) async fn until_end(&mut self) {
        while let Ok(Some(_)) = self.output.next_line().await {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_from_greetings_and_events() {
        assert_eq!(read(r#"{"return": {}}"#), Line::Done);
        let refused = r#"{"error": {"class": "GenericError", "desc": "no such device"}}"#;
        assert_eq!(read(refused), Line::Refused("no such device".to_owned()));
        for other in [r#"{"QMP": {"capabilities": []}}"#, r#"{"event": "RESET", "data": {}}"#, "no JSON"] {
            assert_eq!(read(other), Line::Other, "{other}");
        }
    }
}
