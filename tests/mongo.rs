//! A server of MongoDB's protocol of one's own, on a free port of 127.0.0.1 and in a folder of its own: the program of
//! `tests/go/ferretdb`. The tests of the core have this file too.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

/// See the module. Dropping it kills the server and removes the folder. Its functions block.
pub struct Mongo {
    child: Option<(Child, ChildStdin)>,
    address: String,
    folder: PathBuf,
}

impl Mongo {
    /// An empty one.
    ///
    /// # Panics
    /// Without its program, which `tests/go/ferretdb/build.sh` builds.
    pub fn start() -> Mongo {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("ceiba-mongo-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let mut mongo = Mongo { child: None, address: "127.0.0.1:0".into(), folder };
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
        let (told, tells) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            if BufReader::new(output).read_line(&mut line).is_ok() {
                let _ = told.send(line.trim().to_owned());
            }
        });
        self.address = tells.recv_timeout(Duration::from_secs(60)).expect("the MongoDB of the tests starts");
        assert!(!self.address.is_empty(), "the MongoDB of the tests ended");
    }

    /// Ends it by SIGKILL.
    pub fn kill(&mut self) {
        if let Some((mut child, _)) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn signal(&self, name: &str) {
        let pid = self.child.as_ref().expect("it was killed").0.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }

    /// It answers nobody from now on.
    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    /// It goes on.
    pub fn thaw(&self) {
        self.signal("-CONT");
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
