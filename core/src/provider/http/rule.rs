//! Whether an answer is good, where the config says so.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use super::answer::Answer;
use super::outlet::Reads;
use crate::error::{Error, Kind, Outcome, Result};

/// The keys of a section that say which answers are good.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// HTTP statuses of success; default those from 200 to 299.
    pub statuses: Option<Vec<u16>>,
    /// A JSON pointer into the answer, such as `/errcode`: success is when the value there is `equals`.
    pub pointer: Option<String>,
    /// The value at `pointer` that means success.
    pub equals: Option<Value>,
    /// A JSON pointer to the code of a failure; default `pointer`.
    pub code: Option<String>,
    /// What codes mean, by the code as text: `throttled`, `unavailable`, `authentication`, `permission`, `not_found`,
    /// `invalid_argument`, `too_large` or `unsupported`. Others are `unavailable`.
    #[serde(default)]
    pub codes: BTreeMap<String, Meaning>,
    /// A JSON pointer to the id of the message.
    pub message_id: Option<String>,
}

/// What a code of the other side means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Meaning {
    /// It asked for fewer calls.
    Throttled,
    /// It is out of order.
    Unavailable,
    /// It refused the credentials.
    Authentication,
    /// The credentials do not allow this, or the balance is used up.
    Permission,
    /// The recipient or the template does not exist.
    NotFound,
    /// The message is wrong.
    InvalidArgument,
    /// The message is too large.
    TooLarge,
    /// It cannot do this.
    Unsupported,
}

impl Meaning {
    fn kind(self) -> Kind {
        match self {
            Meaning::Throttled => Kind::Throttled,
            Meaning::Unavailable => Kind::Unavailable,
            Meaning::Authentication => Kind::Authentication,
            Meaning::Permission => Kind::Permission,
            Meaning::NotFound => Kind::NotFound,
            Meaning::InvalidArgument => Kind::InvalidArgument,
            Meaning::TooLarge => Kind::TooLarge,
            Meaning::Unsupported => Kind::Unsupported,
        }
    }
}

/// A rule, checked.
pub(in crate::provider) struct Judge(Rule);

impl Judge {
    /// Checks a rule.
    ///
    /// # Errors
    /// `invalid_config`.
    pub(in crate::provider) fn new(rule: Rule) -> Result<Judge> {
        let wrong = |text: &str| Err(Error::new(Kind::InvalidConfig, format!("`success`: {text}")));
        for pointer in [&rule.pointer, &rule.code, &rule.message_id].into_iter().flatten() {
            if !pointer.starts_with('/') {
                return wrong("a JSON pointer begins with `/`");
            }
        }
        if rule.pointer.is_some() != rule.equals.is_some() {
            return wrong("`pointer` and `equals` go together");
        }
        if !rule.codes.is_empty() && rule.pointer.is_none() && rule.code.is_none() {
            return wrong("`codes` needs `code` or `pointer`, which say where in the answer a code stands");
        }
        if rule
            .statuses
            .as_ref()
            .is_some_and(|all| all.is_empty() || all.iter().any(|status| !(200..600).contains(status)))
        {
            return wrong("`statuses` lists HTTP statuses from 200 to 599");
        }
        Ok(Judge(rule))
    }

    /// What has to be read of an answer.
    pub(in crate::provider) fn reads(&self) -> Reads {
        let Rule { pointer, code, message_id, .. } = &self.0;
        if pointer.is_none() && code.is_none() && message_id.is_none() { Reads::Status } else { Reads::Body }
    }

    /// Whether a good answer names the message.
    pub(in crate::provider) fn names_message(&self) -> bool {
        self.0.message_id.is_some()
    }

    /// Judges the answer of the server at `label`: the id of the message where the rule says where it stands, or the
    /// error. Of the answer nothing is shown but the code of a failure, which `shown` makes fit for that.
    pub(in crate::provider) fn judge(
        &self,
        answer: &Answer,
        label: &str,
        shown: impl Fn(&str) -> String,
    ) -> Result<Option<Arc<str>>> {
        let Rule { statuses, pointer, equals, code, codes, message_id } = &self.0;
        let good = match statuses {
            Some(statuses) => statuses.contains(&answer.status),
            None => answer.is_success(),
        };
        let body = match (self.reads(), &answer.body) {
            (Reads::Body, Ok(body)) => serde_json::from_slice::<Value>(body).ok(),
            _ => None,
        };
        let at = |pointer: &Option<String>| body.as_ref()?.pointer(pointer.as_deref()?);
        let code = at(if code.is_some() { code } else { pointer }).and_then(as_text);
        let meaning = code.as_ref().and_then(|code| codes.get(code));
        if !good {
            let error = answer.error(label);
            return Err(match meaning {
                Some(meaning) => {
                    let text = refused(label, &shown(code.as_deref().unwrap_or_default()));
                    let error = Error::new(meaning.kind(), text).outcome_is(error.outcome());
                    waiting(error, answer)
                }
                None => error,
            });
        }
        if pointer.is_some() {
            if body.is_none() {
                if let Err(error) = &answer.body {
                    return Err(error.clone());
                }
                let text = format!("{label} answers with what is no JSON");
                return Err(Error::new(Kind::Protocol, text).outcome_is(Outcome::Unknown));
            }
            if at(pointer) != equals.as_ref() {
                // Only a code that is there says that the message was refused.
                if code.is_none() && at(pointer).and_then(as_text).is_none() {
                    let text = format!("{label} answers without the value that says how it went");
                    return Err(Error::new(Kind::Protocol, text).outcome_is(Outcome::Unknown));
                }
                let kind = meaning.map_or(Kind::Unavailable, |meaning| meaning.kind());
                let text = refused(label, &shown(code.as_deref().unwrap_or("none")));
                return Err(waiting(Error::new(kind, text), answer));
            }
        }
        Ok(at(message_id).and_then(as_text).map(Arc::from))
    }
}

fn refused(label: &str, code: &str) -> String {
    format!("{label} refuses the message with the code {code}")
}

fn waiting(error: Error, answer: &Answer) -> Error {
    match answer.retry_after {
        Some(wait) if error.retryable() => error.after(wait),
        _ => error,
    }
}

fn as_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(value) => Some(value.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn judge(rule: Value, status: u16, body: &str) -> Result<Option<Arc<str>>> {
        let judge = Judge::new(serde_json::from_value(rule).unwrap()).unwrap();
        let answer = Answer { status, retry_after: None, body: Ok(body.to_owned().into()) };
        judge.judge(&answer, "http://a", str::to_owned)
    }

    #[test]
    fn the_status_alone() {
        judge(json!({}), 204, "").unwrap();
        assert_eq!(judge(json!({}), 301, "").unwrap_err().kind(), Kind::Protocol);
        judge(json!({"statuses": [404]}), 404, "").unwrap();
        let error = judge(json!({"statuses": [200]}), 202, "").unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (Kind::Protocol, Outcome::Unknown));
    }

    #[test]
    fn a_value_in_the_answer() {
        let rule = json!({"pointer": "/r/code", "equals": 0, "message_id": "/id",
                          "codes": {"7": "throttled", "no-user": "not_found"}});
        let of = |body: &str| judge(rule.clone(), 200, body);
        assert_eq!(of(r#"{"r":{"code":0},"id":"m1"}"#).unwrap().as_deref(), Some("m1"));
        assert_eq!(of(r#"{"r":{"code":0},"id":12}"#).unwrap().as_deref(), Some("12"));
        assert_eq!(of(r#"{"r":{"code":0}}"#).unwrap(), None);
        for (body, kind, retryable, outcome) in [
            (r#"{"r":{"code":7}}"#, Kind::Throttled, true, Outcome::NotSent),
            (r#"{"r":{"code":"no-user"}}"#, Kind::NotFound, false, Outcome::NotSent),
            (r#"{"r":{"code":8}}"#, Kind::Unavailable, true, Outcome::NotSent),
            (r#"{"r":{}}"#, Kind::Protocol, true, Outcome::Unknown),
            (r#"{"r":{"code":null}}"#, Kind::Protocol, true, Outcome::Unknown),
            (r#"{"status":"queued"}"#, Kind::Protocol, true, Outcome::Unknown),
            ("<html>", Kind::Protocol, true, Outcome::Unknown),
        ] {
            let error = of(body).unwrap_err();
            assert_eq!(
                (error.kind(), error.retryable(), error.outcome()),
                (kind, retryable, outcome),
                "{body}"
            );
        }
        assert_eq!(
            judge(rule.clone(), 400, r#"{"r":{"code":"no-user"}}"#).unwrap_err().kind(),
            Kind::NotFound
        );
        assert_eq!(judge(rule, 400, "").unwrap_err().kind(), Kind::InvalidArgument);
    }

    #[test]
    fn wrong_rules_are_named() {
        for rule in [
            json!({"pointer": "code", "equals": 0}),
            json!({"pointer": "/code"}),
            json!({"equals": 0}),
            json!({"codes": {"1": "throttled"}}),
            json!({"statuses": []}),
            json!({"statuses": [100]}),
        ] {
            let error = Judge::new(serde_json::from_value(rule.clone()).unwrap()).err();
            let error = error.unwrap_or_else(|| panic!("{rule} was taken"));
            assert!(error.message().contains("`success`"), "{error}");
        }
    }
}
