//! The scanner and the writer of strings.

use super::is_json;
use crate::wire::escape::{push_minimal, push_quoted};
use crate::wire::json::{Scanner, mended};

/// The scanner's judgement of values, strings and numbers is another reader's.
pub(crate) fn json_value(data: &[u8]) {
    let mut scanner = Scanner::new(data);
    let taken = scanner.value().and_then(|()| scanner.end()).is_ok();
    if let Some(expected) = is_json(data) {
        assert_eq!(taken, expected, "whether this is JSON");
    }
    let mut scanner = Scanner::new(data);
    let text = scanner.string().and_then(|text| scanner.end().map(|()| text));
    match (serde_json::from_slice::<String>(data), text) {
        (Ok(expected), text) => assert_eq!(text.expect("a string").as_ref(), expected),
        // Bytes that are no UTF-8 and lone surrogates are mended, which is all that may differ.
        (Err(_), Ok(text)) => {
            assert!(std::str::from_utf8(data).is_err() || text.contains(char::REPLACEMENT_CHARACTER));
            // Three bytes for each bad one are the most that mending makes of it.
            assert!(text.len() <= data.len() * 3);
        }
        (Err(_), Err(_)) => {}
    }
    let mut scanner = Scanner::new(data);
    let number = scanner.integer().and_then(|number| scanner.end().map(|()| number)).ok();
    let expected = serde_json::from_slice::<Option<i64>>(data).ok();
    // The other reader takes `-0` for a fraction.
    assert!(number == expected || (number == Some(Some(0)) && expected.is_none()), "{number:?} {expected:?}");
}

/// What is written is read again, by us and by others.
pub(crate) fn json_escape(data: &[u8]) {
    let text = mended(data);
    if let Ok(valid) = std::str::from_utf8(data) {
        assert_eq!(text, valid);
    }
    let (mut minimal, mut quoted) = (Vec::new(), Vec::new());
    push_minimal(&mut minimal, &text);
    push_quoted(&mut quoted, &text);
    for written in [&minimal, &quoted] {
        let mut scanner = Scanner::new(written);
        assert_eq!(scanner.string().expect("a string"), text);
        scanner.end().expect("nothing behind it");
        assert_eq!(serde_json::from_slice::<String>(written).expect("JSON"), text);
        // Six for one is the longest escape.
        assert!(written.len() <= text.len() * 6 + 2);
    }
    assert!(minimal.len() <= quoted.len());
    let quoted = std::str::from_utf8(&quoted).expect("text");
    assert!(!quoted.contains(['<', '>', '&', '\u{2028}', '\u{2029}']));
}
