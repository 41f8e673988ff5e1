//! The boot service: what machines fetch when they boot from the network, and what they report.
//!
//! | file | does | pure |
//! |---|---|---|
//! | `asked` | method and path to what is asked for | yes |
//! | `public_url`, `report_form`, `reported`, `sources` | read what others write | yes |
//! | `smbios` | whether it is the machine of the session that asks | yes |
//! | `token` | the secret in the path, and its hash | chance |
//! | `script`, `arguments` | the iPXE scripts, and what kernels are told in them | yes |
//! | `template`, `escape`, `machine`, `call_home` | install data of one server | yes |
//! | `wish` | whether a session is still wanted | yes |
//! | `sessions` | the trait to the store | yes |
//! | `live` | reads the API | API |
//! | `artifacts`, `download`, `shelf` | the cache of kernels, RAM disks and ISOs | HTTP, disk |
//! | `ahead` | downloads ISOs as soon as a session has one | clock, through `give` |
//! | `media` | ISOs for BMCs, and sessions for what runs from them | through `give` |
//! | `patience` | waits in place of installers that ask once | clock |
//! | `pauses` | how long what failed is left alone | yes |
//! | `disk` | the disk under the cache | disk |
//! | `peers` | allowed subnets, limit on failures | clock |
//! | `service`, `give`, `denied` | one request, from admission to answer | through the above |
//! | `listen` | the listener | sockets |

mod ahead;
mod arguments;
mod artifacts;
mod asked;
mod call_home;
mod denied;
mod disk;
mod download;
mod escape;
mod give;
mod listen;
mod live;
mod machine;
mod media;
mod patience;
mod pauses;
mod peers;
mod public_url;
mod recent;
mod report_form;
mod reported;
mod script;
mod service;
mod sessions;
mod shelf;
mod smbios;
mod sources;
mod template;
#[cfg(test)]
mod tests;
mod token;
mod wish;

pub use artifacts::{Artifacts, CacheError, CacheSettings};
pub use disk::{Disk, LocalDisk, Space};
pub use download::Pace;
pub use listen::{BootListener, ListenError};
pub use live::LiveReader;
pub use machine::{Machine, machine_of};
pub use patience::Patience;
pub use public_url::{PublicUrl, PublicUrlError};
pub use script::{Boot as Script, ScriptRefused, install as install_script};
pub use service::BootService;
pub use sessions::{Armed, AtMac, CallHome, Heard, Medium, Sessions, StoreAway};
pub use sources::{NotASource, Source, Sources, SpecialAddress};
pub use template::{Around, RenderError, render};
pub use token::{BootToken, TokenHash};
