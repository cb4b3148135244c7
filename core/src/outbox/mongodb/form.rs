//! Rows as documents, and back.

use bytes::Bytes;
use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{Binary, Bson, Document, doc};

use super::fault::damaged;
use crate::error::Result;
use crate::outbox::row::{NEVER, NewRow, RowId, RowInfo, Start, State};

/// What a page of rows leaves out.
pub(super) fn without_message() -> Document {
    doc! {"head": 0, "body": 0}
}

/// A number of ours as MongoDB has it, and back.
pub(super) fn signed(number: u64) -> i64 {
    number as i64
}

pub(super) fn unsigned(number: i64) -> u64 {
    number as u64
}

pub(super) fn state_number(state: State) -> i64 {
    state as i64
}

/// Those that are still to be sent.
pub(super) fn live() -> Document {
    doc! {"$in": [state_number(State::Pending), state_number(State::Leased)]}
}

/// One of these. The bounds help a server that compares each document with each number.
pub(super) fn among(ids: &[i64]) -> Document {
    let (least, most) = (ids.iter().min().copied().unwrap_or(0), ids.iter().max().copied().unwrap_or(0));
    doc! {"$gte": least, "$lte": most, "$in": ids.to_vec()}
}

fn wrong(name: &str) -> crate::error::Error {
    damaged(&format!("`{name}` of a document"))
}

pub(super) fn number(of: &Document, name: &str) -> Result<i64> {
    match of.get(name) {
        Some(Bson::Int64(number)) => Ok(*number),
        Some(Bson::Int32(number)) => Ok(i64::from(*number)),
        // Counts may be of this kind.
        Some(Bson::Double(number)) if number.fract() == 0.0 && number.abs() < 9e15 => Ok(*number as i64),
        _ => Err(wrong(name)),
    }
}

pub(super) fn text(of: &Document, name: &str) -> Result<String> {
    maybe_text(of, name)?.ok_or_else(|| wrong(name))
}

pub(super) fn maybe_text(of: &Document, name: &str) -> Result<Option<String>> {
    match of.get(name) {
        None | Some(Bson::Null) => Ok(None),
        Some(Bson::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(wrong(name)),
    }
}

pub(super) fn maybe_bytes(of: &Document, name: &str) -> Result<Option<Bytes>> {
    match of.get(name) {
        None | Some(Bson::Null) => Ok(None),
        Some(Bson::Binary(binary)) => Ok(Some(Bytes::from(binary.bytes.clone()))),
        Some(_) => Err(wrong(name)),
    }
}

pub(super) fn binary(bytes: &[u8]) -> Bson {
    Bson::Binary(Binary { subtype: BinarySubtype::Generic, bytes: bytes.to_vec() })
}

pub(super) fn id(of: &Document) -> Result<i64> {
    number(of, "_id")
}

pub(super) fn state(of: &Document) -> Result<State> {
    State::numbered(number(of, "state")?).ok_or_else(|| wrong("state"))
}

/// Two texts as one, which no other two give.
fn joined(producer: &str, key: &str) -> String {
    format!("{}:{producer}{key}", producer.len())
}

/// The line that rows of a producer with this key stand in.
pub(super) fn line(producer: &str, key: &str) -> String {
    joined(producer, key)
}

/// What no two rows have: the dedup key, or where there is none the number. An index over keys alone would have to
/// leave out the rows without one, which not every server can.
pub(super) fn only(producer: &str, dedup: Option<&str>, id: i64) -> String {
    match dedup {
        Some(dedup) => format!("k{}", joined(producer, dedup)),
        None => format!("i{id}"),
    }
}

/// The document of a row, without its message.
pub(super) fn document(row: &NewRow, id: i64, token: i64) -> Document {
    let (state, due) = match row.start {
        Start::Pending { due } | Start::Restored { due } => (State::Pending, due),
        Start::Leased { until } => (State::Leased, until),
        Start::Ended { state: State::Done } => (State::Done, row.now),
        Start::Ended { .. } => (State::Dead, NEVER),
    };
    let mut document = doc! {
        "_id": id,
        "producer": &*row.producer,
        "state": state_number(state),
        "due": due,
        "token": token,
        "attempts": i64::from(row.attempts),
        "accepted": row.accepted,
        "created": row.now,
        "updated": row.now,
        "only": only(&row.producer, row.dedup.as_deref(), id),
    };
    let texts =
        [("topic", &row.topic), ("order_key", &row.order_key), ("dedup", &row.dedup), ("error", &row.error)];
    for (name, text) in texts {
        if let Some(text) = text {
            document.insert(name, text.clone());
        }
    }
    if let Some(key) = &row.order_key {
        document.insert("line", line(&row.producer, key));
    }
    document
}

/// A row without its message.
pub(super) fn info(of: &Document) -> Result<RowInfo> {
    let state = state(of)?;
    let due = Some(number(of, "due")?);
    let due = due.filter(|due| *due < NEVER && matches!(state, State::Pending | State::Leased));
    let own = unsigned(number(of, "own")?);
    let mut short = maybe_bytes(of, "short")?.unwrap_or_default();
    // Attachments stand behind the body.
    short.truncate(usize::try_from(own).unwrap_or(usize::MAX));
    Ok(RowInfo {
        id: RowId(unsigned(id(of)?)),
        producer: text(of, "producer")?,
        state,
        attempts: u32::try_from(number(of, "attempts")?).map_err(|_| wrong("attempts"))?,
        due,
        error: maybe_text(of, "error")?,
        topic: maybe_text(of, "topic")?,
        order_key: maybe_text(of, "order_key")?,
        dedup: maybe_text(of, "dedup")?,
        size: own,
        accepted: number(of, "accepted")?,
        created: number(of, "created")?,
        updated: number(of, "updated")?,
        short,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_joined_is_told_apart() {
        assert_ne!(only("a", Some("bc"), 1), only("ab", Some("c"), 1));
        assert_ne!(only("a", Some("1"), 1), only("a", None, 1));
        assert_ne!(line("a1", "b"), line("a", "1b"));
    }

    #[test]
    fn what_is_no_row_is_damaged() {
        for document in [doc! {}, doc! {"_id": "x"}, doc! {"_id": 1_i64, "state": 9_i64}] {
            assert_eq!(info(&document).unwrap_err().kind(), crate::error::Kind::Storage);
        }
    }
}
