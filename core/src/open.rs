//! Config -> provider -> strategies: the one place that sees both.

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::client::{BoxFuture, Consumer, Producer};
use crate::config::{self, ClientConfig, Connect, Role, WhenDisconnected, nearest};
use crate::error::{Error, Kind, Result};
use crate::intake::{Limits, Whose};
#[cfg(feature = "smtp")]
use crate::provider::smtp;
use crate::provider::{Setup, callback, dingtalk, dpmq, kapokmq, memory, sms, webhook};
use crate::strategy::{self, Member, Random, Section};

/// The providers by the `type` in a config.
pub const PROVIDERS: [&str; 8] =
    ["callback", "dingtalk", "dpmq", "kapokmq", "memory", "sms", "smtp", "webhook"];

/// The strategies by the `type` in a config.
pub const STRATEGIES: [&str; 7] = strategy::NAMES;

/// Finds an open producer by its id, and holds it.
pub type Members<'a> = dyn Fn(&str) -> Result<Arc<dyn Producer>> + Send + Sync + 'a;

/// What a producer may find around it.
pub struct Surroundings<'a> {
    /// The topics of the provider `memory`.
    pub topics: &'a memory::Topics,
    /// What the host registered.
    pub hosts: &'a callback::Hosts,
    /// Members by their ids.
    pub members: &'a Members<'a>,
}

/// How deep members may have members: a config is no place for a loop without end.
const MAX_DEPTH: usize = 8;

/// The most strategies that a message passes on its way to a provider, whatever members they are in: each is a call
/// within a call.
const MAX_LAYERS: usize = 64;

/// Checks a config as far as that goes without a connection: keys, types and names.
pub fn check(config: &ClientConfig) -> Result<()> {
    check_at(config, 0)?;
    layers(config).map(drop)
}

/// How many strategies a message passes at most, beside those of members by id.
///
/// # Errors
/// `invalid_config` for more than there may be.
pub fn layers(config: &ClientConfig) -> Result<usize> {
    let layers = layers_at(config, 0)?;
    within_layers(layers)?;
    Ok(layers)
}

/// Refuses more strategies than a message may pass.
///
/// # Errors
/// `invalid_config`.
pub fn within_layers(layers: usize) -> Result<()> {
    if layers > MAX_LAYERS {
        let text = format!(
            "a message would pass {layers} strategies, those of members among them: {MAX_LAYERS} at most"
        );
        return Err(Error::new(Kind::InvalidConfig, text));
    }
    Ok(())
}

fn layers_at(config: &ClientConfig, depth: usize) -> Result<usize> {
    let mut within = 0;
    for (number, section) in stack(config, depth)?.sections.iter().enumerate() {
        within = within.max(number + 1);
        for member in section.members.iter().flatten().filter(|member| !member.is_string()) {
            within = within.max(number + 1 + layers_at(&member_config(member)?, depth + 1)?);
        }
    }
    Ok(within)
}

fn check_at(config: &ClientConfig, depth: usize) -> Result<()> {
    let stack = stack(config, depth)?;
    for section in &stack.sections {
        for member in section.members.iter().flatten().filter(|member| !member.is_string()) {
            check_at(&member_config(member)?, depth + 1)?;
        }
    }
    let Some((name, section)) = stack.provider else { return Ok(()) };
    match name.as_str() {
        "dingtalk" if config.role != Some(Role::Consumer) => dingtalk::check(section),
        "callback" => callback::check(section),
        "dpmq" => dpmq::check(section, config.role.unwrap_or_default()),
        "kapokmq" => kapokmq::check(section, config.role.unwrap_or_default()),
        "memory" => memory::check(section),
        "sms" if config.role != Some(Role::Consumer) => sms::check(section),
        "webhook" if config.role != Some(Role::Consumer) => webhook::check(section),
        #[cfg(feature = "smtp")]
        "smtp" if config.role != Some(Role::Consumer) => smtp::check(section),
        other => Err(unknown_provider(other)),
    }
}

/// The clients of a file, or the one whose config is all of it; each is checked as by [`check`], and no two of a role
/// have the same id.
///
/// # Errors
/// `invalid_config` and what else a check says; `already_open` for an id that is there twice.
pub fn file(text: &str) -> Result<Vec<ClientConfig>> {
    let clients = config::parse_file(text)?;
    let mut ids = HashSet::new();
    for client in &clients {
        let (role, id) = (client.role.unwrap_or_default(), client.id.as_deref().unwrap_or_default());
        let place = format!("the client `{id}` of the file");
        check(client).map_err(|error| error.at(&place))?;
        if !ids.insert((role == Role::Producer, id)) {
            let text = "its id names a client of the same role above: each needs its own";
            return Err(Error::new(Kind::AlreadyOpen, text).at(&place));
        }
    }
    Ok(clients)
}

/// What a config is made of, checked.
struct Stack {
    // The outermost first.
    sections: Vec<Section>,
    // None where the innermost strategy has all its members by itself.
    provider: Option<(String, Map<String, Value>)>,
}

fn stack(config: &ClientConfig, depth: usize) -> Result<Stack> {
    if depth > MAX_DEPTH {
        let text = format!("members within members are more than {MAX_DEPTH} deep");
        return Err(Error::new(Kind::InvalidConfig, text));
    }
    if config.role == Some(Role::Consumer) {
        if !config.strategies.is_empty() {
            let text = "`strategies` are for producers: a consumer takes none";
            return Err(Error::new(Kind::InvalidConfig, text));
        }
        return Ok(Stack { sections: Vec::new(), provider: Some(config.provider_section()?) });
    }
    let mut sections = Vec::with_capacity(config.strategies.len());
    for section in &config.strategies {
        let section = Section::parse(section.clone())?;
        section.check()?;
        sections.push(section);
    }
    let alone = sections.last().is_some_and(|innermost| innermost.members.is_some());
    let provider = if alone && config.provider.is_empty() { None } else { Some(config.provider_section()?) };
    // Also beside a provider: one that has no other to go to is no group.
    if let Some(section) = sections.iter().find(|section| section.members.as_ref().is_some_and(Vec::is_empty))
    {
        let text = format!("strategy `{}`: `members` is empty: name at least one", section.name);
        return Err(Error::new(Kind::InvalidConfig, text));
    }
    Ok(Stack { sections, provider })
}

/// A member that stands in the config itself: a client without an id that opens lazily and fails at once while
/// it is disconnected, unless it says otherwise.
fn member_config(value: &Value) -> Result<ClientConfig> {
    let Value::Object(member) = value else {
        let text = "a member is the id of an open producer or an object with `provider` and `strategies`";
        return Err(Error::new(Kind::InvalidConfig, text));
    };
    let mut config = ClientConfig::from_json(Value::Object(member.clone()))
        .map_err(|error| Error::new(error.kind(), format!("members: {}", error.message())))?;
    config.connect.get_or_insert(Connect::Lazy);
    config.when_disconnected.get_or_insert(WhenDisconnected::Fail);
    if config.role == Some(Role::Consumer) {
        return Err(Error::new(Kind::InvalidConfig, "members: a member is a producer"));
    }
    Ok(config)
}

/// Opens a producer whose strategies name no member by its id.
///
/// # Errors
/// `invalid_config`, and what the provider says of its connection.
pub async fn producer(id: &str, config: &ClientConfig, topics: &memory::Topics) -> Result<Arc<dyn Producer>> {
    let none = |other: &str| Err(Error::new(Kind::UnknownId, format!("no producer `{other}` is open")));
    let around = Surroundings { topics, hosts: &callback::Hosts::default(), members: &none };
    producer_among(id, config, &around).await
}

/// Opens a producer with what is around it.
///
/// # Errors
/// `invalid_config`, what the provider says of its connection, and what `members` says.
pub async fn producer_among(
    id: &str,
    config: &ClientConfig,
    around: &Surroundings<'_>,
) -> Result<Arc<dyn Producer>> {
    role_is(config, Role::Producer)?;
    check(config)?;
    producer_at(id, config, around, 0, Whose::Client).await
}

fn producer_at<'a>(
    id: &'a str,
    config: &'a ClientConfig,
    around: &'a Surroundings<'a>,
    depth: usize,
    of: Whose,
) -> BoxFuture<'a, Result<Arc<dyn Producer>>> {
    Box::pin(async move {
        let Stack { sections, provider } = stack(config, depth)?;
        let layered = !sections.is_empty();
        let limits = Limits { of, ..config.limits() };
        let mut bounds = bounds(&sections, provider.is_some(), of);
        let mut below = match provider {
            None => None,
            Some((name, section)) => {
                let mut config = config.clone();
                // Strategies that go on elsewhere need the failure at once, not at the deadline.
                if sections.iter().any(|section| section.members.is_some()) {
                    config.connect.get_or_insert(Connect::Lazy);
                    config.when_disconnected.get_or_insert(WhenDisconnected::Fail);
                }
                let limits = Limits { of: bounds.last().copied().unwrap_or(of), ..limits };
                let producer = provided(id, &config, limits, &name, section, around).await?;
                Some(Member::new(name, producer))
            }
        };
        let random = Random::from_system();
        for mut section in sections.into_iter().rev() {
            let name = section.name.clone();
            let of = bounds.pop().unwrap_or(of);
            let setup = strategy::Setup { id: id.into(), name: name.clone(), random: random.clone() };
            let producer = match section.members.take() {
                Some(listed) => {
                    let mut group: Vec<Member> = below.take().into_iter().collect();
                    for (number, member) in listed.iter().enumerate() {
                        group.push(open_member(id, number, member, around, depth, of).await?);
                    }
                    section.group(&setup, distinct(group))?
                }
                None => {
                    let Some(below) = below.take() else {
                        return Err(Error::new(Kind::Internal, "a strategy has nothing below it"));
                    };
                    section.wrap(&setup, below.producer)?
                }
            };
            below = Some(Member::new(name, producer));
        }
        let nothing = || Error::new(Kind::Internal, "a config made no producer");
        let producer = below.map(|member| member.producer).ok_or_else(nothing)?;
        // A provider counts what came to it, and not what the strategies hold back.
        Ok(if layered { strategy::within(producer, &limits) } else { producer })
    })
}

/// Whose bounds those are that are below each section.
fn bounds(sections: &[Section], provider: bool, of: Whose) -> Vec<Whose> {
    let mut below = of;
    let mut bounds = Vec::with_capacity(sections.len());
    for (number, section) in sections.iter().enumerate() {
        if let Some(members) = &section.members {
            let beside = members.len() + usize::from(provider || number + 1 < sections.len());
            below = match section.kind {
                "failover" if beside > 1 => Whose::Spared,
                // Each of its members is to have the message: none stands in for another.
                "fan_out" => Whose::Member,
                _ if below == Whose::Spared => Whose::Spared,
                _ => Whose::Member,
            };
        }
        bounds.push(below);
    }
    bounds
}

async fn open_member(
    id: &str,
    number: usize,
    member: &Value,
    around: &Surroundings<'_>,
    depth: usize,
    of: Whose,
) -> Result<Member> {
    if let Value::String(other) = member {
        let producer = (around.members)(other).map_err(|error| {
            Error::new(error.kind(), format!("member `{other}`: {}: open it first", error.message()))
        })?;
        return Ok(Member::new(other.as_str(), producer));
    }
    let config = member_config(member)?;
    let name = match (&config.id, config.provider.get("type").and_then(Value::as_str)) {
        (Some(name), _) => name.clone(),
        (None, Some(kind)) => kind.to_owned(),
        (None, None) => format!("member-{number}"),
    };
    let own = format!("{id}/{number}");
    let producer = producer_at(&own, &config, around, depth + 1, of).await?;
    // Its own, where it names one: the default is that of clients, whose callers name none.
    let deadline = member.get("deadline").map(|_| config.deadline.0);
    Ok(Member { deadline, ..Member::new(name, producer) })
}

// Of members with the same name the later ones get a number.
fn distinct(mut members: Vec<Member>) -> Vec<Member> {
    let mut seen = std::collections::HashSet::new();
    for member in &mut members {
        let mut number = 2;
        let mut name = member.name.clone();
        while !seen.insert(name.clone()) {
            name = format!("{}-{number}", member.name).into();
            number += 1;
        }
        member.name = name;
    }
    members
}

async fn provided(
    id: &str,
    config: &ClientConfig,
    limits: Limits,
    name: &str,
    section: Map<String, Value>,
    around: &Surroundings<'_>,
) -> Result<Arc<dyn Producer>> {
    let setup = Setup { limits, ..Setup::from_config(id, config) };
    match name {
        "dingtalk" => dingtalk::open_producer(&setup, section).await,
        "callback" => callback::open_producer(&setup, section, around.hosts),
        "dpmq" => dpmq::open_producer(&setup, section).await,
        "kapokmq" => kapokmq::open_producer(&setup, section).await,
        "memory" => memory::open_producer(&setup, section, around.topics),
        "sms" => sms::open_producer(&setup, section).await,
        "webhook" => webhook::open_producer(&setup, section).await,
        #[cfg(feature = "smtp")]
        "smtp" => smtp::open_producer(&setup, section).await,
        other => Err(unknown_provider(other)),
    }
}

/// Opens a consumer.
pub async fn consumer(id: &str, config: &ClientConfig, topics: &memory::Topics) -> Result<Arc<dyn Consumer>> {
    role_is(config, Role::Consumer)?;
    let (name, section): (String, Map<String, Value>) = config.provider_section()?;
    if !config.strategies.is_empty() {
        return Err(Error::new(Kind::InvalidConfig, "`strategies` are for producers: a consumer takes none"));
    }
    let setup = Setup::from_config(id, config);
    match name.as_str() {
        "dpmq" => dpmq::open_consumer(&setup, section).await,
        "kapokmq" => kapokmq::open_consumer(&setup, section).await,
        "memory" => memory::open_consumer(&setup, section, topics),
        other => Err(unknown_provider(other)),
    }
}

fn role_is(config: &ClientConfig, role: Role) -> Result<()> {
    match config.role {
        Some(named) if named != role => Err(Error::new(
            Kind::InvalidConfig,
            format!("`role` says {named:?}, and the call opens a {role:?}").to_lowercase(),
        )),
        _ => Ok(()),
    }
}

fn unknown_provider(name: &str) -> Error {
    if PROVIDERS.contains(&name) {
        let text =
            format!("the provider `{name}` has no such client: it only sends, or this build is without it");
        return Error::new(Kind::InvalidConfig, text);
    }
    let mut text = format!("unknown provider `{name}`; known are: {}", PROVIDERS.join(", "));
    if let Some(name) = nearest(name, &PROVIDERS) {
        text.push_str(&format!(" (did you mean `{name}`?)"));
    }
    Error::new(Kind::InvalidConfig, text)
}
