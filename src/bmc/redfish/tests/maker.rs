//! A BMC of some maker: what it answers is a function of what it is asked, and of what it was asked before.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::hostile::{Raw, raw};
use super::*;

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) method: String,
    /// With its query.
    pub(super) path: String,
    pub(super) if_match: Option<String>,
    pub(super) if_none_match: Option<String>,
    pub(super) body: Value,
}

impl Request {
    /// Method, path and `If-Match`, for comparing.
    pub(super) fn line(&self) -> String {
        let guard = self.if_match.as_ref().map(|tag| format!(" if {tag}")).unwrap_or_default();
        format!("{} {}{guard}", self.method, self.path)
    }
}

/// One answer.
#[derive(Debug, Clone)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: String,
}

pub(super) fn ok(body: &Value) -> Reply {
    Reply { status: 200, headers: Vec::new(), body: body.to_string() }
}

pub(super) fn status(status: u16) -> Reply {
    Reply { status, headers: Vec::new(), body: String::new() }
}

/// A refusal with a message.
pub(super) fn refusal(status: u16, id: &str, arguments: &[&str], text: &str) -> Reply {
    let message = json!({"MessageId": format!("Base.1.12.{id}"), "MessageArgs": arguments, "Message": text});
    Reply {
        status,
        headers: Vec::new(),
        body: json!({"error": {"@Message.ExtendedInfo": [message]}}).to_string(),
    }
}

/// What was asked, in order.
#[derive(Debug, Clone, Default)]
pub(super) struct Log(Arc<Mutex<Vec<Request>>>);

impl Log {
    pub(super) fn all(&self) -> Vec<Request> {
        self.0.lock().unwrap().clone()
    }

    pub(super) fn clear(&self) {
        self.0.lock().unwrap().clear();
    }

    /// The lines of what changes something.
    pub(super) fn changes(&self) -> Vec<String> {
        self.all().iter().filter(|request| request.method != "GET").map(Request::line).collect()
    }

    /// The bodies of what changes something.
    pub(super) fn bodies(&self) -> Vec<Value> {
        self.all().into_iter().filter(|request| request.method != "GET").map(|request| request.body).collect()
    }

    pub(super) fn reads(&self) -> Vec<String> {
        let gets = self.all().into_iter().filter(|request| request.method == "GET");
        gets.map(|request| request.path).collect()
    }
}

/// A BMC with a state.
pub(super) struct Maker {
    pub(super) raw: Raw,
    pub(super) log: Log,
}

impl Maker {
    /// Which answers so, one connection for each request.
    pub(super) async fn new<S: Send + 'static>(
        state: S,
        answer: impl Fn(&mut S, &Request) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let (state, answer, log) = (Arc::new(Mutex::new(state)), Arc::new(answer), Log::default());
        let kept = log.clone();
        let raw = raw(move |mut stream, _| {
            let (state, answer, log) = (Arc::clone(&state), Arc::clone(&answer), kept.clone());
            async move {
                let Some(request) = read(&mut stream).await else { return };
                log.0.lock().unwrap().push(request.clone());
                let reply = answer(&mut state.lock().unwrap(), &request);
                let mut head =
                    format!("HTTP/1.1 {} x\r\ncontent-length: {}\r\n", reply.status, reply.body.len());
                for (name, value) in &reply.headers {
                    head.extend([name, ": ", value.as_str(), "\r\n"]);
                }
                let _ = stream.write_all(format!("{head}\r\n{}", reply.body).as_bytes()).await;
            }
        })
        .await;
        Self { raw, log }
    }

    /// A client of it, which knows nothing yet.
    pub(super) async fn client(&self) -> Box<dyn Bmc> {
        at(&Connector::new(settings()), self.raw.port, "").await
    }

    /// A client of it that shares what is known of BMCs.
    pub(super) async fn client_of(&self, connector: &Connector) -> Box<dyn Bmc> {
        at(connector, self.raw.port, "").await
    }
}

async fn read(stream: &mut tokio::net::TcpStream) -> Option<Request> {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    let head_end = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        match stream.read(&mut buffer).await {
            Ok(n) if n > 0 => bytes.extend_from_slice(&buffer[..n]),
            _ => return None,
        }
    };
    let head = String::from_utf8_lossy(&bytes[..head_end]).into_owned();
    let header = |name: &str| {
        let lines = head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned()).next()
    };
    let length: usize = header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    while bytes.len() < head_end + length {
        match stream.read(&mut buffer).await {
            Ok(n) if n > 0 => bytes.extend_from_slice(&buffer[..n]),
            _ => return None,
        }
    }
    let mut words = head.split_whitespace();
    Some(Request {
        method: words.next()?.to_owned(),
        path: words.next()?.to_owned(),
        if_match: header("if-match"),
        if_none_match: header("if-none-match"),
        body: serde_json::from_slice(&bytes[head_end..]).unwrap_or_default(),
    })
}

/// The documents above one system at `/rf/one`.
pub(super) fn above(request: &Request) -> Option<Reply> {
    match request.path.as_str() {
        "/redfish/v1/" => Some(ok(&json!({"Systems": {"@odata.id": "/rf/all"}}))),
        "/rf/all" => Some(ok(&json!({"Members": [{"@odata.id": "/rf/one"}]}))),
        _ => None,
    }
}
