//! A boot service with its surroundings, and one machine that asks it.

use std::fs::File;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures::StreamExt as _;
use http::{Request, StatusCode};
use k8s_openapi::api::core::v1::ConfigMap;
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;
use tokio::sync::Notify;

use super::cluster::Cluster;
use super::store::Store;
use crate::api::{
    Artifact, DataRef, DataRefKind, ImageSource, ImageWish, Install, InstallFormat, JobStatus, OSImage,
    OSImageSpec, Server, ServerSpec, ServerStatus,
};
use crate::boot::{
    Armed, Artifacts, BootService, BootToken, CacheSettings, Disk, LiveReader, LocalDisk, Medium, Pace,
    Patience, Sources, Space,
};
use crate::job::{Action, JobId, JobState, Lane, ServerUid, Step};

/// Waits for nobody.
const IMPATIENT: Patience = Patience { whole: Duration::ZERO, pause: Duration::ZERO, machines: 0 };

pub(super) const MAC: &str = "52-54-00-12-34-56";
pub(super) const KERNEL: &[u8] = b"this is the kernel";
pub(super) const INITRD: &[u8] = b"this is the initial RAM disk";
pub(super) const DATA: &str = "hostname {{ name }}\npost {{ url }}/installed\n";

/// Where files are from: counts how often it was asked.
#[derive(Clone, Default)]
pub(super) struct Mirror {
    pub(super) asked: Arc<AtomicU32>,
    pub(super) redirect: Arc<Mutex<Option<String>>>,
    /// Whether it answers nothing but 503.
    pub(super) away: Arc<AtomicBool>,
    /// Lets what trickles come to its end.
    pub(super) trickle: Arc<Notify>,
}

/// The disk of the cache, which takes what it is told to take.
#[derive(Debug, Default)]
pub(super) struct SmallDisk {
    /// What `space` says; `None`: what is true.
    pub(super) space: Mutex<Option<Space>>,
    /// How many writes are refused, and with which error.
    pub(super) refuses: Mutex<(u32, Option<ErrorKind>)>,
}

impl Disk for SmallDisk {
    fn space(&self, folder: &Path) -> std::io::Result<Space> {
        let told = *self.space.lock().unwrap();
        told.map_or_else(|| LocalDisk.space(folder), Ok)
    }

    fn write(&self, file: &File, piece: &[u8], at: u64) -> std::io::Result<()> {
        let mut refuses = self.refuses.lock().unwrap();
        match *refuses {
            (left @ 1.., Some(kind)) => {
                refuses.0 = left - 1;
                Err(kind.into())
            }
            _ => LocalDisk.write(file, piece, at),
        }
    }
}

pub(super) struct Site {
    pub(super) store: Arc<Store>,
    pub(super) cluster: Cluster,
    pub(super) service: BootService,
    pub(super) artifacts: Artifacts,
    pub(super) mirror: Mirror,
    pub(super) mirror_at: SocketAddr,
    pub(super) disk: Arc<SmallDisk>,
    pub(super) image: OSImage,
    _folder: tempfile::TempDir,
}

pub(super) fn sha256(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

pub(super) fn server() -> Server {
    let wish = ImageWish { name: "debian".into(), ..ImageWish::default() };
    let mut server = Server::new("node-1", ServerSpec { image: Some(wish), ..ServerSpec::default() });
    server.metadata.uid = Some("u-1".into());
    server.metadata.namespace = Some("default".into());
    let at = crate::api::condition::time(1);
    let job = JobStatus {
        id: JobId(1).to_string(),
        action: Action::Build,
        priority: Lane::Low,
        state: JobState::Waiting,
        step: Step::AwaitBoot,
        attempt: None,
        enqueued_at: at.clone(),
        started_at: Some(at),
        waiting_for: None,
        progress: None,
    };
    server.status = Some(ServerStatus { job: Some(job), ..ServerStatus::default() });
    server
}

async fn mirrored(State(mirror): State<Mirror>, request: Request<Body>) -> Response {
    mirror.asked.fetch_add(1, Ordering::SeqCst);
    if let Some(to) = &*mirror.redirect.lock().unwrap() {
        return (StatusCode::FOUND, [("location", to.clone())]).into_response();
    }
    if mirror.away.load(Ordering::SeqCst) {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    match request.uri().path() {
        "/trickle" => {
            let piece = |bytes: &'static [u8]| Ok::<_, std::io::Error>(bytes);
            let first = futures::stream::once(async move { piece(&KERNEL[..1]) });
            let rest = futures::stream::once(async move {
                mirror.trickle.notified().await;
                piece(&KERNEL[1..])
            });
            Body::from_stream(first.chain(rest)).into_response()
        }
        // Says that it is as long as the cache, and sends next to nothing.
        "/promises" => {
            let drips = futures::stream::unfold((), |()| async {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                Some((Ok::<_, std::io::Error>("x"), ()))
            });
            ([("content-length", "2048")], Body::from_stream(drips)).into_response()
        }
        "/linux" => KERNEL.into_response(),
        "/initrd" => INITRD.into_response(),
        "/large" => vec![b'x'; 5000].into_response(),
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

impl Site {
    pub(super) async fn new() -> Self {
        Self::allowing(&[]).await
    }

    pub(super) async fn allowing(cidrs: &[&str]) -> Self {
        let mirror = Mirror::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mirror_at = listener.local_addr().unwrap();
        let router = Router::new().fallback(mirrored).with_state(mirror.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let folder = tempfile::tempdir().unwrap();
        let disk = Arc::new(SmallDisk::default());
        let artifacts = Artifacts::open(CacheSettings {
            folder: folder.path().to_owned(),
            size: 4096,
            largest: 2048,
            sources: Sources::new(vec![mirror_at.to_string().parse().unwrap()], |address| {
                address.is_loopback().then_some("loopback")
            }),
            pace: Pace { bytes: 512, every: std::time::Duration::from_secs(1) },
            first_pause: std::time::Duration::from_millis(20),
            disk: disk.clone(),
        })
        .unwrap();
        let image = image(mirror_at);
        let cluster = Cluster::default();
        let store = Arc::new(Store::default());
        let service = BootService::new(
            "http://10.0.0.5:8080".parse().unwrap(),
            cidrs.iter().map(|net| net.parse().unwrap()).collect(),
            store.clone(),
            LiveReader::new(cluster.client()),
            artifacts.clone(),
            IMPATIENT,
        );
        let site =
            Self { store, cluster, service, artifacts, mirror, mirror_at, disk, image, _folder: folder };
        site.arm();
        site
    }

    /// A service with the same surroundings that was asked nothing yet.
    pub(super) fn another_replica(&self) -> BootService {
        self.replica(IMPATIENT)
    }

    /// One that waits like this in place of installers.
    pub(super) fn replica(&self, patience: Patience) -> BootService {
        BootService::new(
            "http://10.0.0.5:8080".parse().unwrap(),
            Vec::new(),
            self.store.clone(),
            LiveReader::new(self.cluster.client()),
            self.artifacts.clone(),
            patience,
        )
    }

    /// Server, image and data are there, and a session waits for the machine.
    pub(super) fn arm(&self) {
        self.cluster.put("servers/node-1", server());
        self.cluster.put("osimages/debian", &self.image);
        let data = ConfigMap { data: Some([("preseed".into(), DATA.into())].into()), ..ConfigMap::default() };
        self.cluster.put("configmaps/debian", data);
        self.store.0.lock().unwrap().armed = Some(Armed {
            uid: ServerUid("u-1".into()),
            namespace: "default".into(),
            name: "node-1".into(),
            job: JobId(1),
            install: 3,
            image: "debian".into(),
            digest: self.image.spec.digest(),
            purpose: crate::job::BootPurpose::Install,
            mac: MAC.parse().unwrap(),
            medium: Medium::Absent,
            data_version: None,
        });
    }

    /// The same with an ISO, for a BMC with this token.
    pub(super) fn arm_with_iso(&self, token: &BootToken) {
        let mut image = self.image.clone();
        let url = format!("http://{}/linux", self.mirror_at);
        let iso = Some(Artifact { url, sha256: sha256(KERNEL) });
        image.spec.source = ImageSource { iso, ..ImageSource::default() };
        self.cluster.put("osimages/debian", &image);
        let mut kept = self.store.0.lock().unwrap();
        kept.media = Some(token.hash());
        if let Some(armed) = &mut kept.armed {
            (armed.digest, armed.medium) = (image.spec.digest(), Medium::Unread);
        }
    }

    pub(super) async fn send(
        &self,
        peer: &str,
        request: Request<Body>,
    ) -> (StatusCode, http::HeaderMap, Vec<u8>) {
        let response = self.service.answer(peer.parse().unwrap(), request).await;
        let (head, body) = response.into_parts();
        (head.status, head.headers, to_bytes(body, usize::MAX).await.unwrap().to_vec())
    }

    pub(super) async fn get(&self, path: &str) -> (StatusCode, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let (status, _, body) = self.send("192.0.2.7", request).await;
        (status, String::from_utf8(body).unwrap())
    }

    pub(super) async fn post(&self, path: &str, form: &str) -> (StatusCode, String) {
        let request = Request::post(path).body(Body::from(form.to_owned())).unwrap();
        let (status, _, body) = self.send("192.0.2.7", request).await;
        (status, String::from_utf8(body).unwrap())
    }

    /// Fetches the script; returns it and the path of the session.
    pub(super) async fn boot(&self) -> (String, String) {
        let (status, script) = self.get(&format!("/boot/{MAC}")).await;
        assert_eq!(status, StatusCode::OK);
        let token = script.split("/s/").nth(1).expect("a session").split('/').next().unwrap().to_owned();
        (script, format!("/s/{token}"))
    }
}

fn image(mirror: SocketAddr) -> OSImage {
    let file = |path: &str, bytes: &[u8]| {
        Some(Artifact { url: format!("http://{mirror}/{path}"), sha256: sha256(bytes) })
    };
    let mut image = OSImage::new(
        "debian",
        OSImageSpec {
            source: ImageSource {
                kernel: file("linux", KERNEL),
                initrd: file("initrd", INITRD),
                args: vec!["quiet".into()],
                iso: None,
            },
            install: Install {
                format: InstallFormat::Preseed,
                data_ref: Some(DataRef {
                    kind: DataRefKind::ConfigMap,
                    name: "debian".into(),
                    key: "preseed".into(),
                }),
                sha256: Some(sha256(DATA.as_bytes())),
            },
        },
    );
    image.metadata.namespace = Some("default".into());
    image
}
