//! DingTalk: messages of a group's robot, and the forms of an HTTP gateway in front of DingTalk.

use std::collections::HashSet;

use percent_encoding::utf8_percent_encode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::path::RESERVED;
use super::sign::{base64, hmac_sha256};
use crate::error::{Error, Kind, Outcome, Result};

/// The most bytes of a robot's message.
pub const MAX_BYTES: usize = 20_000;

/// Who is called by a message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct At<'a> {
    /// Everybody in the group.
    pub all: bool,
    /// By number.
    pub mobiles: Vec<&'a str>,
    /// By user id.
    pub users: Vec<&'a str>,
}

impl<'a> At<'a> {
    /// Reads recipients: `all` (or `@all`) is everybody, digits with an optional `+` are a number, anything else is a
    /// user id. `mobile:` and `user:` in front say it where that would be read wrong.
    ///
    /// # Errors
    /// `invalid_argument` for an empty one or one with white space.
    pub fn read(recipients: impl IntoIterator<Item = &'a str>) -> Result<At<'a>> {
        let mut at = At::default();
        for recipient in recipients {
            let (mobile, name) = match (recipient.strip_prefix("mobile:"), recipient.strip_prefix("user:")) {
                (Some(name), _) => (true, name),
                (_, Some(name)) => (false, name),
                (None, None) => (is_number(recipient), recipient),
            };
            if name.is_empty() || name.chars().any(|c| c.is_whitespace() || c.is_control()) {
                let text = "a recipient is `all`, the number of a phone or a user id";
                return Err(Error::new(Kind::InvalidArgument, text));
            }
            match (mobile, name) {
                _ if matches!(recipient, "all" | "@all") => at.all = true,
                (true, name) => at.mobiles.push(name),
                (false, name) => at.users.push(name),
            }
        }
        Ok(at)
    }

    /// Whether nobody is called.
    pub fn is_empty(&self) -> bool {
        !self.all && self.mobiles.is_empty() && self.users.is_empty()
    }

    fn names(&self) -> impl Iterator<Item = &'a str> {
        self.mobiles.iter().chain(&self.users).copied()
    }

    // DingTalk calls those alone whose number or id stands in the text.
    fn called_in(&self, text: &str) -> Result<String> {
        // Each name stands in the body, whatever is in the text.
        let least = self.names().map(str::len).fold(text.len(), usize::saturating_add);
        if least > MAX_BYTES {
            return Err(too_large(least));
        }
        let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '+');
        let called = text.split('@').skip(1).map(|rest| {
            let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
            // A full stop can end a sentence.
            rest.get(..end).unwrap_or_default().trim_end_matches(['.', '-'])
        });
        let mut called: HashSet<&str> = called.collect();
        let mut all = text.to_owned();
        for name in self.names().filter(|name| called.insert(name)) {
            all.push_str(" @");
            all.push_str(name);
        }
        Ok(all)
    }

    fn json(&self) -> Value {
        json!({"atMobiles": self.mobiles, "atUserIds": self.users, "isAtAll": self.all})
    }
}

fn too_large(bytes: usize) -> Error {
    let text = format!("a robot takes {MAX_BYTES} bytes, and this message has {bytes}");
    Error::new(Kind::TooLarge, text)
}

fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix('+').unwrap_or(text);
    (5..=15).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// What a robot says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Robot<'a> {
    /// Plain text.
    Text {
        /// The text.
        content: &'a str,
    },
    /// Markdown.
    Markdown {
        /// What the list of conversations shows.
        title: &'a str,
        /// The text.
        text: &'a str,
    },
    /// A card with a link.
    Link {
        /// Its title.
        title: &'a str,
        /// Its text.
        text: &'a str,
        /// Where it leads.
        url: &'a str,
        /// The address of a picture.
        picture: Option<&'a str>,
    },
}

impl Robot<'_> {
    /// The body of the request.
    ///
    /// # Errors
    /// `too_large` past 20,000 bytes, `unsupported` for a link that calls somebody.
    pub fn encode(&self, at: &At<'_>) -> Result<Vec<u8>> {
        let value = match *self {
            Robot::Text { content } => {
                json!({"msgtype": "text", "text": {"content": at.called_in(content)?}, "at": at.json()})
            }
            Robot::Markdown { title, text } => json!({
                "msgtype": "markdown",
                "markdown": {"title": title, "text": at.called_in(text)?},
                "at": at.json(),
            }),
            Robot::Link { .. } if !at.is_empty() => {
                return Err(Error::new(Kind::Unsupported, "a link calls nobody: it takes no recipients"));
            }
            Robot::Link { title, text, url, picture } => json!({
                "msgtype": "link",
                "link": {"title": title, "text": text, "messageUrl": url, "picUrl": picture.unwrap_or("")},
            }),
        };
        let body = value.to_string().into_bytes();
        if body.len() > MAX_BYTES { Err(too_large(body.len())) } else { Ok(body) }
    }
}

/// What is added to the query of a robot with a secret: the time in milliseconds since 1970, and its signature.
pub fn signed_query(secret: &str, millis: u64) -> String {
    let signature = base64(&hmac_sha256(secret.as_bytes(), format!("{millis}\n{secret}").as_bytes()));
    format!("timestamp={millis}&sign={}", utf8_percent_encode(&signature, RESERVED))
}

/// The form of the gateway for users, or for one group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gateway<'a> {
    /// Ids of users, with commas between them.
    Users(&'a str),
    /// Id of a group.
    Group(&'a str),
}

impl Gateway<'_> {
    /// The body of the request, url-encoded.
    pub fn encode(&self, message: &str) -> String {
        let (name, value) = match *self {
            Gateway::Users(users) => ("useridList", users),
            Gateway::Group(group) => ("_id", group),
        };
        url::form_urlencoded::Serializer::new(String::new())
            .append_pair(name, value)
            .append_pair("message", message)
            .finish()
    }
}

/// What a robot's server says.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Answer {
    /// 0, or what was wrong.
    pub errcode: i64,
    /// The same in words.
    #[serde(default)]
    pub errmsg: String,
}

impl Answer {
    /// Reads an answer.
    ///
    /// # Errors
    /// `protocol` for what is none.
    pub fn decode(body: &[u8]) -> Result<Answer> {
        serde_json::from_slice(body)
            .map_err(|_| Error::new(Kind::Protocol, "the answer is no JSON with an `errcode`"))
    }

    /// Whether the robot is mute, for ten minutes, after too many messages.
    pub fn is_mute(&self) -> bool {
        self.errcode == 130_101
    }

    /// The error that a code other than 0 means, with this text.
    pub fn error(&self, text: String) -> Error {
        let (kind, retryable) = match self.errcode {
            -1 => {
                // Busy: whether the message went out is not said.
                return Error::new(Kind::Unavailable, text).outcome_is(Outcome::Unknown);
            }
            130_101 | 410_100 | 88 | 90_018 => (Kind::Throttled, true),
            // A keyword, the time, the signature or the sender's address is not what the robot asks for.
            310_000 | 300_005 | 400_101 | 40_014 => (Kind::Authentication, false),
            400_102 => (Kind::Permission, false),
            400_013 | 400_106 => (Kind::NotFound, false),
            400_105 => (Kind::Unsupported, false),
            460_101 => (Kind::TooLarge, false),
            _ => (Kind::InvalidArgument, false),
        };
        Error::new(kind, text).retryable_is(retryable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipients_are_told_apart() {
        let at =
            At::read(["all", "13800000000", "+8613800000001", "manager1", "user:12345", "mobile:a"]).unwrap();
        assert!(at.all);
        assert_eq!(at.mobiles, ["13800000000", "+8613800000001", "a"]);
        assert_eq!(at.users, ["manager1", "12345"]);
        for wrong in ["", "user:", "a b", "a\nb"] {
            assert_eq!(At::read([wrong]).unwrap_err().kind(), Kind::InvalidArgument);
        }
    }

    #[test]
    fn who_is_called_stands_in_the_text_once() {
        let at = At::read(["13800000000", "boss"]).unwrap();
        let body = Robot::Text { content: "look @boss" }.encode(&at).unwrap();
        let value: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            value,
            json!({"msgtype": "text", "text": {"content": "look @boss @13800000000"},
                   "at": {"atMobiles": ["13800000000"], "atUserIds": ["boss"], "isAtAll": false}})
        );
    }

    #[test]
    fn a_longer_name_calls_nobody_else() {
        let at = At::read(["boss", "138000"]).unwrap();
        for (text, wanted) in [
            ("@boss2 @1380001", "@boss2 @1380001 @138000 @boss"),
            ("@boss.", "@boss. @138000"),
            ("see @boss, @138000!", "see @boss, @138000!"),
            ("@@boss a@138000", "@@boss a@138000"),
            ("boss", "boss @138000 @boss"),
            ("@", "@ @138000 @boss"),
        ] {
            assert_eq!(at.called_in(text).unwrap(), wanted);
        }
        let twice = At::read(["boss", "boss"]).unwrap();
        assert_eq!(twice.called_in("").unwrap(), " @boss");
    }

    #[test]
    fn more_names_than_a_message_holds_are_refused_at_once() {
        let names: Vec<String> = (0..1_000_000).map(|number| format!("user{number}")).collect();
        let at = At::read(names.iter().map(String::as_str)).unwrap();
        let begun = std::time::Instant::now();
        let error = Robot::Text { content: &"@ ".repeat(9000) }.encode(&at).unwrap_err();
        assert_eq!((error.kind(), error.retryable()), (Kind::TooLarge, false));
        assert!(begun.elapsed() < std::time::Duration::from_secs(2), "{:?}", begun.elapsed());
    }

    #[test]
    fn a_link_and_the_bound_of_size() {
        let link = Robot::Link { title: "t", text: "x", url: "http://a", picture: None };
        let value: Value = serde_json::from_slice(&link.encode(&At::default()).unwrap()).unwrap();
        assert_eq!(
            value,
            json!({"msgtype": "link", "link": {"title": "t", "text": "x", "messageUrl": "http://a", "picUrl": ""}})
        );
        let at = At { all: true, ..At::default() };
        assert_eq!(link.encode(&at).unwrap_err().kind(), Kind::Unsupported);

        let empty = Robot::Text { content: "" }.encode(&At::default()).unwrap().len();
        let most = "x".repeat(MAX_BYTES - empty);
        assert_eq!(Robot::Text { content: &most }.encode(&At::default()).unwrap().len(), MAX_BYTES);
        let more = format!("{most}x");
        let error = Robot::Text { content: &more }.encode(&At::default()).unwrap_err();
        assert_eq!((error.kind(), error.retryable()), (Kind::TooLarge, false));
    }

    // Computed by `printf '1700000000000\nSEC' | openssl dgst -sha256 -hmac SEC -binary | base64`.
    #[test]
    fn a_signature_equals_what_openssl_computes() {
        assert_eq!(
            signed_query("SEC", 1_700_000_000_000),
            "timestamp=1700000000000&sign=r%2B2we0q01lkZqz38LA5IPNbHN81U1leRf3Au4PSQb6Q%3D"
        );
    }

    #[test]
    fn forms_of_the_gateway() {
        assert_eq!(Gateway::Users("u1,u2").encode("a b&c\n"), "useridList=u1%2Cu2&message=a+b%26c%0A");
        assert_eq!(Gateway::Group("g").encode("测试！"), "_id=g&message=%E6%B5%8B%E8%AF%95%EF%BC%81");
    }

    #[test]
    fn codes_have_their_kinds() {
        for (code, kind, retryable) in [
            (130_101, Kind::Throttled, true),
            (310_000, Kind::Authentication, false),
            (400_102, Kind::Permission, false),
            (400_013, Kind::NotFound, false),
            (460_101, Kind::TooLarge, false),
            (40_035, Kind::InvalidArgument, false),
            (-1, Kind::Unavailable, true),
        ] {
            let error = Answer { errcode: code, errmsg: String::new() }.error("x".into());
            assert_eq!((error.kind(), error.retryable()), (kind, retryable), "{code}");
        }
        assert_eq!(Answer::decode(b"nope").unwrap_err().kind(), Kind::Protocol);
    }
}
