//! What is said of what was not done.

use std::borrow::Cow;

use super::xml::{Malformed, Writer};
use super::{Code, missing, root};

/// A refused request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Refusal {
    /// The code.
    pub code: String,
    /// The reason.
    pub text: String,
    /// The service's id of the request.
    pub request_id: String,
    /// Which server refused it.
    pub host_id: String,
}

impl Refusal {
    /// The answer.
    pub fn encode(&self) -> String {
        let mut into = Writer::refusal("Error", 300);
        into.leaf("Code", &self.code);
        into.leaf("Message", &self.text);
        into.leaf("RequestId", &self.request_id);
        into.leaf("HostId", &self.host_id);
        into.finish("Error")
    }

    /// Reads the answer.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(document: &[u8]) -> Result<Refusal, Malformed> {
        let mut node = root(document, "Error")?;
        let mut text = |name| node.take(name).map(Cow::into_owned).unwrap_or_default();
        let refusal = Refusal {
            code: text("Code"),
            text: text("Message"),
            request_id: text("RequestId"),
            host_id: text("HostId"),
        };
        if refusal.code.is_empty() { Err(Malformed("an element is missing")) } else { Ok(refusal) }
    }
}

/// A message of a batch that was not deleted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Failure {
    /// The code.
    pub code: String,
    /// The reason.
    pub text: String,
    /// Its receipt handle.
    pub receipt_handle: String,
}

/// The answer to a batch of deletes of which some failed; its status is 404.
pub fn encode_failures(failures: &[Failure]) -> String {
    let mut into = Writer::answer("Errors", 120 + failures.len() * 200);
    for failure in failures {
        into.open("Error");
        into.leaf("ErrorCode", &failure.code);
        into.leaf("ErrorMessage", &failure.text);
        into.leaf("ReceiptHandle", &failure.receipt_handle);
        into.close("Error");
    }
    into.finish("Errors")
}

/// Reads the answer to a batch of deletes of which some failed.
///
/// # Errors
/// What is wrong with it.
pub fn decode_failures(document: &[u8]) -> Result<Vec<Failure>, Malformed> {
    let root = root(document, "Errors")?;
    let each = root.children.into_iter().filter(|child| child.name == "Error");
    each.map(|mut child| {
        Ok(Failure {
            code: missing(child.take_filled("ErrorCode"))?.into_owned(),
            text: child.take("ErrorMessage").unwrap_or_default().into_owned(),
            receipt_handle: missing(child.take_filled("ReceiptHandle"))?.into_owned(),
        })
    })
    .collect()
}

/// Why a request is none of the service's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotDecoded {
    /// The code to refuse it with.
    pub code: Code,
    /// What is wrong, in words that quote nothing of it.
    pub text: &'static str,
}

impl NotDecoded {
    pub(super) fn new(code: Code, text: &'static str) -> NotDecoded {
        NotDecoded { code, text }
    }
}

impl From<Malformed> for NotDecoded {
    fn from(Malformed(text): Malformed) -> NotDecoded {
        NotDecoded { code: Code::MalformedXml, text }
    }
}
