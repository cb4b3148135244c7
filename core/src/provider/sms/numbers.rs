//! Numbers of recipients.
//!
//! A number is digits, or `+` with the country's code and digits (E.164). Aliyun is sent a number of `+86` without that
//! and another without its `+`; Tencent Cloud and gateways are sent what the message says. Without `+` a number is
//! passed on as it is, and the service takes it for one of mainland China.

use crate::error::{Error, Kind, Result};

/// The most recipients of one message.
pub(super) const MOST: usize = 100_000;

/// Checks the form of a number; not whether anybody has it.
///
/// # Errors
/// `invalid_argument`.
pub(super) fn check(number: &str) -> Result<()> {
    let digits = number.strip_prefix('+').unwrap_or(number);
    // E.164 has up to 15; `00` in front of them is taken by some.
    let most = if digits.len() == number.len() { 17 } else { 15 };
    let fits = (3..=most).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    // No country's code begins with 0.
    if fits && !number.starts_with("+0") {
        return Ok(());
    }
    let text = "a recipient is no phone number: digits alone, or `+`, the country's code and digits";
    Err(Error::new(Kind::InvalidArgument, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_a_number() {
        for good in ["13800000000", "+8613800000000", "10086", "008613800000000", "+12025550123", "110"] {
            check(good).unwrap();
        }
        let long = "1".repeat(18);
        for bad in [
            "",
            "+",
            "12",
            "+86 138",
            "138-0000",
            "a@b.c",
            "+0123456",
            "１２３４５",
            "1,2,3",
            "+1234567890123456",
            &long,
        ] {
            assert_eq!(check(bad).unwrap_err().kind(), Kind::InvalidArgument, "{bad}");
        }
    }
}
