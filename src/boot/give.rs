//! What machines are given: the script, and what an installation needs.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, Method, Request};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tower::ServiceExt as _;
use tower_http::services::ServeFile;

use super::artifacts::{Artifacts, PATIENCE, Present};
use super::asked::Need;
use super::denied::Denied;
use super::live::{LiveReader, Unread, Value};
use super::machine::machine_of;
use super::public_url::PublicUrl;
use super::recent::Recent;
use super::script::{self, LOCAL_BOOT};
use super::sessions::{Armed, AtMac, Heard, Medium, Sessions};
use super::smbios::Smbios;
use super::template::{Around, render};
use super::token::{BootToken, TokenHash};
use super::wish::{Stage, judge};
use crate::api::{Artifact, Mac, OSImage, Server, names};
use crate::job::BootPurpose;

/// Longest text that the job is told.
const LONGEST_WHY: usize = 500;
/// Longest text about what a machine waits for.
const LONGEST_WAIT: usize = 250;
/// How long a machine waits for its script while the files are downloaded that it asks for next.
const AHEAD: Duration = Duration::from_secs(5);
/// What is said of a machine that asks again, for a script that was given in another history.
pub(super) const GIVEN_BEFORE: &str = "it asked for its script again after the database was failed over or restored, which may have \
                                       lost that it is installed: it is not given again; where it is not installed, set a new \
                                       spec.reimageToken once this job has ended";
const KERNEL: &str = "spec.source.kernel";
const INITRD: &str = "spec.source.initrd";

/// What answers are made of.
#[derive(Clone, Copy)]
pub(super) struct Stock<'a> {
    pub(super) base: &'a PublicUrl,
    pub(super) sessions: &'a dyn Sessions,
    pub(super) live: &'a LiveReader,
    pub(super) artifacts: &'a Artifacts,
    pub(super) judged: &'a Judged,
}

/// What was judged a moment ago.
#[derive(Debug, Default)]
pub(super) struct Judged {
    /// Of installations that have begun.
    begun: Recent<Arc<(Server, OSImage)>>,
    /// Of media that are read.
    pub(super) media: Recent<(Armed, Artifact)>,
    /// What machines wait for, as it was told.
    waits: Recent<String>,
}

impl Stock<'_> {
    pub(super) fn chain(self) -> Response {
        text(script::chain(self.base))
    }

    /// The script of one card. Who has that card's address gets it, unless it says that it is another machine: the token in it
    /// is for the machine that boots last.
    pub(super) async fn script(self, mac: &Mac, smbios: &Smbios) -> Result<Response, Denied> {
        match self.sessions.at_mac(mac).await? {
            AtMac::Unknown => Err(Denied::refused(format!("no Server boots from {mac}"))),
            AtMac::Idle => Ok(text(LOCAL_BOOT.to_owned())),
            AtMac::OtherCard(armed) => {
                // What boots from a medium may ask the network first, whichever card that is.
                if armed.medium == Medium::Absent {
                    let _ = self.sessions.other_card(&armed, mac).await?;
                }
                // Firmware that has more cards goes on with the next one.
                Ok(text(LOCAL_BOOT.to_owned()))
            }
            AtMac::Armed(armed) => self.told(&armed, self.install(&armed, smbios).await).await,
        }
    }

    /// Whether it may be the machine of the session, by what it says and by what its BMC told. Another one gets nothing, and
    /// the session's job is told.
    pub(super) async fn is_its_machine(
        self,
        armed: &Armed,
        server: &Server,
        smbios: &Smbios,
    ) -> Result<(), Denied> {
        let known = server.status.as_ref().and_then(|status| status.bmc_identity.as_ref());
        let Some(said) = known.and_then(|known| smbios.differs_from(known)) else { return Ok(()) };
        let _ = self.sessions.other_machine(armed, said.clone()).await?;
        Err(Denied::refused(format!("another machine asks with the address {}: {said}", armed.mac)))
    }

    /// An answer with the server that it is about. What cannot be given at all is told to the session's job, so that it does
    /// not wait for a machine that waits for us.
    pub(super) async fn told<T>(self, armed: &Armed, given: Result<T, Denied>) -> Result<T, Denied> {
        if let Err(Denied::Broken(why)) = &given {
            let _ = self.sessions.not_served(armed, why.chars().take(LONGEST_WHY).collect()).await?;
        }
        given.map_err(|denied| denied.about(armed))
    }

    async fn install(self, armed: &Armed, smbios: &Smbios) -> Result<Response, Denied> {
        if armed.medium != Medium::Absent {
            // Its next device is the virtual CD drive, or its disk.
            return Ok(text(LOCAL_BOOT.to_owned()));
        }
        let (server, image) = self.objects(armed, Stage::Script).await?;
        self.is_its_machine(armed, &server, smbios).await?;
        let source = &image.spec.source;
        if source.kernel.is_none() || source.initrd.is_none() {
            return Err(Denied::broken(format!("the OSImage {:?} has no kernel to boot", armed.image)));
        }
        let token = BootToken::generate()?;
        // Before the machine's disks are touched.
        let data = self.data(armed, &token, &server, &image).await?;
        for (file, field) in [(&source.kernel, KERNEL), (&source.initrd, INITRD)] {
            match self.present(armed, file.as_ref(), field, AHEAD).await {
                Ok(_) | Err(Denied::Later(_)) => {}
                Err(denied) => return Err(denied),
            }
        }
        let script = script::install(script::Boot {
            base: self.base,
            token: &token,
            args: &source.args,
            digest: &armed.digest,
            purpose: armed.purpose,
            format: image.spec.install.format,
            mac: &armed.mac,
            name: &armed.name,
        })?;
        match self.sessions.hand_out(armed, token.hash(), data.version).await? {
            Heard::Refused => Err(Denied::refused("the boot session is over")),
            // It may be installed by now, and starts from its disk.
            Heard::GivenBefore => {
                tracing::warn!(namespace = armed.namespace, server = armed.name, "{GIVEN_BEFORE}");
                let _ = self.sessions.waits(armed, GIVEN_BEFORE.chars().take(LONGEST_WAIT).collect()).await?;
                Ok(text(LOCAL_BOOT.to_owned()))
            }
            Heard::Recorded => {
                tracing::info!(
                    namespace = armed.namespace,
                    server = armed.name,
                    image = armed.image,
                    "gave the boot script"
                );
                // What it asks for next, a moment later, is of the same objects.
                self.judged.begun.keep(&token.hash(), Arc::new((server, image)));
                Ok(text(script))
            }
        }
    }

    pub(super) async fn need(
        self,
        token: &BootToken,
        need: Need,
        method: Method,
        headers: &HeaderMap,
    ) -> Result<Response, Denied> {
        let armed = self.sessions.by_token(&token.hash()).await?;
        let armed = armed.ok_or_else(|| Denied::refused("no boot session has this token"))?;
        self.told(&armed, self.serve(&armed, token, need, method, headers).await).await
    }

    async fn serve(
        self,
        armed: &Armed,
        token: &BootToken,
        need: Need,
        method: Method,
        headers: &HeaderMap,
    ) -> Result<Response, Denied> {
        let hash = token.hash();
        let objects = if let Some(objects) = self.judged.begun.get(&hash) {
            objects
        } else {
            let objects = Arc::new(self.objects(armed, Stage::Begun).await?);
            self.judged.begun.keep(&hash, Arc::clone(&objects));
            objects
        };
        let (server, image) = &*objects;
        match need {
            Need::Kernel => {
                let file = image.spec.source.kernel.as_ref();
                let present = self.present(armed, file, KERNEL, PATIENCE).await;
                serve_file(&self.waited_for(armed, &hash, KERNEL, present).await?, method, headers).await
            }
            Need::Initrd => {
                let file = image.spec.source.initrd.as_ref();
                let present = self.present(armed, file, INITRD, PATIENCE).await;
                serve_file(&self.waited_for(armed, &hash, INITRD, present).await?, method, headers).await
            }
            Need::Install => {
                let data = self.data(armed, token, server, image).await?;
                data.install.map(text).ok_or_else(|| Denied::refused("the OSImage has no install data"))
            }
            Need::UserData => self.data(armed, token, server, image).await.map(|data| text(data.user)),
            Need::MetaData => Ok(text(meta_data(armed))),
            Need::VendorData => Ok(text(String::new())),
        }
    }

    /// Server and image as they stand, if they still are what the session was armed for.
    pub(super) async fn objects(self, armed: &Armed, stage: Stage) -> Result<(Server, OSImage), Denied> {
        let server = self.live.server(&armed.namespace, &armed.name).await?;
        let image = self.live.image(&armed.namespace, &armed.image).await?;
        judge(armed, stage, server.as_ref(), image.as_ref())?;
        server.zip(image).ok_or_else(|| Denied::refused("an object is gone"))
    }

    /// A file of the image, as its author meant it; `field` names it in the `OSImage`.
    pub(super) async fn present(
        self,
        armed: &Armed,
        artifact: Option<&Artifact>,
        field: &str,
        patience: Duration,
    ) -> Result<Present, Denied> {
        let image = &armed.image;
        let missing = || Denied::refused(format!("the OSImage {image:?} has no {field}"));
        let artifact = artifact.ok_or_else(missing)?;
        self.artifacts.get_within(artifact, patience).await.map_err(|error| {
            let why = format!("{field} of the OSImage {image:?}: {error}");
            if error.may_pass() { Denied::Later(why) } else { Denied::Broken(why) }
        })
    }

    /// A file that is there, or not yet: who looks at the server is told what its machine waits for, and when that is over.
    pub(super) async fn waited_for(
        self,
        armed: &Armed,
        token: &TokenHash,
        field: &str,
        present: Result<Present, Denied>,
    ) -> Result<Present, Denied> {
        let told = self.judged.waits.get(token);
        let tells = match &present {
            Err(Denied::Later(why)) => Some(format!("waits for {why}").chars().take(LONGEST_WAIT).collect()),
            Ok(_) if told.is_some() => Some(format!("{field} is there")),
            _ => None,
        };
        if let Some(text) = tells {
            if told.as_ref() != Some(&text) {
                let _ = self.sessions.waits(armed, text.clone()).await?;
            }
            // Machines come again sooner than this is forgotten.
            self.judged.waits.keep(token, text);
        }
        present
    }

    /// What an installer fetches later, of the objects and versions that the session began with.
    pub(super) async fn data(
        self,
        armed: &Armed,
        token: &BootToken,
        server: &Server,
        image: &OSImage,
    ) -> Result<Data, Denied> {
        let mut version = Sha256::new();
        let mut install = None;
        if image.spec.install.data_ref.is_some() {
            let (text, read) = self.install_data(armed, token, server, image).await?;
            version.update(read);
            install = Some(text);
        }
        version.update([0_u8]);
        let mut user = Vec::new();
        if armed.purpose == BootPurpose::Install
            && let Some(value) = self.user_data(armed, server).await?
        {
            version.update(value.version);
            user = value.bytes;
        }
        let version = format!("{:x}", version.finalize());
        if armed.data_version.as_ref().is_some_and(|first| *first != version) {
            return Err(Denied::broken(
                "its user data or install data is in another Secret, or another version of it, than when this installation \
                 began: leave Secrets alone while machines are installed from them, and set a new spec.reimageToken",
            ));
        }
        Ok(Data { install, user, version })
    }

    async fn install_data(
        self,
        armed: &Armed,
        token: &BootToken,
        server: &Server,
        image: &OSImage,
    ) -> Result<(String, String), Denied> {
        let install = &image.spec.install;
        let (Some(reference), Some(sha256)) = (&install.data_ref, &install.sha256) else {
            return Err(Denied::refused("the OSImage has no install data"));
        };
        let (kind, name, key) = (reference.kind.as_str(), reference.name.as_str(), reference.key.as_str());
        let read = self.live.data(&armed.namespace, reference).await;
        let Value { bytes, version } =
            read.map_err(|unread| unread.denied("spec.install.dataRef of its OSImage", (kind, name, key)))?;
        verify(&bytes, sha256).map_err(|found| {
            Denied::broken(format!(
                "key {key:?} of {kind} {name:?} has the SHA-256 {found}, and the OSImage says {sha256}: make another OSImage \
                 for the changed data"
            ))
        })?;
        let around = Around {
            mac: &armed.mac.to_string(),
            image: &armed.image,
            digest: &armed.digest,
            url: &self.base.session(token),
        };
        Ok((render(&bytes, install.format, &machine_of(server), around)?, version))
    }

    /// Read when it is asked for, and kept nowhere.
    async fn user_data(self, armed: &Armed, server: &Server) -> Result<Option<Value>, Denied> {
        let Some(user_data) = machine_of(server).user_data else { return Ok(None) };
        let (secret, key) = (user_data.name.as_str(), user_data.key.as_str());
        let place = (armed.namespace.as_str(), secret);
        let read = self.live.secret_key(place, key, names::USER_DATA_SECRET_TYPE).await;
        let value =
            read.map_err(|unread| unread.denied("spec.image.userDataRef", ("Secret", secret, key)))?;
        if let Some(sha256) = &user_data.sha256 {
            verify(&value.bytes, sha256).map_err(|_| {
                Denied::broken(format!(
                    "key {key:?} of Secret {secret:?} is not what the sha256 of its user data says"
                ))
            })?;
        }
        Ok(Some(value))
    }
}

/// What an installer fetches, and which objects it is from.
pub(super) struct Data {
    /// `None`: the image has no install data.
    install: Option<String>,
    user: Vec<u8>,
    pub(super) version: String,
}

impl Unread {
    /// Why nothing is given, with the field that names it.
    fn denied(self, field: &str, (kind, name, key): (&str, &str, &str)) -> Denied {
        match self {
            Self::Missing => Denied::broken(format!(
                "{field}: there is no {kind} {name:?} with a key {key:?} in this namespace: create it"
            )),
            Self::OtherType { found, wanted } => Denied::broken(format!(
                "{field}: the Secret {name:?} has the type {found:?}, and only Secrets of type {wanted} are read for this: \
                 create one with that type (the type of a Secret cannot be changed in place)"
            )),
            Self::Unavailable(error) => error.into(),
        }
    }
}

pub(super) async fn serve_file(
    present: &Present,
    method: Method,
    headers: &HeaderMap,
) -> Result<Response, Denied> {
    let mut request = Request::new(Body::empty());
    *request.method_mut() = method;
    if let Some(range) = headers.get(http::header::RANGE) {
        request.headers_mut().insert(http::header::RANGE, range.clone());
    }
    let Ok(response) = ServeFile::new(present.path()).oneshot(request).await;
    if response.status() == http::StatusCode::NOT_FOUND {
        return Err(Denied::Later("a file of the cache cannot be opened".to_owned()));
    }
    let mut response = response.map(Body::new);
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("application/octet-stream"));
    Ok(response)
}

/// JSON, which is YAML too. A new installation is a new instance.
fn meta_data(armed: &Armed) -> String {
    let instance = format!("{}-{}", armed.uid, armed.install);
    format!("{}\n", json!({"instance-id": instance, "local-hostname": armed.name}))
}

fn verify(data: &[u8], sha256: &str) -> Result<(), String> {
    let found = format!("{:x}", Sha256::digest(data));
    if found == sha256 { Ok(()) } else { Err(found) }
}

/// Plain text that nobody on the way keeps.
pub(super) fn text(text: impl Into<Body>) -> Response {
    let headers = [(CONTENT_TYPE, "text/plain; charset=utf-8"), (CACHE_CONTROL, "no-store")];
    (headers, text.into()).into_response()
}
