//! A `redis-server` of one's own, on a free port of 127.0.0.1 and in a folder of its own.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// See the module. Dropping it kills the server and removes the folder. Its functions block.
pub struct Redis {
    child: Option<Child>,
    port: u16,
    more: Vec<String>,
    folder: PathBuf,
    password: Option<String>,
    tls: bool,
}

/// How often a command was called, and how often that was not allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Calls {
    /// Ran.
    pub made: u64,
    /// Did not run.
    pub rejected: u64,
}

/// A port that nobody listens on now.
fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

impl Redis {
    /// One that keeps nothing on disk.
    pub fn start() -> Redis {
        Redis::with(&[], None)
    }

    /// One that wants a password.
    pub fn with_password(password: &str) -> Redis {
        Redis::with(&["--requirepass", password], Some(password))
    }

    /// One that talks TLS alone.
    pub fn with_tls(certificate: &Path, key: &Path) -> Redis {
        let path = |path: &Path| path.display().to_string();
        let (certificate, key) = (path(certificate), path(key));
        let tls =
            ["--tls-cert-file", &certificate, "--tls-key-file", &key, "--tls-ca-cert-file", &certificate];
        Redis::with(&[&tls[..], &["--tls-auth-clients", "no"]].concat(), None)
    }

    fn with(more: &[&str], password: Option<&str>) -> Redis {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("ceiba-redis-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let tls = more.contains(&"--tls-cert-file");
        // Somebody may take the port before the server does.
        for _ in 0..10 {
            let mut redis = Redis {
                child: None,
                port: free_port(),
                more: more.iter().map(|text| (*text).to_owned()).collect(),
                folder: folder.clone(),
                password: password.map(str::to_owned),
                tls,
            };
            if redis.launch() {
                return redis;
            }
        }
        panic!("no redis-server could be started: tests/tools.sh installs it");
    }

    fn launch(&mut self) -> bool {
        let port = self.port.to_string();
        let ports = if self.tls {
            ["--port", "0", "--tls-port", &port]
        } else {
            ["--port", &port, "--tcp-backlog", "128"]
        };
        let child = Command::new("redis-server")
            .args(ports)
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir"])
            .arg(&self.folder)
            .args(&self.more)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is missing: tests/tools.sh installs it");
        self.child = Some(child);
        let until = Instant::now() + Duration::from_secs(20);
        while Instant::now() < until {
            if self.child.as_mut().is_none_or(|child| !matches!(child.try_wait(), Ok(None))) {
                return false;
            }
            if self.answers() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    }

    fn answers(&self) -> bool {
        if self.tls {
            return TcpStream::connect(self.address()).is_ok();
        }
        self.ask(&["PING"]).is_ok_and(|answer| answer == "+PONG")
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Its URL, without a password.
    pub fn url(&self) -> String {
        format!("{}://localhost:{}", if self.tls { "rediss" } else { "redis" }, self.port)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it was killed").id()
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([name, &self.pid().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// It answers nobody from now on.
    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    /// It goes on.
    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    /// Ends it by SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts it again on the same port, with nothing in it.
    pub fn restart(&mut self) {
        self.kill();
        assert!(self.launch(), "redis-server does not start again");
    }

    /// Sends one command and returns the first line of the answer, or the text of a bulk answer.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn ask(&self, command: &[&str]) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(self.address())?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let mut text = String::new();
        let mut expected = 1;
        let login = self.password.as_deref().map(|password| vec!["AUTH", password]);
        for parts in login.iter().map(Vec::as_slice).chain([command]) {
            text.push_str(&format!("*{}\r\n", parts.len()));
            for part in parts {
                text.push_str(&format!("${}\r\n{part}\r\n", part.len()));
            }
        }
        expected += login.iter().count();
        stream.write_all(text.as_bytes())?;
        let mut answer = Vec::new();
        let mut buffer = [0; 65_536];
        loop {
            let lines: Vec<&[u8]> = answer.split(|byte| *byte == b'\n').collect();
            let whole = lines.len() - 1;
            let last = lines.get(expected - 1).map(|line| String::from_utf8_lossy(line).trim().to_owned());
            match last {
                Some(last) if whole >= expected && !last.starts_with('$') => return Ok(last),
                Some(last) if whole > expected || last == "$-1" => {
                    return Ok(String::from_utf8_lossy(lines[expected.min(whole)]).trim().to_owned());
                }
                _ => {}
            }
            match stream.read(&mut buffer)? {
                0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                count => answer.extend_from_slice(&buffer[..count]),
            }
        }
    }

    /// What became of a command so far, those of scripts too.
    pub fn calls(&self, command: &str) -> Calls {
        let code = "return string.match(redis.call('INFO', 'commandstats'), \
            'cmdstat_' .. ARGV[1] .. ':([^\\r\\n]*)') or ''";
        let line = self.ask(&["EVAL", code, "0", command]).unwrap();
        let field = |name: &str| -> u64 {
            let value = line.split(',').find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
            value.map_or(0, |value| value.parse().unwrap_or_else(|_| panic!("{command}: {line}")))
        };
        Calls { made: field("calls"), rejected: field("rejected_calls") }
    }

    /// The number that a command answers with.
    pub fn number(&self, command: &[&str]) -> i64 {
        let answer = self.ask(command).unwrap();
        answer.trim_start_matches(':').parse().unwrap_or_else(|_| panic!("{command:?}: {answer}"))
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
