//! The paths of the WebSocket endpoints.

use crate::error::Result;
use crate::wire::path::path;

/// The path of a producer connection, percent-encoded.
///
/// # Errors
/// `invalid_config` when topic or id is empty or holds a `/`: a server answers such a path with 404.
pub fn producer_path(topic: &str, client_id: &str) -> Result<String> {
    path("kapokmq", "/Producers/Conn", topic, client_id)
}

/// The path of a consumer connection, percent-encoded.
///
/// # Errors
/// As [`producer_path`].
pub fn consumer_path(topic: &str, client_id: &str) -> Result<String> {
    path("kapokmq", "/Consumers/Conn", topic, client_id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn each_segment_is_encoded() {
        assert_eq!(producer_path("t1", "p-1_.~").unwrap(), "/Producers/Conn/t1/p-1_.~");
        assert_eq!(consumer_path("木 |", "a?b#c%").unwrap(), "/Consumers/Conn/%E6%9C%A8%20%7C/a%3Fb%23c%25");
    }

    #[test]
    fn what_no_server_routes_is_refused_and_named() {
        for (topic, id, name) in [("", "p", "topic"), ("t", "", "client_id"), ("a/b", "p", "topic")] {
            let error = producer_path(topic, id).unwrap_err();
            assert_eq!(error.kind(), Kind::InvalidConfig);
            assert!(error.message().contains(name), "{error}");
        }
        assert_eq!(consumer_path("t", "a/b").unwrap_err().kind(), Kind::InvalidConfig);
    }
}
