//! The registry of a cluster: which nodes there are.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use reqwest::header::{CONTENT_LENGTH, HeaderValue};
use tokio::time::Instant;
use url::Url;

use super::PROVIDER;
use super::section::Settings;
use crate::client::BoxFuture;
use crate::error::{Error, Kind, Result};
use crate::provider::socket::{Backoff, Dialer, permanent};
use crate::random::Random;
use crate::tls;
use crate::wire::kapokmq::{Node, REGISTRY_PATH, SECRET_HEADER, decode_nodes};

/// The longest answer that is read.
const MAX_ANSWER: usize = 1 << 20;
/// The most nodes that are used.
pub(super) const MAX_NODES: usize = 1024;

enum State {
    Waiting(Instant),
    Asking(BoxFuture<'static, Result<Vec<Node>>>),
}

/// Asks for the nodes again and again; polled by the task of the cluster's producer.
pub(super) struct Registry {
    ask: Arc<Ask>,
    period: Duration,
    state: State,
    backoff: Backoff,
    answered: bool,
}

struct Ask {
    client: reqwest::Client,
    url: Url,
    label: Arc<str>,
    key: HeaderValue,
    timeout: Duration,
}

impl Registry {
    pub(super) fn new(base: &Url, settings: &Settings, dialer: &Dialer, random: &Random) -> Result<Registry> {
        let internal = |text: &str| Error::new(Kind::Internal, text).by(PROVIDER);
        let tls = match &dialer.tls {
            Some(config) => config.clone(),
            None => tls::client_config_without_roots()?,
        };
        // No proxy and no redirect: the key goes to the registry that was named and to nobody else.
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured((*tls).clone())
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| internal("no HTTP client could be made").caused_by(error))?;
        let mut key = HeaderValue::from_str(settings.secret.expose()).map_err(|_| {
            Error::new(Kind::InvalidConfig, "`secret_key` cannot be sent in an HTTP header").by(PROVIDER)
        })?;
        key.set_sensitive(true);
        let mut url = base.clone();
        url.set_path(&format!("{}{REGISTRY_PATH}", base.path().trim_end_matches('/')));
        let label = base.as_str().trim_end_matches('/').into();
        Ok(Registry {
            ask: Arc::new(Ask { client, url, label, key, timeout: dialer.timeout }),
            period: settings.pace.check_time,
            state: State::Waiting(Instant::now()),
            backoff: Backoff::new(settings.pace.reconnect_base, settings.pace.reconnect_max, random.number()),
            answered: false,
        })
    }

    pub(super) fn label(&self) -> &Arc<str> {
        &self.ask.label
    }

    /// When it has to be polled though nothing arrived.
    pub(super) fn timer(&self) -> Option<Instant> {
        match &self.state {
            State::Waiting(at) => Some(*at),
            State::Asking(_) => None,
        }
    }

    /// An answer with at least one node, or why there is none.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, now: Instant) -> Option<Result<Vec<Node>>> {
        if let State::Waiting(at) = self.state
            && at <= now
        {
            self.state = State::Asking(Box::pin(self.ask.clone().nodes()));
        }
        let State::Asking(asking) = &mut self.state else { return None };
        let Poll::Ready(answer) = asking.as_mut().poll(cx) else { return None };
        let answer = answer.and_then(|nodes| {
            if nodes.is_empty() {
                Err(unavailable(format!("the registry {} lists no node", self.ask.label)))
            } else {
                Ok(nodes)
            }
        });
        self.answered |= answer.is_ok();
        // Until there is a list at all it is asked for more often.
        let mut wait = self.period;
        match &answer {
            Err(error) if !self.answered && !permanent(error) => {
                wait = wait.min(self.backoff.next().max(Duration::from_millis(10)));
            }
            _ => {}
        }
        self.state = State::Waiting(now + wait);
        Some(answer)
    }
}

fn unavailable(text: String) -> Error {
    Error::new(Kind::Unavailable, text).by(PROVIDER)
}

impl Ask {
    async fn nodes(self: Arc<Ask>) -> Result<Vec<Node>> {
        let label = &self.label;
        match tokio::time::timeout(self.timeout, self.request()).await {
            Ok(answer) => answer,
            Err(_) => {
                Err(unavailable(format!("the registry {label} does not answer within {:?}", self.timeout)))
            }
        }
    }

    async fn request(&self) -> Result<Vec<Node>> {
        let label = &self.label;
        let broken = |error: reqwest::Error| {
            // Its text can hold the address, which holds no secret, and nothing of the headers.
            unavailable(format!("the registry {label} cannot be reached")).caused_by(error)
        };
        let request = self.client.post(self.url.clone()).header(SECRET_HEADER, self.key.clone());
        let mut response = request.header(CONTENT_LENGTH, 0).send().await.map_err(broken)?;
        let status = response.status();
        if !status.is_success() {
            let kind = match status.as_u16() {
                401 => Kind::Authentication,
                403 => Kind::Permission,
                404 => Kind::NotFound,
                429 => Kind::Throttled,
                500..=599 => Kind::Unavailable,
                _ => Kind::Protocol,
            };
            let text = format!("the registry {label} answers with the HTTP status {}", status.as_u16());
            return Err(Error::new(kind, text).by(PROVIDER));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(broken)? {
            if body.len() + chunk.len() > MAX_ANSWER {
                let text = format!("the registry {label} answers with more than {MAX_ANSWER} bytes");
                return Err(Error::new(Kind::Protocol, text).by(PROVIDER));
            }
            body.extend_from_slice(&chunk);
        }
        decode_nodes(&body).map_err(|error| error.by(PROVIDER))
    }
}
