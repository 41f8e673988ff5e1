//! `OSImage`: what a machine is installed with, as its author declares it.
//!
//! The doc comments of fields are what `kubectl explain` prints (of an optional enum, that of its type): they speak to
//! whoever writes a manifest.
#![allow(clippy::duplicated_attributes, reason = "every printer column has a type")]

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::kernel_args;

/// A file that machines are given, and the digest that it must have.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
// Rules of the object, not a pattern of the field: the API server repeats a value that fails its pattern.
#[x_kube(validation = (
    "!self.url.matches('^[^/]*//[^/]*@')",
    "url has user information before an '@': serve the file without a password, its sha256 protects it"
))]
#[x_kube(validation = (
    "self.url.matches('^https?://[^[:space:]/@?#]+(/[^[:space:]#]*)?$')",
    "url is written https://HOST[:PORT]/PATH (or http://, from a host that the operator allows), without spaces and '#'"
))]
pub struct Artifact {
    /// Where the boot service gets the file: https://HOST/PATH or https://HOST:PORT/PATH; http:// from a host that the
    /// operator allows (--http-source).
    #[schemars(length(min = 1, max = 2048))]
    pub url: String,
    /// The SHA-256 of the file, 64 lower-case hexadecimal digits. Machines are never given a file with another one.
    #[schemars(length(max = 64), regex(pattern = r"^[0-9a-f]{64}$"))]
    pub sha256: String,
}

/// What a machine boots to be installed: either kernel and initrd, or an ISO.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "has(self.iso) ? !has(self.kernel) && !has(self.initrd) && size(self.args) == 0 : has(self.kernel) && has(self.initrd)",
    "source is either kernel and initrd (with args), or iso alone"
))]
pub struct ImageSource {
    /// The kernel of the installer. Needs initrd beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<Artifact>,
    /// The initial RAM disk of the installer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initrd: Option<Artifact>,
    /// Arguments of the kernel, one to an item: NAME or NAME=VALUE, without spaces, quotes, backslashes and any of
    /// $ { } ; & | < >. At most 1,024 bytes in all, at most 24 NAME=VALUE that kernels do not know, and at most 24 words without
    /// a dot. Those that differ by machine, and those that tell the installer where its data is, are added by the boot service, unless one of that NAME is
    /// here.
    #[serde(default)]
    #[schemars(
        length(max = 64),
        inner(
            length(min = 1, max = 256),
            regex(pattern = r#"^[A-Za-z0-9_.:/\-]+\??(=[^\s"'\\${}\n\r;&|<>]*)?$"#)
        )
    )]
    #[x_kube(validation = (
        "self.all(arg, !arg.startsWith('autobuild.url=') && !arg.startsWith('autobuild.image='))",
        "args has autobuild.url or autobuild.image, which the boot service adds itself: remove it"
    ))]
    #[x_kube(validation = (
        "self.filter(arg, arg.matches('^[^.=]+=') && !arg.matches('^(console|earlycon|earlyprintk|fbcon|initrd|intel_iommu|amd_iommu|iommu|init|rdinit|isolcpus|loglevel|maxcpus|mem|panic|pci|root|rootdelay|rootflags|rootfstype|vga|video)=')).size() <= 24",
        "args has more than 24 items NAME=VALUE that kernels do not know, and kernels stop where there are more: take some away, or have the install data say it"
    ))]
    #[x_kube(validation = (
        "self.filter(arg, !arg.matches('[.=]')).size() <= 24",
        "args has more than 24 items that are one word without a dot, and kernels stop where there are more that they do not know: take some away, or have the install data say it"
    ))]
    pub args: Vec<String>,
    /// An ISO that installs without being asked anything. For servers that boot from virtual media.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iso: Option<Artifact>,
}

/// How machines can boot an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ImageKind {
    /// From the network: it has a kernel and an initial RAM disk.
    Network,
    /// From virtual media: it is an ISO.
    Iso,
}

/// How the install data is written, which decides how values are quoted in it and how the installer finds it:
/// kickstart, preseed, autoinstall, cloud-init, ignition, or none for an installer that needs no data.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum InstallFormat {
    /// Anaconda: Fedora, RHEL and their like.
    Kickstart,
    /// The installer of Debian.
    Preseed,
    /// The installer of Ubuntu Server.
    Autoinstall,
    /// A cloud-config for a system that runs cloud-init.
    CloudInit,
    /// Fedora CoreOS, Flatcar.
    Ignition,
    /// No data.
    #[default]
    None,
}

impl InstallFormat {
    /// The name in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kickstart => "kickstart",
            Self::Preseed => "preseed",
            Self::Autoinstall => "autoinstall",
            Self::CloudInit => "cloud-init",
            Self::Ignition => "ignition",
            Self::None => "none",
        }
    }
}

/// The kind of object that holds the install data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum DataRefKind {
    /// A ConfigMap.
    ConfigMap,
    /// A Secret.
    Secret,
}

impl DataRefKind {
    /// The name in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ConfigMap => "ConfigMap",
            Self::Secret => "Secret",
        }
    }
}

/// Where the install data is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct DataRef {
    /// The kind of the object that holds the data: ConfigMap, or Secret, of type autobuild.dev/install-data, where there is a
    /// password in it.
    pub kind: DataRefKind,
    /// Name of that object, in the same namespace as the OSImage.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub name: String,
    /// The key in it whose value is the data.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub key: String,
}

/// What the installer is told to do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "self.format == 'none' ? !has(self.dataRef) && !has(self.sha256) : has(self.dataRef) && has(self.sha256)",
    "install has dataRef and sha256 for every format but none, and neither of them for none"
))]
pub struct Install {
    /// How the data is written, which decides how values are quoted in it and how the installer finds it: kickstart,
    /// preseed, autoinstall, cloud-init, ignition, or none for an installer that needs no data.
    pub format: InstallFormat,
    /// The ConfigMap or Secret that holds the data, a template: {{ name }} and the like are replaced for each server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_ref: Option<DataRef>,
    /// The SHA-256 of the data as it is stored, 64 lower-case hexadecimal digits (sha256sum FILE). Data that was changed
    /// afterwards is not served: make another OSImage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), regex(pattern = r"^[0-9a-f]{64}$"))]
    pub sha256: Option<String>,
}

/// What a machine is installed with. Cannot be changed: make another OSImage and name that one.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "autobuild.dev",
    version = "v1alpha1",
    kind = "OSImage",
    plural = "osimages",
    shortname = "osi",
    category = "autobuild",
    namespaced,
    derive = "PartialEq",
    cel,
    doc = "An operating system that servers are installed with. Its spec cannot be changed: make another one.",
    printcolumn(
        name = "Format",
        type_ = "string",
        json_path = ".spec.install.format",
        description = "How the install data is written"
    ),
    printcolumn(
        name = "Kernel",
        type_ = "string",
        json_path = ".spec.source.kernel.url",
        description = "Where the kernel is from"
    ),
    printcolumn(
        name = "ISO",
        type_ = "string",
        json_path = ".spec.source.iso.url",
        description = "Where the ISO is from"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Data",
        type_ = "string",
        json_path = ".spec.install.dataRef.name",
        description = "What holds the install data",
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "self == oldSelf",
    "an OSImage cannot be changed: create another one under a new name, and name that one in spec.image of the Servers"
))]
pub struct OSImageSpec {
    /// What a machine boots to be installed: either kernel and initrd, or an ISO.
    pub source: ImageSource,
    /// What the installer is told to do.
    pub install: Install,
}

impl OSImageSpec {
    /// How machines can boot it.
    pub const fn kind(&self) -> ImageKind {
        if self.source.iso.is_some() { ImageKind::Iso } else { ImageKind::Network }
    }

    /// Why no machine can be given it, as far as the object alone tells; `None`: nothing is known against it.
    pub fn flaw(&self) -> Option<String> {
        kernel_args::flaw(&self.source.args)
    }

    /// The identity of the image: `sha256:` and 64 hexadecimal digits over the spec alone. Every field is written with
    /// its name and its length, those that are absent not at all, so that a later field changes no digest.
    pub fn digest(&self) -> String {
        let mut hash = Encoding::new("OSImage/1");
        let source = &self.source;
        for (name, file) in [("kernel", &source.kernel), ("initrd", &source.initrd), ("iso", &source.iso)] {
            if let Some(file) = file {
                hash.field(name, &[&file.url, &file.sha256]);
            }
        }
        for arg in &source.args {
            hash.field("arg", &[arg]);
        }
        hash.field("format", &[self.install.format.as_str()]);
        if let Some(data) = &self.install.data_ref {
            hash.field("dataRef", &[data.kind.as_str(), &data.name, &data.key]);
        }
        if let Some(sha256) = &self.install.sha256 {
            hash.field("sha256", &[sha256]);
        }
        format!("sha256:{}", hash.finish())
    }
}

struct Encoding(Sha256);

impl Encoding {
    fn new(domain: &str) -> Self {
        let mut encoding = Self(Sha256::new());
        encoding.text(domain);
        encoding
    }

    fn field(&mut self, name: &str, parts: &[&str]) {
        self.text(name);
        self.0.update((parts.len() as u64).to_be_bytes());
        for part in parts {
            self.text(part);
        }
    }

    fn text(&mut self, text: &str) {
        self.0.update((text.len() as u64).to_be_bytes());
        self.0.update(text);
    }

    fn finish(self) -> String {
        format!("{:x}", self.0.finalize())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    fn file(name: &str) -> Artifact {
        Artifact { url: format!("https://images.example.com/{name}"), sha256: "ab".repeat(32) }
    }

    fn image() -> OSImage {
        OSImage::new(
            "debian-13",
            OSImageSpec {
                source: ImageSource {
                    kernel: Some(file("linux")),
                    initrd: Some(file("initrd.gz")),
                    args: vec!["console=ttyS0,115200".into(), "quiet".into()],
                    iso: None,
                },
                install: Install {
                    format: InstallFormat::Preseed,
                    data_ref: Some(DataRef {
                        kind: DataRefKind::ConfigMap,
                        name: "debian-13".into(),
                        key: "preseed.cfg".into(),
                    }),
                    sha256: Some("cd".repeat(32)),
                },
            },
        )
    }

    fn refused(change: impl FnOnce(&mut OSImageSpec), message: &str) {
        let mut image = image();
        change(&mut image.spec);
        let errors = image.validate_cel().unwrap_err().to_string();
        assert!(errors.contains(message), "{errors}");
    }

    #[test]
    fn kernel_and_initrd_or_an_iso_are_accepted() {
        image().validate_cel().unwrap();
        let mut iso = image();
        iso.spec.source = ImageSource { iso: Some(file("install.iso")), ..ImageSource::default() };
        iso.spec.install = Install::default();
        iso.validate_cel().unwrap();
    }

    #[test]
    fn there_is_exactly_one_way_to_boot() {
        let message = "either kernel and initrd";
        refused(|spec| spec.source.initrd = None, message);
        refused(|spec| spec.source.iso = Some(file("install.iso")), message);
        refused(|spec| spec.source = ImageSource::default(), message);
        refused(
            |spec| {
                spec.source =
                    ImageSource { iso: Some(file("a")), args: vec!["quiet".into()], ..Default::default() }
            },
            message,
        );
    }

    #[test]
    fn a_url_is_https_or_http_without_user_information() {
        for (url, message) in [
            ("https://user:canary@images.example.com/linux", "user information"),
            ("https://canary@images.example.com/linux", "user information"),
            ("file:///etc/passwd", "is written https://HOST"),
            ("ftp://images.example.com/linux", "is written https://HOST"),
            ("https:///linux", "is written https://HOST"),
            ("https://images.example.com/li nux", "is written https://HOST"),
            ("https://images.example.com/linux#part", "is written https://HOST"),
        ] {
            let mut image = image();
            image.spec.source.kernel.as_mut().unwrap().url = url.into();
            let errors = image.validate_cel().unwrap_err().to_string();
            assert!(errors.contains(message) && !errors.contains("canary"), "{url}: {errors}");
        }
        let mut image = image();
        image.spec.source.kernel.as_mut().unwrap().url = "http://[2001:db8::1]:8080/linux?arch=amd64".into();
        image.validate_cel().unwrap();
    }

    #[test]
    fn the_boot_services_own_arguments_are_refused() {
        refused(|spec| spec.source.args.push("autobuild.url=http://elsewhere".into()), "adds itself");
        refused(|spec| spec.source.args.push("autobuild.image=x".into()), "adds itself");
        let mut wipes = image();
        wipes.spec.source.args.push("autobuild.action=wipe".into());
        wipes.validate_cel().unwrap();
    }

    #[test]
    fn every_format_but_none_needs_its_data() {
        refused(|spec| spec.install.sha256 = None, "dataRef and sha256");
        refused(|spec| spec.install.data_ref = None, "dataRef and sha256");
        refused(|spec| spec.install.format = InstallFormat::None, "dataRef and sha256");
    }

    #[test]
    fn the_spec_cannot_be_changed_and_the_message_says_what_to_do() {
        let old = image();
        let mut new = image();
        new.spec.source.args.push("debug".into());
        let errors = new.validate_cel_update(&old).unwrap_err().to_string();
        assert!(errors.contains("create another one under a new name"), "{errors}");
        image().validate_cel_update(&old).unwrap();
    }

    #[test]
    fn the_digest_follows_every_field_and_nothing_else() {
        let plain = image();
        let mut renamed = image();
        renamed.metadata.name = Some("other".into());
        assert_eq!(plain.spec.digest(), renamed.spec.digest());
        let changes: [fn(&mut OSImageSpec); 7] = [
            |spec| spec.source.kernel = Some(file("other")),
            |spec| std::mem::swap(&mut spec.source.kernel, &mut spec.source.initrd),
            |spec| spec.source.args = vec!["console=ttyS0,115200 quiet".into()],
            |spec| spec.source.args.reverse(),
            |spec| spec.install.format = InstallFormat::Kickstart,
            |spec| spec.install.data_ref.as_mut().unwrap().kind = DataRefKind::Secret,
            |spec| spec.install.sha256 = Some("ef".repeat(32)),
        ];
        let mut seen = vec![plain.spec.digest()];
        for change in changes {
            let mut spec = image().spec;
            change(&mut spec);
            assert!(!seen.contains(&spec.digest()), "{spec:?}");
            seen.push(spec.digest());
        }
    }

    #[test]
    fn the_digest_stays_what_it_was_in_earlier_releases() {
        assert_eq!(
            image().spec.digest(),
            "sha256:2e8a47b49af2fad0a3e59b40d44cb8c81eeaf18adfbd0955e95e683e2c5a0ce5"
        );
    }

    #[test]
    fn formats_are_written_as_their_name_says() {
        for format in [
            InstallFormat::Kickstart,
            InstallFormat::Preseed,
            InstallFormat::Autoinstall,
            InstallFormat::CloudInit,
            InstallFormat::Ignition,
            InstallFormat::None,
        ] {
            assert_eq!(serde_json::to_value(format).unwrap(), format.as_str());
        }
    }
}
