//! `ceiba config check`: everything that is wrong with a config, each with its path.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use ceiba_core::config::{self, ClientConfig, Role};
use ceiba_core::error::Error;
use ceiba_core::{calls, open};
use serde_json::{Value, json};

use crate::failure::{Exit, Failure};

/// No config is longer: a file that is one was named by mistake.
const LONGEST: u64 = 16 << 20;

pub(crate) fn check(file: &Path, as_json: bool) -> Result<Exit, Failure> {
    let text = read(file)?;
    let (clients, problems) = problems(&text);
    let mut stdout = io::stdout();
    let written = if as_json {
        let listed: Vec<_> =
            problems.iter().map(|problem| json!({"path": problem.path, "message": problem.text})).collect();
        let result = json!({"ok": problems.is_empty(), "clients": clients, "problems": listed});
        writeln!(stdout, "{result}")
    } else if problems.is_empty() {
        let noun = if clients == 1 { "client" } else { "clients" };
        writeln!(stdout, "{}: ok, {clients} {noun}", file.display())
    } else {
        for problem in &problems {
            let at = if problem.path.is_empty() { String::new() } else { format!("{}: ", problem.path) };
            let text = format!("{}: {at}{}", file.display(), problem.text);
            Failure::new(Exit::Usage, "invalid_config", text).print(false);
        }
        Ok(())
    };
    // A reader that is gone does not change what the config is.
    let _ = written.and_then(|()| stdout.flush());
    Ok(if problems.is_empty() { Exit::Done } else { Exit::Usage })
}

fn read(file: &Path) -> Result<String, Failure> {
    let wrong = |why: String| Failure::usage(format!("{} cannot be read: {why}", file.display()));
    let mut text = String::new();
    let input: Box<dyn Read> = if file == Path::new("-") {
        Box::new(io::stdin())
    } else {
        Box::new(File::open(file).map_err(|error| wrong(error.to_string()))?)
    };
    input.take(LONGEST + 1).read_to_string(&mut text).map_err(|error| wrong(error.to_string()))?;
    if text.len() as u64 > LONGEST {
        return Err(wrong(format!("it is longer than {LONGEST} bytes")));
    }
    Ok(text)
}

#[derive(Debug, PartialEq, Eq)]
struct Problem {
    path: String,
    text: String,
}

/// How many clients a config has, and what is wrong with them.
fn problems(text: &str) -> (usize, Vec<Problem>) {
    let mut problems = Vec::new();
    let value = serde_json::from_str::<Value>(text).ok();
    let clients = value.as_ref().and_then(|value| value.get("clients")).and_then(Value::as_array);
    let Some(clients) = clients else {
        let is_file = value.as_ref().is_some_and(|value| value.get("clients").is_some());
        if is_file {
            // `clients` is no list: the core says so.
            match config::parse_file(text) {
                Ok(clients) => return (clients.len(), problems),
                Err(error) => {
                    problems.push(Problem { path: String::new(), text: error.message().to_owned() })
                }
            }
        } else {
            match ClientConfig::parse(text) {
                Ok(client) => client_problems("", &client, &mut problems),
                Err(error) => problems.push(located("", &error)),
            }
            as_opened(text, &mut problems);
        }
        return (1, problems);
    };
    let mut ids = HashSet::new();
    for (index, value) in clients.iter().enumerate() {
        let path = format!("clients[{index}]");
        let client = match ClientConfig::from_json(value.clone()) {
            Ok(client) => client,
            Err(error) => {
                problems.push(located(&path, &error));
                continue;
            }
        };
        let id = client.id.clone().unwrap_or_default();
        if id.is_empty() {
            problems.push(Problem {
                path: format!("{path}.id"),
                text: "the key `id` is missing or empty: a client of a file is opened under it".to_owned(),
            });
        } else if !ids.insert((client.role.unwrap_or_default() == Role::Producer, id.clone())) {
            let text = format!("`{id}` names a client of the same role above: each needs its own id");
            problems.push(Problem { path: format!("{path}.id"), text });
        }
        client_problems(&path, &client, &mut problems);
    }
    as_opened(text, &mut problems);
    (clients.len(), problems)
}

/// What nothing above found and opening the file would: what is said to be right is what opens.
fn as_opened(text: &str, problems: &mut Vec<Problem>) {
    if problems.is_empty()
        && let Err(error) = calls::read_file(text)
    {
        problems.push(located("", &error));
    }
}

/// What the sections say, each under its own path.
fn client_problems(path: &str, client: &ClientConfig, problems: &mut Vec<Problem>) {
    // Members may stand in for a provider.
    let layered = !client.strategies.is_empty();
    if !(layered && client.provider.is_empty()) {
        let bare = ClientConfig { strategies: Vec::new(), ..client.clone() };
        if let Err(error) = open::check(&bare) {
            problems.push(located(&joined(path, "provider"), &error));
            return;
        }
    }
    if layered && let Err(error) = open::check(client) {
        problems.push(located(&joined(path, "strategies"), &error));
    }
}

/// Joins the path of an error's own text to the one in front of it; an unknown key is part of its path.
fn located(path: &str, error: &Error) -> Problem {
    let (mut path, mut text) = (path.to_owned(), error.message());
    if let Some(rest) = text.strip_prefix("at `")
        && let Some((inner, rest)) = rest.split_once("`: ")
    {
        path = joined(&path, inner);
        text = rest;
    }
    if let Some(rest) = text.strip_prefix("unknown key `")
        && let Some((key, _)) = rest.split_once('`')
        && path.rsplit('.').next() != Some(key)
    {
        path = joined(&path, key);
    }
    Problem { path, text: text.to_owned() }
}

fn joined(path: &str, inner: &str) -> String {
    match (path.is_empty(), inner.starts_with('[')) {
        (true, _) => inner.to_owned(),
        (false, true) => format!("{path}{inner}"),
        (false, false) => format!("{path}.{inner}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<(String, String)> {
        problems(text).1.into_iter().map(|problem| (problem.path, problem.text)).collect()
    }

    #[test]
    fn a_good_config_has_no_problems() {
        for one in [r#"{"id": "a", "provider": {"type": "memory", "topic": "t"}}"#, "memory://t?id=a"] {
            assert_eq!(problems(one), (1, vec![]));
        }
        let file = r#"{"clients": [{"id": "a", "provider": {"type": "memory", "topic": "t"}},
                                   {"id": "a", "role": "consumer", "provider": {"type": "memory", "topic": "t"}}]}"#;
        assert_eq!(problems(file), (2, vec![]));
        let by_members = r#"{"id": "a", "strategies": [
            {"type": "failover", "members": [{"provider": {"type": "memory", "topic": "t"}}]}]}"#;
        assert_eq!(problems(by_members), (1, vec![]));
        let neither = found(r#"{"id": "a", "strategies": [{"type": "retry", "max_attempts": 2}]}"#);
        assert!(neither[0].1.contains("`provider.type` is missing"), "{neither:?}");
    }

    #[test]
    fn each_problem_has_its_path() {
        let file = r#"{"clients": [
            {"id": "a", "provider": {"type": "memory", "topc": "t"}},
            {"id": "b", "provider": {"type": "memory", "topic": "t"}, "deadline": 3},
            {"provider": {"type": "memory", "topic": "t"}},
            {"id": "d", "provider": {"type": "memory", "topic": "t"}},
            {"id": "d", "provider": {"type": "memry", "topic": "t"}}]}"#;
        let found = found(file);
        let paths: Vec<_> = found.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "clients[0].provider.topc",
                "clients[1].deadline",
                "clients[2].id",
                "clients[4].id",
                "clients[4].provider"
            ],
            "{found:?}"
        );
        assert!(found[0].1.contains("`topic`"), "{found:?}");
        assert!(found[4].1.contains("did you mean `memory`"), "{found:?}");
    }

    #[test]
    fn what_is_right_is_what_opens() {
        let long = "i".repeat(300);
        for wrong in [
            r#"{"provider": {"type": "memory", "topic": "t"}}"#,
            "memory://t",
            &format!("memory://t?id={long}"),
            r#"{"id": "a\u0007", "provider": {"type": "memory", "topic": "t"}}"#,
            &format!(
                r#"{{"clients": [{{"id": "{long}", "provider": {{"type": "memory", "topic": "t"}}}}]}}"#
            ),
        ] {
            let found = found(wrong);
            let error = calls::read_file(wrong).unwrap_err();
            assert!(found.len() == 1 && error.message().contains(&found[0].1), "{found:?}: {error}");
        }
    }

    #[test]
    fn what_is_no_config_is_said_so() {
        for wrong in ["", "[]", "{", "null", "{\"clients\": 3}", "{\"clients\": [], \"x\": 1}", "kapokmq://"]
        {
            assert_eq!(found(wrong).len(), 1, "{wrong}");
        }
    }
}
