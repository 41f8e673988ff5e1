//! AutoBuild's own processes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail};

use crate::control_plane::install_crypto_provider;
use crate::paths;
use crate::process::{Lifetime, Process, Spec};
use crate::wait::{Look, say};

/// How long a process may take to bind its port, or to become ready when all it needs is there.
const READY: Duration = Duration::from_mins(1);

/// The `autobuild` binary of this build: `AUTOBUILD_BIN`, or the one beside the running test.
pub fn binary() -> Result<PathBuf> {
    if let Some(file) = std::env::var_os("AUTOBUILD_BIN") {
        return Ok(PathBuf::from(file));
    }
    paths::built("autobuild")
}

/// Where AutoBuild's processes of one test live.
#[derive(Debug, Clone)]
pub struct Autobuild {
    binary: PathBuf,
    dir: PathBuf,
    lifetime: Lifetime,
}

/// A running process with its port for `/livez`, `/readyz` and `/metrics`.
#[derive(Debug)]
pub struct Running {
    process: Process,
    address: String,
    listen_file: PathBuf,
}

/// A running fleet of emulated BMCs.
#[derive(Debug)]
pub struct Emulator {
    process: Process,
    http: String,
    https: String,
    authority: PathBuf,
}

impl Autobuild {
    /// Processes whose files lie in `dir`.
    pub fn new(dir: &Path, lifetime: Lifetime) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        Ok(Self { binary: binary()?, dir: dir.to_path_buf(), lifetime })
    }

    /// The same with another program: that of another release.
    #[must_use]
    pub fn of(&self, program: &Path) -> Self {
        Self { binary: program.to_path_buf(), ..self.clone() }
    }

    fn spec(&self, name: &str, args: Vec<String>, env: &[(&str, &str)]) -> Spec {
        Spec {
            name: name.to_owned(),
            program: self.binary.clone(),
            args,
            env: env.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            log_dir: self.dir.join("logs"),
            lifetime: self.lifetime,
        }
    }

    /// Runs a subcommand to its end, and returns its log if that was a success.
    pub async fn run(&self, name: &str, args: &[&str], env: &[(&str, &str)]) -> Result<String> {
        let mut spec = self.spec(name, args.iter().map(|arg| (*arg).to_owned()).collect(), env);
        // It is waited for: nothing of it is to be stopped later.
        spec.lifetime = Lifetime::WithParent;
        let process = Process::start(spec)?;
        let status = process.wait(Duration::from_mins(2)).await?;
        if !status.success() {
            bail!("autobuild {} ended with {status}\n{}", args.first().unwrap_or(&""), process.log_tail());
        }
        Ok(std::fs::read_to_string(process.log())?)
    }

    /// Makes or upgrades the tables.
    pub async fn migrate(&self, database_url: &str) -> Result<()> {
        say("migrating the database");
        self.run("migrate", &["migrate"], &[("DATABASE_URL", database_url)]).await?;
        Ok(())
    }

    /// Starts a long-running subcommand (the first of `args`) and waits until its port is bound, no more: what
    /// readiness means depends on the test.
    pub async fn start(&self, name: &str, args: &[&str], env: &[(&str, &str)]) -> Result<Running> {
        let listen_file = self.dir.join(format!("{name}.listen"));
        let _ = std::fs::remove_file(&listen_file);
        let mut all: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        all.extend(["--listen".to_owned(), "127.0.0.1:0".to_owned()]);
        all.extend(["--listen-file".to_owned(), listen_file.display().to_string()]);
        say(format!("starting {name}, and waiting for its port"));
        let process = Process::start(self.spec(name, all, env))?;
        let address = wait_address(&process, &listen_file).await?;
        Ok(Running { process, address, listen_file })
    }

    /// Starts a fleet of `systems` emulated BMCs whose user and password are as given; `more` are further arguments.
    pub async fn emulator(
        &self,
        systems: u32,
        username: &str,
        password: &str,
        more: &[&str],
    ) -> Result<Emulator> {
        let plain_file = self.dir.join("emulator-http.listen");
        let tls_file = self.dir.join("emulator-https.listen");
        let authority = self.dir.join("emulator-ca.crt");
        for file in [&plain_file, &tls_file, &authority] {
            let _ = std::fs::remove_file(file);
        }
        let systems = systems.to_string();
        let mut args: Vec<String> =
            ["emulate", "--systems", &systems, "--username", username, "--password", password]
                .map(str::to_owned)
                .to_vec();
        for (flag, file) in
            [("--listen-file", &plain_file), ("--listen-https-file", &tls_file), ("--ca-out", &authority)]
        {
            args.extend([flag.to_owned(), file.display().to_string()]);
        }
        for flag in ["--listen", "--listen-https"] {
            if !more.contains(&flag) {
                args.extend([flag.to_owned(), "127.0.0.1:0".to_owned()]);
            }
        }
        args.extend(more.iter().map(|arg| (*arg).to_owned()));
        say("starting the emulator, and waiting for its ports");
        let process = Process::start(self.spec("emulator", args, &[]))?;
        let http = wait_address(&process, &plain_file).await?;
        let https = wait_address(&process, &tls_file).await?;
        process
            .wait_ready("the emulator's CA certificate", READY, async || {
                Ok(if authority.is_file() { Look::Holds(()) } else { Look::NotYet("no file".to_owned()) })
            })
            .await?;
        Ok(Emulator { process, http, https, authority })
    }
}

async fn wait_address(process: &Process, file: &Path) -> Result<String> {
    process
        .wait_ready(&format!("{} to bind its port", process.name()), READY, async || {
            let address = std::fs::read_to_string(file).unwrap_or_default().trim().to_owned();
            Ok(if address.is_empty() {
                Look::NotYet("no address yet".to_owned())
            } else {
                Look::Holds(address)
            })
        })
        .await
}

impl Running {
    /// Its process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// `host:port` of its endpoints.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The URL of one of its endpoints, such as `/metrics`.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The text of one of its endpoints, whatever the status.
    pub async fn get(&self, path: &str) -> Result<(u16, String)> {
        get(&self.url(path)).await
    }

    /// Waits until `/readyz` answers 200; what it says meanwhile is printed.
    pub async fn wait_ready(&self) -> Result<()> {
        self.process
            .wait_ready(&format!("{} to be ready", self.process.name()), READY, async || {
                let (status, text) = self.get("/readyz").await?;
                Ok(if status == 200 {
                    Look::Holds(())
                } else {
                    Look::NotYet(format!("{status}: {}", text.trim()))
                })
            })
            .await
    }

    /// Kills it if it runs, and starts it again with the same arguments.
    pub async fn restart(&mut self) -> Result<()> {
        self.process.kill().await?;
        let _ = std::fs::remove_file(&self.listen_file);
        self.process = Process::start(self.process.spec().clone())?;
        self.address = wait_address(&self.process, &self.listen_file).await?;
        Ok(())
    }
}

impl Emulator {
    /// Its process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// `host:port` of plain HTTP.
    pub fn http(&self) -> &str {
        &self.http
    }

    /// `host:port` of HTTPS.
    pub fn https(&self) -> &str {
        &self.https
    }

    /// The file with the certificate that signed its HTTPS certificate.
    pub fn authority(&self) -> &Path {
        &self.authority
    }
}

/// GET of a plain-HTTP address: the status and the text.
pub async fn get(url: &str) -> Result<(u16, String)> {
    install_crypto_provider();
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10)).build()?;
    let answer = client.get(url).send().await?;
    Ok((answer.status().as_u16(), answer.text().await?))
}
