//! Where a subscription's messages go.

use url::Url;

use crate::wire::mns::is_name;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum Endpoint<'a> {
    Http(Url),
    /// The queue of this name here, whatever region and account the endpoint names.
    Queue(&'a str),
}

impl Endpoint<'_> {
    /// `http://HOST[:PORT]/…` or `acs:mns:{region}:{account}:queues/{queue}`; `None` for others.
    pub(in super::super) fn parse(text: &str) -> Option<Endpoint<'_>> {
        if let Some(rest) = text.strip_prefix("acs:mns:") {
            let mut parts = rest.splitn(3, ':');
            let (_region, _account) = (parts.next()?, parts.next()?);
            let queue = parts.next()?.strip_prefix("queues/")?;
            return is_name(queue).then_some(Endpoint::Queue(queue));
        }
        let url = Url::parse(text).ok()?;
        let is_plain = url.scheme() == "http" && url.username().is_empty() && url.password().is_none();
        (is_plain && url.host().is_some()).then_some(Endpoint::Http(url))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints() {
        assert_eq!(Endpoint::parse("acs:mns:cn-hangzhou:123:queues/q-1"), Some(Endpoint::Queue("q-1")));
        assert!(matches!(Endpoint::parse("http://example.com:8080/a?b=c"), Some(Endpoint::Http(_))));
        for wrong in [
            "",
            "acs:mns:r:1:queues/",
            "acs:mns:r:queues/q",
            "acs:mns:r:1:topics/q",
            "mail:directmail:a@example.com",
            "ftp://example.com/",
            "http://user:password@example.com/",
            "http://",
            "example.com/x",
        ] {
            assert_eq!(Endpoint::parse(wrong), None, "{wrong}");
        }
    }
}
