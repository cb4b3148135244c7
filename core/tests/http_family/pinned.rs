//! Time and nonces are those that the setup gives, not the system's.

use std::time::{Duration, SystemTime};

use ceiba_core::clock::Clock;
use ceiba_core::message::Message;
use ceiba_core::provider::Setup;
use ceiba_core::random::Random;
use serde_json::json;

use crate::crowds::signed;
use crate::server::{Act, Seen, Server, ok};
use crate::{open, refused, send, setup};

/// 2023-11-14T22:13:20Z.
const TIME: Duration = Duration::from_secs(1_700_000_000);

fn pinned() -> Setup {
    Setup { clock: Clock::from_fn(|| SystemTime::UNIX_EPOCH + TIME), random: Random::seeded(7), ..setup() }
}

fn header<'a>(seen: &'a Seen, name: &str) -> &'a str {
    seen.headers.get(name).map_or("", String::as_str)
}

#[tokio::test]
async fn all_that_is_signed_bears_the_time_of_the_setup() {
    for number in 0..4 {
        let holder = Server::start([ok("")]).await;
        let (_, good, _) = signed(&holder.url()).remove(number);
        let server = Server::start([ok(good)]).await;
        for _ in 0..2 {
            let (section, _, message) = signed(&server.url()).remove(number);
            let producer = open(&pinned(), section).await.unwrap();
            send(&producer, message).await.unwrap();
        }
        let [first, second] = &server.seen()[..] else { panic!("not two requests") };
        // Of the same time and the same numbers the same request is made.
        assert_eq!((&first.target, &first.headers), (&second.target, &second.headers));
        let query = first.query();
        match number {
            0 => {
                assert_eq!(header(first, "x-acs-date"), "2023-11-14T22:13:20Z");
                assert_eq!(
                    header(first, "x-acs-signature-nonce"),
                    format!("{:032x}", Random::seeded(7).nonce())
                );
            }
            1 => assert_eq!(header(first, "x-tc-timestamp"), "1700000000"),
            2 => {
                assert_eq!(header(first, "x-ceiba-timestamp"), "1700000000");
                assert_eq!(header(first, "x-ceiba-signature"), WEBHOOK);
            }
            _ => {
                assert_eq!(query["timestamp"], "1700000000000");
                assert_eq!(query["sign"], DINGTALK);
            }
        }
    }
}

/// `printf 1700000000.x | openssl dgst -sha256 -hmac s`
const WEBHOOK: &str = "sha256=5eb7c2e803b59dc3a0d6eab0eaf4cacffc77b7cec6520c8b429c71018aa6a838";

/// `printf '1700000000000\nSEC' | openssl dgst -sha256 -hmac SEC -binary | base64`
const DINGTALK: &str = "r+2we0q01lkZqz38LA5IPNbHN81U1leRf3Au4PSQb6Q=";

#[tokio::test]
async fn a_date_to_come_again_is_reckoned_from_the_time_of_the_setup() {
    let again = vec![("retry-after", "Tue, 14 Nov 2023 22:13:50 GMT".to_owned())];
    let server = Server::start([Act::Answer(503, again, String::new())]).await;
    let producer = open(&pinned(), json!({"type": "webhook", "url": server.url()})).await.unwrap();
    assert_eq!(refused(&producer, Message::new("x")).await.retry_after(), Some(Duration::from_secs(30)));
}
