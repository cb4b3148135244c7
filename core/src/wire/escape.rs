//! Writing JSON strings: runs without an escape are copied whole.

const HEX: &[u8; 16] = b"0123456789abcdef";
/// Bytes tested at a time; the compiler turns the test of a block into vector instructions.
const BLOCK: usize = 32;

/// Appends the text between quotes with the least escaping that JSON asks for.
pub(in crate::wire) fn push_minimal(out: &mut Vec<u8>, text: &str) {
    quoted(out, text.as_bytes(), |byte| (byte < 0x20) | (byte == b'"') | (byte == b'\\'));
}

/// Appends the text between quotes as the original servers write it: `<`, `>`, `&`, U+2028 and U+2029
/// are escaped too.
pub(crate) fn push_quoted(out: &mut Vec<u8>, text: &str) {
    quoted(out, text.as_bytes(), |byte| {
        (byte < 0x20)
            | (byte == b'"')
            | (byte == b'\\')
            | (byte == b'<')
            | (byte == b'>')
            | (byte == b'&')
            | (byte == 0xe2)
    });
}

/// Finds the first byte that `special` names. Branch-free per block.
fn find(bytes: &[u8], special: impl Fn(u8) -> bool) -> Option<usize> {
    let mut at = 0;
    let mut blocks = bytes.chunks_exact(BLOCK);
    for block in &mut blocks {
        if block.iter().fold(false, |any, &byte| any | special(byte)) {
            return block.iter().position(|&byte| special(byte)).map(|offset| at + offset);
        }
        at += BLOCK;
    }
    blocks.remainder().iter().position(|&byte| special(byte)).map(|offset| at + offset)
}

fn quoted(out: &mut Vec<u8>, mut rest: &[u8], special: impl Fn(u8) -> bool + Copy) {
    out.reserve(rest.len() + 2);
    out.push(b'"');
    while let Some(at) = find(rest, special) {
        let (clean, tail) = rest.split_at(at);
        out.extend_from_slice(clean);
        rest = escape_one(out, tail);
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

/// Writes the first character of `tail`, which `special` named, and returns what is behind it.
fn escape_one<'a>(out: &mut Vec<u8>, tail: &'a [u8]) -> &'a [u8] {
    let Some((&byte, behind)) = tail.split_first() else { return tail };
    match byte {
        b'"' => out.extend_from_slice(b"\\\""),
        b'\\' => out.extend_from_slice(b"\\\\"),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        b'\t' => out.extend_from_slice(b"\\t"),
        0x08 => out.extend_from_slice(b"\\b"),
        0x0c => out.extend_from_slice(b"\\f"),
        0xe2 => match tail {
            [0xe2, 0x80, 0xa8, behind @ ..] => {
                out.extend_from_slice(b"\\u2028");
                return behind;
            }
            [0xe2, 0x80, 0xa9, behind @ ..] => {
                out.extend_from_slice(b"\\u2029");
                return behind;
            }
            _ => out.push(byte),
        },
        _ => unicode(out, byte),
    }
    behind
}

fn unicode(out: &mut Vec<u8>, byte: u8) {
    out.extend_from_slice(b"\\u00");
    for nibble in [byte >> 4, byte & 15] {
        out.push(HEX.get(usize::from(nibble)).copied().unwrap_or(b'0'));
    }
}

/// The offset of the first byte that ends or interrupts a JSON string: a quote, a backslash, a control.
pub(in crate::wire) fn string_break(bytes: &[u8]) -> Option<usize> {
    find(bytes, |byte| (byte < 0x20) | (byte == b'"') | (byte == b'\\'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quoted_text(text: &str) -> String {
        let mut out = Vec::new();
        push_quoted(&mut out, text);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_server_escapes_what_the_original_escapes() {
        assert_eq!(quoted_text("<a href='x'>&"), r#""\u003ca href='x'\u003e\u0026""#);
        assert_eq!(quoted_text("a\u{2028}b\u{2029}c"), r#""a\u2028b\u2029c""#);
        assert_eq!(quoted_text("say \"no\" \\ /"), r#""say \"no\" \\ /""#);
        assert_eq!(
            quoted_text("\n\r\t\u{8}\u{c}\u{0}\u{1f}\u{7f}"),
            "\"\\n\\r\\t\\b\\f\\u0000\\u001f\u{7f}\""
        );
        assert_eq!(quoted_text("木 é € 😀"), "\"木 é € 😀\"");
    }

    #[test]
    fn runs_longer_than_a_block_are_kept_whole() {
        for before in 0..80 {
            let text = format!("{}\"{}", "x".repeat(before), "y".repeat(40));
            let mut out = Vec::new();
            push_minimal(&mut out, &text);
            assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }
    }
}
