//! The install data of the documentation's examples, given to programs that read such files: what they read is what was meant.

use std::path::Path;
use std::process::Command;

use autobuild::api::InstallFormat;
use autobuild::boot::{Around, Machine, render};
use e2e::packages::{DEBCONF, IGNITION, PYKICKSTART};
use e2e::paths;

const HASH: &str = "$6$salt$hash/with.all";
const URL: &str = "http://10.0.0.5:8080/s/ab";

/// The example that says this.
fn example(says: &str) -> String {
    let page = std::fs::read_to_string(paths::root().join("docs/src/os-images.md")).unwrap();
    let mut blocks = vec![String::new()];
    for line in page.lines() {
        match line.strip_prefix("    ") {
            Some(code) => {
                let block = blocks.last_mut().unwrap();
                block.push_str(code);
                block.push('\n');
            }
            None if line.is_empty() => {}
            None => blocks.push(String::new()),
        }
    }
    blocks.retain(|block| block.contains(says) && block.contains("{{ call_home() }}"));
    assert_eq!(blocks.len(), 1, "one example says {says}");
    blocks.remove(0)
}

fn rendered(template: &str, format: InstallFormat, title: &str) -> String {
    let vars = [("root_password_hash", HASH), ("title", title)];
    let machine = Machine {
        name: "node-1".into(),
        vars: vars.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        ..Machine::default()
    };
    let around = Around { mac: "52-54-00-12-34-56", image: "image-1", digest: "sha256:ab", url: URL };
    render(template.as_bytes(), format, &machine, around).unwrap()
}

fn said(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The value of a question, as debconf has it after reading a preseed file.
fn answer(preseed: &str, question: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let database =
        |name: &str| format!("\nName: {name}\nDriver: File\nFilename: {}\n", at(&format!("{name}.dat")));
    let settings =
        format!("Config: config\nTemplates: templates\n{}{}", database("config"), database("templates"));
    std::fs::write(at("debconf.conf"), settings).unwrap();
    std::fs::write(at("preseed.cfg"), preseed).unwrap();
    let mut reads = Command::new(DEBCONF.find().unwrap());
    said(reads.arg(at("preseed.cfg")).env("DEBCONF_SYSTEMRC", at("debconf.conf")));
    let kept = std::fs::read_to_string(at("config.dat")).unwrap();
    let entry =
        kept.split("\n\n").find(|entry| entry.lines().any(|line| line == format!("Name: {question}")));
    let entry = entry.unwrap_or_else(|| panic!("{question} is not in\n{kept}"));
    entry.lines().find_map(|line| line.strip_prefix("Value:")).unwrap().trim_start().to_owned()
}

#[test]
fn debconf_reads_the_values_of_the_preseed_file() {
    let data = rendered(&example("d-i preseed/early_command"), InstallFormat::Preseed, "");
    assert_eq!(answer(&data, "passwd/root-password-crypted"), HASH);
    let late = answer(&data, "preseed/late_command");
    assert!(late.starts_with("mkdir -p /target/etc/systemd/system/") && late.contains(URL), "{late}");
    for title in ["John Doe", "", "it's", "a \\ b", "100 % \"sure\" # of it"] {
        let data =
            rendered("d-i passwd/user-fullname string {{ vars.title }}\n", InstallFormat::Preseed, title);
        assert_eq!(answer(&data, "passwd/user-fullname"), title);
    }
}

/// What Anaconda's reader makes of a kickstart file: the name, the password, and the scripts.
fn kickstart(data: &str) -> serde_json::Value {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ks.cfg");
    std::fs::write(&file, data).unwrap();
    let reads = "import json, sys\n\
                 from pykickstart.parser import KickstartParser\n\
                 from pykickstart.version import makeVersion\n\
                 read = KickstartParser(makeVersion())\n\
                 read.readKickstart(sys.argv[1])\n\
                 h = read.handler\n\
                 name = h.network.network[0].hostname if h.network.network else None\n\
                 scripts = [script.script for script in h.scripts]\n\
                 print(json.dumps({'name': name, 'password': h.rootpw.password, 'scripts': scripts}))\n";
    let python = PYKICKSTART.find().unwrap().join("python");
    serde_json::from_str(&said(Command::new(python).args(["-c", reads]).arg(&file))).unwrap()
}

#[test]
fn anacondas_reader_reads_the_values_of_the_kickstart_file() {
    let read = kickstart(&rendered(&example("%post"), InstallFormat::Kickstart, ""));
    assert_eq!((&read["name"], &read["password"]), (&"node-1".into(), &HASH.into()));
    let post = read["scripts"][1].as_str().unwrap();
    assert!(post.starts_with("mkdir -p /etc/systemd/system/") && post.contains(URL), "{post}");
    for title in ["John Doe", "it's", "a \\ b", "100 % \"sure\" # of it", "%end"] {
        let read =
            kickstart(&rendered("rootpw --plaintext {{ vars.title }}\n", InstallFormat::Kickstart, title));
        assert_eq!(read["password"], title);
    }
}

#[test]
fn the_cloud_configs_have_the_commands_as_one_string_each() {
    let data = rendered(&example("autoinstall:"), InstallFormat::Autoinstall, "");
    let read: serde_yaml::Value = serde_yaml::from_str(&data).unwrap();
    let all = &read["autoinstall"];
    assert_eq!(all["identity"]["hostname"], "node-1");
    assert_eq!(all["identity"]["password"], HASH);
    let first = all["early-commands"][0].as_str().unwrap();
    assert_eq!(first, format!("curl -s --retry 20 -d '' {URL}/booted"));
    assert!(all["late-commands"][0].as_str().unwrap().starts_with("mkdir -p /target/etc/systemd/system/"));
    let data = rendered(&example("runcmd:"), InstallFormat::CloudInit, "");
    let read: serde_yaml::Value = serde_yaml::from_str(&data).unwrap();
    assert!(read["runcmd"][0].as_str().unwrap().ends_with("start autobuild-installed.service"));
}

#[test]
fn ignition_takes_the_configuration() {
    let data = rendered(&example("\"ignition\""), InstallFormat::Ignition, "");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.ign");
    std::fs::write(&file, &data).unwrap();
    let validate: &Path = &IGNITION.find().unwrap().root.join("usr/bin/ignition-validate");
    said(Command::new(validate).arg(&file));
    let read: serde_json::Value = serde_json::from_str(&data).unwrap();
    assert_eq!(read["storage"]["files"][0]["contents"]["source"], "data:,node-1");
    let unit = read["systemd"]["units"][0]["contents"].as_str().unwrap();
    assert!(unit.starts_with("[Unit]\n") && unit.contains("\nWantedBy=multi-user.target\n"), "{unit}");
}
