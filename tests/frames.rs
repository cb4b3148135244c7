//! WebSocket frames out of a stream of bytes, as they pass a proxy.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use crate::proxy::{Tap, Way};

/// Takes bytes of one direction of a connection, gives whole frames. The HTTP head is skipped.
#[derive(Debug, Default)]
pub struct Frames {
    buffer: Vec<u8>,
    upgraded: bool,
}

/// A frame: its opcode (1 text, 2 binary, 8 close, 9 ping, 10 pong) and its payload, unmasked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The opcode.
    pub opcode: u8,
    /// The payload.
    pub payload: Vec<u8>,
}

impl Frames {
    /// Adds bytes; returns the frames that are complete by now.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Frame> {
        self.buffer.extend_from_slice(bytes);
        if !self.upgraded {
            let Some(end) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") else {
                return Vec::new();
            };
            self.buffer.drain(..end + 4);
            self.upgraded = true;
        }
        let mut frames = Vec::new();
        let mut from = 0;
        while let Some((frame, length)) = first(&self.buffer[from..]) {
            from += length;
            frames.push(frame);
        }
        self.buffer.drain(..from);
        frames
    }
}

fn first(bytes: &[u8]) -> Option<(Frame, usize)> {
    let opcode = bytes.first()? & 0x0f;
    let second = *bytes.get(1)?;
    let (length, mut at) = match second & 0x7f {
        126 => (u64::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)), 4),
        127 => (u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?), 10),
        short => (u64::from(short), 2),
    };
    let mut mask = [0; 4];
    if second & 0x80 != 0 {
        mask.copy_from_slice(bytes.get(at..at + 4)?);
        at += 4;
    }
    let end = at.checked_add(usize::try_from(length).ok()?)?;
    let payload =
        bytes.get(at..end)?.iter().enumerate().map(|(index, byte)| byte ^ mask[index % 4]).collect();
    Some((Frame { opcode, payload }, end))
}

/// What producers wrote and what the broker answered, on the kapokmq wire.
#[derive(Debug, Default)]
pub struct Record {
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    streams: HashMap<(u64, Way), Frames>,
    bodies: HashMap<String, u32>,
    oks: u64,
}

impl Record {
    /// An empty record and the tap that fills it.
    pub fn new() -> (Arc<Record>, Tap) {
        let record = Arc::new(Record::default());
        let filled = record.clone();
        (record, Arc::new(move |number, way, bytes| filled.note(number, way, bytes)))
    }

    fn note(&self, number: u64, way: Way, bytes: &[u8]) {
        let mut seen = self.seen.lock().unwrap();
        let frames = seen.streams.entry((number, way)).or_default().feed(bytes);
        for frame in frames {
            match way {
                // With the extension the code of the message follows.
                Way::Down if frame.payload == b"ok" || frame.payload.starts_with(b"ok ") => seen.oks += 1,
                Way::Up => {
                    let Ok(sent) = serde_json::from_slice::<serde_json::Value>(&frame.payload) else {
                        continue;
                    };
                    let Some(body) = sent["MessageData"].as_str() else { continue };
                    *seen.bodies.entry(body.to_owned()).or_default() += 1;
                }
                Way::Down => {}
            }
        }
    }

    /// How often `ok` came from the broker.
    pub fn oks(&self) -> u64 {
        self.seen.lock().unwrap().oks
    }

    /// Each body that a producer wrote, with how often.
    pub fn bodies(&self) -> HashMap<String, u32> {
        self.seen.lock().unwrap().bodies.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_from_pieces_of_any_size() {
        let mut stream = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n".to_vec();
        stream.extend([0x81, 0x02, b'o', b'k']);
        stream.extend([0x81, 0x82, 1, 2, 3, 4, b'h' ^ 1, b'i' ^ 2]);
        stream.extend([0x82, 126, 1, 0]);
        stream.extend([7; 256]);
        for size in [1, 3, 1000] {
            let mut frames = Frames::default();
            let found: Vec<Frame> = stream.chunks(size).flat_map(|piece| frames.feed(piece)).collect();
            assert_eq!(found.len(), 3);
            assert_eq!(found[0], Frame { opcode: 1, payload: b"ok".to_vec() });
            assert_eq!(found[1], Frame { opcode: 1, payload: b"hi".to_vec() });
            assert_eq!(found[2].payload.len(), 256);
        }
    }

    #[test]
    fn the_record_counts_bodies_and_answers() {
        let (record, tap) = Record::new();
        tap(1, Way::Up, b"GET / HTTP/1.1\r\n\r\n\x81\x12{\"MessageData\":\"a\"}");
        tap(1, Way::Down, b"HTTP/1.1 101\r\n\r\n\x81\x02o");
        tap(1, Way::Down, b"k");
        tap(1, Way::Down, b"\x81\x05ok 7a");
        assert_eq!(record.oks(), 2);
        assert_eq!(record.bodies().get("a"), None, "the frame is one byte short: {:?}", record.bodies());
        tap(2, Way::Up, b"GET / HTTP/1.1\r\n\r\n\x81\x13{\"MessageData\":\"a\"}");
        assert_eq!(record.bodies()["a"], 1);
    }
}
