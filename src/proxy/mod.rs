//! Whether the API server is reached through a proxy, decided here alone: by `proxy-url` of the kubeconfig, or by the
//! environment, as kubectl does; in a pod, with its service account, without one. BMCs and the database never are.
#![expect(clippy::disallowed_types, reason = "the client is made here and handed on")]

mod rules;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderValue, Uri};
use hyper::rt::{Read, Write};
use hyper_timeout::TimeoutConnector;
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::proxy::{SocksV5, Tunnel};
use hyper_util::client::legacy::connect::{Connection, HttpConnector};
use hyper_util::rt::TokioExecutor;
use kube::Client;
use kube::client::ConfigExt as _;
use kube::client::retry::RetryPolicy;
use percent_encoding::percent_decode_str;
use tower::retry::RetryLayer;
use tower::{BoxError, ServiceBuilder, ServiceExt as _};
use url::Url;

use rules::{Variables, proxy_for};

/// Who says it in a kubeconfig.
const KUBECONFIG: &str = "proxy-url of the kubeconfig";
/// Where SOCKS listens, unless said.
const SOCKS_PORT: u16 = 1080;

/// A proxy that is used, and who says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    url: Url,
    from: &'static str,
}

/// A proxy that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{from}{shown} names no proxy: write http://HOST:PORT, https://HOST:PORT or socks5://HOST:PORT, or name the API server's \
     host in NO_PROXY"
)]
pub struct ProxyError {
    from: &'static str,
    shown: String,
}

/// What a connection through a proxy failed with.
#[derive(Debug, thiserror::Error)]
#[error("the proxy {proxy} of {from} cannot be used")]
struct Unusable {
    proxy: String,
    from: &'static str,
    source: BoxError,
}

/// The proxy to an API server; `in_file`: `proxy-url` of its kubeconfig, which wins and knows no exception.
pub fn decide(target: &Uri, in_file: Option<&str>) -> Result<Option<Proxy>, ProxyError> {
    choose(target, in_file, &from_environment())
}

fn choose(target: &Uri, in_file: Option<&str>, variables: &Variables) -> Result<Option<Proxy>, ProxyError> {
    if let Some(text) = in_file.filter(|text| !text.is_empty()) {
        return Proxy::parse(KUBECONFIG, text).map(Some);
    }
    proxy_for(target, variables).map(|(from, text)| Proxy::parse(from, text)).transpose()
}

/// Of two spellings the one in capitals counts.
fn from_environment() -> Variables {
    let one_of = |names: [&'static str; 2]| {
        let set = |name| Some((name, std::env::var(name).ok().filter(|value| !value.is_empty())?));
        names.into_iter().find_map(set)
    };
    Variables {
        https: one_of(["HTTPS_PROXY", "https_proxy"]),
        http: one_of(["HTTP_PROXY", "http_proxy"]),
        none: one_of(["NO_PROXY", "no_proxy"]).map(|(_, value)| value).unwrap_or_default(),
    }
}

impl Proxy {
    /// Without a scheme it is `http`.
    fn parse(from: &'static str, text: &str) -> Result<Self, ProxyError> {
        let usable = |url: &Url| url.host_str().is_some_and(|host| !host.is_empty());
        let url = Url::parse(text).ok().filter(usable);
        let bare =
            || Url::parse(&format!("http://{text}")).ok().filter(usable).filter(|_| !text.contains("://"));
        let url = url.or_else(bare);
        let known = url.filter(|url| matches!(url.scheme(), "http" | "https" | "socks5" | "socks5h"));
        // What stands before an '@' may be a password.
        let shown = if text.contains('@') { String::new() } else { format!(" is {text:?}, which") };
        known.map(|url| Self { url, from }).ok_or(ProxyError { from, shown })
    }

    /// Without user name and password.
    fn shown(&self) -> String {
        let host = self.url.host_str().unwrap_or_default();
        let port = self.url.port().map(|port| format!(":{port}")).unwrap_or_default();
        format!("{}://{host}{port}", self.url.scheme())
    }

    /// Where it is connected to.
    fn uri(&self) -> kube::Result<Uri> {
        let host = self.url.host_str().unwrap_or_default();
        let (scheme, default) = match self.url.scheme() {
            "https" => ("https", 443),
            "http" => ("http", 80),
            _ => ("http", SOCKS_PORT),
        };
        let port = self.url.port().unwrap_or(default);
        format!("{scheme}://{host}:{port}").parse::<Uri>().map_err(|error| kube::Error::Service(error.into()))
    }

    /// User name and password.
    fn login(&self) -> Option<(String, String)> {
        let text = |encoded: &str| percent_decode_str(encoded).decode_utf8_lossy().into_owned();
        let login = (text(self.url.username()), text(self.url.password().unwrap_or_default()));
        (login.0.len() + login.1.len() > 0).then_some(login)
    }

    fn failed<E: Into<BoxError>>(&self) -> impl Fn(E) -> Unusable + Clone + use<E> {
        let (proxy, from) = (self.shown(), self.from);
        move |error| Unusable { proxy: proxy.clone(), from, source: error.into() }
    }

    fn tunnel<C>(&self, connector: C) -> kube::Result<Tunnel<C>> {
        let tunnel = Tunnel::new(self.uri()?, connector);
        let Some((username, password)) = self.login() else { return Ok(tunnel) };
        let basic = format!("Basic {}", STANDARD.encode(format!("{username}:{password}")));
        let header = HeaderValue::from_str(&basic).map_err(|error| kube::Error::Service(error.into()))?;
        Ok(tunnel.with_auth(header))
    }

    /// A client that connects through it.
    fn client(&self, config: &kube::Config) -> kube::Result<Client> {
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        match self.url.scheme() {
            "https" => {
                let connector = self.tunnel(config.rustls_https_connector_with_connector(connector)?)?;
                stack(config, connector.map_err(self.failed()))
            }
            "http" => stack(config, self.tunnel(connector)?.map_err(self.failed())),
            _ => {
                let mut socks = SocksV5::new(self.uri()?, connector);
                if let Some((username, password)) = self.login() {
                    socks = socks.with_auth(username, password);
                }
                stack(config, socks.map_err(self.failed()))
            }
        }
    }
}

/// A client for this cluster, through the proxy if there is one. Does not connect yet.
pub fn client(mut config: kube::Config, proxy: Option<&Proxy>) -> kube::Result<Client> {
    config.proxy_url = None;
    match proxy {
        None => Client::try_from(config),
        Some(proxy) => proxy.client(&config),
    }
}

/// What the library makes of a configuration, on connections of another kind.
fn stack<C>(config: &kube::Config, connector: C) -> kube::Result<Client>
where
    C: tower::Service<Uri, Error = Unusable> + Clone + Send + Sync + 'static,
    C::Response: Connection + Read + Write + Send + Unpin + 'static,
    C::Future: Send + 'static,
{
    let mut connector = TimeoutConnector::new(config.rustls_https_connector_with_connector(connector)?);
    connector.set_connect_timeout(config.connect_timeout);
    connector.set_read_timeout(config.read_timeout);
    connector.set_write_timeout(config.write_timeout);
    let retry = config.default_retry.then(|| RetryLayer::new(RetryPolicy::server_retry()));
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(retry)
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(HttpClient::builder(TokioExecutor::new()).build(connector));
    Ok(Client::new(service, config.default_namespace.clone()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    fn variables(https: &str, none: &str) -> Variables {
        Variables { https: Some(("HTTPS_PROXY", https.to_owned())), none: none.to_owned(), http: None }
    }

    fn target() -> Uri {
        "https://api.example.com:6443".parse().unwrap()
    }

    #[test]
    fn a_kubeconfig_wins_over_the_environment_and_knows_no_exception() {
        let variables = variables("http://a:3128", "api.example.com");
        assert_eq!(choose(&target(), None, &variables), Ok(None));
        let chosen = choose(&target(), Some("http://b:3128"), &variables).unwrap().unwrap();
        assert_eq!((chosen.shown().as_str(), chosen.from), ("http://b:3128", KUBECONFIG));
    }

    #[test]
    fn a_proxy_is_written_with_or_without_a_scheme() {
        for (text, shown, at) in [
            ("http://p:3128", "http://p:3128", "http://p:3128/"),
            ("p:3128", "http://p:3128", "http://p:3128/"),
            ("10.0.0.1:3128", "http://10.0.0.1:3128", "http://10.0.0.1:3128/"),
            ("p", "http://p", "http://p:80/"),
            ("https://u:pw@p", "https://p", "https://p:443/"),
            ("socks5://p", "socks5://p", "http://p:1080/"),
            ("http://[2001:db8::1]:3128", "http://[2001:db8::1]:3128", "http://[2001:db8::1]:3128/"),
        ] {
            let proxy = Proxy::parse("HTTPS_PROXY", text).unwrap();
            assert_eq!(
                (proxy.shown().as_str(), proxy.uri().unwrap().to_string().as_str()),
                (shown, at),
                "{text}"
            );
        }
        let login = Proxy::parse("HTTPS_PROXY", "http://u:p%40%3A@h:1").unwrap().login();
        assert_eq!(login, Some(("u".to_owned(), "p@:".to_owned())));
    }

    #[test]
    fn what_is_no_proxy_is_told_by_its_variable_and_without_a_password_unless_it_is_not_needed() {
        for text in ["ftp://p", "http://", "a b", "ftp://u:geheim@p"] {
            let error = choose(&target(), None, &variables(text, "")).unwrap_err().to_string();
            assert!(error.contains("HTTPS_PROXY") && error.contains("http://HOST:PORT"), "{error}");
            assert!(!error.contains("geheim"), "{error}");
            assert_eq!(choose(&target(), None, &variables(text, ".example.com")), Ok(None), "{text}");
        }
    }
}
