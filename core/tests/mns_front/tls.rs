//! MNS over TLS: the front behind something that ends TLS, as the real service is; whose certificates are trusted.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use ceiba_core::broker::Broker;
use ceiba_core::error::{Kind, Outcome};
use ceiba_core::message::Message;
use ceiba_core::provider::mns::{self, Admin};
use ceiba_core::wire::mns::QueueAttributes;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Map, Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::{section, setup, start, within};

/// What ends TLS, with a certificate of an authority whose own is in a file.
struct Door {
    address: SocketAddr,
    ca_file: PathBuf,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Door {
    fn drop(&mut self) {
        self.task.abort();
        let _ = std::fs::remove_file(&self.ca_file);
    }
}

async fn door(broker: &Broker, name: &str, host: &str) -> Door {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).unwrap();
    let ca_file = std::env::temp_dir().join(format!("ceiba-mns-{}-{name}.pem", std::process::id()));
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
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let front = broker.mns_address().unwrap();
    let task = tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut client) = acceptor.accept(client).await else { return };
                let mut front = TcpStream::connect(front).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut client, &mut front).await;
            });
        }
    });
    Door { address, ca_file, task }
}

fn through(broker: &Broker, door: &Door, more: Value) -> Map<String, Value> {
    let mut section = section(broker, more);
    section.insert("url".to_owned(), json!(format!("https://{}", door.address)));
    section
}

#[tokio::test]
async fn a_certificate_of_the_named_authority_is_trusted() {
    let broker = start().await;
    let door = door(&broker, "good", "127.0.0.1").await;
    let section = |more| through(&broker, &door, more);
    let trusting = json!({"ca_file": door.ca_file});
    let admin = Admin::open(&setup(), section(trusting.clone())).await.unwrap();
    admin.create_queue(&within(10), "q", QueueAttributes::default()).await.unwrap();
    let producer = mns::open_producer(&setup(), section(trusting.clone())).await.unwrap();
    let consumer = mns::open_consumer(&setup(), section(trusting)).await.unwrap();
    // More than one record of TLS.
    let body = "x".repeat(60_000);
    producer.send(&within(10), Arc::new(Message::new(body.clone()))).await.unwrap();
    let came = consumer.receive(&within(10), 1).await.unwrap().remove(0);
    assert!(came.message.body() == body.as_bytes());
    consumer.ack(&within(10), vec![came.code]).await.remove(0).unwrap();
    assert_eq!(broker.status().acknowledged, 1);
    assert_eq!(producer.status()["server"], json!(format!("https://{}", door.address)));
}

#[tokio::test]
async fn other_certificates_are_refused() {
    let broker = start().await;
    let own = door(&broker, "own", "127.0.0.1").await;
    let other = door(&broker, "other", "127.0.0.1").await;
    let elsewhere = door(&broker, "elsewhere", "elsewhere.example").await;
    for (door, more) in [
        // Signed by an authority that is not the named one.
        (&own, json!({"ca_file": other.ca_file})),
        // Signed for another host.
        (&elsewhere, json!({"ca_file": elsewhere.ca_file})),
        // The system's authorities did not sign it.
        (&own, json!({})),
    ] {
        let opened = mns::open_producer(&setup(), through(&broker, door, more.clone())).await;
        let error = match opened {
            Ok(producer) => producer.send(&within(10), Arc::new(Message::new("x"))).await.unwrap_err(),
            // No roots on this system: the open says so.
            Err(error) => {
                assert_eq!((error.kind(), more), (Kind::InvalidConfig, json!({})));
                continue;
            }
        };
        assert_eq!((error.kind(), error.outcome()), (Kind::Unavailable, Outcome::NotSent), "{error}");
        assert!(!error.retryable() && error.text().contains("is not trusted"), "{error}");
    }
    // Plain HTTP to it gets no answer that counts.
    let plain = section(&broker, json!({"url": format!("http://{}", own.address)}));
    let producer = mns::open_producer(&setup(), plain).await.unwrap();
    producer.send(&within(10), Arc::new(Message::new("x"))).await.unwrap_err();
    assert_eq!(broker.status().accepted, 0);
}
