//! Tencent Cloud's `SendSms` of 2021-01-11, signed by TC3-HMAC-SHA256: a POST of JSON, of which the content type, the
//! host and the body are signed.

use std::io;

use chrono::DateTime;
use serde::{Deserialize, Serialize};
use serde_json::ser::{CharEscape, Formatter, Serializer};

use super::Fault;
use crate::error::{Error, Kind, Result};
use crate::wire::sign::{hex, hmac_sha256, sha256};

/// The most numbers of one request.
pub const MAX_NUMBERS: usize = 200;

/// What answers in the public cloud.
pub const ENDPOINT: &str = "https://sms.tencentcloudapi.com";

const SERVICE: &str = "sms";
const CONTENT_TYPE: &str = "application/json";

/// Whose name a request is sent in.
#[derive(Clone, Copy)]
pub struct Account<'a> {
    /// Id of the secret.
    pub secret_id: &'a str,
    /// The secret.
    pub secret_key: &'a str,
    /// The token of temporary credentials.
    pub token: Option<&'a str>,
}

/// A message to send.
#[derive(Debug, Clone, Copy, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct SendSms<'a> {
    /// Numbers, all of mainland China or none.
    pub phone_number_set: &'a [&'a str],
    /// The application that sends.
    pub sms_sdk_app_id: &'a str,
    /// Id of the template.
    pub template_id: &'a str,
    /// The signature in front of the text; needed in mainland China.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sign_name: Option<&'a str>,
    /// Values of the template's variables, in order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template_param_set: Option<&'a [String]>,
    /// Extension of the sender's number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extend_code: Option<&'a str>,
    /// What comes back in the answer and in reports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_context: Option<&'a str>,
    /// The sender shown abroad.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sender_id: Option<&'a str>,
}

/// When and where a request is sent.
#[derive(Debug, Clone, Copy)]
pub struct Sending<'a> {
    /// The header `host`, with the port where it is not the scheme's own.
    pub host: &'a str,
    /// The region that is asked.
    pub region: &'a str,
    /// The language of what is said of errors: `zh-CN` or `en-US`.
    pub language: Option<&'a str>,
    /// Seconds since 1970.
    pub time: u64,
}

/// A POST to `/`.
#[derive(Clone, PartialEq, Eq)]
pub struct Signed {
    /// JSON.
    pub body: Vec<u8>,
    /// Every header but `host`, lower-case.
    pub headers: Vec<(&'static str, String)>,
}

/// Makes the request.
///
/// # Errors
/// `internal` when the parameters cannot be written as JSON.
pub fn send_sms(account: Account<'_>, sms: &SendSms<'_>, sending: Sending<'_>) -> Result<Signed> {
    let mut body = Vec::new();
    sms.serialize(&mut Serializer::with_formatter(&mut body, Ascii))
        .map_err(|_| Error::new(Kind::Internal, "the parameters cannot be written"))?;
    let time = i64::try_from(sending.time).unwrap_or_default();
    let date = DateTime::from_timestamp(time, 0).unwrap_or_default().format("%Y-%m-%d").to_string();
    let scope = format!("{date}/{SERVICE}/tc3_request");
    let canonical = format!(
        "POST\n/\n\ncontent-type:{CONTENT_TYPE}\nhost:{}\n\ncontent-type;host\n{}",
        sending.host,
        hex(&sha256(&body))
    );
    let to_sign =
        format!("TC3-HMAC-SHA256\n{}\n{scope}\n{}", sending.time, hex(&sha256(canonical.as_bytes())));
    let key = hmac_sha256(format!("TC3{}", account.secret_key).as_bytes(), date.as_bytes());
    let key = hmac_sha256(&hmac_sha256(&key, SERVICE.as_bytes()), b"tc3_request");
    let signature = hex(&hmac_sha256(&key, to_sign.as_bytes()));
    let mut headers = vec![
        ("content-type", CONTENT_TYPE.to_owned()),
        ("x-tc-action", "SendSms".to_owned()),
        ("x-tc-timestamp", sending.time.to_string()),
        ("x-tc-version", "2021-01-11".to_owned()),
        ("x-tc-region", sending.region.to_owned()),
        (
            "authorization",
            format!(
                "TC3-HMAC-SHA256 Credential={}/{scope}, SignedHeaders=content-type;host, Signature={signature}",
                account.secret_id
            ),
        ),
    ];
    if let Some(language) = sending.language {
        headers.push(("x-tc-language", language.to_owned()));
    }
    if let Some(token) = account.token {
        headers.push(("x-tc-token", token.to_owned()));
    }
    Ok(Signed { body, headers })
}

/// JSON in ASCII with the spaces that the official SDK writes: what is signed is then the same, byte by byte.
struct Ascii;

impl Formatter for Ascii {
    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }

    fn write_char_escape<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        escape: CharEscape,
    ) -> io::Result<()> {
        let letter = match escape {
            CharEscape::Quote => b'"',
            CharEscape::ReverseSolidus => b'\\',
            CharEscape::Solidus => b'/',
            CharEscape::Backspace => b'b',
            CharEscape::FormFeed => b'f',
            CharEscape::LineFeed => b'n',
            CharEscape::CarriageReturn => b'r',
            CharEscape::Tab => b't',
            CharEscape::AsciiControl(byte) => return write!(writer, "\\u{byte:04x}"),
        };
        writer.write_all(&[b'\\', letter])
    }

    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, text: &str) -> io::Result<()> {
        for c in text.chars() {
            match c {
                ' '..='~' => writer.write_all(&[c as u8])?,
                _ => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        write!(writer, "\\u{unit:04x}")?;
                    }
                }
            }
        }
        Ok(())
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Envelope {
    response: Response,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Response {
    #[serde(default)]
    error: Option<Refusal>,
    #[serde(default)]
    send_status_set: Option<Vec<Status>>,
}

/// Why a whole request was refused.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Refusal {
    /// What was wrong.
    pub code: String,
    /// The same in words.
    #[serde(default)]
    pub message: String,
}

/// What became of one number.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Status {
    /// The service's id of the message.
    #[serde(default)]
    pub serial_no: String,
    /// The number, mostly with `+` and the country's code.
    #[serde(default)]
    pub phone_number: String,
    /// `Ok`, or what was wrong.
    pub code: String,
    /// The same in words.
    #[serde(default)]
    pub message: String,
}

impl Status {
    /// Whether the service took the message for this number.
    pub fn is_ok(&self) -> bool {
        self.code.eq_ignore_ascii_case("ok")
    }
}

/// What the service says: one status for each number, or why there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The request was refused.
    Refused(Refusal),
    /// It was taken.
    Taken(Vec<Status>),
}

/// Reads an answer.
///
/// # Errors
/// `protocol` for what is none.
pub fn decode(body: &[u8]) -> Result<Answer> {
    // The parser's text can quote what was read.
    let wrong = || Error::new(Kind::Protocol, "the answer is no JSON with an `Error` or a `SendStatusSet`");
    let Envelope { response } = serde_json::from_slice(body).map_err(|_| wrong())?;
    match (response.error, response.send_status_set) {
        (Some(refusal), _) => Ok(Answer::Refused(refusal)),
        (None, Some(statuses)) => Ok(Answer::Taken(statuses)),
        (None, None) => Err(wrong()),
    }
}

/// What a code other than `Ok` means; `None` for one that says nothing beyond the HTTP status.
pub fn fault(code: &str) -> Option<Fault> {
    Some(match code {
        "LimitExceeded.PhoneNumberCountLimit" => Fault::lasting(Kind::InvalidArgument),
        "LimitExceeded.AppCountryOrRegionInBlacklist" => Fault::lasting(Kind::Permission),
        "FailedOperation.TemplateIncorrectOrUnapproved"
        | "FailedOperation.TemplateUnapprovedOrNotExist"
        | "FailedOperation.TemplateIdNotExist"
        | "FailedOperation.SignatureIncorrectOrUnapproved"
        | "FailedOperation.MissingSignature"
        | "FailedOperation.SignIdNotExist"
        | "InvalidParameterValue.SdkAppIdNotExist" => Fault::lasting(Kind::NotFound),
        // The balance is used up, or the account or the number may not.
        "FailedOperation.InsufficientBalanceInSmsPackage"
        | "FailedOperation.PhoneNumberInBlacklist"
        | "FailedOperation.NotEnterpriseCertification"
        | "FailedOperation.ProhibitSubAccountUse"
        | "FailedOperation.MarketingSendTimeConstraint"
        | "AuthFailure.UnauthorizedOperation" => Fault::lasting(Kind::Permission),
        "InternalError.SigVerificationFail" | "InternalError.SigFieldMissing" => {
            Fault::lasting(Kind::Authentication)
        }
        "InternalError.RequestTimeException" => Fault::lasting(Kind::Authentication),
        // They end with the day: no retry waits so long.
        _ if code.starts_with("LimitExceeded") && code.ends_with("DailyLimit") => {
            Fault::lasting(Kind::Throttled)
        }
        _ if code.starts_with("LimitExceeded") || code.starts_with("RequestLimitExceeded") => {
            Fault::passing(Kind::Throttled)
        }
        _ if code.starts_with("AuthFailure") => Fault::lasting(Kind::Authentication),
        _ if code.starts_with("UnauthorizedOperation") => Fault::lasting(Kind::Permission),
        _ if code.starts_with("UnsupportedOperation") => Fault::lasting(Kind::Unsupported),
        _ if code.starts_with("InternalError") => Fault::of_service(),
        _ if code.starts_with("InvalidParameter")
            || code.starts_with("MissingParameter")
            || code.starts_with("UnknownParameter")
            || code.starts_with("FailedOperation") =>
        {
            Fault::lasting(Kind::InvalidArgument)
        }
        _ if code.starts_with("Resource") => Fault::passing(Kind::Unavailable),
        _ => return None,
    })
}

/// Whether a number is one of mainland China: a request holds such alone, or others alone.
pub fn domestic(number: &str) -> bool {
    !number.starts_with('+') || number.starts_with("+86")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_their_kinds() {
        for (code, kind, retryable) in [
            ("LimitExceeded.PhoneNumberThirtySecondLimit", Kind::Throttled, true),
            ("LimitExceeded.PhoneNumberDailyLimit", Kind::Throttled, false),
            ("RequestLimitExceeded", Kind::Throttled, true),
            ("InvalidParameterValue.IncorrectPhoneNumber", Kind::InvalidArgument, false),
            ("FailedOperation.TemplateParamSetNotMatchApprovedTemplate", Kind::InvalidArgument, false),
            ("FailedOperation.TemplateIncorrectOrUnapproved", Kind::NotFound, false),
            ("FailedOperation.SignatureIncorrectOrUnapproved", Kind::NotFound, false),
            ("FailedOperation.InsufficientBalanceInSmsPackage", Kind::Permission, false),
            ("AuthFailure.SignatureFailure", Kind::Authentication, false),
            ("AuthFailure.UnauthorizedOperation", Kind::Permission, false),
            ("UnauthorizedOperation.SdkAppIdIsDisabled", Kind::Permission, false),
            ("InternalError.SendAndRecvFail", Kind::Unavailable, true),
        ] {
            let fault = fault(code).unwrap();
            assert_eq!((fault.kind, fault.retryable), (kind, retryable), "{code}");
        }
        assert!(fault("InternalError.Timeout").unwrap().unknown);
        assert_eq!(fault("Whatever"), None);
    }

    #[test]
    fn answers_are_read() {
        let refused =
            decode(br#"{"Response":{"Error":{"Code":"AuthFailure","Message":"m"},"RequestId":"r"}}"#);
        assert!(matches!(refused.unwrap(), Answer::Refused(refusal) if refusal.code == "AuthFailure"));
        let taken = decode(
            br#"{"Response":{"SendStatusSet":[{"SerialNo":"1","PhoneNumber":"+861","Code":"Ok"}],"RequestId":"r"}}"#,
        );
        assert!(matches!(taken.unwrap(), Answer::Taken(all) if all.len() == 1 && all[0].is_ok()));
        for wrong in [&b"<html>"[..], b"", b"{}", br#"{"Response":{}}"#, br#"{"Response":7}"#] {
            assert_eq!(decode(wrong).unwrap_err().kind(), Kind::Protocol);
        }
    }
}
