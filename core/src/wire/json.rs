//! Reading JSON as the library of the original servers reads it: bad UTF-8 and lone surrogates become U+FFFD, the
//! rest of the grammar is strict, and depth is bounded.

use std::borrow::Cow;

use bytes::Bytes;

use super::escape::string_break;
use crate::error::{Error, Kind, Result};

/// How deep arrays and objects may nest.
const MAX_DEPTH: usize = 10_000;

/// A place in a JSON text.
pub(in crate::wire) struct Scanner<'a> {
    bytes: &'a [u8],
}

/// The error of a frame that breaks the wire.
pub(in crate::wire) fn bad(what: &'static str) -> Error {
    Error::new(Kind::Protocol, what)
}

impl<'a> Scanner<'a> {
    pub(in crate::wire) fn new(bytes: &'a [u8]) -> Scanner<'a> {
        Scanner { bytes }
    }

    /// Skips the literal text if it is next.
    pub(in crate::wire) fn skip(&mut self, text: &[u8]) -> bool {
        match self.bytes.strip_prefix(text) {
            Some(rest) => {
                self.bytes = rest;
                true
            }
            None => false,
        }
    }

    /// The next byte behind white space, without taking it.
    pub(in crate::wire) fn peek(&mut self) -> Option<u8> {
        while let Some((b' ' | b'\t' | b'\r' | b'\n', rest)) = self.bytes.split_first() {
            self.bytes = rest;
        }
        self.bytes.first().copied()
    }

    /// Takes the byte if it is next behind white space.
    pub(in crate::wire) fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        if found {
            self.advance();
        }
        found
    }

    fn advance(&mut self) -> Option<u8> {
        let (&byte, rest) = self.bytes.split_first()?;
        self.bytes = rest;
        Some(byte)
    }

    /// Fails unless only white space is left.
    pub(in crate::wire) fn end(&mut self) -> Result<()> {
        if self.peek().is_some() { Err(bad("text behind the JSON value")) } else { Ok(()) }
    }

    /// Reads a string whose opening quote is next.
    pub(in crate::wire) fn string(&mut self) -> Result<Cow<'a, str>> {
        if !self.take(b'"') {
            return Err(bad("a JSON string was expected"));
        }
        self.string_rest()
    }

    /// Reads a string whose opening quote was taken. Borrows when nothing is escaped or mended.
    pub(in crate::wire) fn string_rest(&mut self) -> Result<Cow<'a, str>> {
        let (run, end) = self.run()?;
        if end == b'"' {
            return Ok(mended(run));
        }
        let mut text = String::with_capacity(run.len() + 64);
        append_mended(&mut text, run);
        self.escape(&mut text)?;
        loop {
            let (run, end) = self.run()?;
            append_mended(&mut text, run);
            if end == b'"' {
                return Ok(Cow::Owned(text));
            }
            self.escape(&mut text)?;
        }
    }

    /// The bytes up to the next quote or backslash, which is taken.
    fn run(&mut self) -> Result<(&'a [u8], u8)> {
        let at = string_break(self.bytes).ok_or_else(|| bad("a JSON string has no end"))?;
        let (run, rest) = self.bytes.split_at(at);
        self.bytes = rest;
        match self.advance() {
            Some(end @ (b'"' | b'\\')) => Ok((run, end)),
            _ => Err(bad("a control character in a JSON string")),
        }
    }

    /// Reads what is behind a backslash.
    fn escape(&mut self, text: &mut String) -> Result<()> {
        text.push(match self.advance() {
            Some(byte @ (b'"' | b'\\' | b'/')) => char::from(byte),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => self.unicode()?,
            _ => return Err(bad("an unknown escape in a JSON string")),
        });
        Ok(())
    }

    fn unicode(&mut self) -> Result<char> {
        let unit = self.hex4().ok_or_else(|| bad("a bad \\u escape in a JSON string"))?;
        if (0xd800..0xdc00).contains(&unit) {
            let mut ahead = Scanner { bytes: self.bytes };
            if ahead.skip(b"\\u")
                && let Some(low @ 0xdc00..=0xdfff) = ahead.hex4()
            {
                self.bytes = ahead.bytes;
                let code = 0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
                return Ok(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
        }
        Ok(char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER))
    }

    fn hex4(&mut self) -> Option<u32> {
        let mut value = 0;
        for _ in 0..4 {
            value = value * 16 + char::from(self.advance()?).to_digit(16)?;
        }
        Some(value)
    }

    /// Reads a number and returns its text.
    pub(in crate::wire) fn number(&mut self) -> Result<&'a str> {
        self.peek();
        let from = self.bytes;
        self.skip(b"-");
        if !self.skip(b"0") && self.digits() == 0 {
            return Err(bad("a JSON value was expected"));
        }
        if self.skip(b".") && self.digits() == 0 {
            return Err(bad("a bad JSON number"));
        }
        if self.skip(b"e") || self.skip(b"E") {
            if !self.skip(b"+") {
                self.skip(b"-");
            }
            if self.digits() == 0 {
                return Err(bad("a bad JSON number"));
            }
        }
        let text = from.get(..from.len() - self.bytes.len()).unwrap_or_default();
        std::str::from_utf8(text).map_err(|_| bad("a bad JSON number"))
    }

    fn digits(&mut self) -> usize {
        let count = self.bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.bytes = self.bytes.get(count..).unwrap_or_default();
        count
    }

    /// Reads a whole number of 64 bits; `null` is `None`. A fraction or an exponent is an error.
    pub(in crate::wire) fn integer(&mut self) -> Result<Option<i64>> {
        if self.null()? {
            return Ok(None);
        }
        let text = self.number()?;
        text.parse().map(Some).map_err(|_| bad("a whole number of 64 bits was expected"))
    }

    /// Takes `null` if it is next.
    pub(in crate::wire) fn null(&mut self) -> Result<bool> {
        Ok(self.peek() == Some(b'n') && self.literal()?)
    }

    fn literal(&mut self) -> Result<bool> {
        if self.skip(b"null") || self.skip(b"true") || self.skip(b"false") {
            return Ok(true);
        }
        Err(bad("a JSON value was expected"))
    }

    /// Skips one value of any form, checking its grammar, without recursion.
    pub(in crate::wire) fn value(&mut self) -> Result<()> {
        // One entry per open array or object: true for an object.
        let mut open: Vec<bool> = Vec::new();
        loop {
            match self.peek() {
                Some(b'"') => drop(self.string()?),
                Some(start @ (b'{' | b'[')) => {
                    self.advance();
                    if open.len() == MAX_DEPTH {
                        return Err(bad("JSON nested too deep"));
                    }
                    let object = start == b'{';
                    if !self.take(if object { b'}' } else { b']' }) {
                        open.push(object);
                        if object {
                            self.key()?;
                        }
                        continue;
                    }
                }
                Some(b't' | b'f' | b'n') => drop(self.literal()?),
                _ => drop(self.number()?),
            }
            // A value ended: close what ends with it, or go on to the next one.
            loop {
                let Some(&object) = open.last() else { return Ok(()) };
                if self.take(b',') {
                    if object {
                        self.key()?;
                    }
                    break;
                }
                if !self.take(if object { b'}' } else { b']' }) {
                    return Err(bad("a JSON array or object has no end"));
                }
                open.pop();
            }
        }
    }

    fn key(&mut self) -> Result<Cow<'a, str>> {
        let key = self.string()?;
        if self.take(b':') { Ok(key) } else { Err(bad("a JSON key without a value")) }
    }

    /// Reads an object, handing each key with the scanner before its value. `null` counts as `{}`.
    pub(in crate::wire) fn object(
        &mut self,
        mut field: impl FnMut(&str, &mut Scanner<'a>) -> Result<()>,
    ) -> Result<()> {
        if self.null()? {
            return Ok(());
        }
        if !self.take(b'{') {
            return Err(bad("a JSON object was expected"));
        }
        if self.take(b'}') {
            return Ok(());
        }
        loop {
            let key = self.key()?;
            field(&key, self)?;
            if self.take(b',') {
                continue;
            }
            return if self.take(b'}') { Ok(()) } else { Err(bad("a JSON object has no end")) };
        }
    }

    /// Reads a string that may be `null`, which changes nothing.
    pub(in crate::wire) fn optional_string(&mut self) -> Result<Option<Cow<'a, str>>> {
        if self.null()? { Ok(None) } else { self.string().map(Some) }
    }
}

/// Bytes as text; each byte that is no part of UTF-8 becomes one U+FFFD, as the original's library does it.
pub(crate) fn mended(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => {
            let mut text = String::with_capacity(bytes.len());
            append_mended(&mut text, bytes);
            Cow::Owned(text)
        }
    }
}

/// Appends bytes as text; each byte that is no part of UTF-8 becomes one U+FFFD.
fn append_mended(text: &mut String, bytes: &[u8]) {
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
}

/// The part of the frame, or the mended copy of it.
pub(in crate::wire) fn view(frame: &Bytes, text: Cow<'_, str>) -> Bytes {
    match text {
        Cow::Borrowed("") => Bytes::new(),
        Cow::Borrowed(part) => frame.slice_ref(part.as_bytes()),
        Cow::Owned(text) => Bytes::from(text),
    }
}

/// Whether a key names the field, in any case, as the original's library compares: the long s and the Kelvin
/// sign are folded too.
pub(in crate::wire) fn names(key: &str, field: &str) -> bool {
    let fold = |character: char| match character {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        other => other.to_ascii_lowercase(),
    };
    key == field || key.chars().map(fold).eq(field.chars().map(fold))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skips(text: &str) -> bool {
        let mut scanner = Scanner::new(text.as_bytes());
        scanner.value().and_then(|()| scanner.end()).is_ok()
    }

    #[test]
    fn values_are_judged_as_serde_judges_them() {
        for text in [
            "1",
            "-0",
            "01",
            "1.",
            "1.5e-3",
            ".5",
            "1e",
            "-",
            "+1",
            "[]",
            "[1,]",
            "[,1]",
            "[1 2]",
            "{}",
            "{\"a\":1}",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{a:1}",
            "[[[{\"x\":[]}]]]",
            "tru",
            "nul",
            "nullx",
            "\"a",
            "\"\\x\"",
            "",
            " ",
            "[1]]",
            "{\"a\":[1,{\"b\":null}],\"c\":\"\"}",
            "[true,false,null]",
            "\"\\u12g4\"",
            "\"\t\"",
        ] {
            assert_eq!(skips(text), serde_json::from_str::<serde_json::Value>(text).is_ok(), "{text:?}");
        }
    }

    #[test]
    fn depth_is_bounded_and_needs_no_stack() {
        assert!(skips(&format!("{}{}", "[".repeat(10_000), "]".repeat(10_000))));
        assert!(!skips(&"[".repeat(10_001)));
        assert!(!skips(&"{\"a\":".repeat(2_000_000)));
    }

    #[test]
    fn each_bad_byte_is_replaced_once() {
        let mut scanner = Scanner::new(b"\"a\xe2\x82b\xed\xa0\x80\xff\"");
        assert_eq!(scanner.string().unwrap(), "a\u{fffd}\u{fffd}b\u{fffd}\u{fffd}\u{fffd}\u{fffd}");
    }
}
