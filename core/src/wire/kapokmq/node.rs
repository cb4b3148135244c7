//! What a registry answers: its nodes, or that the key is wrong.

use crate::error::{Error, Kind, Result};
use crate::wire::escape::push_quoted;
use crate::wire::json::{Scanner, bad, names};

/// A broker of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Node {
    /// Its name: `mq:` and the address.
    pub name: String,
    /// Host name or IP address.
    pub addr: String,
    /// Port, a text on this wire.
    pub port: String,
}

impl Node {
    /// A node with the name that the original gives it.
    pub fn at(addr: impl Into<String>, port: u16) -> Node {
        let (addr, port) = (addr.into(), port.to_string());
        Node { name: format!("mq:{addr}:{port}"), addr, port }
    }
}

/// Decodes a registry's answer. `null` is an empty list.
///
/// # Errors
/// `authentication` for the answer to a wrong key, `protocol` for anything that is no list of nodes.
pub fn decode_nodes(body: &[u8]) -> Result<Vec<Node>> {
    let mut scanner = Scanner::new(body);
    if scanner.peek() == Some(b'{') {
        return Err(refusal(body));
    }
    let mut nodes = Vec::new();
    if scanner.null()? {
        scanner.end()?;
        return Ok(nodes);
    }
    if !scanner.take(b'[') {
        return Err(bad("the registry's answer is no list of nodes"));
    }
    if !scanner.take(b']') {
        loop {
            nodes.push(node(&mut scanner)?);
            if scanner.take(b',') {
                continue;
            }
            if scanner.take(b']') {
                break;
            }
            return Err(bad("the registry's list of nodes has no end"));
        }
    }
    scanner.end()?;
    Ok(nodes)
}

fn node(scanner: &mut Scanner<'_>) -> Result<Node> {
    let mut node = Node { name: String::new(), addr: String::new(), port: String::new() };
    scanner.object(|key, scanner| {
        let field = if names(key, "Name") {
            &mut node.name
        } else if names(key, "Addr") {
            &mut node.addr
        } else if names(key, "Port") {
            &mut node.port
        } else {
            return scanner.value();
        };
        if let Some(text) = scanner.optional_string()? {
            *field = text.into_owned();
        }
        Ok(())
    })?;
    if node.addr.is_empty() || node.port.is_empty() {
        return Err(bad("a node of the registry has no address"));
    }
    Ok(node)
}

/// What an object instead of a list means.
fn refusal(body: &[u8]) -> Error {
    let mut code = 0;
    let mut scanner = Scanner::new(body);
    let read = scanner.object(|key, scanner| {
        if names(key, "code") {
            code = scanner.integer()?.unwrap_or(0);
            return Ok(());
        }
        scanner.value()
    });
    match read.and_then(|()| scanner.end()) {
        Ok(()) if code == -1 => Error::new(
            Kind::Authentication,
            "the registry refused the secret: `secret_key` must be the one of the registry",
        ),
        Ok(()) => bad("the registry's answer is no list of nodes"),
        Err(error) => error,
    }
}

/// The body of a registry's answer.
pub fn encode_nodes(nodes: &[Node]) -> Vec<u8> {
    if nodes.is_empty() {
        return b"null".to_vec();
    }
    let mut out = Vec::new();
    for (index, node) in nodes.iter().enumerate() {
        out.push(if index == 0 { b'[' } else { b',' });
        out.extend_from_slice(br#"{"Name":"#);
        push_quoted(&mut out, &node.name);
        out.extend_from_slice(br#","Addr":"#);
        push_quoted(&mut out, &node.addr);
        out.extend_from_slice(br#","Port":"#);
        push_quoted(&mut out, &node.port);
        out.push(b'}');
    }
    out.push(b']');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_the_original_s() {
        let nodes = [Node::at("127.0.0.1", 8711), Node::at("b<c", 1)];
        let body = encode_nodes(&nodes);
        let expected = concat!(
            r#"[{"Name":"mq:127.0.0.1:8711","Addr":"127.0.0.1","Port":"8711"},"#,
            r#"{"Name":"mq:b\u003cc:1","Addr":"b\u003cc","Port":"1"}]"#
        );
        assert_eq!(String::from_utf8(body.clone()).unwrap(), expected);
        assert_eq!(decode_nodes(&body).unwrap(), nodes);
    }

    #[test]
    fn empty_answers_and_errors() {
        assert!(decode_nodes(b"null").unwrap().is_empty());
        assert!(decode_nodes(b" [ ] ").unwrap().is_empty());
        assert_eq!(encode_nodes(&[]), b"null");
        let wrong_key = br#"{"code":-1,"msg":"Secret key matching error"}"#;
        assert_eq!(decode_nodes(wrong_key).unwrap_err().kind(), Kind::Authentication);
        for bad in [
            &b""[..],
            b"x",
            b"{}",
            b"[1]",
            b"[null]",
            b"[{}",
            b"[{}]",
            br#"[{"Addr":"a","Port":1}]"#,
            b"null x",
        ] {
            assert_eq!(decode_nodes(bad).unwrap_err().kind(), Kind::Protocol, "{bad:?}");
        }
    }
}
