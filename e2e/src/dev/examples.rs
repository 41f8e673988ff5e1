//! The committed examples, rendered for the running emulator: the documentation addresses become its systems, the
//! placeholders its password and its CA.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_yaml::Value;

use crate::autobuild::Emulator;
use crate::fleet::source_at;
use crate::paths;

/// The address in the examples at which nothing answers, here and there.
const UNREACHABLE: &str = "192.0.2.250";
/// The other addresses are 192.0.2.(BASE + number of the system).
const BASE: usize = 10;

/// What the emulated BMCs want to hear.
#[derive(Debug, Clone, Copy)]
pub(super) struct Login<'a> {
    pub(super) username: &'a str,
    pub(super) password: &'a str,
}

/// Renders the examples of a folder of `manifests/` into `to`; what is booted is at `files`.
pub(super) fn render(
    folder: &str,
    emulator: &Emulator,
    login: Login<'_>,
    files: &str,
    to: &Path,
) -> Result<PathBuf> {
    std::fs::create_dir_all(to)?;
    let authority = std::fs::read_to_string(emulator.authority())?;
    let from = paths::root().join("manifests").join(folder);
    for entry in std::fs::read_dir(&from).with_context(|| format!("read {}", from.display()))? {
        let entry = entry?;
        let text = std::fs::read_to_string(entry.path())?;
        let around = Around { https: emulator.https(), login, authority: &authority, files };
        let rendered =
            render_file(&text, &around).with_context(|| format!("render {}", entry.path().display()))?;
        std::fs::write(to.join(entry.file_name()), rendered)?;
    }
    Ok(to.to_path_buf())
}

/// What the placeholders become.
struct Around<'a> {
    https: &'a str,
    login: Login<'a>,
    authority: &'a str,
    files: &'a str,
}

fn render_file(text: &str, around: &Around<'_>) -> Result<String> {
    let Around { https, login, authority, files } = *around;
    let comment: String = text.split_inclusive('\n').take_while(|line| line.starts_with('#')).collect();
    let mut documents = Vec::new();
    for document in serde_yaml::Deserializer::from_str(text) {
        let mut value = <Value as serde::Deserialize>::deserialize(document)?;
        match value["kind"].as_str() {
            Some("Server") => {
                let address =
                    value["spec"]["bmc"]["address"].as_str().context("a Server without an address")?;
                value["spec"]["bmc"]["address"] = Value::from(emulated(address, https)?);
            }
            Some("Secret") if value["metadata"]["name"] == "bmc" => {
                value["stringData"]["username"] = Value::from(login.username);
                value["stringData"]["password"] = Value::from(login.password);
            }
            Some("OSImage") => {
                let args = value["spec"]["source"]["args"].as_sequence().cloned().unwrap_or_default();
                let args: Vec<&str> = args.iter().filter_map(Value::as_str).collect();
                value["spec"]["source"] = serde_yaml::to_value(source_at(files, &args))?;
            }
            Some("ConfigMap") => value["data"]["ca.crt"] = Value::from(authority),
            _ => {}
        }
        documents.push(serde_yaml::to_string(&value)?);
    }
    Ok(comment + &documents.join("---\n"))
}

fn emulated(address: &str, https: &str) -> Result<String> {
    if address.contains(UNREACHABLE) {
        // Port 1 of loopback: nobody listens there.
        return Ok("redfish+https://127.0.0.1:1/redfish/v1/Systems/1".to_owned());
    }
    let number: usize = address
        .strip_prefix("redfish+https://192.0.2.")
        .and_then(|rest| rest.split('/').next())
        .and_then(|number| number.parse().ok())
        .with_context(|| format!("{address} is no address of an example"))?;
    Ok(format!("redfish+https://{https}/redfish/v1/Systems/system-{:04}", number - BASE))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::{Around, Login, emulated, render_file};

    const LOGIN: Login<'_> = Login { username: "u", password: "p" };

    #[test]
    fn an_example_keeps_its_comment_and_gets_the_emulators_address() {
        let text = "# A story.\nkind: Server\nspec:\n  bmc:\n    address: redfish+https://192.0.2.12/redfish/v1/Systems/1\n";
        let rendered = render_file(
            text,
            &Around { https: "127.0.0.1:4443", login: LOGIN, authority: "ca", files: "f:80" },
        )
        .unwrap();
        assert!(rendered.starts_with("# A story.\n"), "{rendered}");
        assert!(
            rendered.contains("redfish+https://127.0.0.1:4443/redfish/v1/Systems/system-0002"),
            "{rendered}"
        );
    }

    #[test]
    fn an_address_that_is_no_documentation_address_is_refused() {
        assert!(emulated("redfish+https://198.51.100.1/redfish/v1/Systems/1", "127.0.0.1:1").is_err());
    }
}
