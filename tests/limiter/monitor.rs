//! What a server grants, as it tells it itself: each grant with its time by the server's clock.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::thread::JoinHandle;
use std::time::Duration;

use ceiba_tests::redis::Redis;

/// Listens until it is asked what it heard.
pub(crate) struct Monitor {
    thread: JoinHandle<Vec<u64>>,
}

const END: &str = "the-end-of-the-test";

impl Monitor {
    pub(crate) fn start(redis: &Redis) -> Monitor {
        let mut stream = TcpStream::connect(redis.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream.write_all(b"MONITOR\r\n").unwrap();
        let mut lines = BufReader::new(stream).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "+OK");
        Monitor { thread: std::thread::spawn(move || listen(lines.map(Result::unwrap))) }
    }

    /// The times in microseconds of all grants that were not given back, in their order.
    pub(crate) fn grants(self, redis: &Redis) -> Vec<u64> {
        redis.ask(&["ECHO", END]).unwrap();
        self.thread.join().unwrap()
    }
}

fn listen(lines: impl Iterator<Item = String>) -> Vec<u64> {
    let mut grants = HashMap::new();
    for line in lines {
        let words: Vec<&str> = line.split('"').skip(1).step_by(2).collect();
        match words[..] {
            [_, END] => break,
            // How far times are ahead of a clock that was set back.
            ["ZADD", _, _, "ahead"] => {}
            ["ZADD", _, time, name] => {
                assert!(grants.insert(name.to_owned(), time.parse().unwrap()).is_none(), "{line}");
            }
            // Those of the script make room only.
            ["ZREM", _, ref names @ ..] if !line.contains(" lua]") => {
                names.iter().for_each(|name| _ = grants.remove(*name));
            }
            _ => {}
        }
    }
    let mut grants: Vec<u64> = grants.into_values().collect();
    grants.sort_unstable();
    grants
}
