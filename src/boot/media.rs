//! ISOs for BMCs, and the sessions of what runs from them.
//!
//! A BMC reads an ISO while its machine runs from it, in thousands of small ranges. So a session that was found and judged a
//! moment ago is not looked up again: a medium is read for so long at most after its session is over.

use std::time::Duration;

use axum::response::Response;
use http::{HeaderMap, Method};

use super::denied::Denied;
use super::give::{GIVEN_BEFORE, Stock, serve_file, text};
use super::script;
use super::sessions::{Armed, AtMac, Heard, Medium};
use super::smbios::Smbios;
use super::token::{BootToken, TokenHash};
use super::wish::Stage;
use crate::api::{Artifact, Mac};

/// How long a BMC waits for a download. Most give up soon; the next try finds the file.
const PATIENCE: Duration = Duration::from_secs(10);

impl Stock<'_> {
    /// The ISO, or the part of it that is asked for.
    pub(super) async fn medium(
        self,
        token: &BootToken,
        method: Method,
        headers: &HeaderMap,
    ) -> Result<Response, Denied> {
        let hash = token.hash();
        let (armed, iso) = if let Some(judged) = self.judged.media.get(&hash) {
            judged
        } else {
            let armed = self.sessions.by_media(&hash).await?;
            let armed = armed.ok_or_else(|| Denied::refused("no medium has this token"))?;
            let iso = self.told(&armed, self.judged(&armed, &hash).await).await?;
            self.judged.media.keep(&hash, (armed.clone(), iso.clone()));
            (armed, iso)
        };
        let present = self.present(&armed, Some(&iso), "spec.source.iso", PATIENCE).await;
        let present = self.waited_for(&armed, &hash, "spec.source.iso", present).await;
        serve_file(&self.told(&armed, present).await?, method, headers).await
    }

    async fn judged(self, armed: &Armed, hash: &TokenHash) -> Result<Artifact, Denied> {
        let (_, image) = self.objects(armed, Stage::Begun).await?;
        let iso = image.spec.source.iso;
        let iso = iso.ok_or_else(|| Denied::broken(format!("the OSImage {:?} has no ISO", armed.image)))?;
        if armed.medium == Medium::Unread {
            // The machine itself was not heard of by this. But what runs from the medium may never ask for anything.
            self.sessions.media_read(hash).await?;
            tracing::info!(namespace = armed.namespace, server = armed.name, "its BMC reads the medium");
        }
        Ok(iso)
    }

    /// Where the session of one card is, with a token of its own. Who has that card's address gets it, while a session with a
    /// medium waits for the card.
    pub(super) async fn session(self, mac: &Mac, smbios: &Smbios) -> Result<Response, Denied> {
        let armed = match self.sessions.at_mac(mac).await? {
            AtMac::Armed(armed) if armed.medium != Medium::Absent => armed,
            AtMac::OtherCard(armed) if armed.medium != Medium::Absent => {
                let _ = self.sessions.other_card(&armed, mac).await?;
                return Err(
                    Denied::refused(format!("its session waits for another card than {mac}")).about(&armed)
                );
            }
            AtMac::Armed(_) | AtMac::Idle | AtMac::OtherCard(_) => {
                return Err(Denied::refused(format!("no session with a medium waits for {mac}")));
            }
            AtMac::Unknown => return Err(Denied::refused(format!("no Server boots from {mac}"))),
        };
        self.told(&armed, self.begin(&armed, smbios).await).await
    }

    async fn begin(self, armed: &Armed, smbios: &Smbios) -> Result<Response, Denied> {
        let (server, image) = self.objects(armed, Stage::Script).await?;
        self.is_its_machine(armed, &server, smbios).await?;
        let token = BootToken::generate()?;
        // Before the machine's disks are touched.
        let data = self.data(armed, &token, &server, &image).await?;
        let told = script::session(self.base, &token, &armed.digest, armed.purpose)?;
        match self.sessions.hand_out(armed, token.hash(), data.version).await? {
            Heard::Refused => Err(Denied::refused("the boot session is over")),
            Heard::GivenBefore => Err(Denied::refused(GIVEN_BEFORE)),
            Heard::Recorded => {
                tracing::info!(
                    namespace = armed.namespace,
                    server = armed.name,
                    image = armed.image,
                    "told what runs from the medium where its session is"
                );
                Ok(text(told))
            }
        }
    }
}
