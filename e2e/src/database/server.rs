//! One database server process.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use sqlx::{Connection, MySqlConnection};

use super::{Durability, Engine, mariadb, mysql, template_dir};
use crate::paths;
use crate::process::{Lifetime, Process, Spec};
use crate::wait::{Look, say};

/// How long a start, with the recovery of a killed server, may take on a busy machine.
const READY: Duration = Duration::from_mins(2);

/// In the folder of a detached server: a link to the folder of its socket, which lies elsewhere.
pub const SOCKET_LINK: &str = "socket";

/// A command line: the program and the arguments that always come first.
#[derive(Debug, Clone)]
pub(super) struct Program {
    pub(super) file: PathBuf,
    pub(super) args: Vec<String>,
    /// What `--version` says.
    pub(super) version: String,
}

/// What one test wants of a server beyond the usual.
#[derive(Debug, Clone, Default)]
pub struct Special {
    /// Arguments that come last, such as `--max-connections=20`.
    pub args: Vec<String>,
    /// Variables of its environment.
    pub env: Vec<(String, String)>,
}

/// What the data of a server begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Contents {
    /// That of a server which was just initialised.
    Template,
    /// Not even that: everything comes from another node.
    Nothing,
}

/// Where a server listens, and who may log in.
#[derive(Debug, Clone)]
pub(super) struct Seat {
    pub(super) address: SocketAddr,
    pub(super) password: String,
    /// Whether it makes its users itself; the next node of a Galera cluster gets them with everything else.
    pub(super) makes_users: bool,
}

impl Seat {
    /// A free port of this machine's loopback address.
    pub(super) fn free() -> Result<Self> {
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        Ok(Self { address, password: uuid::Uuid::new_v4().simple().to_string(), makes_users: true })
    }
}

/// A running server with its data.
#[derive(Debug)]
pub struct Server {
    process: Process,
    engine: Engine,
    seat: Seat,
    data: PathBuf,
    only_first: Option<&'static str>,
    /// Keeps the socket's folder; a detached server's stays when this process ends.
    _socket: Option<tempfile::TempDir>,
}

impl Server {
    pub(super) async fn start(
        dir: &Path,
        engine: Engine,
        durability: Durability,
        lifetime: Lifetime,
    ) -> Result<Self> {
        Self::start_with(dir, engine, durability, lifetime, Special::default()).await
    }

    /// The same with more arguments, of which the last one of a kind counts, and variables.
    pub(super) async fn start_with(
        dir: &Path,
        engine: Engine,
        durability: Durability,
        lifetime: Lifetime,
        special: Special,
    ) -> Result<Self> {
        let server = Self::launch(dir, engine, durability, lifetime, special, Seat::free()?).await?;
        server.wait_ready().await?;
        Ok(server)
    }

    /// The same at a place of the caller's choice, and nobody waits until it answers.
    pub(super) async fn launch(
        dir: &Path,
        engine: Engine,
        durability: Durability,
        lifetime: Lifetime,
        special: Special,
        seat: Seat,
    ) -> Result<Self> {
        let (program, template) = tokio::task::spawn_blocking(move || prepare(engine)).await??;
        let data = dir.join("data");
        if !data.exists() {
            std::fs::create_dir_all(dir)?;
            copy(&template, &data)?;
            // MySQL makes a new identity when it finds none: two copies must not look like one server.
            let _ = std::fs::remove_file(data.join("auto.cnf"));
        }
        // A server that starts takes away what looks like a temporary table in its folder for those, whoever made it.
        let temporary = dir.join("tmp");
        std::fs::create_dir_all(&temporary)?;
        let socket = paths::short()?;
        let socket_file = socket.path().join("s");
        let production = durability == Durability::Production;
        let mut args = program.args.clone();
        args.extend([
            format!("--datadir={}", data.display()),
            format!("--socket={}", socket_file.display()),
            format!("--pid-file={}", dir.join("pid").display()),
            format!("--tmpdir={}", temporary.display()),
            format!("--port={}", seat.address.port()),
            format!("--bind-address={}", seat.address.ip()),
            "--skip-name-resolve".to_owned(),
            "--max-connections=500".to_owned(),
            format!("--innodb-buffer-pool-size={}", if production { "1G" } else { "128M" }),
            // MariaDB's default NULL reads any file, MySQL's NULL none; neither is needed.
            "--secure-file-priv=".to_owned() + &dir.display().to_string(),
        ]);
        if seat.makes_users {
            let init = dir.join("init.sql");
            write_init(&init, &seat.password)?;
            args.push(format!("--init-file={}", init.display()));
        }
        let log = match engine {
            Engine::MySql => {
                args.push("--mysqlx=OFF".to_owned());
                "--innodb-redo-log-capacity=1G"
            }
            Engine::MariaDb => "--innodb-log-file-size=1G",
        };
        if production {
            args.push(log.to_owned());
        }
        if durability == Durability::Relaxed {
            args.push("--innodb-flush-log-at-trx-commit=2".to_owned());
            if special.args.is_empty() {
                args.push("--skip-log-bin".to_owned());
            }
        }
        args.extend(special.args);
        say(format!("starting {}, and waiting for it on {}", engine.as_str(), seat.address));
        let process = Process::start(Spec {
            name: engine.as_str().to_owned(),
            program: program.file,
            args,
            env: special.env,
            log_dir: dir.join("logs"),
            lifetime,
        })?;
        let socket = match lifetime {
            Lifetime::WithParent => Some(socket),
            Lifetime::Detached => {
                // Whoever stops it finds the folder by this link.
                std::os::unix::fs::symlink(socket.keep(), dir.join(SOCKET_LINK))?;
                None
            }
        };
        Ok(Self { process, engine, seat, data, only_first: None, _socket: socket })
    }

    /// Its process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Where it listens, on loopback.
    pub fn address(&self) -> SocketAddr {
        self.seat.address
    }

    /// The port it listens on, on loopback.
    pub fn port(&self) -> u16 {
        self.seat.address.port()
    }

    pub(super) fn password(&self) -> String {
        self.seat.password.clone()
    }

    pub(super) fn url(&self) -> String {
        // Loopback only: TLS would cost time and protect nothing.
        format!("mysql://autobuild:{}@{}/?ssl-mode=disabled", self.seat.password, self.seat.address)
    }

    pub(super) async fn restart(&mut self) -> Result<()> {
        if self.process.ended()?.is_none() {
            self.process.stop(Duration::from_mins(1)).await?;
        }
        self.start_again()?;
        self.wait_ready().await
    }

    /// One that has ended, and nobody waits until it answers.
    pub(super) fn start_again(&mut self) -> Result<()> {
        let mut spec = self.process.spec().clone();
        spec.args.retain(|arg| Some(arg.as_str()) != self.only_first);
        self.process = Process::start(spec)?;
        Ok(())
    }

    /// The same with one argument more, this time.
    pub(super) fn start_again_with(&mut self, argument: &'static str) -> Result<()> {
        let mut spec = self.process.spec().clone();
        spec.args.retain(|arg| arg != argument);
        spec.args.push(argument.to_owned());
        self.only_first = Some(argument);
        self.process = Process::start(spec)?;
        Ok(())
    }

    /// One that has ended, on data of its own that is as empty as at its very first start.
    pub(super) async fn start_empty(&mut self, contents: Contents) -> Result<()> {
        std::fs::remove_dir_all(&self.data)?;
        match contents {
            Contents::Template => {
                let engine = self.engine;
                let (_, template) = tokio::task::spawn_blocking(move || prepare(engine)).await??;
                copy(&template, &self.data)?;
                let _ = std::fs::remove_file(self.data.join("auto.cnf"));
            }
            Contents::Nothing => std::fs::create_dir_all(&self.data)?,
        }
        self.start_again()
    }

    /// Where its data lies.
    pub(super) fn data(&self) -> PathBuf {
        self.data.clone()
    }

    /// An argument that the next start does not have.
    pub(super) fn only_first(&mut self, argument: &'static str) {
        self.only_first = Some(argument);
    }

    pub(super) async fn wait_ready(&self) -> Result<()> {
        let what = format!("{} to answer on {}", self.engine.as_str(), self.seat.address);
        self.process
            .wait_ready(&what, READY, async || {
                MySqlConnection::connect(&self.url()).await?.close().await?;
                Ok(Look::Holds(()))
            })
            .await
    }
}

/// The user that everybody connects as. `root` has no password, so it is left for the socket alone, which lies in a
/// folder that only this user opens.
fn write_init(file: &Path, password: &str) -> Result<()> {
    let statements = format!(
        // Members of a cluster make them each, and none of them sends it to the others.
        "SET SESSION sql_log_bin = 0;\n\
         CREATE USER IF NOT EXISTS 'autobuild'@'127.0.0.1' IDENTIFIED BY '{password}';\n\
         ALTER USER 'autobuild'@'127.0.0.1' IDENTIFIED BY '{password}';\n\
         GRANT ALL PRIVILEGES ON *.* TO 'autobuild'@'127.0.0.1' WITH GRANT OPTION;\n\
         DROP USER IF EXISTS 'root'@'127.0.0.1';\n\
         DROP USER IF EXISTS 'root'@'::1';\n"
    );
    std::fs::write(file, statements)?;
    std::fs::set_permissions(file, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    Ok(())
}

/// The program, and an initialised data directory of its version.
fn prepare(engine: Engine) -> Result<(Program, PathBuf)> {
    let program = match engine {
        Engine::MySql => mysql::program()?,
        Engine::MariaDb => mariadb::program()?,
    };
    let template = template_dir(engine, &program.version)?;
    let lock = File::create(template.with_extension("lock"))?;
    lock.lock().context("wait for another process that initialises the same data directory")?;
    if !template.exists() {
        let unfinished = template.with_extension("new");
        if unfinished.exists() {
            std::fs::remove_dir_all(&unfinished)?;
        }
        say(format!("initialising a data directory for {}", engine.as_str()));
        match engine {
            Engine::MySql => mysql::initialise(&program, &unfinished)?,
            Engine::MariaDb => mariadb::initialise(&unfinished)?,
        }
        std::fs::rename(&unfinished, &template)?;
    }
    Ok((program, template))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    run(Command::new("cp").args(["-a", "--reflink=auto"]).arg(from).arg(to))
}

/// Runs a command to its end; a failure carries what it said.
pub(super) fn run(command: &mut Command) -> Result<()> {
    let output = command
        .stdin(std::process::Stdio::null())
        .output()
        .with_context(|| format!("run {}", command.get_program().display()))?;
    if !output.status.success() {
        bail!(
            "{} failed ({})\n{}{}",
            command.get_program().display(),
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}

/// What a server's `--version` says, without line ends.
pub(super) fn version(file: &Path, args: &[String]) -> Result<String> {
    let output = Command::new(file)
        .args(args)
        .arg("--version")
        .output()
        .with_context(|| format!("run {} --version", file.display()))?;
    if !output.status.success() {
        bail!("{} --version failed: {}", file.display(), String::from_utf8_lossy(&output.stderr));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    // "PATH  Ver 9.7.4 for Linux on x86_64 (Debian)": the path is no part of the version.
    Ok(text.split_once("Ver ").map_or(text.trim(), |(_, version)| version.trim()).to_owned())
}

/// `--user=root`, which both engines want to see before they run as root.
pub(super) fn as_root() -> Vec<String> {
    if rustix::process::geteuid().is_root() { vec!["--user=root".to_owned()] } else { Vec::new() }
}
