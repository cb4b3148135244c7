//! Aliyun's `SendSms` of 2017-05-25, signed by ACS3-HMAC-SHA256 as the official SDKs do: every parameter is in the
//! query, the body is empty, and every header is signed.

use chrono::DateTime;
use percent_encoding::utf8_percent_encode;
use serde::Deserialize;

use super::Fault;
use crate::error::{Error, Kind, Result};
use crate::wire::path::RESERVED;
use crate::wire::sign::{hex, hmac_sha256, sha256};

/// The most numbers of one request.
pub const MAX_NUMBERS: usize = 1000;

/// What answers in the public cloud.
pub const ENDPOINT: &str = "https://dysmsapi.aliyuncs.com";

const ALGORITHM: &str = "ACS3-HMAC-SHA256";

/// Whose name a request is sent in.
#[derive(Clone, Copy)]
pub struct Account<'a> {
    /// Id of the access key.
    pub key_id: &'a str,
    /// Its secret.
    pub key_secret: &'a str,
    /// The token of temporary credentials.
    pub security_token: Option<&'a str>,
}

/// A message to send.
#[derive(Debug, Clone, Copy, Default)]
pub struct SendSms<'a> {
    /// Numbers with commas between them.
    pub phone_numbers: &'a str,
    /// The signature in front of the text.
    pub sign_name: &'a str,
    /// Code of the template.
    pub template_code: &'a str,
    /// Its parameters as JSON.
    pub template_param: Option<&'a str>,
    /// What comes back in the service's reports.
    pub out_id: Option<&'a str>,
    /// Extension of the sender's number.
    pub sms_up_extend_code: Option<&'a str>,
}

/// When, where and with what else a request is sent.
#[derive(Debug, Clone, Copy)]
pub struct Sending<'a> {
    /// The header `host`, with the port where it is not the scheme's own.
    pub host: &'a str,
    /// Seconds since 1970.
    pub time: u64,
    /// Never the same twice.
    pub nonce: &'a str,
    /// Further headers, lower-case, which are signed too.
    pub further: &'a [(&'a str, &'a str)],
}

/// A POST with an empty body.
#[derive(Clone, PartialEq, Eq)]
pub struct Signed {
    /// The query, encoded.
    pub query: String,
    /// Every header but `host`, lower-case.
    pub headers: Vec<(String, String)>,
}

/// Makes the request.
pub fn send_sms(account: Account<'_>, sms: &SendSms<'_>, sending: Sending<'_>) -> Signed {
    // In the order of their names, as the signature wants them.
    let parameters = [
        ("OutId", sms.out_id),
        ("PhoneNumbers", Some(sms.phone_numbers)),
        ("SignName", Some(sms.sign_name)),
        ("SmsUpExtendCode", sms.sms_up_extend_code),
        ("TemplateCode", Some(sms.template_code)),
        ("TemplateParam", sms.template_param),
    ];
    let mut query = String::new();
    for (name, value) in parameters {
        let Some(value) = value else { continue };
        let mark = if query.is_empty() { "" } else { "&" };
        query.push_str(&format!("{mark}{name}={}", utf8_percent_encode(value, RESERVED)));
    }
    let time = i64::try_from(sending.time).unwrap_or_default();
    let date = DateTime::from_timestamp(time, 0).unwrap_or_default();
    let payload = hex(&sha256(b""));
    let mut headers = vec![
        ("accept", "application/json".to_owned()),
        ("host", sending.host.to_owned()),
        ("x-acs-action", "SendSms".to_owned()),
        ("x-acs-content-sha256", payload.clone()),
        ("x-acs-date", date.format("%Y-%m-%dT%H:%M:%SZ").to_string()),
        ("x-acs-signature-nonce", sending.nonce.to_owned()),
        ("x-acs-version", "2017-05-25".to_owned()),
    ];
    if let Some(token) = account.security_token {
        headers.push(("x-acs-accesskey-id", account.key_id.to_owned()));
        headers.push(("x-acs-security-token", token.to_owned()));
    }
    headers.extend(sending.further.iter().map(|(name, value)| (*name, (*value).to_owned())));
    headers.sort();
    let names: Vec<&str> = headers.iter().map(|(name, _)| *name).collect();
    let names = names.join(";");
    let lines: String = headers.iter().map(|(name, value)| format!("{name}:{}\n", value.trim())).collect();
    let canonical = format!("POST\n/\n{query}\n{lines}\n{names}\n{payload}");
    let to_sign = format!("{ALGORITHM}\n{}", hex(&sha256(canonical.as_bytes())));
    let signature = hex(&hmac_sha256(account.key_secret.as_bytes(), to_sign.as_bytes()));
    let authorization =
        format!("{ALGORITHM} Credential={},SignedHeaders={names},Signature={signature}", account.key_id);
    headers.retain(|(name, _)| *name != "host");
    headers.push(("authorization", authorization));
    let headers = headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    Signed { query, headers }
}

/// What the service says.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Answer {
    /// `OK`, or what was wrong.
    pub code: String,
    /// The same in words.
    #[serde(default)]
    pub message: String,
    /// The service's id of the sending.
    #[serde(default)]
    pub biz_id: Option<String>,
}

impl Answer {
    /// Reads an answer.
    ///
    /// # Errors
    /// `protocol` for what is none.
    pub fn decode(body: &[u8]) -> Result<Answer> {
        // The parser's text can quote what was read.
        serde_json::from_slice(body)
            .map_err(|_| Error::new(Kind::Protocol, "the answer is no JSON with a `Code`"))
    }

    /// Whether the service took the message.
    pub fn is_ok(&self) -> bool {
        self.code == "OK"
    }
}

/// What a code other than `OK` means; `None` for one that says nothing beyond the HTTP status.
pub fn fault(code: &str) -> Option<Fault> {
    Some(match code {
        "isv.BUSINESS_LIMIT_CONTROL" => Fault::passing(Kind::Throttled),
        // They end with the day or the month: no retry waits so long.
        "isv.DAY_LIMIT_CONTROL" | "isv.MONTH_LIMIT_CONTROL" | "isv.SMS_CONTENT_MISMATCH_TEMPLATE_LIMIT" => {
            Fault::lasting(Kind::Throttled)
        }
        "isv.SMS_TEMPLATE_ILLEGAL"
        | "isv.SMS_SIGNATURE_ILLEGAL"
        | "isv.SMS_SIGN_ILLEGAL"
        | "isv.TEMPLATE_NOT_EXIST"
        | "isv.SIGN_NAME_ILLEGAL"
        | "isv.SMS_SIGNATURE_SCENE_ILLEGAL" => Fault::lasting(Kind::NotFound),
        // The balance is used up, the account may not, or not from here.
        "isv.AMOUNT_NOT_ENOUGH"
        | "isv.OUT_OF_SERVICE"
        | "isv.PRODUCT_UN_SUBSCRIPT"
        | "isv.PRODUCT_UNSUBSCRIBE"
        | "isv.ACCOUNT_NOT_EXISTS"
        | "isv.ACCOUNT_ABNORMAL"
        | "isv.DENY_IP_RANGE"
        | "isp.RAM_PERMISSION_DENY" => Fault::lasting(Kind::Permission),
        // This request arrived before: somebody on the way repeated it.
        "SignatureNonceUsed" => Fault { kind: Kind::Authentication, retryable: true, unknown: true },
        "SignatureDoesNotMatch" | "IncompleteSignature" | "MissingSecurityToken" => {
            Fault::lasting(Kind::Authentication)
        }
        "ServiceUnavailable" => Fault::passing(Kind::Unavailable),
        "InternalError" => Fault::of_service(),
        _ if code.starts_with("InvalidAccessKey")
            || code.starts_with("InvalidTimeStamp")
            || code.starts_with("InvalidSecurityToken")
            || code.starts_with("InvalidSignature") =>
        {
            Fault::lasting(Kind::Authentication)
        }
        _ if code.starts_with("Throttling") => Fault::passing(Kind::Throttled),
        _ if code.starts_with("Forbidden") || code.starts_with("NoPermission") => {
            Fault::lasting(Kind::Permission)
        }
        // What the caller did wrong: numbers, parameters, lengths.
        _ if code.starts_with("isv.") || code.starts_with("Missing") || code.starts_with("Invalid") => {
            Fault::lasting(Kind::InvalidArgument)
        }
        _ if code.starts_with("isp.") => Fault::of_service(),
        _ => return None,
    })
}

/// Whether a code says that one of the numbers, or their count, made the service refuse all: nothing was sent.
pub fn is_of_number(code: &str) -> bool {
    matches!(code, "isv.MOBILE_NUMBER_ILLEGAL" | "isv.MOBILE_COUNT_OVER_LIMIT" | "isv.INVALID_MOBILE_NUMBER")
}

/// A number as the service takes it: one with `+86` without it, another with `+` without the sign. Without `+`
/// it stays as it is.
pub fn number(number: &str) -> &str {
    number.strip_prefix("+86").or_else(|| number.strip_prefix('+')).unwrap_or(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_their_kinds() {
        for (code, kind, retryable) in [
            ("isv.BUSINESS_LIMIT_CONTROL", Kind::Throttled, true),
            ("isv.DAY_LIMIT_CONTROL", Kind::Throttled, false),
            ("Throttling.User", Kind::Throttled, true),
            ("isv.MOBILE_NUMBER_ILLEGAL", Kind::InvalidArgument, false),
            ("isv.TEMPLATE_MISSING_PARAMETERS", Kind::InvalidArgument, false),
            ("isv.SMS_TEMPLATE_ILLEGAL", Kind::NotFound, false),
            ("isv.SMS_SIGNATURE_ILLEGAL", Kind::NotFound, false),
            ("isv.AMOUNT_NOT_ENOUGH", Kind::Permission, false),
            ("isp.RAM_PERMISSION_DENY", Kind::Permission, false),
            ("SignatureDoesNotMatch", Kind::Authentication, false),
            ("InvalidAccessKeyId.NotFound", Kind::Authentication, false),
            ("isp.SYSTEM_ERROR", Kind::Unavailable, true),
        ] {
            let fault = fault(code).unwrap();
            assert_eq!((fault.kind, fault.retryable), (kind, retryable), "{code}");
        }
        assert!(fault("isp.SYSTEM_ERROR").unwrap().unknown);
        let repeated = fault("SignatureNonceUsed").unwrap();
        assert!(repeated.unknown && repeated.retryable);
        assert_eq!(fault("Whatever"), None);
    }

    #[test]
    fn answers_are_read() {
        let answer =
            Answer::decode(br#"{"RequestId":"r","Message":"OK","BizId":"9^0","Code":"OK"}"#).unwrap();
        assert!(answer.is_ok());
        assert_eq!(answer.biz_id.as_deref(), Some("9^0"));
        for wrong in [&b"<html>"[..], b"", b"{}", b"[]", br#"{"Code":7}"#] {
            assert_eq!(Answer::decode(wrong).unwrap_err().kind(), Kind::Protocol);
        }
    }

    #[test]
    fn numbers_lose_their_sign() {
        assert_eq!(number("+8613800000000"), "13800000000");
        assert_eq!(number("+85251234567"), "85251234567");
        assert_eq!(number("13800000000"), "13800000000");
    }
}
