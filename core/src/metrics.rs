//! The statuses of clients as Prometheus text (version 0.0.4).
//!
//! Every number and boolean of a status is a sample: `ceiba_client_KEY` with the labels `id`, `role` and `provider`;
//! `ceiba_strategy_KEY` with `strategy` and `type` too; those of members with `member`. Times are in seconds. A `state`
//! is a sample of 1 with the state as a label. Other texts are left out: addresses and errors are no labels.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::{Map, Value};

/// Numbers that only grow; the others are gauges.
const COUNTERS: [&str; 29] = [
    "acked",
    "all_failed",
    "answered",
    "attempts",
    "connects",
    "failed",
    "given_up",
    "granted",
    "late",
    "limited",
    "lost",
    "nacked",
    "not_written",
    "opened",
    "partly_failed",
    "probes",
    "probes_failed",
    "received",
    "reconnects",
    "refused",
    "refused_by_budget",
    "requests",
    "retries",
    "sent",
    "switches",
    "timeouts",
    "waited_ms",
    "waits",
    "without_store",
];

/// Texts that name one of few things.
const STATES: [&str; 3] = ["state", "current_member", "on_failure"];

/// How deep members may have members.
const DEEPEST: usize = 16;

/// A page that is being written.
#[derive(Debug, Default)]
pub struct Page {
    // By name: what kind, and a line for each sample.
    metrics: BTreeMap<String, (&'static str, String)>,
}

type Labels = Vec<(&'static str, String)>;

impl Page {
    /// Adds a client with its status.
    pub fn add(&mut self, role: &str, id: &str, status: &Value) {
        let provider = status.get("provider").and_then(Value::as_str).unwrap_or_default();
        let labels: Labels =
            vec![("id", id.to_owned()), ("role", role.to_owned()), ("provider", provider.to_owned())];
        if let Some(status) = status.as_object() {
            self.visit("client", &labels, status, 0);
        }
    }

    /// The text.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (name, (kind, samples)) in &self.metrics {
            let _ = write!(text, "# TYPE {name} {kind}\n{samples}");
        }
        text
    }

    fn visit(&mut self, of: &str, labels: &Labels, status: &Map<String, Value>, depth: usize) {
        if depth > DEEPEST {
            return;
        }
        for (key, value) in status {
            match (key.as_str(), value) {
                ("strategies", Value::Array(strategies)) => {
                    for (place, strategy) in strategies.iter().enumerate() {
                        self.strategy(labels, place, strategy, depth);
                    }
                }
                ("members", Value::Array(members)) => {
                    for member in members.iter().filter_map(Value::as_object) {
                        self.member(labels, member, depth);
                    }
                }
                (_, Value::Object(inner)) => self.visit(&format!("{of}_{key}"), labels, inner, depth + 1),
                (key, Value::Number(number)) => {
                    self.number(of, key, labels, number.as_f64().unwrap_or_default());
                }
                (key, Value::Bool(value)) => self.number(of, key, labels, f64::from(u8::from(*value))),
                (key, Value::String(text)) if STATES.contains(&key) => {
                    let labels = with(labels, "state", text);
                    self.sample(&format!("ceiba_{of}_{key}"), "gauge", &labels, 1.0);
                }
                _ => {}
            }
        }
    }

    fn strategy(&mut self, labels: &Labels, place: usize, strategy: &Value, depth: usize) {
        let Some(state) = strategy.as_object() else { return };
        let kind = state.get("type").and_then(Value::as_str).unwrap_or_default();
        let name = state.get("name").and_then(Value::as_str).unwrap_or(kind);
        let labels = with(labels, "strategy", name);
        let labels = with(&labels, "type", kind);
        // Two of the same name differ in their places, the outermost being 0.
        let labels = with(&labels, "place", &place.to_string());
        self.visit("strategy", &labels, state, depth + 1);
    }

    fn member(&mut self, labels: &Labels, member: &Map<String, Value>, depth: usize) {
        let text = |key: &str| member.get(key).and_then(Value::as_str).unwrap_or_default();
        let (mut name, mut inner): (String, Labels) = (text("member").to_owned(), Vec::new());
        for (label, value) in labels {
            match *label {
                // What stood around it is named before it; its own strategies follow.
                "member" => name = format!("{value}/{name}"),
                "provider" => inner.push(("provider", text("provider").to_owned())),
                "strategy" | "type" | "place" => {}
                label => inner.push((label, value.clone())),
            }
        }
        inner.push(("member", name));
        self.visit("member", &inner, member, depth + 1);
    }

    fn number(&mut self, of: &str, key: &str, labels: &Labels, value: f64) {
        match key.strip_suffix("_ms") {
            Some(seconds) if COUNTERS.contains(&key) => {
                self.sample(
                    &format!("ceiba_{of}_{seconds}_seconds_total"),
                    "counter",
                    labels,
                    value / 1000.0,
                );
            }
            Some(key) => self.sample(&format!("ceiba_{of}_{key}_seconds"), "gauge", labels, value / 1000.0),
            None if COUNTERS.contains(&key) => {
                self.sample(&format!("ceiba_{of}_{key}_total"), "counter", labels, value);
            }
            None => self.sample(&format!("ceiba_{of}_{key}"), "gauge", labels, value),
        }
    }

    fn sample(&mut self, name: &str, kind: &'static str, labels: &Labels, value: f64) {
        let (_, samples) = self.metrics.entry(name.to_owned()).or_insert((kind, String::new()));
        let _ = write!(samples, "{name}{{");
        for (at, (label, text)) in labels.iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            let _ = write!(samples, "{comma}{label}=\"{}\"", escaped(text));
        }
        let _ = writeln!(samples, "}} {value}");
    }
}

fn with(labels: &Labels, label: &'static str, text: &str) -> Labels {
    let mut labels = labels.clone();
    labels.push((label, text.to_owned()));
    labels
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_status_as_text() {
        let mut page = Page::default();
        let status = json!({
            "provider": "smtp", "state": "open", "sent": 7, "deadline_ms": 1500, "server": "mail:25",
            "last_error": {"kind": "timeout", "message": "secret"}, "connections": {"busy": 1},
            "strategies": [
                {"type": "retry", "retries": 3, "max_attempts": 5, "waited_ms": 2500},
                {"type": "failover", "name": "two", "switches": 1, "current_member": "a", "members": [
                    {"member": "a", "provider": "sms", "sent": 4,
                     "strategies": [{"type": "circuit_breaker", "state": "closed", "window": {"good": 9}}]},
                    {"member": "b", "provider": "sms", "sent": 5},
                ]},
            ],
        });
        page.add("producer", "a\"\\\n", &status);
        page.add("producer", "b", &json!({"provider": "memory", "sent": 1, "stale": true}));
        let text = page.text();
        let id = r#"id="a\"\\\n",role="producer""#;
        for line in [
            "# TYPE ceiba_client_sent_total counter".to_owned(),
            format!(r#"ceiba_client_sent_total{{{id},provider="smtp"}} 7"#),
            r#"ceiba_client_sent_total{id="b",role="producer",provider="memory"} 1"#.to_owned(),
            r#"ceiba_client_stale{id="b",role="producer",provider="memory"} 1"#.to_owned(),
            format!(r#"ceiba_client_deadline_seconds{{{id},provider="smtp"}} 1.5"#),
            format!(r#"ceiba_client_connections_busy{{{id},provider="smtp"}} 1"#),
            format!(r#"ceiba_client_state{{{id},provider="smtp",state="open"}} 1"#),
            format!(
                r#"ceiba_strategy_retries_total{{{id},provider="smtp",strategy="retry",type="retry",place="0"}} 3"#
            ),
            format!(
                r#"ceiba_strategy_waited_seconds_total{{{id},provider="smtp",strategy="retry",type="retry",place="0"}} 2.5"#
            ),
            format!(
                r#"ceiba_strategy_switches_total{{{id},provider="smtp",strategy="two",type="failover",place="1"}} 1"#
            ),
            format!(r#"ceiba_member_sent_total{{{id},provider="sms",member="a"}} 4"#),
            format!(r#"ceiba_member_sent_total{{{id},provider="sms",member="b"}} 5"#),
            format!(
                r#"ceiba_strategy_window_good{{{id},provider="sms",member="a",strategy="circuit_breaker",type="circuit_breaker",place="0"}} 9"#
            ),
        ] {
            assert!(text.lines().any(|there| there == line), "{line}\nis not in\n{text}");
        }
        assert!(!text.contains("secret") && !text.contains("mail:25"), "{text}");
        // Each metric is told once, and its samples stand together.
        let types: Vec<&str> = text.lines().filter(|line| line.starts_with("# TYPE")).collect();
        let distinct: std::collections::BTreeSet<&&str> = types.iter().collect();
        assert_eq!(types.len(), distinct.len());
    }
}
