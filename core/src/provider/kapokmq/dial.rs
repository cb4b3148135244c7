//! Making a connection: TCP, TLS, the WebSocket handshake and the login.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::PROVIDER;
use super::section::Target;
use crate::error::{Error, Kind, Result};
use crate::secret::Secret;
use crate::wire::kapokmq::{LOGIN_ERROR, LOGIN_OK, PROMPT};

/// A WebSocket that is logged in.
pub(super) type Wire = WebSocketStream<Stream>;

/// A TCP stream, encrypted or not, that notes when the other side took or gave bytes.
#[derive(Debug)]
pub(super) struct Stream {
    transport: Transport,
    blocked: bool,
    moved: bool,
}

#[derive(Debug)]
enum Transport {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    fn new(transport: Transport) -> Stream {
        Stream { transport, blocked: false, moved: false }
    }

    /// Whether bytes moved since the last call: some were read, or a full socket took more. What an empty
    /// socket takes is no sign of the other side.
    pub(super) fn moved(&mut self) -> bool {
        std::mem::take(&mut self.moved)
    }
}

/// What is the same for every connection of a client.
#[derive(Debug)]
pub(super) struct Dialer {
    pub(super) secret: Secret,
    pub(super) tls: Option<Arc<ClientConfig>>,
    pub(super) timeout: Duration,
    /// The longest frame to read.
    pub(super) largest_frame: usize,
}

impl Dialer {
    /// Connects and logs in, within the dialer's timeout.
    pub(super) async fn dial(self: Arc<Dialer>, target: Arc<Target>) -> Result<Wire> {
        match tokio::time::timeout(self.timeout, self.connect(&target)).await {
            Ok(connected) => connected,
            Err(_) => Err(unavailable(format!("{} does not answer within {:?}", target.label, self.timeout))),
        }
    }

    async fn connect(&self, target: &Target) -> Result<Wire> {
        let label = &target.label;
        let tcp = TcpStream::connect((target.host.as_str(), target.port))
            .await
            .map_err(|error| unavailable(format!("{label} cannot be reached")).caused_by(error))?;
        // The client coalesces by itself; an ack must not wait for more to come.
        tcp.set_nodelay(true)
            .map_err(|error| unavailable(format!("the connection to {label} was lost")).caused_by(error))?;
        let transport = if target.tls { self.encrypt(tcp, target).await? } else { Transport::Plain(tcp) };
        let stream = Stream::new(transport);
        let (mut wire, _) =
            client_async_with_config(target.uri.as_str(), stream, Some(limits(self.largest_frame)))
                .await
                .map_err(|error| refused(label, error))?;
        self.log_in(&mut wire, label).await?;
        Ok(wire)
    }

    async fn encrypt(&self, tcp: TcpStream, target: &Target) -> Result<Transport> {
        let Some(config) = &self.tls else {
            return Err(Error::new(Kind::Internal, "TLS was not set up").by(PROVIDER));
        };
        let name = ServerName::try_from(target.host.clone()).map_err(|error| {
            let text = format!("the host of {} cannot be in a certificate", target.label);
            Error::new(Kind::InvalidConfig, text).caused_by(error).by(PROVIDER)
        })?;
        match TlsConnector::from(config.clone()).connect(name, tcp).await {
            Ok(stream) => Ok(Transport::Tls(Box::new(stream))),
            Err(error) => {
                // A certificate that is refused now is refused at the next try: it is no matter of time.
                let certificate = error
                    .get_ref()
                    .and_then(|inner| inner.downcast_ref::<rustls::Error>())
                    .is_some_and(|inner| matches!(inner, rustls::Error::InvalidCertificate(_)));
                let text = if certificate {
                    format!("the certificate of {} is not trusted", target.label)
                } else {
                    format!("TLS with {} failed", target.label)
                };
                Err(unavailable(text).retryable_is(!certificate).caused_by(error))
            }
        }
    }

    async fn log_in(&self, wire: &mut Wire, label: &str) -> Result<()> {
        if read_text(wire, label).await? != PROMPT {
            return Err(strange(label, "asked for something else than the key"));
        }
        wire.send(Message::text(self.secret.expose())).await.map_err(|error| lost(label, error))?;
        match read_text(wire, label).await?.as_str() {
            LOGIN_OK => Ok(()),
            LOGIN_ERROR => {
                // The server would ask again; it gets no second guess.
                let _ = wire.close(None).await;
                Err(Error::new(Kind::Authentication, format!("{label} refused the key")).by(PROVIDER))
            }
            _ => Err(strange(label, "answered the key with something else")),
        }
    }
}

fn limits(largest_frame: usize) -> WebSocketConfig {
    WebSocketConfig::default()
        .write_buffer_size(128 << 10)
        .max_message_size(Some(largest_frame))
        .max_frame_size(Some(largest_frame))
}

async fn read_text(wire: &mut Wire, label: &str) -> Result<String> {
    loop {
        match wire.next().await {
            Some(Ok(Message::Text(text))) => return Ok(text.as_str().to_owned()),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            Some(Ok(Message::Close(_))) | None => {
                return Err(unavailable(format!("{label} closed the connection during the login")));
            }
            Some(Ok(_)) => return Err(strange(label, "did not speak in texts during the login")),
            Some(Err(error)) => return Err(lost(label, error)),
        }
    }
}

pub(super) fn unavailable(text: String) -> Error {
    Error::new(Kind::Unavailable, text).by(PROVIDER)
}

pub(super) fn strange(label: &str, what: &str) -> Error {
    Error::new(Kind::Protocol, format!("{label} {what}: is it a KapokMQ broker?")).by(PROVIDER)
}

/// The error of a connection that broke.
pub(super) fn lost(label: &str, error: WsError) -> Error {
    match error {
        WsError::Protocol(
            ProtocolError::ResetWithoutClosingHandshake | ProtocolError::HandshakeIncomplete,
        )
        | WsError::ConnectionClosed
        | WsError::AlreadyClosed => unavailable(format!("{label} closed the connection")),
        WsError::Io(error) => unavailable(format!("the connection to {label} was lost")).caused_by(error),
        WsError::Protocol(error) => {
            Error::new(Kind::Protocol, format!("{label} broke the WebSocket protocol"))
                .by(PROVIDER)
                .caused_by(error)
        }
        WsError::Capacity(_) => {
            Error::new(Kind::Protocol, format!("{label} sent a frame over the limit of size")).by(PROVIDER)
        }
        // The texts of the others can quote what was read.
        _ => Error::new(Kind::Protocol, format!("{label} sent what is no WebSocket frame of text"))
            .by(PROVIDER),
    }
}

/// The error of a handshake that did not end in a WebSocket.
fn refused(label: &str, error: WsError) -> Error {
    let WsError::Http(response) = error else { return lost(label, error) };
    let status = response.status();
    let (kind, text) = match status.as_u16() {
        401 => (Kind::Authentication, "asks for other credentials"),
        403 => (Kind::Permission, "does not allow the connection"),
        404 => (Kind::NotFound, "has no such endpoint"),
        429 => (Kind::Throttled, "asks for fewer connections"),
        500..=599 => (Kind::Unavailable, "is out of order"),
        _ => (Kind::Protocol, "did not open a WebSocket"),
    };
    Error::new(kind, format!("{label} {text} (HTTP status {})", status.as_u16())).by(PROVIDER)
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
