//! The process that is a virtual machine.
#![expect(clippy::disallowed_methods, reason = "a virtual machine is a process")]

use std::fs::File;
use std::io;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::process::{Child, Command};

use super::command_line::{NETWORK_CARD, Start, arguments};
use super::qmp::{Qmp, QmpError};
use super::settings::QemuSettings;

/// Has the kernel end the machine with the emulator, however that ends. (It looks at the thread that started the
/// process: the threads of the runtime last as long as the emulator.)
pub(super) const SETPRIV: &str = "setpriv";

/// How long QEMU may take to end by itself.
const FAREWELL: Duration = Duration::from_secs(10);

/// Why a machine did not start.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    #[error("its disk: {0}")]
    Disk(io::Error),
    #[error("its logs: {0}")]
    Log(io::Error),
    #[error("the program: {0}")]
    Program(io::Error),
    #[error("{error}{said}")]
    Channel { error: QmpError, said: String },
}

/// A virtual machine that runs. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    qmp: Qmp,
}

impl Process {
    /// Starts a machine, which boots at once.
    pub(super) async fn start(settings: &QemuSettings, start: Start<'_>) -> Result<Self, StartError> {
        make_disk(settings, start).map_err(StartError::Disk)?;
        let log = settings.program_log(start.name);
        let before = std::fs::metadata(&log).map_or(0, |log| log.len());
        let errors = File::options().create(true).append(true).open(&log).map_err(StartError::Log)?;
        let mut command = Command::new(SETPRIV);
        command.args(["--pdeathsig", "KILL", "--"]).arg(settings.program()).args(arguments(start));
        // Ctrl-C on the terminal is for the emulator, which ends its machines.
        command.process_group(0).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(errors);
        let mut child = command.spawn().map_err(StartError::Program)?;
        let channel = child.stdin.take().zip(child.stdout.take());
        let (input, output) =
            channel.ok_or_else(|| StartError::Program(io::Error::other("it has no standard input")))?;
        let told = async {
            let mut qmp = Qmp::open(input, output).await?;
            // The firmware has its boot order; from now on, also when the guest starts again, it is the disk's turn.
            let path = format!("/machine/peripheral/{NETWORK_CARD}");
            let order = json!({ "path": path, "property": "bootindex", "value": -1 });
            qmp.execute("qom-set", &order).await?;
            Ok(qmp)
        };
        match told.await {
            Ok(qmp) => Ok(Self { child, qmp }),
            Err(error) => {
                let _ = child.kill().await;
                let said = std::fs::read(&log).unwrap_or_default();
                let said = said.get(usize::try_from(before).unwrap_or(0)..).unwrap_or_default();
                let said = String::from_utf8_lossy(said).trim().to_owned();
                let said = if said.is_empty() { said } else { format!(": {said}") };
                Err(StartError::Channel { error, said })
            }
        }
    }

    /// Presses a button, by the name of its command.
    pub(super) async fn press(&mut self, command: &'static str) -> Result<(), QmpError> {
        self.qmp.execute(command, &Value::Null).await
    }

    /// Waits until it has ended by itself. May be dropped at any time.
    pub(super) async fn ended(&mut self) {
        self.qmp.until_end().await;
        self.end().await;
    }

    /// Takes its power away.
    pub(super) async fn quit(mut self) {
        // An answer may be missing: the process ends first.
        let _ = self.press("quit").await;
        self.end().await;
    }

    async fn end(&mut self) {
        if tokio::time::timeout(FAREWELL, self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
    }
}

/// A disk that is not there yet is made, and is empty.
fn make_disk(settings: &QemuSettings, start: Start<'_>) -> io::Result<()> {
    match File::options().write(true).create_new(true).open(start.disk) {
        Ok(file) => file.set_len(settings.disk_bytes()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}
