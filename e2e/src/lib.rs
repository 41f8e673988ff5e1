//! The harness: it starts what AutoBuild stands on, for real, and AutoBuild itself.
//!
//! | module | starts or gives |
//! |---|---|
//! | [`check_database`] | what `autobuild check-database` says, compared with a file |
//! | [`control_plane`] | kube-apiserver with etcd and the controllers that matter, namespaces, per-role kubeconfigs |
//! | [`database`] | MySQL 9 or MariaDB with a private data directory |
//! | [`autobuild`] | the project's own processes, with their addresses |
//! | [`sushy`] | `sushy-emulator`: Redfish BMCs that are not ours |
//! | [`ipmi_sim`] | an IPMI BMC that is not ours |
//! | [`dnsmasq`] | the DHCP server, with a configuration of `manifests/dnsmasq`, and firmwares that ask it |
//! | [`process`] | one supervised child: log file, signals, exit |
//! | [`packages`] | Debian and PyPI packages: what is missing, and installing it |
//! | [`fleet`] | one test's own AutoBuild: namespace, schema, BMCs, and the processes it starts |
//! | [`machine`] | real machines to install: QEMU, and a kernel, an installer and disk images for it |
//! | [`kubectl`] | the real `kubectl` |
//! | [`wait`] | waiting for conditions, and saying so |
//! | [`paths`] | where things lie |
//! | [`given`] | servers that the user names instead |
//! | [`dev`] | `make up`, `make down`, `make demo`, `make bench` |
//!
//! Whatever a test starts ends with the test's process, however that ends. Everything listens on loopback, on
//! ports found free.

pub mod api_proxy;
pub mod autobuild;
pub mod check_database;
pub mod control_plane;
pub mod database;
pub mod dev;
pub mod dnsmasq;
pub mod fleet;
pub mod given;
pub mod ipmi_sim;
pub mod kubectl;
pub mod machine;
pub mod packages;
pub mod paths;
pub mod process;
pub mod release_before;
pub mod sushy;
pub mod wait;
