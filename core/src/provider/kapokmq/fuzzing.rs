//! Checks of what brokers and registries say against any bytes, for fuzzing.
#![allow(clippy::panic, clippy::expect_used, reason = "a broken promise ends the run")]

use std::sync::Arc;

use bytes::Bytes;

use super::consumer;
use super::section::{NodeProtocol, node_target};
use crate::error::Kind;

/// The address of a node, `HOST PORT`.
pub(crate) fn node(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (host, port) = text.split_once(' ').unwrap_or((text, "8011"));
    for protocol in [NodeProtocol::Ws, NodeProtocol::Wss] {
        match node_target(host, port, protocol, "/Producers/Conn/t/c") {
            Ok(target) => {
                assert!(!target.host.is_empty() && target.tls == (protocol == NodeProtocol::Wss));
                assert_eq!(Ok(target.port), port.parse());
                // Nothing of an address becomes part of the path.
                assert_eq!(target.uri, format!("{}/Producers/Conn/t/c", target.label));
            }
            Err(error) => assert_eq!(error.kind(), Kind::Protocol),
        }
    }
}

/// A pushed frame.
pub(crate) fn delivery(data: &[u8]) {
    let own = Arc::from("t");
    if let Ok(delivery) = consumer::delivery(&Bytes::copy_from_slice(data), &own) {
        assert!(!delivery.code.is_empty());
    }
}
