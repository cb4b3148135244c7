//! One message to an HTTP endpoint. The address is looked up and judged here, and the connection goes to that
//! very address: a name that leads elsewhere a moment later leads nowhere. Redirects are failures.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::Request;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, USER_AGENT};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use url::{Host, Url};

use super::content::Content;
use crate::wire::mns::{VERSION, content_md5};

/// How much of an answer's body is read, to end it well.
const ANSWER: usize = 64 << 10;

static REQUESTS: AtomicU64 = AtomicU64::new(0);

/// Posts a message to an address that may be; why it did not arrive. To be given up after a time.
pub(super) async fn post(
    url: &Url,
    content: &Content,
    may_be: impl Fn(IpAddr) -> bool,
) -> Result<(), String> {
    let address = resolve(url, may_be).await?;
    let stream = TcpStream::connect(address).await.map_err(|error| format!("no connection: {error}"))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let target = match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    };
    let host = match (url.host_str(), url.port()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        (host, _) => host.unwrap_or_default().to_owned(),
    };
    let mut request = Request::post(target)
        .header(HOST, host)
        .header(USER_AGENT, concat!("ceiba/", env!("CARGO_PKG_VERSION")))
        .header(CONTENT_TYPE, content.kind)
        .header(CONTENT_LENGTH, content.body.len())
        .header("content-md5", content_md5(content.body.as_bytes()))
        .header("x-mns-version", VERSION)
        .header("x-mns-request-id", format!("{:016X}", REQUESTS.fetch_add(1, Ordering::Relaxed)))
        .header("x-mns-message-id", content.message_id.as_str());
    if let Some(tag) = content.tag.as_deref().filter(|tag| tag.is_ascii()) {
        request = request.header("x-mns-message-tag", tag);
    }
    let body = Full::new(Bytes::copy_from_slice(content.body.as_bytes()));
    let request = request.body(body).map_err(|error| error.to_string())?;
    let answered = async {
        let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let status = answer.status();
        // What it says beside the status is of no use.
        let _ = Limited::new(answer.into_body(), ANSWER).collect().await;
        if status.is_success() { Ok(()) } else { Err(format!("the endpoint answered {}", status.as_u16())) }
    };
    let mut answered = std::pin::pin!(answered);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        biased;
        answered = answered.as_mut() => answered,
        // The answer may be there although the connection has ended.
        _ = connection.as_mut() => answered.await,
    }
}

async fn resolve(url: &Url, may_be: impl Fn(IpAddr) -> bool) -> Result<SocketAddr, String> {
    let port = url.port_or_known_default().unwrap_or(80);
    let found: Vec<SocketAddr> = match url.host() {
        Some(Host::Ipv4(address)) => vec![(address, port).into()],
        Some(Host::Ipv6(address)) => vec![(address, port).into()],
        Some(Host::Domain(name)) => {
            let found = tokio::net::lookup_host((name, port)).await;
            found.map_err(|error| format!("the name leads nowhere: {error}"))?.collect()
        }
        None => Vec::new(),
    };
    let allowed = found.into_iter().find(|address| may_be(address.ip()));
    allowed.ok_or_else(|| "the address is not one of the open network, and such are not allowed".to_owned())
}
