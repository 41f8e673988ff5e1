//! ISOs are downloaded as soon as a session has one: a BMC that meets a download gives up, and each replica has its own cache.

use std::collections::HashMap;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::give::Stock;
use super::service::BootService;
use super::sessions::Armed;
use super::wish::Stage;
use crate::api::Artifact;

/// Between two looks.
const PERIOD: Duration = Duration::from_secs(5);

/// Namespace, image and digest: objects are read once for all machines of an image.
type Key = (String, String, String);

fn key(armed: &Armed) -> Key {
    (armed.namespace.clone(), armed.image.clone(), armed.digest.clone())
}

impl BootService {
    /// Downloads the ISOs of sessions until `stop`.
    pub async fn fetch_ahead(&self, stop: CancellationToken) {
        let mut known = HashMap::new();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(PERIOD) => {}
            }
            self.stock().fetch_ahead(&mut known).await;
        }
    }
}

impl Stock<'_> {
    /// One look. What does not work now is met again when the BMC asks, and told then.
    pub(super) async fn fetch_ahead(self, known: &mut HashMap<Key, Artifact>) {
        let all = match self.sessions.with_media().await {
            Ok(all) => all,
            Err(error) => return tracing::debug!("no look for media: {error}"),
        };
        known.retain(|image, _| all.iter().any(|armed| key(armed) == *image));
        for armed in &all {
            if !known.contains_key(&key(armed)) {
                match self.objects(armed, Stage::Begun).await {
                    Ok((_, image)) => known.extend(image.spec.source.iso.map(|iso| (key(armed), iso))),
                    Err(denied) => {
                        tracing::debug!(server = armed.name, ?denied, "its ISO is not fetched ahead");
                    }
                }
            }
        }
        for iso in known.values() {
            self.artifacts.prefetch(iso);
        }
    }
}
