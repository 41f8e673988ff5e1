//! The text that has an installed system call home, run by the shells that run it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Request, State};
use http::StatusCode;
use tokio::net::TcpListener;

use crate::api::InstallFormat;
use crate::boot::{Around, Machine, render};

const ONE_LINE: [(InstallFormat, &str); 4] = [
    (InstallFormat::Kickstart, "{{ call_home() }}\n"),
    (InstallFormat::Preseed, "d-i preseed/late_command string {{ call_home() }}\n"),
    (InstallFormat::Autoinstall, "autoinstall:\n  late-commands:\n    - {{ call_home() }}\n"),
    (InstallFormat::CloudInit, "runcmd:\n  - {{ call_home() }}\n"),
];

fn rendered(format: InstallFormat, template: &str, url: &str) -> String {
    let around = Around { mac: "52-54-00-12-34-56", image: "debian", digest: "sha256:ab", url };
    render(template.as_bytes(), format, &Machine::default(), around).unwrap()
}

/// The unit, as Ignition is given it.
fn unit(url: &str) -> String {
    let data = rendered(InstallFormat::Ignition, "{\"contents\": {{ call_home() }}}", url);
    let data: serde_json::Value = serde_json::from_str(&data).unwrap();
    data["contents"].as_str().unwrap().to_owned()
}

/// What systemd starts, as systemd.service(5) and systemd.syntax(7) have it: a backslash takes the next character, and `%%` and
/// `$$` are one of them.
fn started(unit: &str) -> String {
    let line = unit.lines().find_map(|line| line.strip_prefix("ExecStart=/bin/bash -c '")).unwrap();
    let mut chars = line.strip_suffix('\'').unwrap().chars();
    let mut script = String::new();
    while let Some(c) = chars.next() {
        match c {
            '\'' => panic!("the word ends before its end: {line}"),
            '\\' => {
                let next = chars.next().unwrap();
                assert!("\\'".contains(next), "\\{next} means something else");
                script.push(next);
            }
            '%' | '$' => {
                assert_eq!(chars.next(), Some(c), "{line}");
                script.push(c);
            }
            c => script.push(c),
        }
    }
    script
}

/// The commands as their shell is given them.
fn commands(format: InstallFormat, data: &str) -> String {
    let of = |path: &[&str]| {
        let mut found: &serde_yaml::Value = &serde_yaml::from_str(data).unwrap();
        for name in path {
            found = &found[*name];
        }
        found[0].as_str().unwrap().to_owned()
    };
    match format {
        InstallFormat::Preseed => {
            data.strip_prefix("d-i preseed/late_command string ").unwrap().trim_end().to_owned()
        }
        InstallFormat::Autoinstall => of(&["autoinstall", "late-commands"]),
        InstallFormat::CloudInit => of(&["runcmd"]),
        _ => data.to_owned(),
    }
}

/// A machine's programs: those that are named, which write down how they were called.
fn programs(folder: &Path, names: &[&str]) {
    for name in names {
        let text = format!("#!/bin/bash\necho \"{name} $*\" >> {}/called\n", folder.display());
        program(folder, name, &text);
    }
}

fn program(folder: &Path, name: &str, text: &str) {
    fs::write(folder.join(name), text).unwrap();
    fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o755)).unwrap();
}

fn called(folder: &Path) -> String {
    fs::read_to_string(folder.join("called")).unwrap_or_default()
}

/// Runs it on a machine that has nothing on its path but what is in that folder.
async fn run(shell: &'static str, script: String, path: &Path) -> Output {
    let path = path.to_owned();
    let run = move || Command::new(shell).arg("-c").arg(script).env_clear().env("PATH", path).output();
    tokio::task::spawn_blocking(run).await.unwrap().unwrap()
}

#[derive(Clone, Default)]
struct Answers {
    /// Those to come; with none left it is 200.
    to_come: Arc<Mutex<Vec<StatusCode>>>,
    /// What was asked.
    asked: Arc<Mutex<Vec<String>>>,
}

async fn answer(State(answers): State<Answers>, request: Request) -> StatusCode {
    let length = request.headers().get("content-length").map(|length| length.to_str().unwrap().to_owned());
    let asked = format!("{} {} {:?} {length:?}", request.method(), request.uri().path(), request.version());
    answers.asked.lock().unwrap().push(asked);
    answers.to_come.lock().unwrap().pop().unwrap_or(StatusCode::OK)
}

async fn serve(address: &str, answers: &Answers) -> String {
    let listener = TcpListener::bind((address, 0)).await.unwrap();
    let at = listener.local_addr().unwrap();
    let router = Router::new().fallback(answer).with_state(answers.clone());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    format!("http://{at}/s/ab")
}

#[tokio::test]
async fn it_calls_with_bash_alone_until_it_is_answered_for_good_and_takes_itself_away() {
    for (to_come, last) in [
        (vec![StatusCode::OK], "200"),
        (vec![StatusCode::NOT_FOUND], "404"),
        (vec![StatusCode::OK, StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE], "200"),
    ] {
        let (calls, machine) = (to_come.len(), tempfile::tempdir().unwrap());
        programs(machine.path(), &["sleep", "systemctl", "rm"]);
        let answers = Answers { to_come: Arc::new(Mutex::new(to_come)), ..Answers::default() };
        let url = serve("127.0.0.1", &answers).await;
        let output = run("/bin/bash", started(&unit(&url)), machine.path()).await;
        assert!(output.status.success(), "{output:?}");
        let wanted = vec!["POST /s/ab/installed HTTP/1.0 Some(\"0\")".to_owned(); calls];
        assert_eq!(*answers.asked.lock().unwrap(), wanted);
        let unit = "autobuild-installed.service";
        let away = format!("systemctl disable {unit}\nrm -f /etc/systemd/system/{unit}\n");
        assert_eq!(called(machine.path()), "sleep 5\n".repeat(calls - 1) + &away);
        assert!(String::from_utf8(output.stdout).unwrap().contains(&format!("AutoBuild knows: {last}")));
    }
}

#[tokio::test]
async fn an_address_of_ipv6_can_be_called() {
    let machine = tempfile::tempdir().unwrap();
    programs(machine.path(), &["sleep", "systemctl", "rm"]);
    let answers = Answers::default();
    let url = serve("::1", &answers).await;
    let output = run("/bin/bash", started(&unit(&url)), machine.path()).await;
    assert!(output.status.success() && answers.asked.lock().unwrap().len() == 1, "{output:?}");
}

#[tokio::test]
async fn a_machine_that_has_curl_or_python_calls_with_it() {
    let answers = Answers::default();
    let url = serve("127.0.0.1", &answers).await;
    let python =
        run("/bin/bash", "exec python3 -c 'import sys; print(sys.executable)'".into(), Path::new(PATH)).await;
    let python = String::from_utf8(python.stdout).unwrap();
    let machine = tempfile::tempdir().unwrap();
    programs(machine.path(), &["sleep", "systemctl", "rm"]);
    program(machine.path(), "python3", &format!("#!/bin/bash\nexec {} \"$@\"\n", python.trim()));
    let output = run("/bin/bash", started(&unit(&url)), machine.path()).await;
    assert!(output.status.success(), "{output:?}");
    assert_eq!(answers.asked.lock().unwrap().pop().unwrap(), "POST /s/ab/installed HTTP/1.1 Some(\"0\")");
    // The first one is refused, as with a certificate that nobody knows.
    program(machine.path(), "curl", "#!/bin/bash\n[[ $* == *http* ]] && echo 404\n");
    for format in ["http", "https"] {
        let output =
            run("/bin/bash", started(&unit(&format!("{format}://boot.invalid/s/ab"))), machine.path()).await;
        assert!(output.status.success(), "{output:?}");
    }
    assert!(answers.asked.lock().unwrap().is_empty(), "curl alone was asked");
}

/// Where programs of this machine are.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

#[tokio::test]
async fn every_format_has_the_same_unit_and_starts_it_with_the_system() {
    let url = "http://10.0.0.5:8080/s/ab";
    for (format, template) in ONE_LINE {
        let root = tempfile::tempdir().unwrap();
        let there = root.path().display().to_string();
        let text = commands(format, &rendered(format, template, url));
        let (from, to) = match format {
            InstallFormat::Preseed | InstallFormat::Autoinstall => ("/target/", format!("{there}/")),
            _ => ("/etc/systemd", format!("{there}/etc/systemd")),
        };
        let (text, folder) = match text.split_once("; systemctl daemon-reload") {
            Some((text, starts)) => {
                assert_eq!(format, InstallFormat::CloudInit, "nothing is started in an installer");
                assert_eq!(starts, "; systemctl --no-block start autobuild-installed.service");
                (text.to_owned(), root.path().join("etc/systemd/system"))
            }
            None => (text, root.path().join("etc/systemd/system")),
        };
        // What is in the text of the unit itself stays.
        let (before, rest) = text.split_once("; printf").unwrap();
        let (lines, after) = rest.rsplit_once(" > ").unwrap();
        let placed = format!("{}; printf{lines} > {}", before.replace(from, &to), after.replace(from, &to));
        let output = run("/bin/sh", placed, Path::new(PATH)).await;
        assert!(output.status.success(), "{format:?}: {output:?}");
        let name = "autobuild-installed.service";
        assert_eq!(fs::read_to_string(folder.join(name)).unwrap(), unit(url), "{format:?}");
        let link = folder.join("multi-user.target.wants").join(name);
        assert_eq!(fs::read_to_string(link).unwrap(), unit(url), "{format:?}");
    }
}
