//! The text of a log event, on one line whatever the network says.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

use tracing::Event;
use tracing::field::{Field, Visit};

/// Longest line of [`LogLine::cut`], in bytes, beside the mark of a cut.
const LONGEST: usize = 8192;

/// Whether a character does something to a log instead of being shown in it: ends the line, moves the
/// cursor, or turns the direction of writing. A text from the network could fake a record with it.
fn steers(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}

/// The text with control characters, line ends and marks of direction written out, as `\n` or `\u202e`.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(steers) {
        return Cow::Borrowed(text);
    }
    let mut line = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        // Writing to a String does not fail.
        let _ = match c {
            '\n' => line.write_str("\\n"),
            '\r' => line.write_str("\\r"),
            '\t' => line.write_str("\\t"),
            c if !steers(c) => line.write_char(c),
            c if u32::from(c) < 0x100 => write!(line, "\\x{:02x}", u32::from(c)),
            c => write!(line, "\\u{:04x}", u32::from(c)),
        };
    }
    Cow::Owned(line)
}

/// The message of an event, then its other fields as ` name=value`. It displays as one line.
#[derive(Debug, Default)]
pub struct LogLine {
    message: String,
    fields: String,
}

impl LogLine {
    /// The line of this event.
    pub fn of(event: &Event<'_>) -> LogLine {
        let mut line = LogLine::default();
        event.record(&mut line);
        line
    }

    /// The line, of 8192 bytes at most: `…` stands for what was cut off.
    pub fn cut(&self) -> String {
        let mut line = self.to_string();
        if line.len() > LONGEST {
            line.truncate(line.floor_char_boundary(LONGEST));
            line.push('…');
        }
        line
    }
}

impl fmt::Display for LogLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&printable(&self.message))?;
        f.write_str(&printable(&self.fields))
    }
}

impl Visit for LogLine {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a String does not fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_is_written_out_and_the_rest_is_left() {
        for (text, shown) in [
            ("", ""),
            ("plain äé 漢 \u{1f600} \\ \"", "plain äé 漢 \u{1f600} \\ \""),
            ("a\r\nb\tc", "a\\r\\nb\\tc"),
            ("\u{0}\u{1b}[2K\u{7f}\u{85}\u{9b}", "\\x00\\x1b[2K\\x7f\\x85\\x9b"),
            ("\u{2028}\u{2029}\u{202a}\u{202e}", "\\u2028\\u2029\\u202a\\u202e"),
            ("\u{61c}\u{200e}\u{200f}\u{2066}\u{2069}", "\\u061c\\u200e\\u200f\\u2066\\u2069"),
            ("\u{2027}\u{202f}\u{2065}\u{206a}", "\u{2027}\u{202f}\u{2065}\u{206a}"),
        ] {
            assert_eq!(printable(text), shown, "{text:?}");
        }
        assert!(matches!(printable("plain"), Cow::Borrowed(_)));
    }

    #[test]
    fn a_line_is_cut_at_a_character() {
        let of = |message: String| LogLine { message, fields: " n=1".to_owned() }.cut();
        assert_eq!(of("short".to_owned()), "short n=1");
        let long = of("ä".repeat(LONGEST));
        assert_eq!(long.len(), LONGEST + '…'.len_utf8());
        assert!(long.ends_with("ä…"));
        let odd = of(format!("x{}", "ä".repeat(LONGEST)));
        assert_eq!(odd.len(), LONGEST - 1 + '…'.len_utf8());
        assert!(of("\n".repeat(LONGEST)).len() <= LONGEST + '…'.len_utf8());
    }
}
