//! Texts with places for values: minijinja templates, compiled once and rendered in bounded time and memory.
//!
//! A template reads no file and includes no other. What could grow without a bound is refused when it is compiled
//! (see [`shape`]); the rest is bounded by steps, by the bytes that its filters make and by the length of what
//! comes out.

mod filters;
mod shape;

use std::collections::HashSet;
use std::io;

use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, ErrorKind, UndefinedBehavior};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::error::{Error, Kind, Result};
use crate::message::Message;

/// The longest text of a template, in bytes.
pub const MAX_TEXT: usize = 256 << 10;
/// The longest result, in bytes.
pub const MAX_OUTPUT: usize = 8 << 20;
/// The steps of one rendering: a place for a value costs two or three.
const MAX_STEPS: u64 = 100_000;
/// The bytes that the steps of one rendering may read, were each to read the largest value: of a template in which a step
/// can, large values leave fewer steps.
const MAX_SCAN: u64 = 8 << 30;
/// Bytes of the values from which on a rendering is too long a work for a thread of the runtime.
const LARGE: usize = 256 << 10;

/// What is done to each value before it is put into the text. The template's own text stays as it is, and a value
/// that went through the filter `safe` does too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Escape {
    /// Nothing.
    #[default]
    None,
    /// `<`, `>`, `&`, `"`, `'` and `/` become entities.
    Html,
    /// The value becomes a JSON value: a string comes with its quotes.
    Json,
    /// The value is percent-encoded for a form or the query of a URL.
    Form,
}

const FORM: &str = "form";
const FORM_ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A compiled template. Rendering takes `&self`, from any thread.
pub struct Template {
    name: String,
    environment: Environment<'static>,
    variables: HashSet<String>,
    // Whether a step can read the whole of a value.
    scans: bool,
}

impl std::fmt::Debug for Template {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Template").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Template {
    /// Compiles a template whose values are not escaped. `name` is for errors.
    ///
    /// # Errors
    /// `invalid_config`, with the name and the line.
    pub fn parse(name: &str, text: &str) -> Result<Template> {
        Template::escaped(name, text, Escape::None)
    }

    /// Compiles a template whose values are escaped.
    ///
    /// # Errors
    /// As [`Template::parse`].
    pub fn escaped(name: &str, text: &str, escape: Escape) -> Result<Template> {
        let wrong = |what: String| Error::new(Kind::InvalidConfig, format!("the template `{name}`: {what}"));
        if text.len() > MAX_TEXT {
            return Err(wrong(format!("its text of {} bytes is longer than {MAX_TEXT}", text.len())));
        }
        let scans = shape::check(name, text).map_err(wrong)?;
        let mut environment = Environment::empty();
        // Errors name the variable that is missing only with this; nothing is printed.
        environment.set_debug(true);
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_fuel(Some(MAX_STEPS));
        environment.set_recursion_limit(64);
        environment.set_auto_escape_callback(move |_| match escape {
            Escape::None => AutoEscape::None,
            Escape::Html => AutoEscape::Html,
            Escape::Json => AutoEscape::Json,
            Escape::Form => AutoEscape::Custom(FORM.into()),
        });
        environment.set_formatter(|out, state, value| {
            if !matches!(state.auto_escape(), AutoEscape::Custom(_)) || value.is_safe() {
                return minijinja::escape_formatter(out, state, value);
            }
            if value.is_undefined() {
                return Err(minijinja::Error::from(ErrorKind::UndefinedError));
            }
            let text = value.to_string();
            for piece in utf8_percent_encode(&text, FORM_ESCAPED) {
                out.write_str(piece).map_err(minijinja::Error::from)?;
            }
            Ok(())
        });
        filters::add(&mut environment);
        environment
            .add_template_owned(name.to_owned(), text.to_owned())
            .map_err(|error| wrong(described(&error)))?;
        let variables = environment.get_template(name).map(|template| template.undeclared_variables(false));
        let variables = variables.map_err(|error| wrong(described(&error)))?;
        Ok(Template { name: name.to_owned(), environment, variables, scans })
    }

    /// Whether a variable of this name is used.
    pub fn uses(&self, name: &str) -> bool {
        self.variables.contains(name)
    }

    /// Fills in the values.
    ///
    /// # Errors
    /// `invalid_argument`, with the name and the line: a variable that has no value, a value of the wrong kind, or a
    /// rendering that takes too many steps. `too_large` for a result over [`MAX_OUTPUT`].
    pub fn render(&self, values: &Values) -> Result<String> {
        use tokio::runtime::{Handle, RuntimeFlavor};
        let of_many_threads = || {
            Handle::try_current().is_ok_and(|handle| handle.runtime_flavor() == RuntimeFlavor::MultiThread)
        };
        if values.size >= LARGE && of_many_threads() {
            // What else this thread has to do goes to another.
            return tokio::task::block_in_place(|| self.rendered(values));
        }
        self.rendered(values)
    }

    fn rendered(&self, values: &Values) -> Result<String> {
        let wrong = |kind, what: &str| Error::new(kind, format!("the template `{}`: {what}", self.name));
        let steps = (MAX_SCAN / (values.size as u64).max(1)).min(MAX_STEPS);
        let mut environment = std::borrow::Cow::Borrowed(&self.environment);
        if self.scans && steps < MAX_STEPS {
            environment.to_mut().set_fuel(Some(steps));
        }
        let template = environment
            .get_template(&self.name)
            .map_err(|error| wrong(Kind::Internal, &described(&error)))?;
        let mut out = Bounded { text: Vec::new(), full: false };
        match template.render_captured_to(values.all.clone(), &mut out) {
            Ok(_) => {
                String::from_utf8(out.text).map_err(|_| wrong(Kind::Internal, "the result is not UTF-8"))
            }
            Err(_) if out.full => {
                Err(wrong(Kind::TooLarge, &format!("the result is longer than {MAX_OUTPUT} bytes")))
            }
            Err(error) if error.kind() == ErrorKind::OutOfFuel => {
                let text = format!("it takes more than {steps} steps: is there a loop too many?");
                Err(wrong(Kind::InvalidArgument, &text))
            }
            Err(error) => Err(wrong(Kind::InvalidArgument, &described(&error))),
        }
    }
}

/// What is wrong and where. Without the causes and without the values around it.
fn described(error: &minijinja::Error) -> String {
    let what = match (error.kind(), error.detail()) {
        (ErrorKind::UndefinedError, Some(detail)) => format!("a value is missing: {detail}"),
        (kind, Some(detail)) => format!("{kind}: {detail}"),
        (kind, None) => kind.to_string(),
    };
    match error.line() {
        Some(line) => format!("line {line}: {what}"),
        None => what,
    }
}

/// The values that templates of one message are rendered with.
///
/// `args`, `body` (where it is text), `recipients`, `template` and `attributes` are the message's; and where its
/// arguments are an object, each key of it is a variable too unless it is one of these names.
#[derive(Debug, Clone)]
pub struct Values {
    all: minijinja::Value,
    // Bytes of body, arguments and recipients.
    size: usize,
}

const OWN: [&str; 5] = ["args", "body", "recipients", "template", "attributes"];

impl Values {
    /// The values of this message.
    pub fn of(message: &Message) -> Values {
        Values::with(message, std::iter::empty())
    }

    /// The values of this message, and some of the caller's that go before all others.
    pub fn with(
        message: &Message,
        more: impl IntoIterator<Item = (&'static str, serde_json::Value)>,
    ) -> Values {
        let mut values: std::collections::BTreeMap<String, minijinja::Value> = Default::default();
        if let Ok(body) = std::str::from_utf8(message.body()) {
            values.insert("body".into(), body.into());
        }
        if let Some(fields) = message.fields() {
            if let Some(args) = &fields.args {
                if let serde_json::Value::Object(args) = args {
                    for (key, value) in args.iter().filter(|(key, _)| !OWN.contains(&key.as_str())) {
                        values.insert(key.clone(), minijinja::Value::from(Serde(value)));
                    }
                }
                values.insert("args".into(), minijinja::Value::from(Serde(args)));
            }
            if let Some(template) = &fields.template {
                values.insert("template".into(), template.as_str().into());
            }
            values.insert("recipients".into(), fields.recipients.clone().into());
            values.insert("attributes".into(), minijinja::Value::from(Serde(&fields.attributes)));
        }
        for (name, value) in more {
            values.insert(name.into(), minijinja::Value::from(Serde(value)));
        }
        Values { all: values.into(), size: size(message) }
    }
}

impl Values {
    /// The same with some that go before all others. Those that there are are not copied.
    #[must_use]
    pub fn and(&self, more: impl IntoIterator<Item = (&'static str, serde_json::Value)>) -> Values {
        let more: std::collections::BTreeMap<String, minijinja::Value> = more
            .into_iter()
            .map(|(name, value)| (name.to_owned(), minijinja::Value::from(Serde(value))))
            .collect();
        Values { all: minijinja::value::merge_maps([self.all.clone(), more.into()]), size: self.size }
    }
}

// About the bytes of a message that its templates can read.
fn size(message: &Message) -> usize {
    fn of(value: &serde_json::Value) -> usize {
        match value {
            serde_json::Value::String(text) => text.len(),
            serde_json::Value::Array(items) => items.iter().map(|item| 8 + of(item)).sum(),
            serde_json::Value::Object(items) => {
                items.iter().map(|(key, item)| 8 + key.len() + of(item)).sum()
            }
            _ => 8,
        }
    }
    let Some(fields) = message.fields() else { return message.body().len() };
    let recipients: usize = fields.recipients.iter().map(|name| 8 + name.len()).sum();
    let attributes: usize = fields.attributes.iter().map(|(key, value)| key.len() + value.len()).sum();
    message.body().len() + recipients + attributes + fields.args.as_ref().map_or(0, of)
}

/// Takes up to [`MAX_OUTPUT`] bytes.
struct Bounded {
    text: Vec<u8>,
    full: bool,
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.text.len() + bytes.len() > MAX_OUTPUT {
            self.full = true;
            return Err(io::Error::other("the result is too long"));
        }
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
