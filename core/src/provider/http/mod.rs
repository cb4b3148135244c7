//! What the providers share that send each message by HTTP requests: `webhook`, `sms` and `dingtalk`. It knows none of
//! them.
//!
//! `site` is where requests go, `options` how, `outlet` sends one and reads its answer within bounds, `written` tells whether a byte of
//! it was written, `answer` is what came back and what its status means; `rule` decides whether an answer is good where
//! the config says so, `content` makes headers and bodies of a message, `texts` chooses
//! its template, `each` sums up how recipients ended.

mod answer;
mod content;
mod each;
mod options;
mod outlet;
mod rule;
mod site;
mod texts;
mod written;

pub(in crate::provider) use answer::Answer;
pub(in crate::provider) use content::{Body, BodyKeys, Headers, header_value, values};
pub(in crate::provider) use each::{Each, sum_up};
pub(in crate::provider) use options::Options;
pub(in crate::provider) use outlet::{Outlet, Reads, Request};
pub(in crate::provider) use rule::{Judge, Rule};
pub(in crate::provider) use site::{Site, secrets_around};
pub(in crate::provider) use texts::{Texts, no_template, place_for_body, text_alone};

/// What requests say of who sends them.
pub(in crate::provider) const USER_AGENT: &str = concat!("ceiba/", env!("CARGO_PKG_VERSION"));
