//! Messages as documents keep them. What is too large for a row stands apart, in parts of a document each: they are written
//! before the row names them, and deleted after it no longer does. Parts that no row names are left by who died in
//! between, and [`super::tidy`] deletes them.

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, TryStreamExt, stream};
use mongodb::bson::{Document, doc};
use ring::digest::{SHA256, digest};

use super::database::{AT_ONCE, Database};
use super::fault::{damaged, error_of};
use super::form::{binary, maybe_bytes, maybe_text, number, signed, text, unsigned};
use super::table::{DELETE, step};
use crate::error::{Error, Kind, Result};
use crate::outbox::row::{SHORT, StoredMessage};

/// A longer body stands apart, so that a change of state does not write it again.
const INLINE: usize = 64 << 10;
/// Likewise of the fields, which most messages have few of.
const HEAD: usize = 1 << 20;
/// Bytes of one part: four times as many are the most that a document may have.
pub(super) const PART: usize = 4 << 20;
/// Parts that one command deletes.
const SOME: usize = 500;
/// The most bytes of one message.
pub(super) const LARGEST: u64 = 512 << 20;

/// What stands apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    name: String,
    parts: i64,
    length: i64,
    sum: Vec<u8>,
}

/// The key of a part.
pub(super) fn part_key(name: &str, part: i64) -> String {
    format!("{name}/{part:06}")
}

impl Piece {
    fn keys(&self) -> Vec<String> {
        (0..self.parts).map(|part| part_key(&self.name, part)).collect()
    }

    fn document(&self) -> Document {
        doc! {"name": &self.name, "parts": self.parts, "length": self.length, "sum": binary(&self.sum)}
    }

    fn read(of: &Document, name: &str) -> Result<Option<Piece>> {
        let Ok(of) = of.get_document(name) else { return Ok(None) };
        let (parts, length) = (number(of, "parts")?, number(of, "length")?);
        let longest = signed(LARGEST);
        if !(0..=longest).contains(&length) || !(0..=longest).contains(&parts) {
            return Err(damaged("a length"));
        }
        let sum = maybe_bytes(of, "sum")?.unwrap_or_default().to_vec();
        Ok(Some(Piece { name: text(of, "name")?, parts, length, sum }))
    }
}

/// What of a row stands apart.
pub(super) fn pieces(of: &Document) -> Result<Vec<Piece>> {
    Ok([Piece::read(of, "head_at")?, Piece::read(of, "body_at")?].into_iter().flatten().collect())
}

/// A message that is written, but for the row itself.
pub(super) struct Placed {
    /// Of the row.
    pub(super) fields: Document,
    /// Names of fields that the row has not.
    pub(super) absent: Document,
    /// What was written for it.
    pub(super) made: Vec<Piece>,
    /// What the row names, written or there before.
    pub(super) named: Vec<Piece>,
    /// Bytes of the fields.
    pub(super) bytes: u64,
}

async fn sum_of(bytes: &Bytes) -> Result<Vec<u8>> {
    let bytes = bytes.clone();
    let sum = tokio::task::spawn_blocking(move || digest(&SHA256, &bytes).as_ref().to_vec()).await;
    sum.map_err(|error| Error::new(Kind::Internal, "a body was not summed").caused_by(error))
}

impl Database {
    /// Writes what stands apart of a message; what is `there` already stays.
    pub(super) async fn place(&self, message: &StoredMessage, there: &[Piece]) -> Result<Placed> {
        if message.size() > LARGEST {
            let text = format!("{} bytes are more than an outbox takes at once: {LARGEST}", message.size());
            return Err(Error::new(Kind::TooLarge, text));
        }
        let mut placed = Placed {
            fields: doc! {
                "delay": message.delay,
                "number": signed(message.number),
                "size": signed(message.size()),
                "own": message.own() as i64,
                "short": binary(message.body.get(..SHORT).unwrap_or(&message.body)),
            },
            absent: Document::new(),
            made: Vec::new(),
            named: Vec::new(),
            bytes: SHORT as u64,
        };
        let head = message.head.as_ref().map(|head| match head.len() > HEAD {
            true => Value::Apart(Bytes::from(head.clone())),
            false => Value::Text(head.clone()),
        });
        let length = message.body.len();
        // Of a small one the short form is all of it.
        let body = (length > SHORT).then(|| match length > INLINE {
            true => Value::Apart(message.body.clone()),
            false => Value::Bytes(message.body.clone()),
        });
        let filled = match self.fill(&mut placed, there, ["head", "head_at"], head).await {
            Ok(()) => self.fill(&mut placed, there, ["body", "body_at"], body).await,
            failed => failed,
        };
        if let Err(error) = filled {
            self.forget(&placed.made).await;
            return Err(error);
        }
        if placed.named.is_empty() {
            placed.absent.insert("blobs", "");
        } else {
            let names: Vec<String> = placed.named.iter().map(|piece| piece.name.clone()).collect();
            placed.fields.insert("blobs", names);
        }
        Ok(placed)
    }

    async fn fill(
        &self,
        placed: &mut Placed,
        there: &[Piece],
        [inline, apart]: [&str; 2],
        value: Option<Value>,
    ) -> Result<()> {
        let mut has = None;
        match value {
            None => {}
            Some(Value::Apart(bytes)) => {
                let piece = self.piece(&bytes, there, &mut placed.made).await?;
                placed.fields.insert(apart, piece.document());
                placed.named.push(piece);
                has = Some(apart);
            }
            Some(Value::Text(text)) => {
                placed.bytes += text.len() as u64;
                placed.fields.insert(inline, text);
                has = Some(inline);
            }
            Some(Value::Bytes(bytes)) => {
                placed.bytes += bytes.len() as u64;
                placed.fields.insert(inline, binary(&bytes));
                has = Some(inline);
            }
        }
        for name in [inline, apart] {
            if has != Some(name) {
                placed.absent.insert(name, "");
            }
        }
        Ok(())
    }

    async fn piece(&self, bytes: &Bytes, there: &[Piece], made: &mut Vec<Piece>) -> Result<Piece> {
        let (sum, length) = (sum_of(bytes).await?, bytes.len() as i64);
        if let Some(same) = there.iter().find(|piece| piece.sum == sum && piece.length == length) {
            return Ok(same.clone());
        }
        let parts = bytes.len().div_ceil(PART) as i64;
        let piece = Piece { name: self.name(), parts, length, sum };
        // Known before it is written, so that what is there of it can be deleted.
        made.push(piece.clone());
        for (part, data) in piece.keys().iter().zip(bytes.chunks(PART)) {
            let document = doc! {"_id": part, "made": self.now(), "data": binary(data)};
            let made = async { self.bodies.of.insert_one(document).await.map_err(|error| error_of(&error)) };
            // What may be there of it changes nothing: no row names it.
            step(false, made).await?;
        }
        Ok(piece)
    }

    /// Deletes what no row names any more; what fails is left to the tidying.
    pub(super) async fn forget(&self, pieces: &[Piece]) {
        let keys: Vec<String> = pieces.iter().flat_map(Piece::keys).collect();
        if let Err(error) = self.delete_parts(&keys).await {
            tracing::debug!(%error, "parts of a body are left in the outbox's MongoDB");
        }
    }

    /// Deletes parts, each by its key alone: none of the others needs to be looked at.
    pub(super) async fn delete_parts(&self, keys: &[String]) -> Result<()> {
        for some in keys.chunks(SOME) {
            let each = some.iter().map(|key| doc! {"q": {"_id": key}, "limit": 1});
            self.bodies.write(DELETE, each.collect()).await?.counted()?;
        }
        Ok(())
    }

    /// The message of a row.
    pub(super) async fn message(&self, of: &Document) -> Result<StoredMessage> {
        let head = match Piece::read(of, "head_at")? {
            Some(piece) => {
                let bytes = self.whole(&piece).await?;
                Some(String::from_utf8(bytes.to_vec()).map_err(|_| damaged("the fields of a message"))?)
            }
            None => maybe_text(of, "head")?,
        };
        let body = match Piece::read(of, "body_at")? {
            Some(piece) => self.whole(&piece).await?,
            None => match maybe_bytes(of, "body")? {
                Some(body) => body,
                None => maybe_bytes(of, "short")?.unwrap_or_default(),
            },
        };
        Ok(StoredMessage { head, body, number: unsigned(number(of, "number")?), delay: number(of, "delay")? })
    }

    async fn part(&self, key: String) -> Result<Bytes> {
        let missing = || damaged("a part of a body is missing");
        // Whoever reads has a time for all of it: a part is large, and comes in the company of others.
        let found = self.bodies.find_one(doc! {"_id": key}).await.map_err(|error| error_of(&error))?;
        maybe_bytes(&found.ok_or_else(missing)?, "data")?.ok_or_else(missing)
    }

    async fn whole(&self, piece: &Piece) -> Result<Bytes> {
        let parts = stream::iter(piece.keys()).map(|part| self.part(part)).buffered(AT_ONCE);
        let mut parts = std::pin::pin!(parts);
        let mut whole = BytesMut::new();
        while let Some(part) = parts.try_next().await? {
            whole.extend_from_slice(&part);
        }
        let whole = whole.freeze();
        if whole.len() as i64 != piece.length || sum_of(&whole).await? != piece.sum {
            return Err(damaged("a body is not what was written"));
        }
        Ok(whole)
    }
}

enum Value {
    Text(String),
    Bytes(Bytes),
    Apart(Bytes),
}
