//! Receipt handles: the priority, the message's id, the serial of the delivery, and a seal on all three, because ids and
//! serials are no secrets. Who has a handle has received the message.

use ring::hmac;
use subtle::ConstantTimeEq;

use crate::broker::code::{Codes, Place};

/// Bytes of a seal.
const SEAL: usize = 12;

/// The id of a message.
pub(super) fn id(codes: &Codes, topic: u32, sequence: u64) -> String {
    codes.encode(Place { topic, sequence }).as_str().to_ascii_uppercase()
}

/// What handles of one folder of data are made with.
#[derive(Debug)]
pub(super) struct Handles {
    codes: Codes,
    key: hmac::Key,
}

impl Handles {
    pub(super) fn new(key: &[u8; 32]) -> Handles {
        // A key of its own: the codes' is used otherwise.
        let own = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), b"receipt handles");
        Handles { codes: Codes::new(key), key: hmac::Key::new(hmac::HMAC_SHA256, own.as_ref()) }
    }

    fn seal(&self, topic: u32, sequence: u64, priority: u8, serial: u64) -> String {
        let mut words = [0; 21];
        let bytes = topic.to_be_bytes().into_iter().chain(sequence.to_be_bytes());
        let bytes = bytes.chain([priority]).chain(serial.to_be_bytes());
        words.iter_mut().zip(bytes).for_each(|(word, byte)| *word = byte);
        let seal = hmac::sign(&self.key, &words);
        seal.as_ref().iter().take(SEAL).map(|byte| format!("{byte:02x}")).collect()
    }

    /// The handle of a delivery; the serial 0 is that of a message whose delay has not passed.
    pub(super) fn encode(&self, topic: u32, sequence: u64, priority: u8, serial: u64) -> String {
        let code = self.codes.encode(Place { topic, sequence });
        let seal = self.seal(topic, sequence, priority, serial);
        format!("{priority}-{}-{serial:x}-{seal}", code.as_str())
    }

    /// The sequence and serial of a handle of this queue; `None` for what is none.
    pub(super) fn decode(&self, topic: u32, handle: &str) -> Option<(u64, u64)> {
        let mut parts = handle.splitn(4, '-');
        let priority: u8 = parts.next()?.parse().ok()?;
        let place = self.codes.decode(parts.next()?.as_bytes())?;
        let serial = u64::from_str_radix(parts.next()?, 16).ok()?;
        let seal = self.seal(place.topic, place.sequence, priority, serial);
        let is_sealed: bool = seal.as_bytes().ct_eq(parts.next()?.as_bytes()).into();
        let is_ours = is_sealed && place.topic == topic && (1..=16).contains(&priority);
        is_ours.then_some((place.sequence, serial))
    }
}

/// The priority that a handle begins with.
pub(super) fn priority(handle: &str) -> u8 {
    handle.split('-').next().and_then(|text| text.parse().ok()).unwrap_or(8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_lead_back_and_to_their_queue_alone() {
        let handles = Handles::new(&[7; 32]);
        let handle = handles.encode(3, 99, 8, 0xabc);
        assert_eq!((handles.decode(3, &handle), priority(&handle)), (Some((99, 0xabc)), 8));
        assert_eq!(handles.decode(4, &handle), None);
        assert_eq!(Handles::new(&[8; 32]).decode(3, &handle), None);
        for wrong in ["", "-", "8-x-1", &handle[1..], &format!("99{}", &handle[1..]), &format!("{handle}g")] {
            assert_eq!(handles.decode(3, wrong), None, "{wrong}");
        }
    }

    #[test]
    fn who_knows_an_id_has_no_handle() {
        let handles = Handles::new(&[7; 32]);
        let code = id(&handles.codes, 3, 99).to_ascii_lowercase();
        let real = handles.encode(3, 99, 8, 1);
        let seal = real.rsplit('-').next().unwrap();
        assert_eq!(real, format!("8-{code}-1-{seal}"));
        for made in [
            format!("8-{code}-1"),
            format!("8-{code}-1-"),
            format!("8-{code}-2-{seal}"),
            format!("7-{code}-1-{seal}"),
            format!("8-{code}-1-{}", "0".repeat(2 * SEAL)),
            format!("8-{code}-1-{}", &seal[..2 * SEAL - 1]),
        ] {
            assert_eq!(handles.decode(3, &made), None, "{made}");
        }
    }
}
