//! The parameters of a service's template, from the arguments of a message.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::config::from_value;
use crate::error::{Error, Kind, Result};
use crate::message::Message;
use crate::provider::http::no_template;

fn wrong(text: impl Into<String>) -> Error {
    Error::new(Kind::InvalidArgument, text)
}

/// A template as `templates` in a config describes it, under the name that messages give.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TemplateSection {
    /// What the service calls it.
    pub(super) code: String,
    /// The signature in front of its text, where it is another than the config's.
    pub(super) sign: Option<String>,
    /// The names of its parameters, in their order.
    pub(super) params: Option<Vec<String>>,
}

/// The templates of a section.
pub(super) struct Codes {
    standard: Option<String>,
    named: BTreeMap<String, TemplateSection>,
}

impl Codes {
    /// Reads the keys `template` and `templates`; of the latter each is a code alone, or a [`TemplateSection`].
    ///
    /// # Errors
    /// `invalid_config`, naming the template.
    pub(super) fn read(standard: Option<String>, named: BTreeMap<String, Value>) -> Result<Codes> {
        let read = |(name, value): (String, Value)| {
            let of = |text: &str| Error::new(Kind::InvalidConfig, format!("`templates`: `{name}`: {text}"));
            let template = match value {
                Value::String(code) => TemplateSection { code, ..TemplateSection::default() },
                other => from_value(other).map_err(|error| of(error.message()))?,
            };
            if template.code.is_empty() {
                return Err(of("its `code` is empty"));
            }
            Ok((name, template))
        };
        Ok(Codes { standard, named: named.into_iter().map(read).collect::<Result<_>>()? })
    }

    /// Whether a template, or else `standard`, lists this parameter.
    pub(super) fn lists(&self, standard: &[String], name: &String) -> bool {
        let mut own = self.named.values().filter_map(|template| template.params.as_ref());
        standard.contains(name) || own.any(|params| params.contains(name))
    }

    /// The template of a message, or else the config's. Where the config lists templates, a message names one of them;
    /// else it names the service's code.
    ///
    /// # Errors
    /// `invalid_argument` when there is none, or none of that name.
    pub(super) fn of(&self, message: &Message) -> Result<TemplateSection> {
        let own = message.fields().and_then(|fields| fields.template.as_deref());
        let none = || wrong("no template: name it in the message or in the config");
        let name = own.or(self.standard.as_deref()).filter(|name| !name.is_empty()).ok_or_else(none)?;
        match self.named.get(name) {
            Some(template) => Ok(template.clone()),
            None if own.is_some() && !self.named.is_empty() => {
                let known: Vec<&str> = self.named.keys().map(String::as_str).collect();
                Err(no_template(name, &known))
            }
            None => Ok(TemplateSection { code: name.to_owned(), ..TemplateSection::default() }),
        }
    }
}

/// The body as the parameter `name`; a body that no parameter is named for is refused, since the text of a message is
/// the template's.
///
/// # Errors
/// `unsupported`, also for a body that is no text.
pub(super) fn body<'a>(message: &'a Message, name: Option<&'a str>) -> Result<Option<(&'a str, &'a str)>> {
    match (name, std::str::from_utf8(message.body())) {
        (_, Ok("")) => Ok(None),
        (Some(name), Ok(text)) => Ok(Some((name, text))),
        (Some(_), Err(_)) => Err(Error::new(Kind::Unsupported, "the body is not UTF-8 text")),
        (None, _) => Err(Error::new(
            Kind::Unsupported,
            "a body cannot be sent: the text is the template's. `body_as` in the config makes it a parameter",
        )),
    }
}

/// Named parameters: the arguments are an object, or with an `order` a list too. Then each of it is there, and no other.
///
/// # Errors
/// `invalid_argument` for other arguments.
pub(super) fn named_in(
    message: &Message,
    order: Option<&[String]>,
    body: Option<(&str, &str)>,
) -> Result<Map<String, Value>> {
    let Some(order) = order else { return named(message, body) };
    let args = message.fields().and_then(|fields| fields.args.as_ref());
    let named = match (args, body) {
        (Some(Value::Array(list)), None) if list.len() == order.len() => {
            order.iter().cloned().zip(list.iter().cloned()).collect()
        }
        (Some(Value::Array(list)), None) => {
            return Err(wrong(format!("the template has {} parameters, not {}", order.len(), list.len())));
        }
        _ => named(message, body)?,
    };
    if let Some(name) = order.iter().find(|name| !named.contains_key(*name)) {
        return Err(wrong(format!("the argument `{name}` is missing")));
    }
    match named.keys().find(|name| !order.contains(name)) {
        None => Ok(named),
        Some(name) => Err(no_place(name)),
    }
}

fn no_place(name: &str) -> Error {
    wrong(format!("the argument `{name}` has no place: `params` in the config lists them"))
}

/// Named parameters: the arguments are an object.
///
/// # Errors
/// `invalid_argument` for other arguments.
fn named(message: &Message, body: Option<(&str, &str)>) -> Result<Map<String, Value>> {
    let mut named = match message.fields().and_then(|fields| fields.args.as_ref()) {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(args)) => args.clone(),
        Some(_) => return Err(wrong("the arguments are an object: the parameters by their names")),
    };
    match body {
        Some((name, _)) if named.contains_key(name) => {
            Err(wrong(format!("the argument `{name}` is the body's, by `body_as`: give one of both")))
        }
        Some((name, text)) => {
            named.insert(name.to_owned(), text.into());
            Ok(named)
        }
        None => Ok(named),
    }
}

/// Parameters by their place: the arguments are a list, or an object whose keys `order` lists.
///
/// # Errors
/// `invalid_argument` for other arguments, for one that is missing and one that has no place.
pub(super) fn placed(
    message: &Message,
    order: &[String],
    body: Option<(&str, &str)>,
) -> Result<Option<Vec<String>>> {
    let args = message.fields().and_then(|fields| fields.args.as_ref());
    if let (Some(Value::Array(list)), None) = (args, body) {
        return list.iter().map(text).collect::<Result<_>>().map(Some);
    }
    if matches!((args, body), (None | Some(Value::Null), None)) && order.is_empty() {
        return Ok(None);
    }
    if !matches!(args, None | Some(Value::Null | Value::Object(_))) {
        let text = "the arguments are a list, or an object of which `params` in the config says the order";
        return Err(wrong(text));
    }
    let mut named = named(message, body)?;
    let mut placed = Vec::with_capacity(order.len());
    for name in order {
        let value = named.remove(name).ok_or_else(|| wrong(format!("the argument `{name}` is missing")))?;
        placed.push(text(&value)?);
    }
    match named.keys().next() {
        None => Ok(Some(placed)),
        Some(name) => Err(no_place(name)),
    }
}

fn text(value: &Value) -> Result<String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(value) => Ok(value.to_string()),
        _ => Err(wrong("a parameter is a text, a number or a boolean")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn with(args: Value) -> Message {
        Message::new("").with(|fields| fields.args = Some(args))
    }

    #[test]
    fn places() {
        let order = ["code".to_owned(), "minutes".to_owned()];
        let of = |args| placed(&with(args), &order, None);
        assert_eq!(of(json!({"minutes": 5, "code": "1"})).unwrap().unwrap(), ["1", "5"]);
        assert_eq!(of(json!(["a", true, 2.5])).unwrap().unwrap(), ["a", "true", "2.5"]);
        for (args, hint) in [
            (json!({"code": 1}), "`minutes` is missing"),
            (json!({"code": 1, "minutes": 1, "x": 1}), "`x` has no place"),
            (json!({"code": [], "minutes": 1}), "a parameter"),
            (json!([null]), "a parameter"),
            (json!("1"), "a list"),
        ] {
            let error = of(args).unwrap_err();
            assert!(error.kind() == Kind::InvalidArgument && error.message().contains(hint), "{error}");
        }
        assert_eq!(placed(&Message::new(""), &[], None).unwrap(), None);
        assert_eq!(placed(&Message::new(""), &order[..1], Some(("code", "x"))).unwrap().unwrap(), ["x"]);
    }

    #[test]
    fn a_name_stands_for_a_code() {
        let codes =
            |templates: Value| Codes::read(Some("SMS_0".into()), serde_json::from_value(templates).unwrap());
        let both =
            codes(json!({"welcome": "SMS_1", "alarm": {"code": "SMS_2", "sign": "S", "params": ["a"]}}))
                .unwrap();
        let named = |name: Option<&str>| {
            both.of(&Message::new("").with(|fields| fields.template = name.map(str::to_owned)))
        };
        assert_eq!(named(Some("welcome")).unwrap().code, "SMS_1");
        assert_eq!(named(Some("alarm")).unwrap().sign.as_deref(), Some("S"));
        assert_eq!(named(None).unwrap().code, "SMS_0");
        let error = named(Some("welcom")).unwrap_err();
        assert!(error.kind() == Kind::InvalidArgument && error.message().contains("`welcome`"), "{error}");
        let plain = codes(json!({})).unwrap();
        let message = Message::new("").with(|fields| fields.template = Some("SMS_9".into()));
        assert_eq!(plain.of(&message).unwrap().code, "SMS_9");
        for bad in [json!({"x": ""}), json!({"x": {"cod": "1"}}), json!({"x": 7})] {
            let error = codes(bad.clone()).err().unwrap_or_else(|| panic!("{bad} was taken"));
            assert!(error.kind() == Kind::InvalidConfig && error.message().contains("`x`"), "{error}");
        }
    }

    #[test]
    fn listed_parameters_are_all_there_and_no_others() {
        let order = ["code".to_owned(), "minutes".to_owned()];
        let of = |args| named_in(&with(args), Some(&order), None).map(Value::Object);
        assert_eq!(of(json!({"minutes": 5, "code": "1"})).unwrap(), json!({"code": "1", "minutes": 5}));
        assert_eq!(of(json!(["1", 5])).unwrap(), json!({"code": "1", "minutes": 5}));
        for (args, hint) in [
            (json!({"code": 1}), "`minutes` is missing"),
            (json!({"code": 1, "minutes": 1, "x": 1}), "`x` has no place"),
            (json!([1]), "2 parameters"),
            (json!("1"), "an object"),
        ] {
            let error = of(args).unwrap_err();
            assert!(error.kind() == Kind::InvalidArgument && error.message().contains(hint), "{error}");
        }
    }

    #[test]
    fn a_body_needs_a_name() {
        assert_eq!(body(&Message::new("x"), None).unwrap_err().kind(), Kind::Unsupported);
        assert_eq!(body(&Message::new(vec![255]), Some("a")).unwrap_err().kind(), Kind::Unsupported);
        let message = Message::new("x");
        let body = body(&message, Some("content")).unwrap();
        assert_eq!(Value::Object(named(&message, body).unwrap()), json!({"content": "x"}));
        // Which of both would be sent?
        let order = ["content".to_owned()];
        let both = with(json!({"content": "y"}));
        for refused in [
            named(&both, body).unwrap_err(),
            named_in(&both, Some(&order), body).unwrap_err(),
            placed(&both, &order, body).unwrap_err(),
        ] {
            assert_eq!(refused.kind(), Kind::InvalidArgument);
            assert!(refused.message().contains("`content`"), "{refused}");
        }
        assert!(named(&both, None).is_ok());
    }
}
