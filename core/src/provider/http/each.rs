//! How the recipients of one message ended.

use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Kind, Outcome, Part, Result, Whole};
use crate::message::Receipt;

/// A recipient, and the service's id of its message or the error.
pub(in crate::provider) type Each = (Arc<str>, Result<Option<Arc<str>>>);

/// A receipt when all went well; of one recipient its own error; `partial` where some failed; where all did an error of
/// the first's kind. Errors of several hold a part for each. Whether it was sent is unknown where that of any is, and
/// a retry may help where it may for any.
pub(in crate::provider) fn sum_up(provider: &'static str, mut each: Vec<Each>) -> Result<Receipt> {
    if each.len() == 1
        && let Some((_, only)) = each.pop()
    {
        return only.map(|message_id| Receipt { message_id, ..Receipt::sent(provider) });
    }
    let all = each.len();
    let mut parts = Vec::with_capacity(all);
    let mut failed: Vec<Error> = Vec::new();
    for (recipient, result) in each {
        parts.push(match result {
            Ok(message_id) => Part::sent(Whole::Recipient, recipient, message_id),
            Err(error) => {
                failed.push(error.clone());
                Part::failed(Whole::Recipient, recipient, error)
            }
        });
    }
    let Some(first) = failed.first() else {
        let message_id = parts.first().and_then(|part| part.message_id.clone());
        return Ok(Receipt { message_id, parts: Some(parts.into()), ..Receipt::sent(provider) });
    };
    let kind = if failed.len() == all { first.kind() } else { Kind::Partial };
    let text = format!("{} of {all} recipients failed; the first: {}", failed.len(), first.text());
    let mut error = Error::new(kind, text).retryable_is(failed.iter().any(Error::retryable));
    if failed.iter().any(|error| error.outcome() == Outcome::Unknown) {
        error = error.outcome_is(Outcome::Unknown);
    }
    let longest: Option<Duration> = failed.iter().filter_map(Error::retry_after).max();
    if let Some(wait) = longest {
        error = error.after(wait);
    }
    Err(error.made_of(parts))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(kind: Kind) -> Result<Option<Arc<str>>> {
        Err(Error::new(kind, "why").after(Duration::from_secs(kind.code() as u64)))
    }

    #[test]
    fn some_or_all_or_none_or_one() {
        let ok = || Ok(Some("id".into()));
        let sum = |results: Vec<Result<Option<Arc<str>>>>| {
            let each = results.into_iter().enumerate().map(|(n, result)| (n.to_string().into(), result));
            sum_up("sms", each.collect())
        };
        let receipt = sum(vec![ok(), ok()]).unwrap();
        assert_eq!((receipt.message_id.as_deref(), receipt.parts.unwrap().len()), (Some("id"), 2));
        assert!(sum(vec![ok()]).unwrap().parts.is_none());

        let error = sum(vec![failed(Kind::NotFound)]).unwrap_err();
        assert_eq!((error.kind(), error.parts().len()), (Kind::NotFound, 0));

        let error = sum(vec![ok(), failed(Kind::Throttled), failed(Kind::NotFound)]).unwrap_err();
        assert_eq!(
            (error.kind(), error.retryable(), error.outcome()),
            (Kind::Partial, true, Outcome::NotSent)
        );
        assert_eq!(error.retry_after(), Some(Duration::from_secs(15)));
        let errors: Vec<bool> = error.parts().iter().map(|part| part.error.is_some()).collect();
        assert_eq!(errors, [false, true, true]);

        let error = sum(vec![ok(), failed(Kind::NotFound)]).unwrap_err();
        assert_eq!((error.kind(), error.retryable()), (Kind::Partial, false));

        let lost = Err(Error::new(Kind::Unavailable, "lost").outcome_is(Outcome::Unknown));
        let error = sum(vec![failed(Kind::NotFound), lost]).unwrap_err();
        assert_eq!(
            (error.kind(), error.retryable(), error.outcome()),
            (Kind::NotFound, true, Outcome::Unknown)
        );
    }
}
