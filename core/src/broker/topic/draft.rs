//! Messages on their way in: their texts in one buffer, so that a batch costs no allocation for each.

use crate::broker::queue::Draft;
use crate::broker::room::Room;

#[derive(Debug, Clone, Copy)]
struct Item {
    /// Ends in the buffer.
    body: usize,
    key: usize,
    delay: i64,
}

/// See the module.
#[derive(Debug, Default)]
pub(in crate::broker) struct Drafts {
    text: String,
    items: Vec<Item>,
}

impl Drafts {
    /// Adds a message; a delay in seconds, as the wire has it: zero and less mean at once.
    pub(in crate::broker) fn push(&mut self, body: &str, key: &str, delay: i64) {
        self.text.push_str(body);
        let body = self.text.len();
        self.text.push_str(key);
        self.items.push(Item { body, key: self.text.len(), delay });
    }

    /// Takes all out, and keeps the memory unless it is much.
    pub(in crate::broker) fn clear(&mut self) {
        const MUCH: usize = 1 << 20;
        self.text.clear();
        self.text.shrink_to(MUCH);
        self.items.clear();
    }

    pub(in crate::broker) fn len(&self) -> usize {
        self.items.len()
    }

    pub(in crate::broker) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// What they cost together on their way in, with their keys; see [`Room::cost`].
    pub(in crate::broker) fn cost(&self) -> usize {
        Room::cost(0).saturating_mul(self.items.len()).saturating_add(self.text.len())
    }

    /// What one costs once it is in a queue, which counts bodies alone.
    pub(in crate::broker) fn kept_of(&self, index: usize) -> usize {
        let start = index.checked_sub(1).and_then(|before| self.items.get(before)).map_or(0, |item| item.key);
        self.items.get(index).map_or(0, |item| Room::cost(item.body - start))
    }

    /// All from one on.
    pub(super) fn from(&self, first: usize) -> impl Iterator<Item = Draft<'_>> {
        let mut start =
            first.checked_sub(1).and_then(|before| self.items.get(before)).map_or(0, |item| item.key);
        self.items.iter().skip(first).map(move |item| {
            let body = self.text.get(start..item.body).unwrap_or_default();
            let key = self.text.get(item.body..item.key).unwrap_or_default();
            start = item.key;
            Draft {
                body: body.as_bytes(),
                delay_ms: item.delay.max(0).saturating_mul(1000),
                wire_delay: item.delay,
                key,
                expires_in_ms: 0,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_comes_out_as_it_went_in() {
        let mut drafts = Drafts::default();
        drafts.push("one", "", 0);
        drafts.push("", "key", 2);
        drafts.push("three", "k", -1);
        let seen = |first| -> Vec<_> {
            drafts
                .from(first)
                .map(|draft| (draft.body, draft.key, draft.delay_ms, draft.wire_delay))
                .collect()
        };
        let all: Vec<(&[u8], &str, i64, i64)> =
            vec![(b"one", "", 0, 0), (b"", "key", 2000, 2), (b"three", "k", 0, -1)];
        assert_eq!(seen(0), all);
        assert_eq!(seen(2), all[2..]);
        let keys = "key".len() + "k".len();
        assert_eq!(drafts.cost(), (0..3).map(|index| drafts.kept_of(index)).sum::<usize>() + keys);
    }
}
