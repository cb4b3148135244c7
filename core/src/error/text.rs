//! The text of an error, made when it is read where that takes long: most errors of members that failed over are never
//! read.

use std::borrow::Cow;
use std::fmt::Write;
use std::sync::OnceLock;

use super::{Part, Whole};

#[derive(Clone)]
pub(super) enum Text {
    Given(String),
    /// Of several members, of which the parts say how each failed.
    Members {
        all: usize,
        /// Why the others were not tried; empty where all were.
        why: Cow<'static, str>,
        made: OnceLock<String>,
    },
}

impl Text {
    pub(super) fn members(all: usize, why: Cow<'static, str>) -> Text {
        Text::Members { all, why, made: OnceLock::new() }
    }

    pub(super) fn read<'a>(&'a self, parts: &[Part]) -> &'a str {
        match self {
            Text::Given(text) => text,
            Text::Members { all, why, made } => made.get_or_init(|| list(*all, why, parts)),
        }
    }
}

fn list(all: usize, why: &str, parts: &[Part]) -> String {
    let failed = || {
        let members = parts.iter().filter(|part| part.of == Whole::Member);
        members.filter_map(|part| part.error.as_ref().map(|error| (&part.name, error)))
    };
    let mut text = if why.is_empty() {
        format!("all {} members failed", failed().count())
    } else {
        format!("{} of {all} members failed ({why})", failed().count())
    };
    for (number, (name, error)) in failed().enumerate() {
        text.push_str(if number == 0 { ": " } else { "; " });
        // Writing to a string does not fail.
        let _ = write!(text, "{name}: {error}");
    }
    text
}
