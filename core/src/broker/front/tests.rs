use std::net::SocketAddr;

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::header;
use tower_service::Service;

use super::*;
use crate::broker::config::BrokerConfig;
use crate::broker::store;
use crate::secret::Secret;

fn hub() -> Arc<Hub> {
    let config = BrokerConfig { dpmq: true, ..BrokerConfig::new(Secret::new("test")) };
    let stored = store::open(&config).unwrap();
    Hub::new(config, SocketAddr::from(([127, 0, 0, 1], 1)), stored)
}

async fn post(hub: &Arc<Hub>, path: &str, form: String) -> (u16, String) {
    let request = Request::post(path)
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header(crate::wire::kapokmq::SECRET_HEADER, "test")
        .body(Body::from(form))
        .unwrap();
    let response = router(Arc::clone(hub)).call(request).await.unwrap();
    let status = response.status().as_u16();
    let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn a_failed_log_refuses_nothing_for_sure() {
    let hub = hub();
    let forms =
        [("/Producer/Send", "topic=t&messageData=m&delayTime=0"), ("/ProducerSend", "topic=t&messageData=m")];
    for (path, form) in forms {
        let (status, body) = post(&hub, path, form.to_owned()).await;
        assert!(status == 200 && body.contains(r#""code":0"#), "{path}: {status} {body}");
    }
    hub.log().abort();
    for (path, form) in forms {
        // No `code`: a client would take -1 for a message that it may send again.
        assert_eq!(post(&hub, path, form.to_owned()).await, (503, LOG_FAILED.to_owned()), "{path}");
    }
}

#[tokio::test]
async fn the_name_of_a_topic_is_bounded() {
    let hub = hub();
    let long = "t".repeat(socket::NAME_BYTES + 1);
    for path in ["/Producer/Send", "/ProducerSend"] {
        let form = |topic: &str| format!("topic={topic}&messageData=m&delayTime=0");
        let (status, body) = post(&hub, path, form(&long)).await;
        assert!(status == 200 && body.contains(r#""code":-1"#), "{path}: {status} {body}");
        let (_, body) = post(&hub, path, form(&long[1..])).await;
        assert!(body.contains(r#""code":0"#), "{path}: {body}");
    }
    assert_eq!(hub.all_topics().len(), 1);
}
