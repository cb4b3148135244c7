//! Receipt handles: the priority, the message's id and the serial of the delivery.

use crate::broker::code::{Codes, Place};

/// The id of a message.
pub(super) fn id(codes: &Codes, topic: u32, sequence: u64) -> String {
    codes.encode(Place { topic, sequence }).as_str().to_ascii_uppercase()
}

/// The handle of a delivery; the serial 0 is that of a message whose delay has not passed.
pub(super) fn encode(codes: &Codes, topic: u32, sequence: u64, priority: u8, serial: u64) -> String {
    let code = codes.encode(Place { topic, sequence });
    format!("{priority}-{}-{serial:x}", code.as_str())
}

/// The sequence and serial of a handle of this queue; `None` for what is none.
pub(super) fn decode(codes: &Codes, topic: u32, handle: &str) -> Option<(u64, u64)> {
    let mut parts = handle.splitn(3, '-');
    let priority: u8 = parts.next()?.parse().ok()?;
    let place = codes.decode(parts.next()?.as_bytes())?;
    let serial = u64::from_str_radix(parts.next()?, 16).ok()?;
    let is_ours = place.topic == topic && (1..=16).contains(&priority);
    is_ours.then_some((place.sequence, serial))
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
        let codes = Codes::new(&[7; 32]);
        let handle = encode(&codes, 3, 99, 8, 0xabc);
        assert_eq!((decode(&codes, 3, &handle), priority(&handle)), (Some((99, 0xabc)), 8));
        assert_eq!(decode(&codes, 4, &handle), None);
        assert_eq!(decode(&Codes::new(&[8; 32]), 3, &handle), None);
        for wrong in ["", "-", "8-x-1", &handle[1..], &format!("99{}", &handle[1..]), &format!("{handle}g")] {
            assert_eq!(decode(&codes, 3, wrong), None, "{wrong}");
        }
    }
}
