//! What a server says.

use crate::error::{Error, Kind, Result};

/// The longest line of a reply, in bytes. The standard has 512.
const MAX_LINE: usize = 4096;
/// The most lines of a reply.
const MAX_LINES: usize = 128;
/// Characters of a reply that are shown.
const SHOWN: usize = 200;

/// One reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Three digits.
    pub code: u16,
    /// The text of each line.
    pub lines: Vec<String>,
}

impl Reply {
    /// The command was carried out. A reply from 300 to 399 says no such thing: it asks for more.
    pub fn is_done(&self) -> bool {
        (200..300).contains(&self.code)
    }

    /// The command was refused.
    pub fn is_refusal(&self) -> bool {
        self.code >= 400
    }

    /// The enhanced status, as in `5.1.1`, where the reply begins with one of its class.
    pub fn status(&self) -> Option<(u16, u16, u16)> {
        let word = self.lines.first()?.split_whitespace().next()?;
        let mut numbers = word.split('.').map(|number| number.parse::<u16>().ok());
        match (numbers.next()??, numbers.next()??, numbers.next()??, numbers.next()) {
            (class, subject, detail, None) if class == self.code / 100 => Some((class, subject, detail)),
            _ => None,
        }
    }

    /// Code and text on one line, for people.
    pub fn shown(&self) -> String {
        let mut text = self.code.to_string();
        for line in &self.lines {
            text.push(' ');
            text.extend(line.chars().map(|sign| if sign.is_control() { ' ' } else { sign }));
        }
        text.chars().take(SHOWN).collect()
    }
}

/// Reads a reply from what came so far: with how many bytes it took, or none while it is not complete.
///
/// # Errors
/// `protocol` when it is no reply.
pub fn read_reply(bytes: &[u8]) -> Result<Option<(Reply, usize)>> {
    let wrong = |what: &str| Error::new(Kind::Protocol, format!("a reply {what}"));
    let mut lines = Vec::new();
    let mut first = None;
    let mut taken = 0;
    let mut rest = bytes;
    loop {
        let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
            return if rest.len() > MAX_LINE { Err(wrong("has too long a line")) } else { Ok(None) };
        };
        if end > MAX_LINE {
            return Err(wrong("has too long a line"));
        }
        let (line, tail) = rest.split_at(end + 1);
        taken += line.len();
        rest = tail;
        let line = String::from_utf8_lossy(line);
        let line = line.trim_end_matches(['\r', '\n']);
        let (code, text) = match (line.get(..3), line.get(3..)) {
            (Some(code), Some(text)) if code.bytes().all(|digit| digit.is_ascii_digit()) => (code, text),
            _ => return Err(wrong("does not begin with a code")),
        };
        let code: u16 = code.parse().map_err(|_| wrong("does not begin with a code"))?;
        if !(200..600).contains(&code) || first.is_some_and(|first| first != code) {
            return Err(wrong("has no code of a reply, or several"));
        }
        first = Some(code);
        let (last, text) = match text.as_bytes().first() {
            None => (true, ""),
            Some(b' ') => (true, text.get(1..).unwrap_or_default()),
            Some(b'-') => (false, text.get(1..).unwrap_or_default()),
            Some(_) => return Err(wrong("has no space behind its code")),
        };
        lines.push(text.to_owned());
        if last {
            return Ok(Some((Reply { code, lines }, taken)));
        }
        if lines.len() >= MAX_LINES {
            return Err(wrong("has too many lines"));
        }
    }
}

/// What a server can do, as its reply to `EHLO` says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Features {
    /// `STARTTLS`.
    pub starttls: bool,
    /// Several commands may be written before the first reply.
    pub pipelining: bool,
    /// Messages may hold bytes over 127.
    pub eight_bit: bool,
    /// `AUTH PLAIN`.
    pub plain: bool,
    /// `AUTH LOGIN`.
    pub login: bool,
    /// `SIZE`, with the largest message, 0 for no limit.
    pub size: Option<u64>,
}

impl Features {
    /// Reads the reply to `EHLO`.
    pub fn of(reply: &Reply) -> Features {
        let mut features = Features::default();
        // The first line is the server's name.
        for line in reply.lines.iter().skip(1) {
            // Old servers write `AUTH=`.
            let line = line.to_ascii_uppercase().replace("AUTH=", "AUTH ");
            let mut words = line.split_whitespace();
            match words.next().unwrap_or_default() {
                "STARTTLS" => features.starttls = true,
                "PIPELINING" => features.pipelining = true,
                "8BITMIME" => features.eight_bit = true,
                "SIZE" => {
                    features.size = Some(words.next().and_then(|size| size.parse().ok()).unwrap_or(0));
                }
                "AUTH" => {
                    for mechanism in words {
                        features.plain |= mechanism == "PLAIN";
                        features.login |= mechanism == "LOGIN";
                    }
                }
                _ => {}
            }
        }
        features
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_come_in_pieces_and_several_at_once() {
        let text = b"250-mail.example.com\r\n250-SIZE 1000\r\n250-AUTH=LOGIN\r\n250-AUTH PLAIN LOGIN\r\n250 STARTTLS\r\n354 go\r\n";
        let end = text.len() - 8;
        for cut in 0..end {
            assert_eq!(read_reply(&text[..cut]).unwrap(), None, "{cut}");
        }
        let (reply, taken) = read_reply(text).unwrap().unwrap();
        assert_eq!((reply.code, taken), (250, end));
        let features = Features::of(&reply);
        assert!(features.starttls && features.plain && features.login && !features.pipelining);
        assert_eq!(features.size, Some(1000));
        assert_eq!(read_reply(&text[end..]).unwrap().unwrap().0.code, 354);
        assert_eq!(read_reply(b"250\r\n").unwrap().unwrap().0.lines, [""]);
    }

    #[test]
    fn what_is_no_reply_is_refused() {
        let long = vec![b'2'; MAX_LINE + 2];
        let many = b"250-x\r\n".repeat(MAX_LINES + 1);
        let wrong: [&[u8]; 9] = [
            b"hello\r\n",
            b"\r\n",
            b"25\r\n",
            b"100 x\r\n",
            b"600 x\r\n",
            b"250_x\r\n",
            b"250-a\r\n251 b\r\n",
            &long,
            &many,
        ];
        for text in wrong {
            assert_eq!(read_reply(text).unwrap_err().kind(), Kind::Protocol);
        }
        // Bytes that are no UTF-8, and a code that is cut in the middle of a sign.
        read_reply(b"250 \xff\xfe\r\n").unwrap().unwrap();
        read_reply("2é0 x\r\n".as_bytes()).unwrap_err();
    }

    #[test]
    fn a_reply_that_asks_for_more_is_no_success() {
        for (code, done, refusal) in [
            (200, true, false),
            (250, true, false),
            (334, false, false),
            (354, false, false),
            (421, false, true),
            (550, false, true),
        ] {
            let reply = Reply { code, lines: vec![String::new()] };
            assert_eq!((reply.is_done(), reply.is_refusal()), (done, refusal), "{code}");
        }
    }

    #[test]
    fn the_enhanced_status_is_of_the_codes_class() {
        let status = |code, text: &str| Reply { code, lines: vec![text.to_owned()] }.status();
        assert_eq!(status(550, "5.1.1 no such user"), Some((5, 1, 1)));
        assert_eq!(status(550, "4.1.1 no such user"), None);
        assert_eq!(status(550, "5.1 no"), None);
        assert_eq!(status(550, "no"), None);
    }
}
