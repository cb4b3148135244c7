//! Message codes: 32 hex digits that name topic and sequence under a key, so that no map is needed.

/// Where a message is: what a code says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Place {
    /// Number of the topic.
    pub(super) topic: u32,
    /// Sequence of the message within its topic; never used again.
    pub(super) sequence: u64,
}

/// The keys of one folder of data. Codes made under others lead nowhere.
#[derive(Debug)]
pub(super) struct Codes {
    keys: [u64; 4],
}

/// A code as the wire writes it.
#[derive(Clone, Copy)]
pub(super) struct Code([u8; 32]);

impl Code {
    /// The digits.
    pub(super) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl Codes {
    pub(super) fn new(key: &[u8; 32]) -> Codes {
        let mut keys = [0; 4];
        for (word, bytes) in keys.iter_mut().zip(key.as_chunks().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        Codes { keys }
    }

    /// The code of a place: a Feistel network, so that different places have different codes.
    pub(super) fn encode(&self, place: Place) -> Code {
        let (mut left, mut right) = (u64::from(place.topic) << 32, place.sequence);
        for key in self.keys {
            (left, right) = (right, left ^ mix(right ^ key));
        }
        let mut digits = [0; 32];
        let bytes = left.to_be_bytes().into_iter().chain(right.to_be_bytes());
        for (pair, byte) in digits.chunks_exact_mut(2).zip(bytes) {
            pair.copy_from_slice(PAIRS.get(usize::from(byte)).unwrap_or(b"00"));
        }
        Code(digits)
    }

    /// The place of a code; `None` for what is no code. The place may not exist.
    pub(super) fn decode(&self, code: &[u8]) -> Option<Place> {
        if code.len() != 32 {
            return None;
        }
        let (high, low) = code.split_at(16);
        let (mut left, mut right) = (half(high)?, half(low)?);
        for key in self.keys.into_iter().rev() {
            (left, right) = (right ^ mix(left ^ key), left);
        }
        // These bits are zero in every code: what was guessed has others.
        (left as u32 == 0).then_some(Place { topic: (left >> 32) as u32, sequence: right })
    }
}

/// The value of each byte as a lower-case hex digit; above 15 for the others.
#[allow(clippy::indexing_slicing, reason = "done by the compiler, which would refuse an index out of bounds")]
const VALUES: [u8; 256] = {
    let mut values = [0xff; 256];
    let mut value = 0;
    while value < 16 {
        values[digit(value) as usize] = value;
        value += 1;
    }
    values
};

/// The two digits of each byte.
#[allow(clippy::indexing_slicing, reason = "done by the compiler, which would refuse an index out of bounds")]
const PAIRS: [[u8; 2]; 256] = {
    let mut pairs = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        pairs[byte] = [digit(byte as u8 >> 4), digit(byte as u8 & 15)];
        byte += 1;
    }
    pairs
};

/// The word of 16 hex digits.
fn half(digits: &[u8]) -> Option<u64> {
    let (mut word, mut seen) = (0, 0);
    for &byte in digits {
        let value = VALUES.get(usize::from(byte)).copied().unwrap_or(0xff);
        seen |= value;
        word = word << 4 | u64::from(value & 15);
    }
    (seen < 16).then_some(word)
}

const fn digit(nibble: u8) -> u8 {
    if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 }
}

/// Spreads every bit over the whole word.
fn mix(mut word: u64) -> u64 {
    word = (word ^ (word >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    word = (word ^ (word >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    word ^ (word >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn codes_lead_back_and_differ() {
        let codes = Codes::new(&[7; 32]);
        let mut seen = HashSet::new();
        for topic in 0..1000 {
            for sequence in [0, 1, 2, u64::MAX, 1 << 40] {
                let place = Place { topic, sequence };
                let code = codes.encode(place);
                assert_eq!(codes.decode(code.as_str().as_bytes()), Some(place));
                assert_eq!(Codes::new(&[8; 32]).decode(code.as_str().as_bytes()), None);
                assert!(code.as_str().bytes().all(|byte| byte.is_ascii_hexdigit()));
                assert!(seen.insert(code.as_str().to_owned()));
            }
        }
    }

    #[test]
    fn what_is_no_code_is_none() {
        let codes = Codes::new(&[1; 32]);
        for text in ["", "ok", &"A".repeat(32), &"0".repeat(33), &"g".repeat(32)] {
            assert_eq!(codes.decode(text.as_bytes()), None);
        }
    }
}
