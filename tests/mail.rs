//! A mail server that does what a test tells it to: it keeps what it accepts in memory, and fails on demand.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// A mail that was accepted.
#[derive(Debug, Clone)]
pub struct Mail {
    /// Who it is from, in the envelope.
    pub from: String,
    /// Who it is for, in the envelope.
    pub to: Vec<String>,
    /// The mail, with LF at the ends of its lines and without the doubled dots.
    pub text: String,
}

impl Mail {
    /// The value of a header field, unfolded.
    pub fn header(&self, name: &str) -> Option<String> {
        let head = self.text.split("\n\n").next()?.replace("\n ", " ");
        let field = head.lines().find_map(|line| {
            line.split_once(": ")
                .filter(|(found, _)| found.eq_ignore_ascii_case(name))
                .map(|(_, value)| value)
        });
        field.map(str::to_owned)
    }
}

/// What happens instead of the usual answer.
#[derive(Debug, Clone)]
pub enum Act {
    /// This is answered.
    Say(&'static str),
    /// This is answered, and the connection closed.
    SayAndClose(&'static str),
    /// The connection is closed.
    Close,
    /// Nothing is answered any more, and the connection stays.
    Silence,
}

/// Where a connection is.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// The number of the connection, from 0.
    pub connection: u64,
    /// The command, or `<connect>`; `<data>` once the mail may come, `<end>` once it came.
    pub line: &'a str,
}

/// Says what happens; none for the usual.
pub type Rules = Arc<dyn Fn(Seen<'_>) -> Option<Act> + Send + Sync>;

/// How it answers.
#[derive(Clone)]
pub struct Settings {
    /// What it offers behind `EHLO`.
    pub features: Vec<&'static str>,
    /// The user and the password that it wants.
    pub login: Option<(&'static str, &'static str)>,
    /// What goes wrong.
    pub rules: Rules,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            features: vec!["PIPELINING", "8BITMIME", "SIZE 67108864", "AUTH PLAIN LOGIN"],
            login: None,
            rules: Arc::new(|_| None),
        }
    }
}

/// See the module. Dropping it closes its connections.
pub struct MailServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

struct Shared {
    settings: Settings,
    mails: Mutex<Vec<Mail>>,
    lines: Mutex<Vec<String>>,
    connections: AtomicU64,
}

impl MailServer {
    /// Starts one on a free port of 127.0.0.1.
    pub async fn start(settings: Settings) -> MailServer {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            settings,
            mails: Mutex::default(),
            lines: Mutex::default(),
            connections: AtomicU64::new(0),
        });
        let task = tokio::spawn({
            let shared = shared.clone();
            async move {
                let mut connections = JoinSet::new();
                loop {
                    let Ok((stream, _)) = listener.accept().await else { return };
                    // Each reply is a small write of its own.
                    let _ = stream.set_nodelay(true);
                    let number = shared.connections.fetch_add(1, Ordering::Relaxed);
                    connections.spawn(serve(stream, shared.clone(), number));
                    while connections.try_join_next().is_some() {}
                }
            }
        });
        MailServer { address, shared, task }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it accepted so far.
    pub fn mails(&self) -> Vec<Mail> {
        self.shared.mails.lock().unwrap().clone()
    }

    /// Of what it accepted up to `max`, from the mail with this number on.
    pub fn mails_from(&self, first: usize, max: usize) -> Vec<Mail> {
        self.shared.mails.lock().unwrap().iter().skip(first).take(max).cloned().collect()
    }

    /// The commands that came so far, of all connections.
    pub fn lines(&self) -> Vec<String> {
        self.shared.lines.lock().unwrap().clone()
    }

    /// How many connections were made.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }
}

impl Drop for MailServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>, connection: u64) {
    let mut session =
        Session { stream: BufReader::new(stream), shared, connection, from: None, to: Vec::new() };
    let _ = session.run().await;
}

struct Session {
    stream: BufReader<TcpStream>,
    shared: Arc<Shared>,
    connection: u64,
    from: Option<String>,
    to: Vec<String>,
}

// None ends the connection.
type Next = Option<()>;

impl Session {
    async fn run(&mut self) -> Next {
        self.answer("<connect>", "220 mail.example.test ESMTP").await?;
        loop {
            let line = self.line().await?;
            self.shared.lines.lock().unwrap().push(line.clone());
            let word = line.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
            match word.as_str() {
                "EHLO" => {
                    let mut lines = vec!["mail.example.test"];
                    lines.extend(&self.shared.settings.features);
                    let last = lines.len() - 1;
                    let reply: Vec<String> = lines
                        .iter()
                        .enumerate()
                        .map(|(at, text)| format!("250{}{text}", if at == last { ' ' } else { '-' }))
                        .collect();
                    self.answer(&line, &reply.join("\r\n")).await?;
                }
                "AUTH" => self.log_in(&line).await?,
                "MAIL" => {
                    self.from = Some(address(&line));
                    self.to.clear();
                    self.answer(&line, "250 2.1.0 Ok").await?;
                }
                "RCPT" => {
                    if self.answer(&line, "250 2.1.5 Ok").await? {
                        self.to.push(address(&line));
                    }
                }
                "DATA" if self.to.is_empty() => _ = self.answer(&line, "554 5.5.1 no recipients").await?,
                "DATA" => {
                    if self.answer(&line, "354 go ahead").await? {
                        self.data().await?;
                    }
                }
                "RSET" => {
                    self.from = None;
                    self.to.clear();
                    self.answer(&line, "250 2.0.0 Ok").await?;
                }
                "NOOP" => _ = self.answer(&line, "250 2.0.0 Ok").await?,
                "QUIT" => {
                    self.answer(&line, "221 2.0.0 bye").await?;
                    return None;
                }
                _ => _ = self.answer(&line, "502 5.5.1 unknown").await?,
            }
        }
    }

    async fn log_in(&mut self, line: &str) -> Next {
        use base64::Engine;
        let decode = |text: &str| base64::engine::general_purpose::STANDARD.decode(text).unwrap_or_default();
        let mut words = line.split(' ').skip(1);
        let given = match (words.next(), words.next()) {
            (Some("PLAIN"), Some(text)) => decode(text),
            (Some("LOGIN"), None) => {
                let mut given = Vec::new();
                for question in ["334 VXNlcm5hbWU6", "334 UGFzc3dvcmQ6"] {
                    self.say(question).await?;
                    given.push(0);
                    given.extend(decode(&self.line().await?));
                }
                given
            }
            _ => Vec::new(),
        };
        let wanted = self.shared.settings.login.map(|(user, password)| format!("\0{user}\0{password}"));
        let right = wanted.is_some_and(|wanted| wanted.as_bytes() == given);
        // A careless server repeats what it was told.
        let wrong = format!("535 5.7.8 wrong: {}", String::from_utf8_lossy(&given).replace('\0', " "));
        self.answer(line, if right { "235 2.7.0 welcome" } else { &wrong }).await.map(drop)
    }

    async fn data(&mut self) -> Next {
        if let Some(act) = self.rule("<data>") {
            self.act(act).await?;
        }
        let mut text = String::new();
        loop {
            let line = self.line().await?;
            if line == "." {
                break;
            }
            text.push_str(line.strip_prefix('.').unwrap_or(&line));
            text.push('\n');
        }
        let mail =
            Mail { from: self.from.take().unwrap_or_default(), to: std::mem::take(&mut self.to), text };
        match self.rule("<end>") {
            // It is taken, whatever is told, unless it is refused.
            Some(act @ (Act::Close | Act::Silence)) => {
                self.shared.mails.lock().unwrap().push(mail);
                self.act(act).await
            }
            Some(act) => self.act(act).await,
            None => {
                self.shared.mails.lock().unwrap().push(mail);
                self.say("250 2.0.0 Ok: queued").await
            }
        }
    }

    fn rule(&self, line: &str) -> Option<Act> {
        (self.shared.settings.rules)(Seen { connection: self.connection, line })
    }

    // Whether the usual was answered.
    async fn answer(&mut self, line: &str, usual: &str) -> Option<bool> {
        match self.rule(line) {
            None => self.say(usual).await.map(|()| true),
            Some(act) => self.act(act).await.map(|()| false),
        }
    }

    async fn act(&mut self, act: Act) -> Next {
        match act {
            Act::Say(text) => self.say(text).await,
            Act::SayAndClose(text) => {
                self.say(text).await?;
                None
            }
            Act::Close => None,
            Act::Silence => {
                // Whatever comes is read, until the other side gives up.
                let mut sink = [0; 4096];
                while self.stream.read(&mut sink).await.is_ok_and(|read| read > 0) {}
                None
            }
        }
    }

    async fn say(&mut self, text: &str) -> Next {
        self.stream.get_mut().write_all(format!("{text}\r\n").as_bytes()).await.ok()
    }

    async fn line(&mut self) -> Option<String> {
        let mut line = Vec::new();
        let read = self.stream.read_until(b'\n', &mut line).await.ok()?;
        if read == 0 {
            return None;
        }
        assert!(line.ends_with(b"\r\n"), "a line without CR and LF: {line:?}");
        line.truncate(line.len() - 2);
        assert!(!line.contains(&b'\r') && !line.contains(&b'\n'), "a bare CR or LF: {line:?}");
        Some(String::from_utf8_lossy(&line).into_owned())
    }
}

fn address(line: &str) -> String {
    line.split(['<', '>']).nth(1).unwrap_or_default().to_owned()
}
