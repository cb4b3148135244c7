//! A mail made of a message.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use lettre::address::Envelope;
use lettre::message::header::{self, ContentTransferEncoding, ContentType, HeaderName, HeaderValue};
use lettre::message::{Attachment, Body, Mailbox, Mailboxes, MultiPart, SinglePart};

use super::PROVIDER;
use super::address::{mailbox, mailboxes};
use super::section::Style;
use crate::error::{COPIES, Error, Kind, Result};
use crate::message::{Fields, Message};
use crate::template::Values;
use crate::wire::smtp::data;

/// The most recipients of a message, copies among them.
const MAX_RECIPIENTS: usize = 10_000;
/// The most recipients that the mail names: each of its mails on the wire names all of them.
const MAX_NAMED: usize = 1000;
/// Stands for more than that.
const UNNAMED: &str = "undisclosed-recipients:;";
/// The longest value of a header field, in bytes.
const MAX_HEADER: usize = 16 << 10;
/// The longest word of one: it stands on a line of its own, of which SMTP takes 998 bytes.
const MAX_WORD: usize = 900;
/// In front of the name of a header field in the attributes.
const HEADER: &str = "header.";

/// Header fields that the mail has by itself or through an attribute of their own.
const OWN_HEADERS: [&str; 16] = [
    "from",
    "sender",
    "to",
    "cc",
    "bcc",
    "reply-to",
    "subject",
    "date",
    "mime-version",
    "content-type",
    "content-transfer-encoding",
    "content-disposition",
    "return-path",
    "received",
    "dkim-signature",
    "message-id",
];

/// A mail as it goes over the wire.
#[derive(Debug)]
pub(super) struct Letter {
    /// Who it is from, in the envelope.
    pub(super) from: String,
    /// Who it goes to, each once.
    pub(super) addresses: Vec<String>,
    /// The recipients, each with its place in `addresses`: the message's own as it names them, and those of copies with
    /// a mark in front of their addresses.
    pub(super) named: Vec<(Arc<str>, usize)>,
    /// The mail, without the end of the data.
    pub(super) data: Vec<u8>,
    /// Its `Message-ID`.
    pub(super) message_id: Arc<str>,
}

/// One further header field.
#[derive(Debug, Clone)]
pub(super) struct HeaderField {
    name: HeaderName,
    value: String,
}

impl HeaderField {
    /// Whether both have the same name: how it is written is the same.
    pub(super) fn is_called(&self, other: &HeaderField) -> bool {
        self.name == other.name
    }

    /// # Errors
    /// `invalid_argument`.
    pub(super) fn new(name: &str, value: &str) -> Result<HeaderField> {
        let shown: String = name.chars().take(76).collect::<String>().escape_debug().to_string();
        let wrong =
            |why: &str| Error::new(Kind::InvalidArgument, format!("the header field `{shown}` {why}"));
        // What RFC 5322 allows.
        if name.is_empty() || !name.bytes().all(|byte| (33..127).contains(&byte) && byte != b':') {
            return Err(wrong("has a name with a sign that cannot be in one"));
        }
        if OWN_HEADERS.contains(&name.to_ascii_lowercase().as_str()) {
            return Err(wrong("is not set this way: it has an attribute of its own or is the mail's own"));
        }
        one_line(value).map_err(|why| wrong(&why))?;
        let name = HeaderName::new_from_ascii(name.to_owned()).map_err(|_| wrong("has too long a name"))?;
        Ok(HeaderField { name, value: value.to_owned() })
    }
}

fn one_line(value: &str) -> Result<(), String> {
    if value.chars().any(|sign| sign.is_control() && sign != '\t') {
        return Err("holds a line end or another control character".into());
    }
    if value.len() > MAX_HEADER {
        return Err(format!("is longer than {MAX_HEADER} bytes"));
    }
    // Others are encoded, in pieces.
    if value.split([' ', '\t']).any(|word| word.is_ascii() && word.len() > MAX_WORD) {
        return Err(format!("has a word of more than {MAX_WORD} bytes, which no line of a mail holds"));
    }
    Ok(())
}

/// What the attributes of a message say of the mail.
#[derive(Default)]
struct Extras<'a> {
    subject: Option<&'a str>,
    from: Option<Mailbox>,
    reply_to: Option<Vec<Mailbox>>,
    cc: Vec<Mailbox>,
    bcc: Vec<Mailbox>,
    headers: Vec<HeaderField>,
    message_id: Option<&'a str>,
}

impl Extras<'_> {
    fn read(fields: &Fields) -> Result<Extras<'_>> {
        let mut extras = Extras::default();
        for (name, value) in &fields.attributes {
            match name.as_str() {
                "subject" => extras.subject = Some(value),
                "from" => extras.from = Some(mailbox(value, "the attribute `from`")?),
                "reply_to" => extras.reply_to = Some(mailboxes(value, "the attribute `reply_to`")?),
                "cc" => extras.cc = mailboxes(value, "the attribute `cc`")?,
                "bcc" => extras.bcc = mailboxes(value, "the attribute `bcc`")?,
                name => match name.strip_prefix(HEADER) {
                    Some(header) if header.eq_ignore_ascii_case("message-id") => {
                        extras.message_id = Some(checked_id(value)?);
                    }
                    Some(header) => {
                        let field = HeaderField::new(header, value)?;
                        if extras.headers.iter().any(|other| other.is_called(&field)) {
                            let shown = header.escape_debug();
                            return Err(wrong(format!("the attribute `header.{shown}` is there twice")));
                        }
                        extras.headers.push(field);
                    }
                    None => {
                        let text = format!(
                            "the attribute `{}` of the `attributes` cannot be sent by {PROVIDER}: known are subject, \
                             from, reply_to, cc, bcc and header.NAME",
                            name.escape_debug()
                        );
                        return Err(Error::new(Kind::Unsupported, text));
                    }
                },
            }
        }
        Ok(extras)
    }
}

fn checked_id(value: &str) -> Result<&str> {
    let inner = value.strip_prefix('<').and_then(|rest| rest.strip_suffix('>')).unwrap_or_default();
    let plain = inner.bytes().all(|byte| byte.is_ascii_graphic() && !b"<>\"".contains(&byte));
    if !plain || inner.len() > 250 || inner.split('@').filter(|part| !part.is_empty()).count() != 2 {
        return Err(wrong("the attribute `header.Message-ID` is not of the form <a@b>".into()));
    }
    Ok(value)
}

fn wrong(text: String) -> Error {
    Error::new(Kind::InvalidArgument, text)
}

// Tells the mails of this process from those of others.
fn process() -> u64 {
    static PROCESS: OnceLock<u64> = OnceLock::new();
    *PROCESS.get_or_init(crate::random::fresh)
}

/// The texts of a mail.
struct Texts {
    subject: Option<String>,
    text: Option<String>,
    html: Option<String>,
}

impl Letter {
    /// Makes the mail.
    ///
    /// # Errors
    /// `unsupported` for what a mail cannot carry, `invalid_argument` for what is wrong in the message.
    pub(super) fn write(style: &Style, message: &Message) -> Result<Letter> {
        Letter::made(style, message).map_err(|error| error.by(PROVIDER))
    }

    fn made(style: &Style, message: &Message) -> Result<Letter> {
        message.allow_only(
            PROVIDER,
            &["content_type", "template", "args", "recipients", "attributes", "attachments"],
            None,
        )?;
        if !message.delay().is_zero() {
            return Err(Error::new(Kind::Unsupported, "a delay cannot be carried by mail"));
        }
        let none = Fields::default();
        let fields = message.fields().unwrap_or(&none);
        let extras = Extras::read(fields)?;
        let texts = texts(style, message, fields, &extras)?;
        let names = if fields.recipients.is_empty() { &style.to } else { &fields.recipients };
        if names.is_empty() {
            return Err(wrong("the message has no `recipients`, and the config no `to`".into()));
        }
        let copies = || style.cc.iter().chain(&extras.cc).chain(style.bcc.iter().chain(&extras.bcc));
        let all = names.len() + copies().count();
        if all > MAX_RECIPIENTS {
            let text = format!("{all} `recipients`, with those of copies, are more than {MAX_RECIPIENTS}");
            return Err(wrong(text));
        }
        let mut book = Book::default();
        let mut to = Vec::new();
        let mut named: Vec<(Arc<str>, usize)> = Vec::with_capacity(all);
        for name in names {
            // Of what is left of an earlier attempt a copy has its mark: in the envelope it is as any other.
            let copy = COPIES.iter().find_map(|mark| name.strip_prefix(mark)).filter(|_| message.is_rest());
            let mailbox = mailbox(copy.unwrap_or(name), "the recipient")?;
            let place = book.add(&mailbox);
            if place.is_new && copy.is_none() {
                to.push(mailbox);
            }
            named.push((Arc::from(name.as_str()), place.at));
        }
        let mut cc = Mailboxes::new();
        let secret = style.bcc.iter().chain(&extras.bcc).map(|mailbox| (1, mailbox));
        for (mark, mailbox) in style.cc.iter().chain(&extras.cc).map(|mailbox| (0, mailbox)).chain(secret) {
            let mark = COPIES.get(mark).copied().unwrap_or_default();
            // Copies that are not among the rest have been sent.
            let is_new = if message.is_rest() {
                !to.iter().any(|other: &Mailbox| other.email == mailbox.email)
            } else {
                let place = book.add(mailbox);
                if place.is_new {
                    named.push((format!("{mark}{}", mailbox.email).into(), place.at));
                }
                place.is_new
            };
            // Those in secret are in the envelope alone.
            if is_new && mark == "cc:" && cc.iter().all(|other: &Mailbox| other.email != mailbox.email) {
                cc.push(mailbox.clone());
            }
        }
        let from = extras.from.unwrap_or_else(|| style.from.clone());
        let message_id: Arc<str> = match extras.message_id {
            Some(id) => id.into(),
            // The same for all attempts, so that who gets the mail twice can tell.
            None => format!("<{:016x}{:016x}@{}>", process(), message.number(), from.email.domain()).into(),
        };
        let no_mail =
            |error: &dyn std::fmt::Display| Error::new(Kind::Internal, format!("no mail was made: {error}"));
        // The envelope is our own affair: this one only spares the making of one.
        let envelope = Envelope::new(Some(from.email.clone()), vec![from.email.clone()]);
        let mut builder = lettre::Message::builder()
            .envelope(envelope.map_err(|error| no_mail(&error))?)
            .message_id(Some(message_id.to_string()))
            .date(style.clock.now())
            .from(from.clone());
        if to.len() > MAX_NAMED {
            builder = builder
                .raw_header(HeaderValue::new(HeaderName::new_from_ascii_str("To"), UNNAMED.to_owned()));
        } else if !to.is_empty() {
            builder = builder.header(header::To::from(Mailboxes::from(to)));
        }
        if cc.iter().next().is_some() {
            builder = builder.header(header::Cc::from(cc));
        }
        let reply_to = extras.reply_to.as_ref().unwrap_or(&style.reply_to);
        if !reply_to.is_empty() {
            builder = builder.header(header::ReplyTo::from(Mailboxes::from(reply_to.clone())));
        }
        if let Some(subject) = texts.subject {
            one_line(&subject).map_err(|why| wrong(format!("the subject {why}")))?;
            builder = builder.subject(subject);
        }
        let given = |field: &HeaderField| extras.headers.iter().any(|other| other.is_called(field));
        for field in style.headers.iter().filter(|field| !given(field)).chain(&extras.headers) {
            builder = builder.raw_header(HeaderValue::new(field.name.clone(), field.value.clone()));
        }
        let attachments = fields.attachments.iter().map(attached).collect::<Result<Vec<SinglePart>>>()?;
        let built = match (content(texts.text, texts.html), attachments.is_empty()) {
            (Content::One(part), true) => builder.singlepart(part),
            (Content::Both(parts), true) => builder.multipart(parts),
            (content, false) => {
                let mixed = match content {
                    Content::One(part) => MultiPart::mixed().singlepart(part),
                    Content::Both(parts) => MultiPart::mixed().multipart(parts),
                };
                builder.multipart(attachments.into_iter().fold(mixed, MultiPart::singlepart))
            }
        };
        let built = built.map_err(|error| no_mail(&error))?;
        Ok(Letter {
            from: from.email.to_string(),
            addresses: book.addresses,
            named,
            data: data(&built.formatted()),
            message_id,
        })
    }
}

/// Addresses, each once.
#[derive(Default)]
struct Book {
    addresses: Vec<String>,
    places: HashMap<String, usize>,
}

struct Place {
    at: usize,
    is_new: bool,
}

impl Book {
    fn add(&mut self, mailbox: &Mailbox) -> Place {
        let address = mailbox.email.to_string();
        let next = self.addresses.len();
        let at = *self.places.entry(address.clone()).or_insert(next);
        if at == next {
            self.addresses.push(address);
        }
        Place { at, is_new: at == next }
    }
}

fn texts(style: &Style, message: &Message, fields: &Fields, extras: &Extras<'_>) -> Result<Texts> {
    let subject = extras.subject.map(str::to_owned);
    if let Some(name) = &fields.template {
        if fields.content_type.is_some() {
            let text = "a `content_type` beside a template cannot be sent: the template says what it is";
            return Err(Error::new(Kind::Unsupported, text));
        }
        let kit = style.template(name)?;
        let parts = || [&kit.subject, &kit.text, &kit.html].into_iter().flatten();
        if !message.body().is_empty() && !parts().any(|part| part.uses("body")) {
            let text = format!("the template `{name}` has no place for a body, and the message has one");
            return Err(wrong(text));
        }
        let values = Values::of(message);
        let rendered = |part: &Option<crate::template::Template>| {
            part.as_ref().map(|part| part.render(&values)).transpose()
        };
        let own = rendered(&kit.subject)?;
        return Ok(Texts {
            subject: subject.or(own).or_else(|| style.subject.clone()),
            text: rendered(&kit.text)?,
            html: rendered(&kit.html)?,
        });
    }
    if fields.args.is_some() {
        return Err(Error::new(Kind::Unsupported, "`args` without a template cannot be sent"));
    }
    let html = match fields.content_type.as_deref() {
        None => false,
        Some(content_type) => is_html(content_type)?,
    };
    let Ok(body) = std::str::from_utf8(message.body()) else {
        let text = "the body is not UTF-8: a mail carries text, and bytes as attachments";
        return Err(Error::new(Kind::Unsupported, text));
    };
    let body = Some(body.to_owned());
    let (text, html) = if html { (None, body) } else { (body, None) };
    Ok(Texts { subject: subject.or_else(|| style.subject.clone()), text, html })
}

fn is_html(content_type: &str) -> Result<bool> {
    let mut parts = content_type.split(';').map(|part| part.trim().to_ascii_lowercase());
    let kind = parts.next().unwrap_or_default();
    let plain =
        parts.all(|part| matches!(part.replace('"', "").as_str(), "charset=utf-8" | "charset=us-ascii"));
    match kind.as_str() {
        "text/html" if plain => Ok(true),
        "text/plain" if plain => Ok(false),
        _ => {
            let text = format!(
                "the `content_type` `{}` cannot be sent by {PROVIDER}: a body is text/plain or text/html in UTF-8",
                content_type.chars().take(100).collect::<String>().escape_debug()
            );
            Err(Error::new(Kind::Unsupported, text))
        }
    }
}

enum Content {
    One(SinglePart),
    Both(MultiPart),
}

fn content(text: Option<String>, html: Option<String>) -> Content {
    let part =
        |content_type: ContentType, text: String| SinglePart::builder().header(content_type).body(body(text));
    match (text, html) {
        (Some(text), Some(html)) => Content::Both(
            MultiPart::alternative()
                .singlepart(part(ContentType::TEXT_PLAIN, text))
                .singlepart(part(ContentType::TEXT_HTML, html)),
        ),
        (None, Some(html)) => Content::One(part(ContentType::TEXT_HTML, html)),
        (text, None) => Content::One(part(ContentType::TEXT_PLAIN, text.unwrap_or_default())),
    }
}

// Control characters are not for lines of mail: such a text goes as bytes.
fn body(text: String) -> Body {
    if text.chars().any(|sign| sign.is_control() && !matches!(sign, '\t' | '\r' | '\n')) {
        return bytes(text.into_bytes());
    }
    Body::new(lines_of_mail(&text))
}

// Each line end as CR and LF. The builder of the mail would do it too, by moving the rest of the text at each line.
fn lines_of_mail(text: &str) -> String {
    let mut lines = String::with_capacity(text.len() + text.len() / 32);
    let mut signs = text.chars().peekable();
    while let Some(sign) = signs.next() {
        match sign {
            '\r' | '\n' => {
                if sign == '\r' {
                    signs.next_if_eq(&'\n');
                }
                lines.push_str("\r\n");
            }
            sign => lines.push(sign),
        }
    }
    lines
}

fn bytes(content: Vec<u8>) -> Body {
    Body::new_with_encoding(content, ContentTransferEncoding::Base64).unwrap_or_else(Body::new)
}

fn attached(attachment: &crate::message::Attachment) -> Result<SinglePart> {
    let name = &attachment.name;
    let shown: String = name.chars().take(100).collect::<String>().escape_debug().to_string();
    if name.is_empty() || name.len() > 255 || name.chars().any(char::is_control) {
        let why = "is empty, too long, or holds a control character";
        return Err(wrong(format!("the name `{shown}` of the attachments {why}")));
    }
    let content_type = match attachment.content_type.as_str() {
        "" => "application/octet-stream",
        given => given,
    };
    let parsed = match ContentType::parse(content_type) {
        Ok(parsed) if !content_type.chars().any(char::is_control) => parsed,
        _ => return Err(wrong(format!("the attachment `{shown}` has no valid content type"))),
    };
    // Mails and parts of mails must not be encoded, and what is not encoded could change on its way.
    let kind = content_type.trim_start().to_ascii_lowercase();
    if kind.starts_with("multipart/") || kind.starts_with("message/") {
        let text = format!(
            "the type of `{shown}` of the `attachments` cannot be attached: use application/octet-stream"
        );
        return Err(Error::new(Kind::Unsupported, text));
    }
    Ok(Attachment::new(name.clone()).body(bytes(attachment.body.to_vec()), parsed))
}

#[cfg(test)]
mod tests;
