//! Questions about files. A file may be on a network that does not answer: who asks about it must not stand still with it,
//! nor is a second thread to, however often it is asked.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::error::{Error, Kind, Result};
use crate::runtime::PerGeneration;

/// Paths that are remembered before those that nobody asks about are forgotten.
const PATHS: usize = 64;

type Turns = Mutex<HashMap<PathBuf, Weak<tokio::sync::Mutex<()>>>>;

static TURNS: PerGeneration<Turns> = PerGeneration::new();

fn turn(path: &Path) -> Result<Arc<tokio::sync::Mutex<()>>> {
    let mut turns = TURNS.get_or_try_init(|| Ok(Mutex::default()))?.lock();
    if let Some(turn) = turns.get(path).and_then(Weak::upgrade) {
        return Ok(turn);
    }
    if turns.len() >= PATHS {
        turns.retain(|_, turn| turn.strong_count() > 0);
    }
    let turn = Arc::new(tokio::sync::Mutex::new(()));
    turns.insert(path.to_owned(), Arc::downgrade(&turn));
    Ok(turn)
}

/// Asks on a thread that may wait. Who has no time for the answer drops this: the others who ask about the same path wait
/// for the thread, and take none of their own.
///
/// # Errors
/// `internal`, and `forked`.
pub(super) async fn asked<T: Send + 'static>(
    path: &Path,
    question: impl FnOnce(&Path) -> T + Send + 'static,
) -> Result<T> {
    let turn = turn(path)?.lock_owned().await;
    let path = path.to_owned();
    let answer = tokio::task::spawn_blocking(move || {
        let answer = question(&path);
        drop(turn);
        answer
    });
    answer.await.map_err(|error| {
        Error::new(Kind::Internal, "a question about the outbox's file was not answered").caused_by(error)
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;
    use crate::client::Context;

    #[tokio::test]
    async fn a_file_that_does_not_answer_costs_one_thread_and_nobody_s_time() {
        let path = PathBuf::from(format!("silent-{:032x}", rand::random::<u128>()));
        let begun = Arc::new(AtomicUsize::new(0));
        let (hold, held) = channel::<()>();
        let held = Arc::new(Mutex::new(held));
        for _ in 0..5 {
            let (begun, held) = (begun.clone(), held.clone());
            let question = move |_: &Path| {
                begun.fetch_add(1, Ordering::SeqCst);
                let _ = held.lock().recv();
            };
            let late = Context::within(Duration::from_millis(30)).run(asked(&path, question)).await;
            assert_eq!(late.unwrap_err().kind(), Kind::Timeout);
        }
        assert_eq!(begun.load(Ordering::SeqCst), 1);
        // Another path is none of it.
        let soon = Context::within(Duration::from_secs(20));
        assert!(soon.run(asked(Path::new("/"), |path| path.exists())).await.unwrap().unwrap());
        drop(hold);
        assert_eq!(soon.run(asked(&path, |_| 7)).await.unwrap().unwrap(), 7);
    }
}
