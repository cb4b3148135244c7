//! Between a limiter and its Redis: while the gate is shut what is asked waits here, and is counted.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// See the module. It begins open.
pub(crate) struct Gate {
    address: SocketAddr,
    shut: watch::Sender<bool>,
    scripts: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Gate {
    pub(crate) async fn start(server: SocketAddr) -> Gate {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (shut, scripts) = (watch::Sender::new(false), Arc::new(AtomicUsize::new(0)));
        let task = tokio::spawn({
            let (shut, scripts) = (shut.clone(), scripts.clone());
            async move {
                loop {
                    let (client, _) = listener.accept().await.unwrap();
                    tokio::spawn(pass(client, server, shut.subscribe(), scripts.clone()));
                }
            }
        });
        Gate { address, shut, scripts, task }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    pub(crate) fn shut(&self, shut: bool) {
        self.shut.send_replace(shut);
    }

    /// How many scripts were asked for up to here.
    pub(crate) fn scripts(&self) -> usize {
        self.scripts.load(Ordering::Acquire)
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(
    mut client: TcpStream,
    server: SocketAddr,
    mut shut: watch::Receiver<bool>,
    scripts: Arc<AtomicUsize>,
) {
    const SCRIPT: &[u8] = b"EVALSHA";
    let mut server = TcpStream::connect(server).await.unwrap();
    let (mut asked, mut answered) = ([0; 4096], [0; 4096]);
    let (mut waiting, mut last) = (Vec::new(), Vec::new());
    loop {
        if !*shut.borrow_and_update() {
            server.write_all(&waiting).await.unwrap();
            waiting.clear();
        }
        tokio::select! {
            read = client.read(&mut asked) => match read {
                Ok(count) if count > 0 => {
                    waiting.extend_from_slice(&asked[..count]);
                    // A word may lie across two reads.
                    last.extend_from_slice(&asked[..count]);
                    let found = last.windows(SCRIPT.len()).filter(|part| *part == SCRIPT).count();
                    scripts.fetch_add(found, Ordering::AcqRel);
                    last.drain(..last.len().saturating_sub(SCRIPT.len() - 1));
                }
                _ => return,
            },
            read = server.read(&mut answered) => match read {
                Ok(count) if count > 0 => {
                    if client.write_all(&answered[..count]).await.is_err() {
                        return;
                    }
                }
                _ => return,
            },
            changed = shut.changed() => if changed.is_err() {
                return;
            },
        }
    }
}
