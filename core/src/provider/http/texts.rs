//! The template of a message: the one of its name, or the config's only one; and that nothing of it is lost in it.

use std::collections::BTreeMap;

use crate::config::nearest;
use crate::error::{Error, Kind, Result};
use crate::message::Message;
use crate::template::{Escape, Template};

/// The most templates of a section.
const MOST: usize = 1000;

/// The keys `template` and `templates` of a section.
#[derive(Debug, Default)]
pub(in crate::provider) struct Texts {
    standard: Option<Template>,
    named: BTreeMap<String, Template>,
}

impl Texts {
    /// Compiles them.
    ///
    /// # Errors
    /// `invalid_config`, with the name and the line.
    pub(in crate::provider) fn read(
        standard: Option<&str>,
        named: &BTreeMap<String, String>,
        escape: Escape,
    ) -> Result<Texts> {
        if named.len() > MOST {
            let text = format!("{} `templates` are more than {MOST}", named.len());
            return Err(Error::new(Kind::InvalidConfig, text));
        }
        let standard = standard.map(|text| Template::escaped("template", text, escape)).transpose()?;
        let named = named.iter().map(|(name, text)| {
            Ok((name.clone(), Template::escaped(&format!("templates.{name}"), text, escape)?))
        });
        Ok(Texts { standard, named: named.collect::<Result<_>>()? })
    }

    /// Whether there is any.
    pub(in crate::provider) fn are_some(&self) -> bool {
        self.standard.is_some() || !self.named.is_empty()
    }

    /// The template of a message; without one its body goes as it is. `others` are templates that are filled in
    /// beside it.
    ///
    /// # Errors
    /// `invalid_argument` for a name that there is no template for, and for a body that has no place; `unsupported`
    /// for a content type that nothing tells of.
    pub(in crate::provider) fn of(
        &self,
        message: &Message,
        others: &[&Template],
    ) -> Result<Option<&Template>> {
        let name = message.fields().and_then(|fields| fields.template.as_deref());
        let chosen = match name {
            Some(name) if !self.named.is_empty() => Some(self.named(name)?),
            _ => self.standard.as_ref(),
        };
        let used =
            |variable: &str| others.iter().copied().chain(chosen).any(|template| template.uses(variable));
        if name.is_some() && self.named.is_empty() && !used("template") {
            let text = "the message names a template, and no template here is chosen by name: `templates` in the \
                        config lists them";
            return Err(Error::new(Kind::InvalidArgument, text));
        }
        if chosen.is_some() {
            place_for_body(message, used("body"))?;
            if !used("content_type") {
                text_alone(message)?;
            }
        }
        Ok(chosen)
    }

    fn named(&self, name: &str) -> Result<&Template> {
        self.named.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.named.keys().map(String::as_str).collect();
            no_template(name, &known)
        })
    }
}

/// The error for a name that no template has, with the nearest of those that there are.
pub(in crate::provider) fn no_template(name: &str, known: &[&str]) -> Error {
    let name: String = name.chars().take(100).collect();
    let hint = nearest(&name, known).map(|name| format!("; did you mean `{name}`?"));
    let text = format!("there is no template `{}`{}", name.escape_debug(), hint.unwrap_or_default());
    Error::new(Kind::InvalidArgument, text)
}

/// Refuses a body that no template has a place for.
///
/// # Errors
/// `invalid_argument`, and `unsupported` for a body that is no text.
pub(in crate::provider) fn place_for_body(message: &Message, has_place: bool) -> Result<()> {
    let wrong = |text: &str| Err(Error::new(Kind::InvalidArgument, text));
    if message.body().is_empty() {
        return Ok(());
    }
    if !has_place {
        return wrong("no template here has a place for a body, `{{ body }}`, and the message has one");
    }
    match std::str::from_utf8(message.body()) {
        Ok(_) => Ok(()),
        Err(_) => {
            let text = "the body is not UTF-8 text, and a template holds text";
            Err(Error::new(Kind::Unsupported, text))
        }
    }
}

/// Refuses a content type other than plain text, where nothing tells the other side of it.
///
/// # Errors
/// `unsupported`.
pub(in crate::provider) fn text_alone(message: &Message) -> Result<()> {
    let Some(given) = message.fields().and_then(|fields| fields.content_type.as_deref()) else {
        return Ok(());
    };
    let mut parts = given.split(';').map(|part| part.trim().to_ascii_lowercase().replace('"', ""));
    let plain = parts.next().is_some_and(|kind| kind == "text/plain")
        && parts.all(|part| matches!(part.as_str(), "charset=utf-8" | "charset=us-ascii"));
    if plain {
        return Ok(());
    }
    let shown: String = given.chars().take(100).collect();
    let text = format!("the `content_type` `{}` cannot be sent: text/plain can", shown.escape_debug());
    Err(Error::new(Kind::Unsupported, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(standard: Option<&str>, named: &[(&str, &str)]) -> Texts {
        let named = named.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        Texts::read(standard, &named, Escape::None).unwrap()
    }

    fn message(body: &str, template: Option<&str>) -> Message {
        Message::new(body.to_owned()).with(|fields| fields.template = template.map(str::to_owned))
    }

    #[test]
    fn a_name_chooses_and_a_misspelt_one_is_refused() {
        let named = texts(Some("standard"), &[("welcome", "hi"), ("alarm", "{{ body }}!")]);
        named.of(&message("", Some("welcome")), &[]).unwrap().unwrap();
        let error = named.of(&message("", Some("welcom")), &[]).unwrap_err();
        assert!(error.kind() == Kind::InvalidArgument && error.message().contains("`welcome`"), "{error}");
        // One template alone takes no name, unless it tells it on.
        let error = texts(Some("hi"), &[]).of(&message("", Some("welcome")), &[]).unwrap_err();
        assert!(error.kind() == Kind::InvalidArgument && error.message().contains("`templates`"), "{error}");
        texts(Some("{{ template }}"), &[]).of(&message("", Some("welcome")), &[]).unwrap().unwrap();
        let beside = Template::parse("url", "{{ template }}").unwrap();
        texts(None, &[]).of(&message("", Some("welcome")), &[&beside]).unwrap();
    }

    #[test]
    fn a_body_without_a_place_is_refused() {
        let some = texts(Some("hi"), &[("alarm", "{{ body }}!")]);
        assert_eq!(some.of(&message("text", None), &[]).unwrap_err().kind(), Kind::InvalidArgument);
        some.of(&message("", None), &[]).unwrap();
        some.of(&message("text", Some("alarm")), &[]).unwrap();
        let beside = Template::parse("url", "{{ body }}").unwrap();
        some.of(&message("text", None), &[&beside]).unwrap();
        let bytes = Message::new(vec![255]).with(|fields| fields.template = Some("alarm".into()));
        assert_eq!(some.of(&bytes, &[]).unwrap_err().kind(), Kind::Unsupported);
    }

    #[test]
    fn a_content_type_is_told_or_refused() {
        let with = |kind: &str| Message::new("").with(|fields| fields.content_type = Some(kind.to_owned()));
        let some = texts(Some("hi"), &[]);
        for good in ["text/plain", "Text/Plain; charset=UTF-8", "text/plain;charset=\"utf-8\""] {
            some.of(&with(good), &[]).unwrap();
        }
        for bad in ["application/json", "text/html", "text/plain; charset=latin1", ""] {
            assert_eq!(some.of(&with(bad), &[]).unwrap_err().kind(), Kind::Unsupported, "{bad}");
        }
        texts(Some("{{ content_type }}"), &[]).of(&with("application/json"), &[]).unwrap();
    }
}
