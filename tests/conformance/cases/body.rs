//! Bodies: any size, any text, any bytes where the wire carries them.

use ceiba_core::error::{Kind, Outcome};

use crate::harness::{Harness, Verdict};
use crate::stage::{Stage, message, nothing_comes, receive, seconds, text};
use crate::table::Trait;

pub(crate) async fn an_empty_body(harness: &dyn Harness) -> Verdict {
    let stage = Stage::plain(harness).await;
    let (consumer, producer) = (stage.consumer().await, stage.producer().await);
    let sent = producer.send(&seconds(10.0), message("")).await;
    if stage.has(Trait::NoEmptyBody) {
        let error = sent.unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (Kind::InvalidArgument, Outcome::NotSent), "{error}");
        nothing_comes(&consumer, 0.3).await;
        stage.end().await;
        return Verdict::Excluded(Trait::NoEmptyBody);
    }
    sent.unwrap();
    let (_, delivery) = receive(&consumer, 1, 10.0).await.remove(0);
    assert!(delivery.message.body().is_empty());
    stage.end().await;
    Verdict::Held
}

// A text by its lines alone.
fn lines(text: &str) -> String {
    text.replace("\r\n", "\n").trim_end_matches('\n').to_owned()
}

pub(crate) async fn a_body_of_16_mib(harness: &dyn Harness) -> Verdict {
    let stage = Stage::plain(harness).await;
    let (consumer, producer) = (stage.consumer().await, stage.producer().await);
    // Plain letters, and signs that grow when they are escaped.
    let longest = stage.peer().longest_body();
    let plain: Vec<u8> = (0..longest).map(|number| b'a' + (number % 23) as u8).collect();
    let escaped = "\"<\u{2028}\n".repeat((longest / 16).min(1 << 20) / 6);
    for body in [plain, escaped.into_bytes()] {
        producer.send(&seconds(60.0), message(body.clone())).await.unwrap();
        let (_, delivery) = receive(&consumer, 1, 60.0).await.remove(0);
        let came = delivery.message.body();
        if stage.has(Trait::MendedLines) {
            let came = std::str::from_utf8(came).unwrap();
            assert!(lines(came) == lines(std::str::from_utf8(&body).unwrap()), "the body changed on its way");
            continue;
        }
        assert_eq!(came.len(), body.len());
        assert!(came == &body, "the body changed on its way");
    }
    // The connection still works.
    producer.send(&seconds(10.0), message("after")).await.unwrap();
    assert_eq!(text(&receive(&consumer, 1, 10.0).await[0].1), "after");
    stage.end().await;
    if longest < 16 << 20 { Verdict::Excluded(Trait::ShortBodies) } else { Verdict::Held }
}

pub(crate) async fn a_body_that_is_not_utf_8(harness: &dyn Harness) -> Verdict {
    let stage = Stage::plain(harness).await;
    let (consumer, producer) = (stage.consumer().await, stage.producer().await);
    let every_byte: Vec<u8> = (0..=255).collect();
    let bodies = [
        vec![0xff],
        vec![0xc0, 0x80],
        vec![0xed, 0xa0, 0x80],
        b"ends in half a sign \xe6\x9c".to_vec(),
        every_byte,
    ];
    let binary = producer.capability().binary_body;
    for body in &bodies {
        let result = producer.send(&seconds(10.0), message(body.clone())).await;
        if binary {
            result.unwrap();
            assert_eq!(receive(&consumer, 1, 10.0).await[0].1.message.body(), body);
        } else {
            let error = stage.cause(result.unwrap_err());
            assert_eq!((error.kind(), error.outcome()), (Kind::Unsupported, Outcome::NotSent), "{error}");
            assert!(!error.retryable());
        }
    }
    // The refusal costs nobody else anything.
    producer.send(&seconds(10.0), message("text")).await.unwrap();
    assert_eq!(text(&receive(&consumer, 1, 10.0).await[0].1), "text");
    nothing_comes(&consumer, 0.3).await;
    stage.end().await;
    if binary { Verdict::Held } else { Verdict::Excluded(Trait::TextOnly) }
}

// A text in pieces of which none is longer, even where each of its signs is escaped.
fn pieces(mut text: &str, longest: usize) -> Vec<String> {
    let mut pieces = Vec::new();
    loop {
        let (piece, rest) = text.split_at(text.floor_char_boundary(longest));
        pieces.push(piece.to_owned());
        if rest.is_empty() {
            return pieces;
        }
        text = rest;
    }
}

pub(crate) async fn texts_arrive_unchanged(harness: &dyn Harness) -> Verdict {
    let stage = Stage::plain(harness).await;
    let (consumer, producer) = (stage.consumer().await, stage.producer().await);
    let mended = stage.has(Trait::MendedLines);
    let controls: String = (0..32).chain([127, 128, 159]).filter_map(char::from_u32).collect();
    let every_plane: String = (0..0x0011_0000).step_by(97).filter_map(char::from_u32).collect();
    let texts = [
        "\"quoted\" 'single' \\ back \\\\ slash / \\\"".to_owned(),
        controls,
        "line\nbreak\r\nreturn\ttab\0zero".to_owned(),
        "\u{2028}line\u{2029}paragraph\u{feff}mark\u{fffd}replaced\u{ffff}none".to_owned(),
        "<script>alert('&amp;') && a < b > c</script>".to_owned(),
        "木 ñ é e\u{301} \u{1f333} \u{1f469}\u{200d}\u{1f52c} עברית \u{202e}right\u{202c}".to_owned(),
        r#"{"MessageData":"x","DelayTime":9} \u0041 \ud83c"#.to_owned(),
        "ok".to_owned(),
        " ".to_owned(),
        "\n".to_owned(),
        "null".to_owned(),
        every_plane,
    ];
    let longest = stage.peer().longest_body();
    for sent in texts.iter().flat_map(|text| pieces(text, longest)) {
        producer.send(&seconds(10.0), message(sent.clone())).await.unwrap();
        let came = text(&receive(&consumer, 1, 10.0).await[0].1);
        if mended {
            assert_eq!(lines(&came), lines(&sent));
        } else {
            assert_eq!(came, sent);
        }
    }
    stage.end().await;
    if mended { Verdict::Excluded(Trait::MendedLines) } else { Verdict::Held }
}

pub(crate) async fn a_body_over_the_limit_is_too_large(harness: &dyn Harness) -> Verdict {
    let stage = Stage::plain(harness).await;
    let (consumer, producer) = (stage.consumer().await, stage.producer().await);
    let limit = producer.capability().max_body;
    if let Some(limit) = limit {
        let body = vec![b'a'; usize::try_from(limit).unwrap() + 1];
        let error = stage.cause(producer.send(&seconds(60.0), message(body)).await.unwrap_err());
        assert_eq!((error.kind(), error.outcome()), (Kind::TooLarge, Outcome::NotSent), "{error}");
        assert!(!error.retryable());
        producer.send(&seconds(10.0), message("small")).await.unwrap();
        assert_eq!(text(&receive(&consumer, 1, 10.0).await[0].1), "small");
        nothing_comes(&consumer, 0.3).await;
    }
    stage.end().await;
    if limit.is_some() { Verdict::Held } else { Verdict::Excluded(Trait::NoLimit) }
}
