//! `ceiba completion`: the script of a shell.

use std::io::{self, ErrorKind, Write};

use clap::CommandFactory;
use clap_complete::Shell;

use crate::arguments::Cli;
use crate::failure::{Exit, Failure};

pub(crate) fn write(shell: Shell) -> Result<Exit, Failure> {
    // Into memory first: the generator panics when its output goes away.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "ceiba", &mut script);
    let mut stdout = io::stdout();
    match stdout.write_all(&script).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(Exit::Done),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(Exit::Done),
        Err(error) => Err(Failure::new(Exit::Failed, "output", format!("stdout: {error}"))),
    }
}
