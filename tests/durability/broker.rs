//! A broker in a process of its own, with its data folder.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ceiba_tests::program::{BrokerProcess, ceiba};

pub(crate) const SECRET: &str = "secret of the durable broker";

/// The tests of this folder run one after the other: each needs the whole machine.
pub(crate) fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    // Built before the clock of a test runs.
    ceiba();
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A number from the environment.
pub(crate) fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

/// The runtime of one test's clients.
pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// A folder that goes with its owner.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("ceiba-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{} is kept for a look", self.0.display());
            return;
        }
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// How a broker is started, and started again.
#[derive(Debug, Clone)]
pub(crate) struct Setting {
    pub(crate) data: PathBuf,
    pub(crate) arguments: Vec<String>,
    /// The most files that it may have open.
    pub(crate) files: Option<u32>,
    pub(crate) address: Option<SocketAddr>,
}

impl Setting {
    pub(crate) fn new(data: &Path, arguments: &[&str]) -> Setting {
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        Setting { data: data.to_owned(), arguments, files: None, address: None }
    }

    fn command(&self) -> Command {
        let mut command = match self.files {
            None => Command::new(ceiba()),
            Some(files) => {
                let mut command = Command::new("sh");
                command.args(["-c", &format!("ulimit -n {files} && exec \"$0\" \"$@\"")]).arg(ceiba());
                command
            }
        };
        let listen = self.address.map_or("127.0.0.1:0".to_owned(), |address| address.to_string());
        command.args(["broker", "--listen", &listen, "--data"]).arg(&self.data).args(&self.arguments);
        command.env("CEIBA_SECRET", SECRET);
        command
    }

    /// Starts it; from the second time on at the address of the first.
    pub(crate) fn start(&mut self) -> Result<BrokerProcess, String> {
        let broker = BrokerProcess::launch(&mut self.command())?;
        self.address = Some(broker.address());
        Ok(broker)
    }

    /// Starts it and kills it so long after, which may be before it serves.
    pub(crate) fn start_and_kill(&self, after: Duration) {
        let mut child = self.command().stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(after);
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// The numbers of the log's files, in order.
    pub(crate) fn segments(&self) -> Vec<u64> {
        let files = fs::read_dir(&self.data).unwrap();
        let name = |file: std::io::Result<fs::DirEntry>| file.unwrap().file_name().into_string().unwrap();
        let mut numbers: Vec<u64> =
            files.filter_map(|file| name(file).strip_suffix(".log")?.parse().ok()).collect();
        numbers.sort_unstable();
        numbers
    }
}

/// Sends a signal by its name.
pub(crate) fn signal(pid: u32, name: &str) {
    assert!(Command::new("kill").args([format!("-{name}"), pid.to_string()]).status().unwrap().success());
}

/// Stops a process and waits until each of its threads stands still, the last calls of the kernel included.
pub(crate) fn freeze(pid: u32) {
    signal(pid, "STOP");
    let until = Instant::now() + Duration::from_secs(20);
    let stands = |thread: std::io::Result<fs::DirEntry>| {
        let state = fs::read_to_string(thread.unwrap().path().join("stat"));
        // The state stands behind the name, which is in brackets. A thread that is gone stands still too.
        state.map_or(true, |text| text.rsplit(')').next().unwrap().trim_start().starts_with('T'))
    };
    while !fs::read_dir(format!("/proc/{pid}/task")).unwrap().all(stands) {
        assert!(Instant::now() < until, "the broker does not stand still");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The memory that a process has, in bytes.
pub(crate) fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
}
