//! One connection of a producer: a request and its answer, then the next.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, Response, Uri};
use hyper_util::rt::TokioIo;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::PROVIDER;
use crate::error::{Error, Kind, Result};
use crate::provider::socket::{Dialer, Target, bracketed};
use crate::wire::dpmq::{SEND_PATH, SETTINGS_PATH, SendForm, is_settings};

/// The longest answer that is read.
const MAX_ANSWER: usize = 64 << 10;

/// Where a server is and what is asked of it.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) target: Target,
    host: HeaderValue,
    send: Uri,
    settings: Uri,
}

impl Site {
    pub(super) fn new(target: Target) -> Result<Site> {
        let wrong = || Error::new(Kind::InvalidConfig, "`url` cannot be asked by HTTP").by(PROVIDER);
        let host = format!("{}:{}", bracketed(&target.host), target.port);
        let prefix = target.uri.strip_prefix(&*target.label).unwrap_or_default();
        let uri = |path: &str| format!("{prefix}{path}").parse::<Uri>().map_err(|_| wrong());
        Ok(Site {
            host: HeaderValue::from_str(&host).map_err(|_| wrong())?,
            send: uri(SEND_PATH)?,
            settings: uri(SETTINGS_PATH)?,
            target,
        })
    }
}

/// A message as it is sent; cloning copies nothing.
#[derive(Debug, Clone)]
pub(super) struct Form {
    kind: HeaderValue,
    body: Bytes,
}

impl Form {
    pub(super) fn new(form: SendForm) -> Result<Form> {
        let kind = HeaderValue::try_from(form.content_type)
            .map_err(|_| Error::new(Kind::Internal, "a form without a name of its kind").by(PROVIDER))?;
        Ok(Form { kind, body: form.body.into() })
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Failed {
    /// No byte of the request was written.
    NotWritten(Error),
    /// Some of it was.
    Lost(Error),
}

/// A live connection.
#[derive(Debug)]
pub(super) struct Http {
    sender: SendRequest<Full<Bytes>>,
    task: JoinHandle<()>,
}

impl Drop for Http {
    fn drop(&mut self) {
        // An answer that nobody waits for is not waited for.
        self.task.abort();
    }
}

impl Http {
    /// Connects, and asks for the settings, which tells whether this is a DPMQ server; within the dialer's
    /// timeout. `ended` is told when the connection has ended.
    pub(super) async fn dial(dialer: &Dialer, site: &Site, ended: &Arc<Notify>) -> Result<Http> {
        let dialed = async {
            let mut http = Http::connect(dialer, site, ended).await?;
            http.probe(site).await?;
            // A server may close after each answer: the next connection is for one message.
            if http.is_ready().await { Ok(http) } else { Http::connect(dialer, site, ended).await }
        };
        match tokio::time::timeout(dialer.timeout, dialed).await {
            Ok(dialed) => dialed,
            Err(_) => {
                let text = format!("{} does not answer within {:?}", site.target.label, dialer.timeout);
                Err(site.target.unavailable(text))
            }
        }
    }

    async fn connect(dialer: &Dialer, site: &Site, ended: &Arc<Notify>) -> Result<Http> {
        let stream = dialer.stream(&site.target).await?;
        let (sender, connection) =
            handshake(TokioIo::new(stream)).await.map_err(|error| lost(&site.target, error))?;
        let ended = Arc::clone(ended);
        let task = tokio::spawn(async move {
            // How it ended is told to the request under way.
            let _ = connection.await;
            ended.notify_one();
        });
        Ok(Http { sender, task })
    }

    /// Whether a request can be sent; waits for the end of the one before.
    pub(super) async fn is_ready(&mut self) -> bool {
        !self.sender.is_closed() && self.sender.ready().await.is_ok()
    }

    /// Asks for the settings.
    pub(super) async fn probe(&mut self, site: &Site) -> Result<()> {
        let request = request(Method::GET, &site.settings, site, Bytes::new());
        let (status, body) = self.exchange(request, site).await.map_err(|failed| match failed {
            Failed::NotWritten(error) | Failed::Lost(error) => error,
        })?;
        if status != 200 {
            return Err(site.target.refused(status));
        }
        if is_settings(&body) { Ok(()) } else { Err(site.target.strange("tells no settings")) }
    }

    /// Sends a message; the HTTP status and the body of the answer.
    pub(super) async fn send(&mut self, form: &Form, site: &Site) -> Result<(u16, Bytes), Failed> {
        let mut request = request(Method::POST, &site.send, site, form.body.clone());
        request.headers_mut().insert(CONTENT_TYPE, form.kind.clone());
        self.exchange(request, site).await
    }

    async fn exchange(&mut self, request: Request<Full<Bytes>>, site: &Site) -> Result<(u16, Bytes), Failed> {
        let response: Response<_> = match self.sender.try_send_request(request).await {
            Ok(response) => response,
            Err(mut error) => {
                let unwritten = error.take_message().is_some();
                let error = lost(&site.target, error.into_error());
                return Err(if unwritten { Failed::NotWritten(error) } else { Failed::Lost(error) });
            }
        };
        let status = response.status().as_u16();
        match Limited::new(response.into_body(), MAX_ANSWER).collect().await {
            Ok(body) => Ok((status, body.to_bytes())),
            Err(error) => {
                let text = format!("the answer of {} broke off or is too long: {error}", site.target.label);
                Err(Failed::Lost(site.target.unavailable(text)))
            }
        }
    }
}

fn request(method: Method, uri: &Uri, site: &Site, body: Bytes) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = method;
    *request.uri_mut() = uri.clone();
    request.headers_mut().insert(HOST, site.host.clone());
    request
}

fn lost(target: &Target, error: hyper::Error) -> Error {
    if error.is_parse() {
        let text = format!("{} does not answer in HTTP", target.label);
        return Error::new(Kind::Protocol, text).by(PROVIDER).caused_by(error);
    }
    target.unavailable(format!("the connection to {} was lost", target.label)).caused_by(error)
}
