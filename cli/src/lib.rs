//! The program `ceiba`: the broker, and sending, receiving and checking configs from a shell. A library, so that
//! the fuzz targets reach what it reads; nothing in it is an API.

mod application;
mod arguments;
mod broker;
mod completion;
mod config;
mod failure;
mod folder;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod lines;
mod log;
mod notify;
mod receive;
mod secret;
mod send;
mod stop;

use std::process::ExitCode;

use ceiba_core::runtime;
use clap::Parser;
use clap::error::ErrorKind;

use arguments::{Cli, Command, ConfigCommand};
use failure::{Exit, Failure};
use stop::Stop;

/// Runs the program with the arguments of this process.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            // Help that nobody reads is no failure.
            let _ = error.print();
            return Exit::Done.into();
        }
        Err(error) => {
            let as_json = std::env::args_os().any(|argument| argument == "--json");
            let failure = failure::of_clap(&error);
            failure.print(as_json);
            return failure.exit.into();
        }
    };
    log::start();
    let exit = run(&cli).unwrap_or_else(|failure| {
        failure.print(cli.json);
        failure.exit
    });
    exit.into()
}

fn run(cli: &Cli) -> Result<Exit, Failure> {
    let on_runtime = || runtime::handle().map_err(Failure::of);
    match &cli.command {
        Command::Config(args) => match &args.command {
            ConfigCommand::Check { file } => config::check(file, cli.json),
        },
        Command::Completion { shell } => completion::write(*shell),
        Command::Broker(args) if args.command.is_some() => folder::run(args.command.as_ref(), cli.json),
        Command::Broker(args) => {
            on_runtime()?.block_on(async { broker::run(args, &Stop::listen()?, cli.json).await })
        }
        Command::Send(args) if args.notice.given() => {
            on_runtime()?.block_on(async { notify::run(args, &Stop::listen()?, cli.json).await })
        }
        Command::Send(args) => {
            on_runtime()?.block_on(async { send::run(args, &Stop::listen()?, cli.json).await })
        }
        Command::Receive(args) => {
            on_runtime()?.block_on(async { receive::run(args, &Stop::listen()?, cli.json).await })
        }
    }
}
