//! One message to an HTTP endpoint. The address is looked up and judged here, and the connection goes to that
//! very address: a name that leads elsewhere a moment later leads nowhere. Redirects are failures.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::Request;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use url::{Host, Url};

use super::Places;
use super::content::Content;
use crate::wire::mns::{VERSION, content_md5};

/// How much of an answer's body is read, to end it well.
const ANSWER: usize = 64 << 10;

/// How long one address of several may take to answer a connection.
const CONNECT: Duration = Duration::from_secs(3);

static REQUESTS: AtomicU64 = AtomicU64::new(0);

/// Posts a message to an address that may be; why it did not arrive. To be given up after a time.
pub(super) async fn post(
    url: &Url,
    content: &Content,
    may_be: impl Fn(IpAddr) -> bool,
    places: Places,
) -> Result<(), String> {
    let stream = connect(resolve(url, may_be, places).await?).await?;
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
    // A tag that no header can carry is in the body.
    if let Some(tag) = content.tag.as_deref().and_then(|tag| HeaderValue::from_str(tag).ok()) {
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

/// To the first address that takes it. One that does not answer leaves time for the next.
async fn connect(addresses: Vec<SocketAddr>) -> Result<TcpStream, String> {
    let mut failed = String::new();
    for address in addresses {
        match tokio::time::timeout(CONNECT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => failed = format!("no connection: {error}"),
            Err(_) => failed = "no connection in time".to_owned(),
        }
    }
    Err(failed)
}

/// The addresses of an endpoint that may be, at least one.
async fn resolve(
    url: &Url,
    may_be: impl Fn(IpAddr) -> bool,
    places: Places,
) -> Result<Vec<SocketAddr>, String> {
    let port = url.port_or_known_default().unwrap_or(80);
    let mut found: Vec<SocketAddr> = match url.host() {
        Some(Host::Ipv4(address)) => vec![(address, port).into()],
        Some(Host::Ipv6(address)) => vec![(address, port).into()],
        Some(Host::Domain(name)) => {
            let name = name.to_owned();
            // Given up it goes on all the same, and keeps its places until it ends.
            let looked_up = tokio::spawn(async move {
                let found = tokio::net::lookup_host((name, port)).await.map(Vec::from_iter);
                drop(places);
                found
            });
            let found = looked_up.await.map_err(|error| error.to_string())?;
            found.map_err(|error| format!("the name leads nowhere: {error}"))?
        }
        None => Vec::new(),
    };
    found.retain(|address| may_be(address.ip()));
    if found.is_empty() {
        return Err("the address is not one of the open network, and such are not allowed".to_owned());
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_next_address_is_tried() {
        let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dead = free.local_addr().unwrap();
        drop(free);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let live = listener.local_addr().unwrap();
        assert_eq!(connect(vec![dead, live]).await.unwrap().peer_addr().unwrap(), live);
        assert!(connect(vec![dead, dead]).await.unwrap_err().starts_with("no connection"));
    }
}
