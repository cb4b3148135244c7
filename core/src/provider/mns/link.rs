//! The connections to the service: each has one request on its way, and is used again when its answer was read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{DATE, HOST, HeaderMap, HeaderName, HeaderValue, USER_AGENT as AGENT};
use hyper::{Method, Uri};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::PROVIDER;
use crate::error::{Error, Kind, Result};
use crate::provider::http::USER_AGENT;
use crate::provider::socket::{Dialer, Target, bracketed};
use crate::wire::mns::MAX_DOCUMENT;

/// How long a connection may lie idle and be used again: a service that closed it meanwhile may do so while a request is
/// written.
const IDLE: Duration = Duration::from_secs(20);
/// Connections that may turn out closed before a byte of a request was written, one after the other.
const TRIES: usize = 3;

/// A request, with all its headers but `Host` and `Content-Length`.
pub(super) struct Ready {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
}

impl Ready {
    pub(super) fn new(
        method: &str,
        resource: &str,
        headers: Vec<(&'static str, String)>,
        body: Bytes,
    ) -> Result<Ready> {
        let unwritable = || Error::new(Kind::InvalidArgument, "the request cannot be written").by(PROVIDER);
        let mut map = HeaderMap::with_capacity(headers.len() + 2);
        for (name, value) in headers {
            let mut value = HeaderValue::try_from(value).map_err(|_| unwritable())?;
            value.set_sensitive(matches!(name, "authorization" | "security-token"));
            map.insert(HeaderName::from_static(name), value);
        }
        Ok(Ready {
            method: Method::from_bytes(method.as_bytes()).map_err(|_| unwritable())?,
            uri: resource.parse().map_err(|_| unwritable())?,
            headers: map,
            body,
        })
    }
}

/// An answer.
pub(super) struct Raw {
    pub(super) status: u16,
    /// The service's time, where it tells it.
    pub(super) date: Option<SystemTime>,
    pub(super) body: Bytes,
}

/// Why there is no answer.
pub(super) enum Failed {
    /// There is no connection; another may come.
    Disconnected(Error),
    /// No byte of the request was written.
    NotWritten(Error),
    /// Some of it may have been.
    Lost(Error),
}

/// A live connection.
pub(super) struct Http {
    sender: SendRequest<Full<Bytes>>,
    task: JoinHandle<()>,
    used: Instant,
}

impl Drop for Http {
    fn drop(&mut self) {
        // An answer that nobody waits for is not waited for.
        self.task.abort();
    }
}

/// See the module.
pub(super) struct Link {
    pub(super) target: Target,
    host: HeaderValue,
    dialer: Arc<Dialer>,
    idle: Mutex<Vec<Http>>,
    dialed: AtomicU64,
}

impl Link {
    pub(super) fn new(target: Target, dialer: Arc<Dialer>) -> Result<Link> {
        let host = bracketed(&target.host);
        let standard = if target.tls { 443 } else { 80 };
        let host = if target.port == standard { host } else { format!("{host}:{}", target.port) };
        let host = HeaderValue::try_from(host)
            .map_err(|_| Error::new(Kind::InvalidConfig, "`url` cannot be asked by HTTP").by(PROVIDER))?;
        Ok(Link { target, host, dialer, idle: Mutex::default(), dialed: AtomicU64::new(0) })
    }

    /// How many connections were made.
    pub(super) fn dialed(&self) -> u64 {
        self.dialed.load(Ordering::Relaxed)
    }

    /// Closes those that are idle.
    pub(super) fn close(&self) {
        let idle = std::mem::take(&mut *self.idle.lock());
        drop(idle);
    }

    /// A connection for one request: an idle one, or another.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) async fn connection(&self) -> Result<Http> {
        match self.pop().await {
            Some(http) => Ok(http),
            None => self.dial().await,
        }
    }

    /// Sends a request and reads its answer. `begun` tells a caller who does not wait for the end whether a byte of it
    /// may have been written.
    pub(super) async fn exchange(
        &self,
        mut http: Http,
        ready: Ready,
        begun: &AtomicBool,
    ) -> Result<Raw, Failed> {
        let mut request = hyper::Request::new(Full::new(ready.body));
        *request.method_mut() = ready.method;
        *request.uri_mut() = ready.uri;
        *request.headers_mut() = ready.headers;
        request.headers_mut().insert(HOST, self.host.clone());
        request.headers_mut().insert(AGENT, HeaderValue::from_static(USER_AGENT));
        let mut tries = 0;
        loop {
            begun.store(true, Ordering::Release);
            let response = match http.sender.try_send_request(request).await {
                Ok(response) => response,
                Err(mut error) => {
                    let unwritten = error.take_message();
                    let error = self.lost(error.into_error());
                    let Some(unwritten) = unwritten else { return Err(Failed::Lost(error)) };
                    begun.store(false, Ordering::Release);
                    tries += 1;
                    if tries == TRIES {
                        return Err(Failed::NotWritten(error));
                    }
                    request = unwritten;
                    http = self.connection().await.map_err(Failed::Disconnected)?;
                    continue;
                }
            };
            let status = response.status().as_u16();
            let date = response.headers().get(DATE).and_then(|date| date.to_str().ok());
            let date = date.and_then(|date| httpdate::parse_http_date(date).ok());
            let body = Limited::new(response.into_body(), MAX_DOCUMENT).collect().await;
            let body = body.map_err(|error| Failed::Lost(self.broken(error.as_ref())))?.to_bytes();
            http.used = Instant::now();
            self.idle.lock().push(http);
            return Ok(Raw { status, date, body });
        }
    }

    // The one used last: the others grow old, and go.
    async fn pop(&self) -> Option<Http> {
        loop {
            let mut http = self.idle.lock().pop()?;
            let fresh = http.used.elapsed() < IDLE;
            if fresh && !http.sender.is_closed() && http.sender.ready().await.is_ok() {
                return Some(http);
            }
        }
    }

    async fn dial(&self) -> Result<Http> {
        let label = &self.target.label;
        let dialed = async {
            let stream = self.dialer.stream(&self.target).await?;
            let (sender, connection) =
                handshake(TokioIo::new(stream)).await.map_err(|error| self.lost(error))?;
            let task = tokio::spawn(async move {
                // How it ended is told to the request on its way.
                let _ = connection.await;
            });
            self.dialed.fetch_add(1, Ordering::Relaxed);
            Ok(Http { sender, task, used: Instant::now() })
        };
        match tokio::time::timeout(self.dialer.timeout, dialed).await {
            Ok(dialed) => dialed,
            Err(_) => {
                let text = format!("{label} does not answer within {:?}", self.dialer.timeout);
                Err(self.target.unavailable(text))
            }
        }
    }

    fn lost(&self, error: hyper::Error) -> Error {
        let label = &self.target.label;
        if error.is_parse() {
            // What it wrote instead is not repeated.
            return Error::new(Kind::Protocol, format!("{label} does not answer in HTTP")).by(PROVIDER);
        }
        self.target.unavailable(format!("the connection to {label} was lost")).caused_by(error)
    }

    fn broken(&self, error: &(dyn std::error::Error + Send + Sync + 'static)) -> Error {
        let label = &self.target.label;
        if error.is::<LengthLimitError>() {
            let text = format!("{label} answers with more than {MAX_DOCUMENT} bytes");
            return Error::new(Kind::Protocol, text).by(PROVIDER);
        }
        self.target.unavailable(format!("the answer of {label} broke off"))
    }
}
