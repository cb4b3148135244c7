//! The program `ceiba` as a child process.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc;
use std::time::Duration;

/// The program: what `CEIBA_PROGRAM` names, or else built now.
pub fn ceiba() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        if let Some(path) = std::env::var_os("CEIBA_PROGRAM") {
            return PathBuf::from(path);
        }
        let mut cargo = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()));
        cargo.args(["build", "--quiet", "-p", "ceiba-cli"]).current_dir(env!("CARGO_MANIFEST_DIR"));
        // This test runs from <target>/debug/deps.
        let test = std::env::current_exe().unwrap();
        let debug = test.parent().unwrap().parent().unwrap().to_owned();
        cargo.arg("--target-dir").arg(debug.parent().unwrap());
        assert!(cargo.status().unwrap().success(), "the program could not be built");
        debug.join("ceiba")
    })
}

/// A broker in a process of its own. Dropping it kills it.
pub struct BrokerProcess {
    child: Child,
    address: SocketAddr,
    // What it says after its address.
    told: mpsc::Receiver<String>,
}

impl BrokerProcess {
    /// Starts one and waits until it tells its address. Blocks.
    pub fn start(listen: &str, secret: &str) -> BrokerProcess {
        let mut command = Command::new(ceiba());
        command.args(["broker", "--listen", listen]).env("CEIBA_SECRET", secret);
        BrokerProcess::launch(&mut command).unwrap()
    }

    /// Runs the command of a broker and waits until it tells its address. Blocks.
    ///
    /// # Errors
    /// What it said instead of an address.
    pub fn launch(command: &mut Command) -> Result<BrokerProcess, String> {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        let (tell, told) = mpsc::channel();
        // Reads on after the first line: a full pipe would stop the broker.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines() {
                let Ok(line) = line else { return };
                let _ = tell.send(line);
            }
        });
        let line = told.recv_timeout(Duration::from_secs(20));
        let address = line.as_ref().ok().and_then(|line| address_in(line));
        let Some(address) = address else {
            let _ = child.kill();
            let _ = child.wait();
            return Err(format!("the first line of the broker names no address: {line:?}"));
        };
        Ok(BrokerProcess { child, address, told })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it speaks MNS, which its second line names. Blocks until it does.
    pub fn mns_address(&self) -> SocketAddr {
        let line = self.told.recv_timeout(Duration::from_secs(20)).unwrap();
        address_in(&line).unwrap_or_else(|| panic!("the second line names no address: {line}"))
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it by SIGKILL. Blocks until it is gone.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Ends it by SIGTERM. Blocks until it is gone.
    pub fn stop(mut self) {
        let asked = Command::new("kill").args(["-TERM", &self.pid().to_string()]).status().unwrap();
        assert!(asked.success());
        let ended = self.child.wait().unwrap();
        assert!(ended.success(), "the broker ended with {ended}");
    }
}

impl Drop for BrokerProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn address_in(line: &str) -> Option<SocketAddr> {
    line.split(|sign: char| !(sign.is_ascii_digit() || ".:[]".contains(sign)))
        .find_map(|part| part.trim_matches(|sign| sign == ':' || sign == '.').parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_found_in_a_line() {
        for line in ["127.0.0.1:81", "listening on ws://127.0.0.1:81/", "broker: 127.0.0.1:81."] {
            assert_eq!(address_in(line), Some("127.0.0.1:81".parse().unwrap()), "{line}");
        }
        assert_eq!(address_in("started"), None);
    }
}
