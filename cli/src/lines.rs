//! Reads lines on a thread of its own, so that a slow input holds up neither completions nor signals.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use tokio::sync::mpsc;

use crate::failure::{Exit, Failure};

/// The longest line that is read; no broker takes a longer message.
pub(crate) const LONGEST: usize = 64 << 20;

const BATCH_LINES: usize = 1024;
const BATCH_BYTES: usize = 1 << 20;
const BATCHES_AHEAD: usize = 4;

/// A line without its end.
#[derive(Debug)]
pub(crate) struct Line {
    /// Counted from 1.
    pub(crate) number: u64,
    /// `None`: it is too long and was skipped.
    pub(crate) body: Option<Vec<u8>>,
}

/// What the thread hands over.
#[derive(Debug)]
pub(crate) enum Batch {
    /// Lines, and how many bytes of input they took.
    Lines(Vec<Line>, u64),
    /// The input broke off.
    Broken(io::Error),
}

/// An input that is being read.
#[derive(Debug)]
pub(crate) struct Lines {
    /// Batches until the end of the input.
    pub(crate) batches: mpsc::Receiver<Batch>,
    /// Bytes of the whole input, where that is known.
    pub(crate) size: Option<u64>,
}

/// Starts to read a file, or stdin for `-`, with lines up to this long.
pub(crate) fn read(path: &Path, longest: usize) -> Result<Lines, Failure> {
    let (input, size): (Box<dyn Read + Send>, _) = if path == Path::new("-") {
        (Box::new(io::stdin()), None)
    } else {
        let unreadable =
            |why: String| Failure::usage(format!("--file {} cannot be read: {why}", path.display()));
        let file = File::open(path).map_err(|error| unreadable(error.to_string()))?;
        let about = file.metadata().map_err(|error| unreadable(error.to_string()))?;
        if about.is_dir() {
            return Err(unreadable("it is a folder".to_owned()));
        }
        (Box::new(file), about.is_file().then_some(about.len()))
    };
    let (sender, batches) = mpsc::channel(BATCHES_AHEAD);
    // Ends with the process when it is blocked in a read.
    std::thread::Builder::new()
        .name("ceiba-lines".into())
        .spawn(move || run(BufReader::with_capacity(256 * 1024, input), longest, &sender))
        .map_err(|error| {
            Failure::new(Exit::Failed, "internal", format!("no thread could be started: {error}"))
        })?;
    Ok(Lines { batches, size })
}

fn run(mut input: BufReader<impl Read>, longest: usize, sender: &mpsc::Sender<Batch>) {
    let mut number = 0;
    loop {
        let mut lines = Vec::new();
        let mut bytes = 0;
        // What is there goes out at once: nobody who types waits for a batch to fill.
        while lines.is_empty() || (lines.len() < BATCH_LINES && bytes < BATCH_BYTES && holds_line(&input)) {
            match next(&mut input, longest) {
                Ok(Some((body, taken))) => {
                    number += 1;
                    bytes += taken;
                    lines.push(Line { number, body });
                }
                Ok(None) => {
                    if !lines.is_empty() {
                        let _ = sender.blocking_send(Batch::Lines(lines, bytes as u64));
                    }
                    return;
                }
                Err(error) => {
                    if !lines.is_empty() {
                        let _ = sender.blocking_send(Batch::Lines(lines, bytes as u64));
                    }
                    let _ = sender.blocking_send(Batch::Broken(error));
                    return;
                }
            }
        }
        if sender.blocking_send(Batch::Lines(lines, bytes as u64)).is_err() {
            return;
        }
    }
}

fn holds_line(input: &BufReader<impl Read>) -> bool {
    input.buffer().contains(&b'\n')
}

type Taken = (Option<Vec<u8>>, usize);

fn next(input: &mut BufReader<impl Read>, longest: usize) -> io::Result<Option<Taken>> {
    let mut body = Vec::new();
    let mut taken = input.by_ref().take(longest as u64 + 1).read_until(b'\n', &mut body)?;
    if taken == 0 {
        return Ok(None);
    }
    if body.last() == Some(&b'\n') {
        body.pop();
    } else if body.len() > longest {
        taken += input.skip_until(b'\n')?;
        return Ok(Some((None, taken)));
    }
    Ok(Some((Some(body), taken)))
}

/// Lines of any bytes, read through a small buffer: each comes out whole, or is skipped whole.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzzing(input: &[u8]) {
    const SHORT: usize = 16;
    let (buffer, rest) =
        input.split_first().map_or((1, input), |(first, rest)| (usize::from(*first) + 1, rest));
    let mut reader = BufReader::with_capacity(buffer, rest);
    let mut expected = rest.split_inclusive(|&byte| byte == b'\n');
    while let Ok(Some((body, taken))) = next(&mut reader, SHORT) {
        let line = expected.next().unwrap_or_default();
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        assert_eq!(taken, line.len());
        assert_eq!(body.as_deref(), Some(text).filter(|text| text.len() <= SHORT));
    }
    assert_eq!(expected.next(), None);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(input: &[u8], longest: usize) -> (Vec<Option<Vec<u8>>>, u64) {
        let (sender, mut batches) = mpsc::channel(4096);
        run(BufReader::with_capacity(7, input), longest, &sender);
        drop(sender);
        let (mut bodies, mut total) = (Vec::new(), 0);
        while let Some(Batch::Lines(lines, bytes)) = batches.blocking_recv() {
            for line in lines {
                assert_eq!(line.number, bodies.len() as u64 + 1);
                bodies.push(line.body);
            }
            total += bytes;
        }
        (bodies, total)
    }

    #[test]
    fn lines_keep_every_byte_but_their_end() {
        let (bodies, total) = all(b"a\n\nlonger than a buffer\r\n\xff\nlast", 100);
        let expected: [&[u8]; 5] = [b"a", b"", b"longer than a buffer\r", b"\xff", b"last"];
        assert_eq!(bodies, expected.map(|body| Some(body.to_vec())));
        assert_eq!(total, 31);
        assert_eq!(all(b"", 100), (vec![], 0));
        assert_eq!(all(b"\n", 100), (vec![Some(vec![])], 1));
    }

    #[test]
    fn a_line_over_the_limit_is_skipped_whole() {
        let (bodies, total) = all(b"1234\n12345\n123456\nx", 4);
        assert_eq!(bodies, [Some(b"1234".to_vec()), None, None, Some(b"x".to_vec())]);
        assert_eq!(total, 19);
    }
}
