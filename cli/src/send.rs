//! `ceiba send`: a message per line, many on their way at once.

use std::collections::VecDeque;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ceiba_core::calls;
use ceiba_core::completion::CompletionQueue;
use ceiba_core::error::{Error, Kind, Outcome};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use tokio::sync::Notify;

use crate::arguments::SendArgs;
use crate::failure::{Exit, Failure};
use crate::lines::{self, Batch, Line};
use crate::log;
use crate::secret;
use crate::stop::Stop;

/// Errors of lines that are shown; the rest is counted.
const SHOWN: u64 = 10;

pub(crate) async fn run(args: &SendArgs, stop: &Stop, as_json: bool) -> Result<Exit, Failure> {
    let config = secret::client_config(&args.client)?;
    let file = args.file.as_deref().unwrap_or(Path::new("-"));
    let mut input = lines::read(file)?;
    let bar = bar(input.size, as_json);
    let mut work = Work::new(args, bar, as_json)?;
    let given = config.id.is_none().then_some("send");
    let id = tokio::select! {
        opened = calls::producer_open(given, config, Some(work.queue.clone())) => opened.map_err(Failure::at_open)?,
        () = stop.asked() => return Ok(work.summary(true)),
    };
    log::opened();
    let started = Instant::now();
    let (mut ended, mut interrupted, mut broken) = (false, false, None);
    loop {
        // In this order: lines then wait only while others are under way, and some branch below is open.
        work.take_completions();
        work.submit(&id);
        if work.waiting.is_empty() && ended && work.under_way == 0 {
            break;
        }
        tokio::select! {
            () = work.ready.notified(), if work.under_way > 0 => {}
            batch = input.batches.recv(), if !ended && work.waiting.is_empty() => match batch {
                Some(Batch::Lines(lines, bytes)) => work.take_lines(lines, bytes),
                Some(Batch::Broken(error)) => {
                    broken = Some(error);
                    ended = true;
                }
                None => ended = true,
            },
            () = stop.asked(), if !interrupted => {
                // Lines not yet submitted stay unsent, and the summary tells the last one that was.
                interrupted = true;
                ended = true;
                work.waiting.clear();
            }
        }
    }
    work.took = started.elapsed();
    let closed = calls::producer_close(&id, None).await;
    let mut exit = work.summary(interrupted);
    if let Some(error) = broken {
        let place = file.display();
        let text = format!("{place} broke off after line {}: {error}", work.last_line);
        Failure::new(Exit::Failed, "input", text).print(as_json);
        exit = Exit::Failed;
    }
    if let Err(error) = closed {
        Failure::of(error).at("closing").print(as_json);
        exit = Exit::Failed;
    }
    Ok(exit)
}

struct Work {
    queue: Arc<CompletionQueue>,
    ready: Arc<Notify>,
    delay: Duration,
    waiting: VecDeque<Line>,
    under_way: u64,
    last_line: u64,
    sent: u64,
    failed: u64,
    unknown: u64,
    warned: u64,
    took: Duration,
    bar: ProgressBar,
    as_json: bool,
}

impl Work {
    fn new(args: &SendArgs, bar: ProgressBar, as_json: bool) -> Result<Work, Failure> {
        let queue = Arc::new(CompletionQueue::new(args.window as usize).map_err(Failure::at_open)?);
        let ready = Arc::new(Notify::new());
        let wake = ready.clone();
        queue.on_ready(Box::new(move || wake.notify_one()));
        Ok(Work {
            queue,
            ready,
            delay: args.delay,
            waiting: VecDeque::new(),
            under_way: 0,
            last_line: 0,
            sent: 0,
            failed: 0,
            unknown: 0,
            warned: 0,
            took: Duration::ZERO,
            bar,
            as_json,
        })
    }

    fn take_lines(&mut self, lines: Vec<Line>, bytes: u64) {
        self.waiting.extend(lines);
        self.bar.inc(bytes);
    }

    /// Submits lines until the window is full.
    fn submit(&mut self, id: &str) {
        while let Some(line) = self.waiting.front() {
            let number = line.number;
            let result = match &line.body {
                Some(body) => calls::producer_submit(id, number, body, self.delay),
                None => Err(Error::new(
                    Kind::TooLarge,
                    format!("the line is longer than {} bytes, which no message may be", lines::LONGEST),
                )),
            };
            match result {
                Ok(()) => self.under_way += 1,
                Err(error) if error.kind() == Kind::QueueFull && self.under_way > 0 => return,
                Err(error) => self.fail(number, error),
            }
            self.last_line = number;
            self.waiting.pop_front();
        }
    }

    fn take_completions(&mut self) {
        let mut taken = Vec::new();
        while self.queue.poll(usize::MAX, &mut taken) > 0 {
            for completion in taken.drain(..) {
                self.under_way = self.under_way.saturating_sub(1);
                match completion.result {
                    Ok(receipt) => {
                        self.sent += 1;
                        if let Some(warning) = receipt.warning {
                            self.warn(completion.token, &warning);
                        }
                    }
                    Err(error) => self.fail(completion.token, error),
                }
            }
        }
        self.bar.set_message(format!("{} sent, {} failed", self.sent, self.failed + self.unknown));
    }

    fn fail(&mut self, number: u64, error: Error) {
        let outcome = error.outcome();
        let shown = self.failed + self.unknown < SHOWN;
        match outcome {
            Outcome::NotSent => self.failed += 1,
            Outcome::Unknown => self.unknown += 1,
        }
        if shown {
            let mut place = format!("line {number}");
            if outcome == Outcome::Unknown {
                place.push_str(", which may have been sent");
            }
            let line = Failure::of(error).at(&place).line(self.as_json);
            self.say(&line);
        }
    }

    fn warn(&mut self, number: u64, warning: &str) {
        self.warned += 1;
        if self.warned <= SHOWN {
            let line = format!("warning: line {number}: {}", warning.replace(['\r', '\n'], " "));
            self.say(&line);
        }
    }

    fn say(&self, line: &str) {
        self.bar.suspend(|| {
            let _ = writeln!(std::io::stderr(), "{line}");
        });
    }

    fn summary(&self, interrupted: bool) -> Exit {
        self.bar.finish_and_clear();
        let unshown = (self.failed + self.unknown).saturating_sub(SHOWN);
        if unshown > 0 {
            self.say(&format!("{unshown} more lines failed"));
        }
        let seconds = self.took.as_secs_f64();
        let rate = if seconds > 0.0 { (self.sent as f64 / seconds).round() } else { 0.0 };
        if self.as_json {
            let summary = json!({
                "sent": self.sent, "failed": self.failed, "unknown": self.unknown, "last_line": self.last_line,
                "interrupted": interrupted, "seconds": seconds, "messages_per_second": rate,
            });
            let mut stdout = std::io::stdout();
            // A reader that is gone does not change how the sends ended.
            let _ = writeln!(stdout, "{summary}").and_then(|()| stdout.flush());
        } else {
            let mut line = format!(
                "sent {}, failed {}, unknown {} in {seconds:.2} s ({rate:.0} messages per second)",
                self.sent, self.failed, self.unknown
            );
            if interrupted {
                line.push_str(&format!("; stopped after line {}, later lines were not sent", self.last_line));
            }
            self.say(&line);
        }
        if self.failed + self.unknown > 0 { Exit::Failed } else { Exit::Done }
    }
}

/// A bar over the bytes of the file, or a counter where the size is unknown; hidden unless stderr is a
/// terminal and nobody types the lines.
fn bar(size: Option<u64>, as_json: bool) -> ProgressBar {
    let (bar, template) = match size {
        Some(size) => (
            ProgressBar::new(size),
            "{bar:30} {percent:>3} % {bytes} of {total_bytes} {binary_bytes_per_sec} {eta} left · {msg}",
        ),
        None => (ProgressBar::new_spinner(), "{spinner} {bytes} · {msg}"),
    };
    if as_json || !std::io::stderr().is_terminal() || (size.is_none() && std::io::stdin().is_terminal()) {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}
