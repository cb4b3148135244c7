//! Making a connection: TCP, TLS, and where it is a WebSocket the handshake and the login.

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::Error as WsError;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::http::{HeaderName, HeaderValue};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::target::{Offer, Target};
use crate::client::BoxFuture;
use crate::error::{Error, Kind, Result};
use crate::provider::Setup;
use crate::tls::load_client_config;

/// A WebSocket that is logged in.
pub(in crate::provider) type Wire = WebSocketStream<Stream>;

/// A TCP stream, encrypted or not, that notes when the other side took or gave bytes.
#[derive(Debug)]
pub(in crate::provider) struct Stream {
    transport: Transport,
    blocked: bool,
    moved: bool,
    extended: bool,
}

#[derive(Debug)]
enum Transport {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    fn new(transport: Transport) -> Stream {
        Stream { transport, blocked: false, moved: false, extended: false }
    }

    /// Whether the other side agreed to the extension that was offered.
    pub(in crate::provider) fn extended(&self) -> bool {
        self.extended
    }

    /// Whether bytes moved since the last call: some were read, or a full socket took more. What an empty
    /// socket takes is no sign of the other side.
    pub(in crate::provider) fn moved(&mut self) -> bool {
        std::mem::take(&mut self.moved)
    }
}

/// What is said on a new WebSocket before it is of use.
pub(in crate::provider) type LogIn =
    Box<dyn for<'a> Fn(&'a mut Wire, &'a Target) -> BoxFuture<'a, Result<()>> + Send + Sync>;

/// What is the same for every connection of a client.
pub(in crate::provider) struct Dialer {
    pub(in crate::provider) log_in: Option<LogIn>,
    pub(in crate::provider) tls: Option<Arc<ClientConfig>>,
    pub(in crate::provider) timeout: Duration,
    /// The longest frame to read.
    pub(in crate::provider) largest_frame: usize,
}

impl Dialer {
    /// One for the connections of a client; `tls` where any is encrypted.
    pub(in crate::provider) async fn new(
        setup: &Setup,
        tls: bool,
        ca_file: Option<&Path>,
        largest_frame: usize,
        log_in: Option<LogIn>,
    ) -> Result<Arc<Dialer>> {
        let tls = if tls { Some(load_client_config(ca_file).await?) } else { None };
        Ok(Arc::new(Dialer { log_in, tls, timeout: setup.connect_timeout, largest_frame }))
    }

    /// Connects and logs in, within the dialer's timeout.
    pub(in crate::provider) async fn dial(self: Arc<Dialer>, target: Arc<Target>) -> Result<Wire> {
        match tokio::time::timeout(self.timeout, self.connect(&target)).await {
            Ok(connected) => connected,
            Err(_) => {
                let text = format!("{} does not answer within {:?}", target.label, self.timeout);
                Err(target.unavailable(text))
            }
        }
    }

    /// A TCP connection, encrypted where the target is.
    pub(in crate::provider) async fn stream(&self, target: &Target) -> Result<Stream> {
        let label = &target.label;
        let tcp = TcpStream::connect((target.host.as_str(), target.port))
            .await
            .map_err(|error| target.unreached(error))?;
        // The client coalesces by itself; an ack must not wait for more to come.
        tcp.set_nodelay(true).map_err(|error| {
            target.unavailable(format!("the connection to {label} was lost")).caused_by(error)
        })?;
        let transport = if target.tls { self.encrypt(tcp, target).await? } else { Transport::Plain(tcp) };
        Ok(Stream::new(transport))
    }

    async fn connect(&self, target: &Target) -> Result<Wire> {
        let stream = self.stream(target).await?;
        let (mut wire, response) =
            client_async_with_config(request(target)?, stream, Some(limits(self.largest_frame)))
                .await
                .map_err(|error| match error {
                    WsError::Http(response) => target.refused(response.status().as_u16()),
                    other => target.lost(other),
                })?;
        if let Some(Offer { extension: (name, value), needing }) = target.offer {
            let agreed = response.headers().get(name).is_some_and(|said| said.as_bytes() == value.as_bytes());
            if let Some((_, _, key)) = needing.filter(|_| !agreed) {
                let text =
                    format!("`{key}` is not known to {}: it does not speak `{name}: {value}`", target.label);
                return Err(Error::new(Kind::Unsupported, text).by(target.server.provider));
            }
            wire.get_mut().extended = agreed;
        }
        if let Some(log_in) = &self.log_in {
            log_in(&mut wire, target).await?;
        }
        Ok(wire)
    }

    async fn encrypt(&self, tcp: TcpStream, target: &Target) -> Result<Transport> {
        let Some(config) = &self.tls else {
            return Err(Error::new(Kind::Internal, "TLS was not set up").by(target.server.provider));
        };
        let name = ServerName::try_from(target.host.clone()).map_err(|error| {
            let text = format!("the host of {} cannot be in a certificate", target.label);
            Error::new(Kind::InvalidConfig, text).caused_by(error).by(target.server.provider)
        })?;
        match TlsConnector::from(config.clone()).connect(name, tcp).await {
            Ok(stream) => Ok(Transport::Tls(Box::new(stream))),
            Err(error) => {
                let told = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
                let failed = match told {
                    // A certificate that is refused now is refused at the next try: it is no matter of time.
                    Some(rustls::Error::InvalidCertificate(_)) => target
                        .unavailable(format!("the certificate of {} is not trusted", target.label))
                        .retryable_is(false),
                    Some(rustls::Error::InvalidMessage(_)) => target.not_tls(),
                    None if error.kind() == std::io::ErrorKind::UnexpectedEof => target.not_tls(),
                    _ => target.unavailable(format!("TLS with {} failed", target.label)),
                };
                Err(failed.caused_by(error))
            }
        }
    }
}

/// The request of the handshake.
fn request(target: &Target) -> Result<Request> {
    let mut request = target.uri.as_str().into_client_request().map_err(|error| target.lost(error))?;
    let offer = target.offer.iter();
    let headers = offer.flat_map(|offer| {
        let further = offer.needing.map(|(name, value, _)| (name, value));
        std::iter::once(offer.extension).chain(further)
    });
    for (name, value) in headers {
        request.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    Ok(request)
}

fn limits(largest_frame: usize) -> WebSocketConfig {
    WebSocketConfig::default()
        .write_buffer_size(128 << 10)
        .max_message_size(Some(largest_frame))
        .max_frame_size(Some(largest_frame))
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let stream = self.get_mut();
        let before = buf.filled().len();
        let read = match &mut stream.transport {
            Transport::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Transport::Tls(tls) => Pin::new(tls.as_mut()).poll_read(cx, buf),
        };
        stream.moved |= buf.filled().len() > before;
        read
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        let stream = self.get_mut();
        let written = match &mut stream.transport {
            Transport::Plain(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Transport::Tls(tls) => Pin::new(tls.as_mut()).poll_write(cx, buf),
        };
        match &written {
            Poll::Pending => stream.blocked = true,
            Poll::Ready(Ok(1..)) => stream.moved |= std::mem::take(&mut stream.blocked),
            Poll::Ready(_) => {}
        }
        written
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match &mut self.get_mut().transport {
            Transport::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Transport::Tls(tls) => Pin::new(tls.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match &mut self.get_mut().transport {
            Transport::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Transport::Tls(tls) => Pin::new(tls.as_mut()).poll_shutdown(cx),
        }
    }
}
