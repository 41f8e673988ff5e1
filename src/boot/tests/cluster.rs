//! An API server of a few objects.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use http::{Request, Response, StatusCode};
use kube::client::Body;
use serde_json::{Value, json};

/// Objects by `plural/name`; clones are the same.
#[derive(Clone, Default)]
pub(super) struct Cluster(pub(super) Arc<Mutex<Objects>>);

#[derive(Default)]
pub(super) struct Objects {
    pub(super) all: HashMap<String, Value>,
    pub(super) away: bool,
    /// How often it gave no answer.
    pub(super) refused: u32,
}

impl Cluster {
    pub(super) fn put(&self, path: &str, object: impl serde::Serialize) {
        self.0.lock().unwrap().all.insert(path.to_owned(), serde_json::to_value(object).unwrap());
    }

    pub(super) fn client(&self) -> kube::Client {
        let cluster = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let answer = cluster.answer(request.uri().path());
            async move { Ok::<_, Infallible>(answer) }
        });
        kube::Client::new(service, "default")
    }

    fn answer(&self, path: &str) -> Response<Body> {
        let mut objects = self.0.lock().unwrap();
        objects.refused += u32::from(objects.away);
        let found = path.split_once("/namespaces/default/").and_then(|(_, path)| objects.all.get(path));
        let (status, body) = match found {
            _ if objects.away => (StatusCode::SERVICE_UNAVAILABLE, failure(503)),
            Some(object) => (StatusCode::OK, object.clone()),
            None => (StatusCode::NOT_FOUND, failure(404)),
        };
        let body = Body::from(serde_json::to_vec(&body).unwrap());
        Response::builder().status(status).header("content-type", "application/json").body(body).unwrap()
    }
}

fn failure(code: u16) -> Value {
    let reason = if code == 404 { "NotFound" } else { "ServiceUnavailable" };
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": "no"})
}
