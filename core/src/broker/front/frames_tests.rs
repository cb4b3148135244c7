use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::*;

const MASK: [u8; 4] = [1, 2, 250, 4];

fn pair() -> (Frames<DuplexStream>, DuplexStream) {
    let (ours, theirs) = duplex(1 << 20);
    (Frames::over(ours, 300_000), theirs)
}

fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match payload.len() {
        length @ 0..=125 => out.push(0x80 | length as u8),
        length @ 126..=0xffff => {
            out.push(0x80 | 126);
            out.extend((length as u16).to_be_bytes());
        }
        length => {
            out.push(0x80 | 127);
            out.extend((length as u64).to_be_bytes());
        }
    }
    out.extend(MASK);
    out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    out
}

async fn next(frames: &mut Frames<DuplexStream>) -> Result<(Kind, Vec<u8>), End> {
    let kind = tokio::time::timeout(Duration::from_secs(5), frames.message()).await.unwrap()?;
    Ok((kind, frames.payload().to_vec()))
}

#[tokio::test]
async fn messages_of_every_length_in_pieces_of_every_size() {
    let texts: Vec<Vec<u8>> = [0, 1, 7, 8, 9, 125, 126, 127, 65_535, 65_536, 200_000, 3]
        .iter()
        .map(|&length| vec![b'a'; length])
        .collect();
    for piece in [1000, 4096, 1 << 20] {
        let (mut frames, mut theirs) = pair();
        let bytes: Vec<u8> = texts.iter().flat_map(|text| frame(0x81, text)).collect();
        let writing = tokio::spawn(async move {
            for piece in bytes.chunks(piece) {
                theirs.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            theirs
        });
        for text in &texts {
            assert_eq!(next(&mut frames).await.unwrap(), (Kind::Text, text.clone()));
        }
        drop(writing.await.unwrap());
        assert!(matches!(next(&mut frames).await, Err(End::Gone)));
    }
}

#[tokio::test]
async fn single_bytes_and_fragments_with_a_ping_between() {
    let (mut frames, mut theirs) = pair();
    let mut bytes = frame(0x01, "木".as_bytes().get(..2).unwrap());
    bytes.extend(frame(0x89, b"p"));
    bytes.extend(frame(0x80, "木".as_bytes().get(2..).unwrap()));
    bytes.extend(frame(0x82, b"\xff"));
    let writing = tokio::spawn(async move {
        for byte in bytes {
            theirs.write_all(&[byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        theirs
    });
    assert_eq!(next(&mut frames).await.unwrap(), (Kind::Text, "木".as_bytes().to_vec()));
    assert_eq!(next(&mut frames).await.unwrap(), (Kind::Binary, b"\xff".to_vec()));
    let mut theirs = writing.await.unwrap();
    frames.push_text(&[b'x'; 126]);
    frames.flush().await.unwrap();
    let mut pong = [0; 3 + 4 + 126];
    theirs.read_exact(&mut pong).await.unwrap();
    assert_eq!(pong.get(..7).unwrap(), [0x8a, 1, b'p', 0x81, 126, 0, 126]);
}

#[tokio::test]
async fn what_breaks_the_protocol_ends_it() {
    let unmasked = vec![0x81, 1, b'x'];
    let mut long = vec![0x81, 0xff];
    long.extend(u64::MAX.to_be_bytes());
    for (bytes, status) in [
        (unmasked, 1002),
        (frame(0xc1, b"x"), 1002),
        (frame(0x80, b"x"), 1002),
        (frame(0x83, b"x"), 1002),
        (frame(0x09, b"x"), 1002),
        (frame(0x89, &[0; 126]), 1002),
        ([frame(0x01, b"x"), frame(0x81, b"x")].concat(), 1002),
        (frame(0x88, b"x"), 1002),
        (frame(0x88, &1005u16.to_be_bytes()), 1002),
        (frame(0x88, b"\x03\xe8\xff"), 1007),
        (frame(0x81, b"\xff"), 1007),
        ([frame(0x01, b"\xe6"), frame(0x80, b"x")].concat(), 1007),
        (long, 1009),
        (frame(0x82, &vec![0; 300_001]), 1009),
        ([frame(0x02, &vec![0; 200_000]), frame(0x80, &vec![0; 100_001])].concat(), 1009),
    ] {
        let (mut frames, mut theirs) = pair();
        theirs.write_all(&bytes).await.unwrap();
        let end = next(&mut frames).await.unwrap_err();
        assert!(matches!(end, End::Closed(code, _) if code == status), "{end:?}, not {status}");
        let closing = tokio::spawn(async move { frames.finish(&end).await });
        let mut head = [0; 4];
        theirs.read_exact(&mut head).await.unwrap();
        assert_eq!((head[0], u16::from_be_bytes([head[2], head[3]])), (0x88, status));
        drop(theirs);
        closing.await.unwrap();
    }
}

#[tokio::test]
async fn a_close_is_answered_once() {
    let (mut frames, mut theirs) = pair();
    theirs.write_all(&frame(0x88, &1000u16.to_be_bytes())).await.unwrap();
    assert!(matches!(next(&mut frames).await, Err(End::Gone)));
    frames.push_text(b"too late");
    frames.finish(&End::STOPPING).await;
    drop(frames);
    let mut all = Vec::new();
    theirs.read_to_end(&mut all).await.unwrap();
    assert_eq!(all, [0x88, 2, 3, 232]);
}

#[tokio::test]
async fn who_closes_first_waits_for_the_other() {
    let (mut frames, mut theirs) = pair();
    let closing = tokio::spawn(async move { frames.finish(&End::STOPPING).await });
    let mut head = [0; 4];
    theirs.read_exact(&mut head).await.unwrap();
    assert_eq!((head[0], u16::from_be_bytes([head[2], head[3]])), (0x88, 1001));
    theirs.write_all(&frame(0x81, b"still on its way")).await.unwrap();
    theirs.write_all(&frame(0x88, &1001u16.to_be_bytes())).await.unwrap();
    closing.await.unwrap();
}

#[tokio::test]
async fn a_large_message_leaves_no_large_buffer() {
    let (mut frames, mut theirs) = pair();
    let half = vec![b'a'; KEPT / 2 + 1000];
    let bytes = [frame(0x01, &half), frame(0x80, &half), frame(0x81, b"next")].concat();
    let writing = tokio::spawn(async move {
        theirs.write_all(&bytes).await.unwrap();
        theirs
    });
    assert_eq!(next(&mut frames).await.unwrap().1.len(), 2 * half.len());
    assert_eq!(next(&mut frames).await.unwrap().1, b"next");
    drop(writing.await.unwrap());
    assert!(matches!(next(&mut frames).await, Err(End::Gone)));
    assert!(frames.parts.capacity() <= KEPT && frames.input.capacity() <= KEPT);
}

/// The status of the answer; 101 is said by a handshake.
async fn asked(headers: &[(&str, &str)]) -> u16 {
    let mut request = axum::extract::Request::get("/").body(Body::empty()).unwrap();
    // One that never comes: only the headers are looked at.
    let upgrade = hyper::upgrade::on(&mut request);
    let (mut parts, _) = request.into_parts();
    parts.extensions.insert(upgrade);
    for &(name, value) in headers {
        parts.headers.append(axum::http::HeaderName::try_from(name).unwrap(), value.parse().unwrap());
    }
    Handshake::from_request_parts(&mut parts, &()).await.map_or_else(|status| status.as_u16(), |_| 101)
}

#[tokio::test]
async fn a_handshake_is_read_from_all_lines_and_has_a_key() {
    let rest = [("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")];
    let key = ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
    for (headers, status) in [
        (&[("Connection", "keep-alive, Upgrade"), key][..], 101),
        (&[("Connection", "keep-alive"), ("Connection", "Upgrade"), key], 101),
        (&[("Connection", "keep-alive"), key], 400),
        (&[("Connection", "Upgrade")], 400),
        (&[("Connection", "Upgrade"), ("Sec-WebSocket-Key", "")], 400),
        (&[("Connection", "Upgrade"), ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZSE=")], 400),
        (&[("Connection", "Upgrade"), ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZ===")], 400),
    ] {
        assert_eq!(asked(&[headers, &rest[..]].concat()).await, status, "{headers:?}");
    }
}
