//! The parameters of a service's template, from the arguments of a message.

use serde_json::{Map, Value};

use crate::error::{Error, Kind, Result};
use crate::message::Message;

fn wrong(text: impl Into<String>) -> Error {
    Error::new(Kind::InvalidArgument, text)
}

/// The code of the template: the message's, or the config's.
///
/// # Errors
/// `invalid_argument` when neither names one.
pub(super) fn template<'a>(message: &'a Message, standard: Option<&'a str>) -> Result<&'a str> {
    let own = message.fields().and_then(|fields| fields.template.as_deref());
    own.or(standard)
        .filter(|code| !code.is_empty())
        .ok_or_else(|| wrong("no template: name its code in the message or in the config"))
}

/// The body as the parameter `name`; a body that no parameter is named for is refused, since the text of a message is
/// the template's.
///
/// # Errors
/// `unsupported`, or `invalid_argument` for a body that is no text.
pub(super) fn body<'a>(message: &'a Message, name: Option<&'a str>) -> Result<Option<(&'a str, &'a str)>> {
    match (name, std::str::from_utf8(message.body())) {
        (_, Ok("")) => Ok(None),
        (Some(name), Ok(text)) => Ok(Some((name, text))),
        (Some(_), Err(_)) => Err(wrong("the body is not UTF-8 text")),
        (None, _) => Err(Error::new(
            Kind::Unsupported,
            "a body cannot be sent: the text is the template's. `body_as` in the config makes it a parameter",
        )),
    }
}

/// Named parameters: the arguments are an object.
///
/// # Errors
/// `invalid_argument` for other arguments.
pub(super) fn named(message: &Message, body: Option<(&str, &str)>) -> Result<Map<String, Value>> {
    let mut named = match message.fields().and_then(|fields| fields.args.as_ref()) {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(args)) => args.clone(),
        Some(_) => return Err(wrong("the arguments are an object: the parameters by their names")),
    };
    if let Some((name, text)) = body {
        named.insert(name.to_owned(), text.into());
    }
    Ok(named)
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
    let mut named = named(message, body).map_err(|_| {
        wrong("the arguments are a list, or an object of which `params` in the config says the order")
    })?;
    let mut placed = Vec::with_capacity(order.len());
    for name in order {
        let value = named.remove(name).ok_or_else(|| wrong(format!("the argument `{name}` is missing")))?;
        placed.push(text(&value)?);
    }
    match named.keys().next() {
        None => Ok(Some(placed)),
        Some(name) => {
            Err(wrong(format!("the argument `{name}` has no place: `params` in the config lists them")))
        }
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
    fn a_body_needs_a_name() {
        assert_eq!(body(&Message::new("x"), None).unwrap_err().kind(), Kind::Unsupported);
        assert_eq!(body(&Message::new(vec![255]), Some("a")).unwrap_err().kind(), Kind::InvalidArgument);
        let message = Message::new("x");
        let body = body(&message, Some("content")).unwrap();
        assert_eq!(Value::Object(named(&message, body).unwrap()), json!({"content": "x"}));
    }
}
