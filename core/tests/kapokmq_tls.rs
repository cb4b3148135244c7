//! KapokMQ over TLS: whose certificates are trusted and whose are not.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may"
)]

mod peer;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ceiba_core::client::Context;
use ceiba_core::error::Kind;
use ceiba_core::message::Message;
use peer::*;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

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
    let ca_file = std::env::temp_dir().join(format!("ceiba-{}-{name}.pem", std::process::id()));
    std::fs::write(&ca_file, certificate.pem()).unwrap();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec![host.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let config =
        rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![leaf.der().clone()],
                PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
            )
            .unwrap();
    Authority { ca_file, acceptor: TlsAcceptor::from(Arc::new(config)) }
}

async fn accept(peer: &Peer, authority: &Authority) -> Option<Session<TlsStream<TcpStream>>> {
    let tls = soon(authority.acceptor.accept(peer.accept_tcp().await)).await.ok()?;
    let mut session = Session::handshake(tls).await;
    session.log_in().await;
    Some(session)
}

fn section(peer: &Peer, host: &str, more: Value) -> Value {
    let mut section = peer.section(more);
    section["url"] = json!(format!("wss://{host}:{}", peer.addr.port()));
    section
}

#[tokio::test]
async fn a_certificate_of_the_named_authority_is_trusted() {
    let (peer, authority) = (Peer::start().await, authority("good", "127.0.0.1"));
    let section = section(&peer, "127.0.0.1", json!({"ca_file": authority.ca_file}));
    let setup = setup("p");
    let (opened, session) = tokio::join!(producer(&setup, section.clone()), accept(&peer, &authority));
    let (opened, mut session) = (opened.unwrap(), session.expect("TLS"));
    assert_eq!(opened.status()["connected_to"], json!([format!("wss://{}", peer.addr)]));
    let ctx = Context::within(Duration::from_secs(10));
    // More than a TLS record, more than a socket buffer.
    let body = "x".repeat(5 << 20);
    let (sent, bodies) = tokio::join!(opened.send(&ctx, Arc::new(Message::new(body.clone()))), async {
        let bodies = session.bodies(1).await;
        session.ok(1).await;
        bodies
    });
    sent.unwrap();
    assert!(bodies == [body]);

    let (opened, session) = tokio::join!(consumer(&setup, section), accept(&peer, &authority));
    let (consumer, mut session) = (opened.unwrap(), session.expect("TLS"));
    session.push("a", "x").await;
    assert_eq!(&*consumer.receive(&ctx, 1).await.unwrap()[0].code, "a");
}

#[tokio::test]
async fn other_certificates_are_refused_at_once() {
    let peer = Peer::start().await;
    let (own, other) = (authority("own", "127.0.0.1"), authority("other", "127.0.0.1"));
    let elsewhere = authority("elsewhere", "elsewhere.example");
    let cases = [
        // Signed by an authority that is not the named one.
        (json!({"ca_file": other.ca_file}), &own),
        // The system's authorities did not sign it either.
        (json!({}), &own),
        // The named authority signed it for another host.
        (json!({"ca_file": elsewhere.ca_file}), &elsewhere),
    ];
    for (more, authority) in cases {
        let setup = setup("p");
        let section = section(&peer, "127.0.0.1", more);
        let system = section.get("ca_file").is_none();
        if system && ceiba_core::tls::client_config(None).is_err() {
            // No roots on this system: the open says so without a connection.
            let error = soon(producer(&setup, section)).await.err().expect("no roots");
            assert_eq!(error.kind(), Kind::InvalidConfig);
            continue;
        }
        let (opened, session) = tokio::join!(soon(producer(&setup, section)), accept(&peer, authority));
        let error = opened.err().expect("refused");
        assert!(session.is_none());
        assert_eq!(error.kind(), Kind::Unavailable);
        assert!(!error.retryable(), "{error:?}");
        assert!(error.text().contains("is not trusted"), "{}", error.text());
    }
}

#[tokio::test]
async fn the_name_of_the_host_counts() {
    let (peer, authority) = (Peer::start().await, authority("name", "localhost"));
    let setup = setup("p");
    let section = section(&peer, "localhost", json!({"ca_file": authority.ca_file}));
    let (opened, session) = tokio::join!(producer(&setup, section), accept(&peer, &authority));
    opened.unwrap();
    assert_eq!(session.expect("TLS").host, format!("localhost:{}", peer.addr.port()));
}

#[tokio::test]
async fn authorities_that_cannot_be_read_fail_the_open() {
    let peer = Peer::start().await;
    let empty = std::env::temp_dir().join(format!("ceiba-{}-empty.pem", std::process::id()));
    std::fs::write(&empty, "nothing\n").unwrap();
    for path in [empty.clone(), PathBuf::from("/nonexistent/ca.pem")] {
        let section = section(&peer, "127.0.0.1", json!({"ca_file": path}));
        let error = producer(&setup("p"), section).await.err().expect("refused");
        assert_eq!(error.kind(), Kind::InvalidConfig);
        assert!(error.message().contains("ca_file"), "{error}");
    }
    std::fs::remove_file(empty).unwrap();
}
