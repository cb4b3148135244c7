use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::{Value, json};

use super::super::section::Settings;
use super::*;

fn style(more: Value) -> Style {
    let mut section = json!({"url": "smtp://localhost", "from": "Ceiba <c@example.com>"});
    for (key, value) in more.as_object().unwrap() {
        section[key] = value.clone();
    }
    Settings::read(section.as_object().unwrap().clone()).unwrap().style
}

fn to(body: &str, recipient: &str) -> Message {
    Message::new(body.to_owned()).with(|fields| fields.recipients.push(recipient.into()))
}

fn attributes(pairs: &[(&str, &str)]) -> Message {
    to("x", "a@example.com").with(|fields| {
        for (key, value) in pairs {
            fields.attributes.insert((*key).into(), (*value).into());
        }
    })
}

#[test]
fn the_envelope_has_each_address_once_and_copies_in_secret_stay_out_of_the_mail() {
    let style = style(json!({"cc": "cc@example.com", "bcc": ["secret@example.com"]}));
    let message = attributes(&[("bcc", "hidden@example.com, a@example.com"), ("cc", "a@example.com")])
        .with(|fields| fields.recipients.push("A Name <a@example.com>".into()));
    let letter = Letter::write(&style, &message).unwrap();
    assert_eq!(letter.from, "c@example.com");
    let wanted = ["a@example.com", "cc@example.com", "secret@example.com", "hidden@example.com"];
    assert_eq!(letter.addresses, wanted);
    let named: Vec<(&str, usize)> = letter.named.iter().map(|(name, place)| (&**name, *place)).collect();
    let wanted = [
        ("a@example.com", 0),
        ("A Name <a@example.com>", 0),
        ("cc:cc@example.com", 1),
        ("bcc:secret@example.com", 2),
        ("bcc:hidden@example.com", 3),
    ];
    assert_eq!(named, wanted);
    let text = String::from_utf8(letter.data).unwrap();
    assert!(
        !text.contains("secret@") && !text.contains("hidden@") && !text.to_lowercase().contains("bcc"),
        "{text}"
    );
    assert!(text.contains("Cc: cc@example.com\r\n"), "{text}");
}

#[test]
fn nothing_that_a_mail_cannot_carry_is_dropped() {
    let style = style(json!({"templates": {"t": {"text": "{{ name }}"}}}));
    let with = |change: fn(&mut Fields)| to("x", "a@example.com").with(change);
    for (message, name) in [
        (with(|fields| fields.key = Some("k".into())), "key"),
        (with(|fields| fields.tag = Some("k".into())), "tag"),
        (with(|fields| fields.topic = Some("k".into())), "topic"),
        (with(|fields| fields.args = Some(json!({}))), "args"),
        (with(|fields| fields.content_type = Some("application/json".into())), "content_type"),
        (with(|fields| fields.content_type = Some("text/plain; charset=latin1".into())), "content_type"),
        (attributes(&[("colour", "red")]), "colour"),
        (to("x", "a@example.com").with_delay(Duration::from_secs(1)), "delay"),
    ] {
        let error = Letter::write(&style, &message).unwrap_err();
        assert_eq!((error.kind(), error.retryable()), (Kind::Unsupported, false), "{error}");
        assert!(error.message().contains(name), "{name}: {error}");
        assert_eq!(error.provider(), Some("smtp"));
    }
    let binary = Message::new(vec![0xff]).with(|fields| fields.recipients.push("a@example.com".into()));
    assert_eq!(Letter::write(&style, &binary).unwrap_err().kind(), Kind::Unsupported);
    let template = |body: &str| {
        to(body, "a@example.com").with(|fields| {
            fields.template = Some("t".into());
            fields.args = Some(json!({"name": "n"}));
        })
    };
    let error = Letter::write(&style, &template("lost")).unwrap_err();
    assert!(error.message().contains("no place for a body"), "{error}");
    Letter::write(&style, &template("")).unwrap();
}

#[test]
fn what_could_add_a_line_to_the_mail_is_refused() {
    let style = style(json!({"templates": {"t": {"subject": "{{ s }}", "text": "x"}}}));
    let attack = "x\r\nBcc: victim@example.com";
    for message in [
        to("x", "a@example.com\r\nRCPT TO:<b@example.com>"),
        to("x", "\"a\r\nBcc: b@example.com\" <a@example.com>"),
        to("x", "a@example.com>\r\nDATA"),
        attributes(&[("subject", attack)]),
        attributes(&[("subject", "x\nBcc: victim@example.com")]),
        attributes(&[("subject", "x\rBcc: victim@example.com")]),
        attributes(&[("subject", "x\0")]),
        attributes(&[("from", attack)]),
        attributes(&[("reply_to", "a@example.com\r\nX: y")]),
        attributes(&[("cc", "a@example.com\n")]),
        attributes(&[("bcc", "a@example.com\r")]),
        attributes(&[("header.X-A", attack)]),
        attributes(&[("header.X-A\r\nBcc", "victim@example.com")]),
        attributes(&[("header.", "x")]),
        attributes(&[("header.X A", "x")]),
        attributes(&[("header.X:A", "x")]),
        attributes(&[("header.Bcc", "victim@example.com")]),
        attributes(&[("header.bCC", "victim@example.com")]),
        attributes(&[("header.Content-Type", "text/html")]),
        attributes(&[("header.Message-ID", "<a@b>\r\nX: y")]),
        attributes(&[("header.Message-ID", "a@b")]),
        to("", "a@example.com").with(|fields| {
            fields.template = Some("t".into());
            fields.args = Some(json!({"s": attack}));
        }),
        attributes(&[]).with(|fields| {
            fields.attachments.push(crate::message::Attachment {
                name: "a\r\nX: y".into(),
                content_type: "text/plain".into(),
                body: Bytes::new(),
            });
        }),
        attributes(&[]).with(|fields| {
            fields.attachments.push(crate::message::Attachment {
                name: "a".into(),
                content_type: "text/plain\r\nX: y".into(),
                body: Bytes::new(),
            });
        }),
    ] {
        let error = Letter::write(&style, &message).err().unwrap_or_else(|| panic!("{message:?} was taken"));
        assert_eq!((error.kind(), error.retryable()), (Kind::InvalidArgument, false), "{error}");
        assert!(!error.message().chars().any(char::is_control), "{error:?}");
    }
}

#[test]
fn bad_recipients_are_refused_and_many_are_not() {
    let plain = style(json!({}));
    let error = Letter::write(&plain, &Message::new("x")).unwrap_err();
    assert_eq!(error.kind(), Kind::InvalidArgument);
    assert!(error.message().contains("`recipients`"), "{error}");
    let error = Letter::write(&plain, &to("x", "nobody")).unwrap_err();
    assert!(error.message().contains("`nobody`"), "{error}");
    let defaults = style(json!({"to": "ops@example.com"}));
    assert_eq!(Letter::write(&defaults, &Message::new("x")).unwrap().addresses, ["ops@example.com"]);

    let many = |count: usize| {
        Message::new("x").with(|fields| {
            fields.recipients =
                (0..count).map(|number| format!("Person {number} <p{number}@example.com>")).collect();
        })
    };
    let start = Instant::now();
    let letter = Letter::write(&plain, &many(MAX_RECIPIENTS)).unwrap();
    assert_eq!(letter.addresses.len(), MAX_RECIPIENTS);
    assert!(letter.data.split(|byte| *byte == b'\n').all(|line| line.len() < 998), "a line is too long");
    assert!(start.elapsed() < Duration::from_secs(10), "took {:?}", start.elapsed());
    // So many are not named in each of the mails that go to some of them.
    assert!(letter.data.len() < 2000, "{} bytes", letter.data.len());
    assert!(String::from_utf8(letter.data).unwrap().contains("To: undisclosed-recipients:;\r\n"));
    let some = Letter::write(&plain, &many(MAX_NAMED)).unwrap();
    assert!(String::from_utf8(some.data).unwrap().contains("p999@example.com"));
    let error = Letter::write(&plain, &many(MAX_RECIPIENTS + 1)).unwrap_err();
    assert_eq!(error.kind(), Kind::InvalidArgument);
    // Copies count too.
    let copies = vec!["c@example.com,"; MAX_RECIPIENTS].concat();
    for list in ["cc", "bcc"] {
        let error = Letter::write(&plain, &attributes(&[(list, &copies)])).unwrap_err();
        assert_eq!(error.kind(), Kind::InvalidArgument, "{error}");
    }
}

#[test]
fn no_word_of_a_header_is_longer_than_a_line() {
    let style = style(json!({}));
    let long = |sign: &str| sign.repeat(3000 / sign.len());
    for (name, value) in
        [("subject", long("x")), ("header.X-A", long("x")), ("header.X-A", format!("ä {}", long("x")))]
    {
        let error = Letter::write(&style, &attributes(&[(name, &value)])).unwrap_err();
        assert_eq!((error.kind(), error.retryable()), (Kind::InvalidArgument, false), "{error}");
    }
    for (name, value) in [
        ("subject", long("ä")),
        ("subject", long("ab ")),
        ("header.X-A", long("ä")),
        ("header.X-A", format!("{} ä", "x".repeat(900))),
        ("subject", "x".repeat(900)),
    ] {
        let letter = Letter::write(&style, &attributes(&[(name, &value)])).unwrap();
        let longest = letter.data.split(|byte| *byte == b'\n').map(<[u8]>::len).max().unwrap();
        assert!(longest <= 999, "{name}: a line of {longest} bytes");
    }
}

#[test]
fn a_field_is_given_once_and_a_part_of_a_mail_is_no_file() {
    let style = style(json!({}));
    let error = Letter::write(&style, &attributes(&[("header.X-A", "1"), ("header.x-a", "2")])).unwrap_err();
    assert!(error.kind() == Kind::InvalidArgument && error.message().contains("twice"), "{error}");
    for kind in ["Multipart/mixed", "message/rfc822", "MESSAGE/rfc822", " multipart/mixed"] {
        let message = attributes(&[]).with(|fields| {
            fields.attachments.push(crate::message::Attachment {
                name: "a".into(),
                content_type: kind.into(),
                body: Bytes::new(),
            });
        });
        let error = Letter::write(&style, &message).unwrap_err();
        assert!(matches!(error.kind(), Kind::Unsupported | Kind::InvalidArgument), "{kind}: {error}");
    }
}

#[test]
fn templates_choose_their_values_and_tell_what_is_missing() {
    let style = style(json!({
        "subject": "A default",
        "templates": {"welcome": {"subject": "Hi {{ name }}", "text": "Dear {{ name }}", "html": "<b>{{ name }}</b>"},
                      "plain": {"text": "{{ body }}!"}},
    }));
    let message = |template: &str, args: Value| {
        to("", "a@example.com").with(|fields| {
            fields.template = Some(template.into());
            fields.args = Some(args);
        })
    };
    let text = |message: &Message| String::from_utf8(Letter::write(&style, message).unwrap().data).unwrap();
    let mail = text(&message("welcome", json!({"name": "<Al & Bo>"})));
    assert!(mail.contains("Subject: Hi <Al & Bo>\r\n"), "{mail}");
    assert!(mail.contains("Dear <Al & Bo>\r\n") && mail.contains("<b>&lt;Al &amp; Bo&gt;</b>\r\n"), "{mail}");
    assert!(mail.contains("multipart/alternative"), "{mail}");
    let mut plain = message("plain", json!({}));
    plain.set_body("yes");
    let mail = text(&plain);
    assert!(mail.contains("Subject: A default\r\n") && mail.ends_with("\r\nyes!\r\n"), "{mail}");
    for (template, hint) in [("welcome", "`name`"), ("welcom", "`welcome`")] {
        let error = Letter::write(&style, &message(template, json!({}))).unwrap_err();
        assert_eq!(error.kind(), Kind::InvalidArgument, "{error}");
        assert!(error.message().contains(hint), "{error}");
    }
}

#[test]
fn a_long_text_costs_time_in_proportion() {
    let style = style(json!({}));
    for line in ["a\n", "ä\n", "\u{1f333}", "x", "a\u{1}\n", "\r"] {
        let start = Instant::now();
        let text = line.repeat((4 << 20) / line.len());
        let letter = Letter::write(&style, &to(&text, "a@example.com")).unwrap();
        assert!(letter.data.len() >= 4 << 20);
        let longest = letter.data.split(|byte| *byte == b'\n').map(<[u8]>::len).max().unwrap();
        assert!(longest < 999, "{line:?}: a line of {longest} bytes");
        assert!(start.elapsed() < Duration::from_secs(20), "{line:?} took {:?}", start.elapsed());
    }
}

#[test]
fn the_date_is_what_the_clock_says() {
    let mut style = style(json!({}));
    style.clock = crate::clock::Clock::from_fn(|| std::time::UNIX_EPOCH + Duration::from_secs(1_700_000_000));
    let letter = Letter::write(&style, &to("x", "a@example.com")).unwrap();
    let text = String::from_utf8(letter.data).unwrap();
    assert!(text.contains("Date: Tue, 14 Nov 2023 22:13:20 +0000\r\n"), "{text}");
}
