//! Where a secret comes from: a file, the environment, an argument.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use ceiba_core::config::ClientConfig;
use ceiba_core::secret::Secret;
use serde_json::Value;

use crate::application::Application;
use crate::arguments::ClientArgs;
use crate::failure::Failure;

const VARIABLE: &str = "CEIBA_SECRET";

/// No secret is longer: a file that is one was named by mistake.
const LONGEST: u64 = 64 * 1024;

/// The broker's secret: the argument or the file before the environment, and what an application.yaml says before
/// that, because it names the one that its clients have; none is a usage error.
pub(crate) fn of_broker(
    file: Option<&Path>,
    given: Option<&str>,
    application: Option<&Application>,
) -> Result<Secret, Failure> {
    if let Some(text) = given {
        return checked("--secret", text);
    }
    if let (None, Some(secret)) = (file, application.and_then(|application| application.secret.as_ref())) {
        return Ok(secret.clone());
    }
    match outside(file)? {
        Some(secret) => Ok(secret),
        // That server has none, and its clients none to give: one that nobody knows.
        None if application.is_some_and(|application| application.dpmq) => unknown(),
        None if application.is_some_and(|application| application.empty_secret) => {
            Err(Failure::usage(format!(
                "no secret: `mq.secretKey` of the file is empty, and with an empty one everybody gets in: write one \
             there, give --secret-file FILE or set {VARIABLE}"
            )))
        }
        None => Err(Failure::usage(format!("no secret: give --secret-file FILE or set {VARIABLE}"))),
    }
}

/// The config of `send` and `receive`, with the secret from outside where the config names none.
pub(crate) fn client_config(args: &ClientArgs) -> Result<ClientConfig, Failure> {
    let mut config = ClientConfig::parse(&args.config).map_err(Failure::at_open)?;
    let file = args.secret_file.as_deref();
    if let Some(missing) = Robot::of(&config.provider) {
        return robot(config, missing, file);
    }
    let wanted = wanted(&config.provider).filter(|(key, _)| !config.provider.contains_key(*key));
    match wanted {
        Some((key, example)) => match outside(file)? {
            Some(secret) => {
                config.provider.insert(key.into(), Value::String(secret.expose().to_owned()));
            }
            None => {
                return Err(Failure::usage(format!(
                    "no secret: give --secret-file FILE, set {VARIABLE}, or name `{key}` in the config{example}"
                )));
            }
        },
        None if file.is_some() => {
            return Err(Failure::usage(
                "two secrets: --secret-file is for a config that needs a secret and names none",
            ));
        }
        None => {}
    }
    Ok(config)
}

/// What the config of a DingTalk robot leaves out.
enum Robot {
    /// Token and secret.
    Both,
    /// The secret, which not every robot has.
    Secret,
}

impl Robot {
    fn of(provider: &serde_json::Map<String, Value>) -> Option<Robot> {
        let text = |key: &str| provider.get(key).and_then(Value::as_str);
        if text("type") != Some("dingtalk") || text("via").is_some_and(|via| via != "robot") {
            return None;
        }
        // An address that is named elsewhere may hold the token.
        let in_address = match provider.get("url") {
            Some(Value::String(address)) => address.contains("access_token="),
            Some(_) => true,
            None => false,
        };
        match (provider.contains_key("access_token") || in_address, provider.contains_key("secret")) {
            (false, false) => Some(Robot::Both),
            (true, false) => Some(Robot::Secret),
            _ => None,
        }
    }
}

/// A robot's token and secret are written `TOKEN:SECRET`, or `TOKEN` for one without a secret; where the config names the
/// token the secret alone is.
fn robot(mut config: ClientConfig, missing: Robot, file: Option<&Path>) -> Result<ClientConfig, Failure> {
    let given = outside(file)?;
    let given = given.as_ref().map(Secret::expose);
    let (token, secret) = match (missing, given) {
        (Robot::Both, Some(text)) => match text.split_once(':') {
            Some((token, secret)) => (Some(token), Some(secret)),
            None => (Some(text), None),
        },
        (Robot::Secret, given) => (None, given),
        (Robot::Both, None) => {
            return Err(Failure::usage(format!(
                "no secret: give --secret-file FILE, set {VARIABLE} (TOKEN:SECRET, or TOKEN for a robot without a \
                 secret), or name `access_token` in the config"
            )));
        }
    };
    for (key, text) in [("access_token", token), ("secret", secret)] {
        if let Some(text) = text {
            config.provider.insert(key.into(), Value::String(text.to_owned()));
        }
    }
    Ok(config)
}

/// The key of the secret that a provider cannot do without, and how it is written elsewhere.
fn wanted(provider: &serde_json::Map<String, Value>) -> Option<(&'static str, &'static str)> {
    let text = |key: &str| provider.get(key).and_then(Value::as_str);
    match (text("type")?, text("service")) {
        ("kapokmq", _) => Some(("secret_key", " (kapokmq://:SECRET@HOST:PORT/TOPIC)")),
        ("smtp", _) if provider.contains_key("user") => Some(("password", "")),
        ("sms", Some("aliyun")) => Some(("access_key_secret", "")),
        ("sms", Some("tencent")) => Some(("secret_key", "")),
        _ => None,
    }
}

/// A secret that nobody knows.
fn unknown() -> Result<Secret, Failure> {
    let mut bytes = [0; 32];
    File::open("/dev/urandom").and_then(|mut source| source.read_exact(&mut bytes)).map_err(|error| {
        Failure::usage(format!(
            "no secret: give --secret-file FILE or set {VARIABLE} (none could be made: {error})"
        ))
    })?;
    Ok(Secret::new(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()))
}

fn outside(file: Option<&Path>) -> Result<Option<Secret>, Failure> {
    if let Some(path) = file {
        let name = format!("--secret-file {}", path.display());
        let mut text = String::new();
        File::open(path)
            .and_then(|file| file.take(LONGEST + 1).read_to_string(&mut text))
            .map_err(|error| Failure::usage(format!("{name} cannot be read as text: {error}")))?;
        if text.len() as u64 > LONGEST {
            return Err(Failure::usage(format!("{name} is longer than {LONGEST} bytes: it holds no secret")));
        }
        return checked(&name, text.trim_end_matches(['\r', '\n'])).map(Some);
    }
    match std::env::var(VARIABLE) {
        Ok(text) => checked(&format!("the environment variable {VARIABLE}"), &text).map(Some),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => {
            Err(Failure::usage(format!("the environment variable {VARIABLE} is not UTF-8")))
        }
    }
}

fn checked(place: &str, text: &str) -> Result<Secret, Failure> {
    if text.is_empty() {
        return Err(Failure::usage(format!("{place} holds an empty secret: give at least one character")));
    }
    Ok(Secret::new(text))
}
