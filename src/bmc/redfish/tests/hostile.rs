//! BMCs that the emulator cannot be: raw bytes over raw sockets.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::*;

/// A server that answers every connection by `talk`, and counts them.
pub(super) struct Raw {
    pub(super) port: SocketAddr,
    pub(super) connections: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

pub(super) async fn raw<F>(talk: impl Fn(TcpStream, usize) -> F + Send + 'static) -> Raw
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut conversations = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            conversations.spawn(talk(stream, count.fetch_add(1, Ordering::SeqCst)));
        }
    });
    Raw { port, connections, _tasks: tasks }
}

/// Reads one request to the end of its head (and of its body, if it comes along).
pub(super) async fn request(stream: &mut TcpStream) -> String {
    let (mut text, mut buffer) = (Vec::new(), [0; 4096]);
    while !text.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut buffer).await {
            Ok(n) if n > 0 => text.extend_from_slice(&buffer[..n]),
            _ => break,
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

async fn says(bytes: Vec<u8>) -> BmcError {
    let raw = raw(move |mut stream, _| {
        let bytes = bytes.clone();
        async move {
            request(&mut stream).await;
            let _ = stream.write_all(&bytes).await;
        }
    })
    .await;
    at(&Connector::new(quick()), raw.port, "").await.probe().await.unwrap_err()
}

#[tokio::test]
async fn nonsense_is_a_protocol_error_and_never_in_a_message() {
    let long = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "a".repeat(1_000_000));
    for bytes in [
        b"SSH-2.0-OpenSSH_9.6\r\n".to_vec(),
        b"HTTP/1.1 999999 x\r\n\r\n".to_vec(),
        long.into_bytes(),
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]".to_vec(),
        b"HTTP/1.1 200 OK\r\ncontent-type: text/\x1b[31mhtml\r\ncontent-length: 2\r\n\r\n{}".to_vec(),
        b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n[[[[[[".to_vec(),
        format!("HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n{}", "[".repeat(100_000)).into_bytes(),
    ] {
        let error = says(bytes.clone()).await;
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(40)]).into_owned();
        assert_eq!(error.kind, BmcErrorKind::Protocol, "{shown}: {error}");
        assert!(!error.message.chars().any(char::is_control), "{shown}");
    }
    assert_eq!(says(Vec::new()).await.kind, BmcErrorKind::Unreachable);
}

#[tokio::test]
async fn words_of_a_bmc_are_printable_short_and_without_the_login() {
    let body = |message: &str| {
        let body = serde_json::json!({"error": {"@Message.ExtendedInfo": {"Message": message}}}).to_string();
        format!("HTTP/1.1 500 x\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
    };
    let error = says(body(&format!("a\u{1b}[2Jb\u{202e} {}", "x".repeat(5_000)))).await;
    assert!(error.message.contains("a [2Jb x") && error.message.len() < 500, "{error}");
    let error = says(body("you are admin:password")).await;
    assert!(!error.message.contains(":password"), "{error}");
    assert!(error.message.contains("not shown"), "{error}");
}

#[tokio::test]
async fn a_bmc_without_a_free_session_is_busy_and_its_words_are_told() {
    let words = "The maximum number of user sessions is reached.";
    let json = serde_json::json!({"error": {"@Message.ExtendedInfo": [{"Message": words}]}}).to_string();
    for body in [json, words.to_owned(), format!("<html><body><h1>{words}</h1></body></html>")] {
        let answer = format!("HTTP/1.1 503 x\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let error = says(answer.into_bytes()).await;
        assert_eq!(error.kind, BmcErrorKind::Busy(None));
        assert!(error.message.contains(words.trim_end_matches('.')), "{error}");
    }
}

#[tokio::test]
async fn a_redirect_elsewhere_takes_no_login_there() {
    let other = raw(|_stream, _| async {}).await;
    let location = format!("http://{}/redfish/v1/", other.port);
    let error = says(format!("HTTP/1.1 302 x\r\nlocation: {location}\r\n\r\n").into_bytes()).await;
    assert_eq!(error.kind, BmcErrorKind::AddressNotAllowed);
    assert!(error.message.contains(&location), "{error}");
    assert_eq!(other.connections.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn one_byte_at_a_time_ends_with_the_time_of_the_request() {
    let raw = raw(|mut stream, _| async move {
        request(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n").await;
        while stream.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let error = at(&Connector::new(quick()), raw.port, "").await.probe().await.unwrap_err();
    assert_eq!(error.kind, BmcErrorKind::Timeout);
}

#[tokio::test]
async fn a_handshake_that_hangs_ends_with_the_time_of_the_connection() {
    let raw = raw(|stream, _| async move {
        let _held = stream;
        std::future::pending::<()>().await;
    })
    .await;
    let settings = ConnectorSettings { connect_timeout: Duration::from_millis(200), ..settings() };
    let address = format!("redfish+https://{}", raw.port);
    let bmc = open(&Connector::new(settings), &address, Trust::Pin([0; 32])).await.unwrap();
    let error = bmc.probe().await.unwrap_err();
    assert_eq!((error.kind, error.delivery), (BmcErrorKind::Timeout, Delivery::NotSent));
}

#[tokio::test]
async fn a_bmc_that_keeps_its_connection_is_asked_over_one() {
    let raw = raw(|mut stream, _| async move {
        loop {
            let asked = request(&mut stream).await;
            let body = match asked.split_whitespace().nth(1) {
                None => return,
                Some("/redfish/v1/") => r#"{"Systems":{"@odata.id":"/all"}}"#,
                Some("/all") => r#"{"Members":[{"@odata.id":"/one"}]}"#,
                Some(_) => r#"{"Id":"one","PowerState":"On"}"#,
            };
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
            let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
        }
    })
    .await;
    let bmc = at(&Connector::new(settings()), raw.port, "").await;
    assert_eq!(bmc.probe().await.unwrap().power, PowerState::PoweredOn);
    assert_eq!(raw.connections.load(Ordering::SeqCst), 1);
    bmc.probe().await.unwrap();
    assert_eq!(raw.connections.load(Ordering::SeqCst), 2, "none is kept open between calls");
}

#[tokio::test]
async fn an_accepted_action_is_accepted_whatever_becomes_of_its_body() {
    let body = r##"{"Id":"one","PowerState":"Off","Actions":{"#ComputerSystem.Reset":{"target":"/act"}}}"##;
    let raw = raw(move |mut stream, _| async move {
        let asked = request(&mut stream).await;
        let text = match asked.split_whitespace().nth(1) {
            Some("/redfish/v1/") => r#"{"Systems":{"@odata.id":"/all"}}"#,
            Some("/all") => r#"{"Members":[{"@odata.id":"/one"}]}"#,
            Some("/act") => "",
            _ => body,
        };
        let promised = if text.is_empty() { 100 } else { text.len() };
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {promised}\r\n\r\n");
        let _ = stream.write_all(format!("{head}{text}").as_bytes()).await;
    })
    .await;
    let bmc = at(&Connector::new(settings()), raw.port, "").await;
    bmc.probe().await.unwrap();
    bmc.send(RequestKind::PowerOn, LONG).await.unwrap();
}
