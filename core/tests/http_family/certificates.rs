//! Whose certificates are trusted.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ceiba_core::client::Context;
use ceiba_core::error::{Kind, Outcome};
use ceiba_core::message::Message;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::server::{Act, Server, converse, ok};
use crate::{open, refused, send, setup};

/// An authority, its certificate in a file, and an acceptor with a certificate of it.
struct Authority {
    ca_file: PathBuf,
    acceptor: TlsAcceptor,
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.ca_file);
    }
}

fn authority(name: &str, host: &str) -> Authority {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).unwrap();
    let ca_file = std::env::temp_dir().join(format!("ceiba-http-{}-{name}.pem", std::process::id()));
    std::fs::write(&ca_file, certificate.pem()).unwrap();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec![host.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key)
        .unwrap();
    Authority { ca_file, acceptor: TlsAcceptor::from(Arc::new(config)) }
}

// A server behind TLS; what it does is that of `inside`.
async fn behind(authority: &Authority, inside: &Server) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (acceptor, shared) = (authority.acceptor.clone(), inside.shared.clone());
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (acceptor, shared) = (acceptor.clone(), shared.clone());
            tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    converse(stream, &shared).await;
                }
            });
        }
    });
    format!("https://127.0.0.1:{port}/hook")
}

#[tokio::test]
async fn those_of_the_named_authority_alone() {
    let inside = Server::start([ok("")]).await;
    let (good, other) = (authority("good", "127.0.0.1"), authority("other", "127.0.0.1"));
    let url = behind(&good, &inside).await;
    let producer =
        open(&setup(), json!({"type": "webhook", "url": url, "ca_file": good.ca_file})).await.unwrap();
    send(&producer, Message::new("x")).await.unwrap();
    assert_eq!(inside.seen()[0].target, "/hook");

    let elsewhere = authority("elsewhere", "example.com");
    let wrong_host = behind(&elsewhere, &inside).await;
    for section in [
        json!({"type": "webhook", "url": url}),
        json!({"type": "webhook", "url": url, "ca_file": other.ca_file}),
        json!({"type": "webhook", "url": wrong_host, "ca_file": elsewhere.ca_file}),
    ] {
        let producer = match open(&setup(), section).await {
            Ok(producer) => producer,
            // A system without any certificates of its own refuses to open.
            Err(error) => {
                assert_eq!(error.kind(), Kind::InvalidConfig);
                continue;
            }
        };
        let error = refused(&producer, Message::new("x")).await;
        assert_eq!(
            (error.kind(), error.outcome(), error.retryable()),
            (Kind::Unavailable, Outcome::NotSent, false)
        );
        assert!(error.message().contains("is not trusted"), "{error}");
    }
    assert_eq!(inside.seen().len(), 1);
}

#[tokio::test]
async fn a_handshake_that_fails_or_hangs_sends_nothing() {
    let authority = authority("hang", "127.0.0.1");
    let plain = Server::start([Act::Raw(b"hello".to_vec())]).await;
    let url = plain.url().replace("http:", "https:");
    let section = json!({"type": "webhook", "url": url, "ca_file": authority.ca_file});
    let producer = open(&setup(), section).await.unwrap();
    // The server reads a request's lines, and TLS has none: it says nothing.
    let began = Instant::now();
    let ctx = Context::within(Duration::from_millis(300));
    let error = producer.send(&ctx, Arc::new(Message::new("x"))).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (Kind::Timeout, Outcome::NotSent), "{error:?}");
    assert!(began.elapsed() < Duration::from_secs(2));

    let closing = Server::start([Act::CloseAtOnce]).await;
    let url = closing.url().replace("http:", "https:");
    let section = json!({"type": "webhook", "url": url, "ca_file": authority.ca_file});
    let producer = open(&setup(), section).await.unwrap();
    let error = refused(&producer, Message::new("x")).await;
    assert_eq!((error.kind(), error.outcome()), (Kind::Unavailable, Outcome::NotSent), "{error:?}");
}
