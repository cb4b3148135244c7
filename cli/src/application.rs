//! The `application.yaml` of a KapokMQ or a DPMQ server, understood so that this broker can run in its place.
//!
//! Those servers pass over what they do not know; here an unknown key is an error, because what it was meant to
//! say would be missing. What this broker does differently is said in warnings, and nothing that the file asks
//! for deletes a message.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ceiba_core::broker::{DeliveryMode, TopicConfig};
use ceiba_core::config::nearest;
use ceiba_core::secret::Secret;
use serde_norway::Value;

use crate::failure::Failure;

/// No such file is longer.
const LONGEST: u64 = 1 << 20;

/// The keys of both servers, of KapokMQ alone, and of DPMQ alone.
const BOTH: [&str; 3] = ["server.port", "mq.messageChanBuffer", "mq.pushMessagesSpeed"];
const KAPOKMQ: [&str; 23] = [
    "server.addr",
    "mq.secretKey",
    "mq.pushType",
    "mq.pushCount",
    "mq.pushRetryTime",
    "mq.persistentFile",
    "mq.isPersistent",
    "mq.recoveryStrategy",
    "mq.persistentTime",
    "mq.isCleanConsumed",
    "mq.isRePush",
    "mq.isClean",
    "mq.checkSpeed",
    "mq.cleanTime",
    "cluster.isCluster",
    "cluster.gossipPort",
    "cluster.registryAddr",
    "cluster.registryGossipPort",
    "sync.isSync",
    "sync.isSlave",
    "sync.masterProtocol",
    "sync.masterAddr",
    "sync.masterPort",
];
const DPMQ: [&str; 1] = ["mq.sendRetryCount"];

/// Keys of older KapokMQ servers that have another name since.
const RENAMED: [(&str, &str); 5] = [
    ("server.ip", "server.addr"),
    ("mq.sendCount", "mq.pushCount"),
    ("mq.persistentPath", "mq.persistentFile"),
    ("cluster.nodePort", "cluster.gossipPort"),
    ("cluster.registryPort", "cluster.registryGossipPort"),
];
const NO_RETRIES: &str =
    "a write that fails ends its connection, and what was not acknowledged goes to the next one";
/// Keys of older KapokMQ servers that mean nothing here, and why.
const DROPPED: [(&str, &str); 7] = [
    ("mq.pushRetryCount", NO_RETRIES),
    ("mq.rePushSpeed", "what is not acknowledged comes again after its time (see --redeliver-after)"),
    ("mq.rePushCount", "what is not acknowledged comes again at its time, not in batches"),
    ("mq.checkCount", "what is due is done at its time, not in batches"),
    ("mq.consumeLogChanBuffer", "nothing is logged of consumed messages"),
    ("mq.unconsumeLogChanBuffer", "nothing is logged of waiting messages"),
    ("cluster.clusterName", "this broker joins no cluster"),
];
/// What `mq.cleanTime` was called, when there was no `mq.isClean` and it was always on.
const CLEAR_TIME: &str = "mq.clearTime";

/// What a file says, as this broker has it.
#[derive(Debug, Default)]
pub(crate) struct Application {
    pub(crate) listen: Option<String>,
    pub(crate) advertise: Option<String>,
    pub(crate) secret: Option<Secret>,
    /// It names a secret that is empty.
    pub(crate) empty_secret: bool,
    pub(crate) delivery: DeliveryMode,
    /// It is a DPMQ server's, which has no secret.
    pub(crate) dpmq: bool,
    pub(crate) data: Option<PathBuf>,
    pub(crate) topic: TopicConfig,
    pub(crate) redeliver_after: Option<Duration>,
    /// Acknowledged messages are not shown any more.
    pub(crate) forget_consumed: bool,
    /// What differs, for the operator.
    pub(crate) warnings: Vec<String>,
}

impl Application {
    /// Reads the file.
    pub(crate) fn read(path: &Path) -> Result<Application, Failure> {
        let name = format!("--config {}", path.display());
        let mut text = String::new();
        File::open(path)
            .and_then(|file| file.take(LONGEST + 1).read_to_string(&mut text))
            .map_err(|error| Failure::usage(format!("{name} cannot be read as text: {error}")))?;
        if text.len() as u64 > LONGEST {
            return Err(Failure::usage(format!("{name} is longer than {LONGEST} bytes: it is no such file")));
        }
        Application::parse(&text).map_err(|text| Failure::usage(format!("{name}: {text}")))
    }

    /// Reads the text of one.
    pub(crate) fn parse(text: &str) -> Result<Application, String> {
        let keys = Keys::read(text)?;
        if keys.is_dpmq() { keys.dpmq() } else { keys.kapokmq() }
    }
}

/// The keys of a file, each with the name that this program knows it by.
struct Keys(Vec<(&'static str, Value)>);

impl Keys {
    fn read(text: &str) -> Result<Keys, String> {
        // The parser's own text can quote the file, which holds a secret: only the place is told.
        let value: Value = serde_norway::from_str(text).map_err(|error| match error.location() {
            Some(at) => format!("it is not valid YAML at line {}, column {}", at.line(), at.column()),
            None => "it is not valid YAML".to_owned(),
        })?;
        let Value::Mapping(sections) = value else {
            return Err("it is no application.yaml: it has no sections such as `server` and `mq`".to_owned());
        };
        let mut keys = Vec::new();
        for (section, values) in sections {
            let section = name_of(&section)?;
            if section == "registry" {
                return Err(SERENA.to_owned());
            }
            let values = match values {
                Value::Mapping(values) => values,
                Value::Null if KNOWN_SECTIONS.contains(&section.as_str()) => continue,
                _ => {
                    known(&section)?;
                    return Err(format!("`{section}` is no section with keys"));
                }
            };
            for (key, value) in values {
                let key = format!("{section}.{}", name_of(&key)?);
                let name = known(&key)?;
                if keys.iter().any(|(there, _)| *there == name) {
                    return Err(format!("`{name}` stands there twice"));
                }
                keys.push((name, value));
            }
        }
        // Where both names are there, the older one stays for the warning.
        for (old, new) in RENAMED {
            if !keys.iter().any(|(name, _)| *name == new)
                && let Some(key) = keys.iter_mut().find(|(name, _)| *name == old)
            {
                key.0 = new;
            }
        }
        if keys.is_empty() {
            return Err("it is no application.yaml: it has no keys of a KapokMQ or DPMQ server".to_owned());
        }
        Ok(Keys(keys))
    }

    /// A DPMQ server has a key that KapokMQ lacks, and no login: what both could have is not enough to open one
    /// to everybody.
    fn is_dpmq(&self) -> bool {
        let own = |name: &str| DPMQ.contains(&name) || BOTH.contains(&name);
        self.0.iter().any(|(name, _)| DPMQ.contains(name)) && self.0.iter().all(|(name, _)| own(name))
    }

    fn get(&self, name: &str) -> Option<&Value> {
        self.0
            .iter()
            .find(|(there, _)| *there == name)
            .map(|(_, value)| value)
            .filter(|value| !value.is_null())
    }

    fn number(&self, name: &str) -> Result<Option<u64>, String> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let number = match value {
            Value::String(text) => text.trim().parse().ok(),
            other => other.as_u64(),
        };
        number.map(Some).ok_or_else(|| format!("`{name}` must be a whole number, 0 or more"))
    }

    fn one_of(&self, name: &str, values: &[u64]) -> Result<Option<u64>, String> {
        let number = self.number(name)?;
        match number {
            Some(number) if !values.contains(&number) => {
                let values: Vec<String> = values.iter().map(u64::to_string).collect();
                Err(format!("`{name}` must be {}", values.join(" or ")))
            }
            number => Ok(number),
        }
    }

    fn text(&self, name: &str) -> Result<Option<String>, String> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(Value::Number(number)) => Ok(Some(number.to_string())),
            Some(_) => Err(format!("`{name}` must be a text")),
        }
    }

    /// The original servers listen on every address of the machine.
    fn listen(&self) -> Result<Option<String>, String> {
        match self.number("server.port")? {
            None => Ok(None),
            Some(port @ 0..=65535) => Ok(Some(format!("0.0.0.0:{port}"))),
            Some(_) => Err("`server.port` must be at most 65535".to_owned()),
        }
    }

    /// A topic's bound of messages. Past it producers wait, with both servers as here.
    fn bound(&self, topic: &mut TopicConfig) -> Result<(), String> {
        match self.number("mq.messageChanBuffer")? {
            None => {}
            Some(0) => return Err("`mq.messageChanBuffer` must be at least 1".to_owned()),
            Some(most) => topic.max_messages = Some(usize::try_from(most).unwrap_or(usize::MAX)),
        }
        Ok(())
    }

    fn dpmq(&self) -> Result<Application, String> {
        let mut application = Application {
            listen: self.listen()?,
            dpmq: true,
            delivery: DeliveryMode::PublishSubscribe,
            ..Application::default()
        };
        self.bound(&mut application.topic)?;
        if let Some(seconds @ 1..) = self.number("mq.pushMessagesSpeed")? {
            application.topic.push_batches(1, Duration::from_secs(seconds));
        }
        if self.number("mq.sendRetryCount")?.is_some() {
            application.warnings.push(
                "`mq.sendRetryCount` has no effect: a write that fails ends its connection, and what was not \
                 written goes to the next one"
                    .to_owned(),
            );
        }
        Ok(application)
    }

    fn kapokmq(&self) -> Result<Application, String> {
        let secret = self.text("mq.secretKey")?;
        let mut application = Application {
            listen: self.listen()?,
            advertise: self.text("server.addr")?.filter(|addr| !addr.is_empty()),
            empty_secret: secret.as_ref().is_some_and(String::is_empty),
            secret: secret.filter(|secret| !secret.is_empty()).map(Secret::new),
            warnings: self.earlier(),
            ..Application::default()
        };
        if self.one_of("mq.pushType", &[1, 2])? == Some(2) {
            application.delivery = DeliveryMode::PublishSubscribe;
            // As that server has it.
            application.topic.compat = true;
        }
        self.bound(&mut application.topic)?;
        self.pushes(&mut application)?;
        self.store(&mut application)?;
        self.ageing(&mut application)?;
        self.company(&mut application)?;
        Ok(application)
    }

    /// What is said of the keys of older servers.
    fn earlier(&self) -> Vec<String> {
        let has = |name: &str| self.0.iter().any(|(there, _)| *there == name);
        // An early KapokMQ server called it as DPMQ does.
        let dropped = DROPPED.iter().copied().chain(DPMQ.map(|name| (name, NO_RETRIES)));
        let dropped = dropped.filter(|(name, _)| has(name));
        let both = RENAMED.iter().filter(|(old, _)| has(old));
        dropped
            .map(|(name, why)| format!("`{name}` has no effect: {why}"))
            .chain(both.map(|(old, new)| format!("`{old}` has no effect: `{new}` stands there too")))
            .collect()
    }

    fn pushes(&self, application: &mut Application) -> Result<(), String> {
        let count = self.number("mq.pushCount")?;
        if count == Some(0) {
            return Err("`mq.pushCount` must be at least 1".to_owned());
        }
        if let Some(seconds @ 1..) = self.number("mq.pushMessagesSpeed")? {
            let count = u32::try_from(count.unwrap_or(1)).unwrap_or(u32::MAX);
            application.topic.push_batches(count, Duration::from_secs(seconds));
        }
        match self.number("mq.pushRetryTime")? {
            Some(0) => return Err("`mq.pushRetryTime` must be at least 1".to_owned()),
            seconds => application.redeliver_after = seconds.map(Duration::from_secs),
        }
        if self.one_of("mq.isRePush", &[0, 1])? == Some(0) {
            application.warnings.push(
                "`mq.isRePush: 0` has no effect: what is not acknowledged comes again (see --redeliver-after and \
                 --max-attempts)"
                    .to_owned(),
            );
        }
        // It is done at its time here, not at the next check.
        self.number("mq.checkSpeed").map(drop)
    }

    fn store(&self, application: &mut Application) -> Result<(), String> {
        let stored = self.one_of("mq.isPersistent", &[0, 1, 2])?.is_some_and(|way| way > 0);
        let folder = self.text("mq.persistentFile")?.filter(|folder| !folder.is_empty());
        self.number("mq.persistentTime")?;
        let empties = self.one_of("mq.recoveryStrategy", &[0, 1])? == Some(0);
        application.forget_consumed = self.one_of("mq.isCleanConsumed", &[0, 1])? == Some(1);
        if !stored {
            return Ok(());
        }
        let Some(folder) = folder else {
            return Err("`mq.isPersistent` needs `mq.persistentFile`, here the name of a folder".to_owned());
        };
        application.data = Some(folder.into());
        if empties {
            application.warnings.push(
                "`mq.recoveryStrategy: 0` would delete the stored messages at each start: they are kept (name \
                 another folder with --data to begin without them)"
                    .to_owned(),
            );
        }
        Ok(())
    }

    fn ageing(&self, application: &mut Application) -> Result<(), String> {
        let clean = self.one_of("mq.isClean", &[0, 1])? == Some(1);
        let age = self.number("mq.cleanTime")?;
        let cleared = self.number(CLEAR_TIME)?;
        let (keys, age) = match cleared {
            Some(cleared) => (format!("`{CLEAR_TIME}`"), Some(cleared)),
            None if clean => ("`mq.isClean` with `mq.cleanTime`".to_owned(), age),
            None => return Ok(()),
        };
        let (time, seconds) = match age {
            Some(age) => (format!("{age} s"), age.to_string()),
            None => ("its time".to_owned(), "S".to_owned()),
        };
        application.warnings.push(format!(
            "{keys} would delete messages after {time}, also those that wait: they are kept (--expire-after {seconds} \
             moves them to the dead letters at that age)"
        ));
        Ok(())
    }

    fn company(&self, application: &mut Application) -> Result<(), String> {
        for port in ["cluster.gossipPort", "cluster.registryGossipPort", "sync.masterPort"] {
            self.number(port)?;
        }
        if self.one_of("cluster.isCluster", &[0, 1])? == Some(1) {
            application.warnings.push(
                "`cluster.isCluster: 1` has no effect: this broker joins no registry; it answers POST \
                 /Registry/GetNodes itself, and names the other brokers that --node tells it"
                    .to_owned(),
            );
        }
        for key in ["sync.isSync", "sync.isSlave"] {
            if self.one_of(key, &[0, 1])? == Some(1) {
                application.warnings.push(format!(
                    "`{key}: 1` has no effect: this broker copies no messages to or from another; keep the folder \
                     of --data on storage that is safe by itself"
                ));
            }
        }
        Ok(())
    }
}

const SERENA: &str = "it is the file of a Serena registry, not of a broker: nothing has to be run in its place, because this broker \
     answers POST /Registry/GetNodes itself and names the other brokers that --node tells it";

const KNOWN_SECTIONS: [&str; 4] = ["server", "mq", "cluster", "sync"];

fn name_of(key: &Value) -> Result<String, String> {
    key.as_str().map(str::to_owned).ok_or_else(|| "a key in it is no text".to_owned())
}

/// The name that this program knows a key by.
fn known(key: &str) -> Result<&'static str, String> {
    let all: Vec<&'static str> = BOTH.into_iter().chain(KAPOKMQ).chain(DPMQ).collect();
    let earlier = RENAMED.iter().map(|(old, _)| *old).chain(DROPPED.iter().map(|(name, _)| *name));
    if let Some(name) = all.iter().copied().chain(earlier).chain([CLEAR_TIME]).find(|name| *name == key) {
        return Ok(name);
    }
    let key: String = key.chars().take(80).collect();
    Err(match nearest(&key, &all) {
        Some(near) => format!("unknown key `{key}`; did you mean `{near}`?"),
        None => format!("unknown key `{key}`; known sections are {}", KNOWN_SECTIONS.join(", ")),
    })
}

#[cfg(test)]
#[path = "application_tests.rs"]
mod tests;
