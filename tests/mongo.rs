//! A server of MongoDB's protocol of one's own, on a free port of 127.0.0.1 and in a folder of its own: the program of
//! `tests/go/ferretdb`. The tests of the core have this file too.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Condvar, Mutex};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

/// How long it may take to start, and to meet a fault.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whose test has servers, and how many: they keep a machine busy, and each test has bounds of time.
static TURN: Mutex<Option<(ThreadId, u32)>> = Mutex::new(None);
static TURN_ENDS: Condvar = Condvar::new();

struct Turn(ThreadId);

impl Turn {
    fn take() -> Turn {
        let me = std::thread::current().id();
        let mut turn = TURN.lock().unwrap();
        while turn.is_some_and(|(other, _)| other != me) {
            turn = TURN_ENDS.wait(turn).unwrap();
        }
        let count = turn.map_or(0, |(_, count)| count);
        *turn = Some((me, count + 1));
        Turn(me)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut turn = TURN.lock().unwrap();
        let count = turn.map_or(0, |(_, count)| count);
        *turn = (count > 1).then_some((self.0, count - 1));
        TURN_ENDS.notify_all();
    }
}

/// See the module. Dropping it kills the server and removes the folder. Its functions block.
pub struct Mongo {
    child: Option<(Child, ChildStdin)>,
    address: String,
    folder: PathBuf,
    // What it says: that a fault is set, and which command met one.
    said: Mutex<[Receiver<String>; 2]>,
    _turn: Turn,
}

impl Mongo {
    /// An empty one.
    ///
    /// # Panics
    /// Without its program, which `tests/go/ferretdb/build.sh` builds.
    pub fn start() -> Mongo {
        let turn = Turn::take();
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("ceiba-mongo-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let said = Mutex::new([channel().1, channel().1]);
        let mut mongo = Mongo { child: None, address: "127.0.0.1:0".into(), folder, said, _turn: turn };
        mongo.restart();
        mongo
    }

    /// Starts it again on the same port, with what it had.
    ///
    /// # Panics
    /// When it does not start.
    pub fn restart(&mut self) {
        self.kill();
        let program = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/ferretdb"));
        let mut child = Command::new(program)
            .arg(&self.folder)
            .arg(&self.address)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the MongoDB of the tests is missing: tests/go/ferretdb/build.sh builds it");
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        self.child = Some((child, input));
        let ((told, tells), (sets, set), (meets, met)) = (channel(), channel(), channel());
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let _ = match line.strip_prefix("met ") {
                    Some(document) => meets.send(document.to_owned()),
                    None if line == "set" => sets.send(line),
                    None => told.send(line.trim().to_owned()),
                };
            }
        });
        *self.said.lock().unwrap() = [set, met];
        self.address = tells.recv_timeout(PATIENCE).expect("the MongoDB of the tests starts");
        assert!(!self.address.is_empty(), "the MongoDB of the tests ended");
    }

    /// Ends it by SIGKILL.
    pub fn kill(&mut self) {
        if let Some((mut child, _)) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn pid(&self) -> String {
        self.child.as_ref().expect("it was killed").0.id().to_string()
    }

    fn signal(&self, name: &str) {
        let pid = self.pid();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }

    /// It answers nobody from now on.
    ///
    /// # Panics
    /// When it goes on all the same.
    pub fn freeze(&self) {
        self.signal("-STOP");
        let began = Instant::now();
        while !self.stands() {
            assert!(began.elapsed() < PATIENCE, "the MongoDB of the tests stops");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    // A signal has been taken once no thread of it runs.
    fn stands(&self) -> bool {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap();
        let mut stats = tasks.map(|task| std::fs::read_to_string(task.unwrap().path().join("stat")));
        stats.all(|stat| {
            stat.is_ok_and(|stat| stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T')))
        })
    }

    /// It goes on.
    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    fn tell(&mut self, line: &str) {
        writeln!(self.child.as_mut().expect("it was killed").1, "{line}").unwrap();
    }

    /// The first such command at the collection after `skip` others meets this, once: `wait`, `refuse`, `lose`, `hang`,
    /// or `answer` or `confirm` with a document in hexadecimal; see the program's `faults.go`.
    ///
    /// # Panics
    /// When the server is not there.
    pub fn meddle(&mut self, command: &str, collection: &str, skip: u32, what: &str) {
        self.tell(&format!("{command} {collection} {skip} {what}"));
        self.said.lock().unwrap()[0].recv_timeout(PATIENCE).expect("a fault is set");
    }

    /// Waits until the next command met a fault, and returns its document in hexadecimal.
    ///
    /// # Panics
    /// When none does.
    pub fn met(&self) -> String {
        self.said.lock().unwrap()[1].recv_timeout(PATIENCE).expect("a command meets its fault")
    }

    /// What waits goes on.
    ///
    /// # Panics
    /// When the server is not there.
    pub fn go_on(&mut self) {
        self.tell("go");
    }

    /// Its host and port.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The address of a database there, as a client has it.
    pub fn url(&self) -> String {
        format!("mongodb://{}/shop", self.address)
    }
}

impl Drop for Mongo {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
