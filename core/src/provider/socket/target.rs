//! What connections are made to.

use std::net::Ipv6Addr;
use std::sync::Arc;

use tokio_tungstenite::tungstenite::Error as WsError;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use url::{Host, Url};

use super::Server;
use crate::error::{Error, Kind, Result};

/// What a handshake asks for beyond the ordinary.
#[derive(Debug, Clone, Copy)]
pub(in crate::provider) struct Offer {
    /// The header that offers an extension. The other side agrees by the same one in its answer.
    pub(in crate::provider) extension: (&'static str, &'static str),
    /// A header that means nothing without the extension, and the key of the config that it stands for: without
    /// an agreement there is no connection.
    pub(in crate::provider) needing: Option<(&'static str, &'static str, &'static str)>,
}

/// What a connection is made to.
#[derive(Debug, Clone)]
pub(in crate::provider) struct Target {
    /// Who speaks here, for errors.
    pub(in crate::provider) server: Server,
    pub(in crate::provider) host: String,
    pub(in crate::provider) port: u16,
    pub(in crate::provider) tls: bool,
    /// Scheme, host and port: for people.
    pub(in crate::provider) label: Arc<str>,
    /// The whole address of the endpoint.
    pub(in crate::provider) uri: String,
    pub(in crate::provider) offer: Option<Offer>,
}

impl Target {
    /// Reads the `url` of a server, which starts with one of `schemes`: the second is the encrypted one. `path`
    /// is the endpoint on it.
    pub(in crate::provider) fn parse(
        server: Server,
        url: &str,
        schemes: [&str; 2],
        path: &str,
    ) -> Result<Target> {
        let url = plain_url(server, "url", url, &schemes)?;
        let host = match url.host() {
            Some(Host::Domain(name)) => name.to_owned(),
            Some(Host::Ipv4(address)) => address.to_string(),
            Some(Host::Ipv6(address)) => address.to_string(),
            None => return Err(Error::new(Kind::InvalidConfig, "`url` names no host")),
        };
        let [_, encrypted] = schemes;
        let tls = url.scheme() == encrypted;
        let port = url.port_or_known_default().unwrap_or(if tls { 443 } else { 80 });
        let label = format!("{}://{}:{port}", url.scheme(), bracketed(&host));
        let uri = format!("{label}{}{path}", url.path().trim_end_matches('/'));
        Ok(Target { server, host, port, tls, label: label.into(), uri, offer: None })
    }

    /// The same with an offer.
    pub(in crate::provider) fn offering(self, offer: Offer) -> Target {
        Target { offer: Some(offer), ..self }
    }

    /// The error of a server that cannot be reached, or that a connection was lost to.
    pub(in crate::provider) fn unavailable(&self, text: String) -> Error {
        Error::new(Kind::Unavailable, text).by(self.server.provider)
    }

    /// The error of a TCP connection that could not be made.
    pub(in crate::provider) fn unreached(&self, error: std::io::Error) -> Error {
        let label = &self.label;
        let text = if error.kind() == std::io::ErrorKind::ConnectionRefused {
            let Server { name, start, .. } = self.server;
            let start =
                if start.is_empty() { String::new() } else { format!(" start one, such as {start}, or") };
            format!("{label} cannot be reached: no {name} listens there;{start} mend the address")
        } else {
            format!("{label} cannot be reached")
        };
        self.unavailable(text).caused_by(error)
    }

    /// The error of a TLS handshake whose other side does not seem to speak TLS.
    pub(in crate::provider) fn not_tls(&self) -> Error {
        let (tls, name) = (self.label.split("://").next().unwrap_or_default(), self.server.provider);
        let plain = tls.strip_suffix('s').unwrap_or(tls);
        let short = if self.server.start.is_empty() {
            String::new()
        } else {
            format!("{name}:// in place of {name}s://, in JSON ")
        };
        self.unavailable(format!(
            "TLS with {} failed, as it does where nothing speaks TLS: without it an address begins with \
             {short}{plain}:// in place of {tls}://",
            self.label
        ))
    }

    /// The error of a server that does what none of its kind does.
    pub(in crate::provider) fn strange(&self, what: &str) -> Error {
        let text = format!("{} {what}: is it a {}?", self.label, self.server.name);
        Error::new(Kind::Protocol, text).by(self.server.provider)
    }

    /// The error of a WebSocket that broke.
    pub(in crate::provider) fn lost(&self, error: WsError) -> Error {
        let label = &self.label;
        let protocol = |text: String| Error::new(Kind::Protocol, text).by(self.server.provider);
        match error {
            WsError::Protocol(
                ProtocolError::ResetWithoutClosingHandshake | ProtocolError::HandshakeIncomplete,
            )
            | WsError::ConnectionClosed
            | WsError::AlreadyClosed => self.unavailable(format!("{label} closed the connection")),
            WsError::Io(error) => {
                self.unavailable(format!("the connection to {label} was lost")).caused_by(error)
            }
            WsError::Protocol(error) => {
                protocol(format!("{label} broke the WebSocket protocol")).caused_by(error)
            }
            WsError::Capacity(_) => protocol(format!("{label} sent a frame over the limit of size")),
            // The texts of the others can quote what was read.
            _ => protocol(format!("{label} sent what is no WebSocket frame of text")),
        }
    }

    /// The error of an HTTP status where another was to come.
    pub(in crate::provider) fn refused(&self, status: u16) -> Error {
        let (kind, text) = match status {
            401 => (Kind::Authentication, "asks for other credentials"),
            403 => (Kind::Permission, "does not allow it"),
            404 => (Kind::NotFound, "has no such endpoint"),
            413 => (Kind::TooLarge, "takes no message of this size"),
            429 => (Kind::Throttled, "asks for fewer requests"),
            408 | 500..=599 => (Kind::Unavailable, "is out of order"),
            _ => (Kind::Protocol, "gives an answer that was not to come"),
        };
        let mut text = format!("{} {text} (HTTP status {status})", self.label);
        if kind == Kind::NotFound {
            text = format!("{text}: {}", self.server.missing);
        }
        Error::new(kind, text).by(self.server.provider)
    }
}

/// A host as it stands in a URL.
pub(in crate::provider) fn bracketed(host: &str) -> String {
    if host.parse::<Ipv6Addr>().is_ok() { format!("[{host}]") } else { host.to_owned() }
}

/// Parses a URL that has a host and neither user, query nor fragment. Errors quote nothing of it: it may
/// hold a secret in the wrong place.
pub(in crate::provider) fn plain_url(
    server: Server,
    name: &str,
    text: &str,
    schemes: &[&str],
) -> Result<Url> {
    let wrong = |what: &str| Error::new(Kind::InvalidConfig, format!("`{name}` {what}"));
    let url = Url::parse(text).map_err(|error| wrong(&format!("is not a URL: {error}")))?;
    if !schemes.contains(&url.scheme()) {
        return Err(wrong(&format!("must start with {}", schemes.join(":// or ") + "://")));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong(&format!("holds a user or a password: {}", server.no_login)));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("must not have a query or a fragment"));
    }
    if url.host_str().unwrap_or_default().is_empty() {
        return Err(wrong("names no host"));
    }
    Ok(url)
}
