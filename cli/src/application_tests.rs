#![allow(clippy::unwrap_used, reason = "a test may")]

use super::*;

/// As that server ships it, with each key set.
const SHIPPED: &str = "
server:
  addr: 10.1.2.3
  port: 8011
mq:
  secretKey: test  # a comment
  pushType: 1
  messageChanBuffer: 10000000
  pushMessagesSpeed: 1
  pushCount: 1000
  pushRetryTime: 300
  persistentFile: MQDATA
  isPersistent: 0
  recoveryStrategy: 1
  persistentTime: 5
  isCleanConsumed: 0
  isRePush: 1
  isClean: 1
  checkSpeed: 5
  cleanTime: 172800
cluster:
  isCluster: 0
  gossipPort: 8021
  registryAddr: 127.0.0.1
  registryGossipPort: 8041
sync:
  isSync: 0
  isSlave: 0
  masterProtocol: ws
  masterAddr: 127.0.0.1
  masterPort: 8011
";

fn changed(key: &str, value: &str) -> Result<Application, String> {
    let mut found = false;
    let lines: Vec<String> = SHIPPED
        .lines()
        .map(|line| match line.trim_start().starts_with(&format!("{key}:")) {
            true => {
                found = true;
                format!("  {key}: {value}")
            }
            false => line.to_owned(),
        })
        .collect();
    assert!(found, "{key}");
    Application::parse(&lines.join("\n"))
}

#[test]
fn the_shipped_file_of_a_kapokmq_server() {
    let application = Application::parse(SHIPPED).unwrap();
    assert_eq!(application.listen.as_deref(), Some("0.0.0.0:8011"));
    assert_eq!(application.advertise.as_deref(), Some("10.1.2.3"));
    assert!(application.secret.unwrap().matches(b"test"));
    assert_eq!((application.delivery, application.dpmq), (DeliveryMode::WorkQueue, false));
    assert_eq!(application.data, None);
    let mut topic = TopicConfig { max_messages: Some(10_000_000), ..TopicConfig::default() };
    topic.push_batches(1000, Duration::from_secs(1));
    assert_eq!(topic.push_interval, Some(Duration::from_millis(1)));
    assert_eq!(application.topic, topic);
    assert_eq!(application.redeliver_after, Some(Duration::from_secs(300)));
    assert!(!application.forget_consumed);
    let [clean] = application.warnings.as_slice() else { panic!("{:?}", application.warnings) };
    for part in ["`mq.isClean`", "`mq.cleanTime`", "172800 s", "they are kept", "--expire-after 172800"] {
        assert!(clean.contains(part), "{clean}");
    }
}

#[test]
fn each_key_has_its_effect() {
    let shared = changed("pushType", "2").unwrap();
    assert_eq!((shared.delivery, shared.topic.compat), (DeliveryMode::PublishSubscribe, true));
    for way in ["1", "2"] {
        assert_eq!(changed("isPersistent", way).unwrap().data, Some("MQDATA".into()));
    }
    assert_eq!(changed("pushMessagesSpeed", "0").unwrap().topic.push_interval, None);
    assert_eq!(changed("pushRetryTime", "4").unwrap().redeliver_after, Some(Duration::from_secs(4)));
    assert_eq!(changed("messageChanBuffer", "5").unwrap().topic.max_messages, Some(5));
    assert!(changed("isCleanConsumed", "1").unwrap().forget_consumed);
    assert!(changed("isClean", "0").unwrap().warnings.is_empty());
    assert_eq!(changed("port", "\"9011\"").unwrap().listen.as_deref(), Some("0.0.0.0:9011"));
    assert!(changed("secretKey", "123").unwrap().secret.unwrap().matches(b"123"));
}

#[test]
fn what_is_not_done_is_said_with_what_to_do_instead() {
    for (key, value, instead) in [
        ("isCluster", "1", "--node"),
        ("isSync", "1", "--data"),
        ("isSlave", "1", "--data"),
        ("isRePush", "0", "--redeliver-after"),
    ] {
        let warnings = changed(key, value).unwrap().warnings;
        let warning = warnings.iter().find(|warning| warning.contains(&format!(".{key}: {value}")));
        assert!(warning.is_some_and(|warning| warning.contains(instead)), "{key}: {warnings:?}");
    }
    let stored = SHIPPED.replace("isPersistent: 0", "isPersistent: 2").replace("Strategy: 1", "Strategy: 0");
    let warnings = Application::parse(&stored).unwrap().warnings;
    assert!(
        warnings
            .iter()
            .any(|warning| warning.contains("`mq.recoveryStrategy: 0`") && warning.contains("kept"))
    );
}

#[test]
fn the_file_of_a_dpmq_server() {
    let text =
        "server:\n  port: 8011\nmq:\n  messageChanBuffer: 100\n  pushMessagesSpeed: 2\n  sendRetryCount: 3\n";
    let application = Application::parse(text).unwrap();
    assert_eq!((application.dpmq, application.delivery), (true, DeliveryMode::PublishSubscribe));
    assert!(application.secret.is_none() && !application.topic.compat);
    let mut topic = TopicConfig { max_messages: Some(100), ..TopicConfig::default() };
    topic.push_batches(1, Duration::from_secs(2));
    assert_eq!(application.topic, topic);
    assert!(application.warnings.iter().any(|warning| warning.contains("`mq.sendRetryCount`")));
    // Without a key of its own it opens nothing to everybody.
    for text in ["server:\n  port: 1\n", "server:\n  port: 1\nmq:\n  messageChanBuffer: 100\n"] {
        let application = Application::parse(text).unwrap();
        assert_eq!((application.dpmq, application.delivery), (false, DeliveryMode::WorkQueue));
    }
}

/// As earlier versions of that server shipped it, one after the other.
const EARLIER: [&str; 4] = [
    "server:\n  port: 8011\nmq:\n  secretKey: test\n  messageChanBuffer: 10000\n  pushMessagesSpeed: 1\n  sendCount: 20\n  sendRetryCount: 3\n  persistentPath: ./data.csv\n  isPersistent: 1\n  recoveryStrategy: 1\n  persistentTime: 5\n  rePushSpeed: 3\n  rePushCount: 60\n  clearTime: 259200\n",
    "server:\n  port: 8011\nmq:\n  secretKey: test\n  messageChanBuffer: 10000\n  pushMessagesSpeed: 1\n  sendCount: 20\n  sendRetryCount: 3\n  persistentFile: data\n  isPersistent: 1\n  recoveryStrategy: 1\n  persistentTime: 5\n  isRePush: 1\n  isClean: 0\n  checkSpeed: 3\n  checkCount: 60\n  cleanTime: 259200\n",
    "server:\n  ip: 10.1.2.3\n  port: 8011\nmq:\n  secretKey: test\n  pushType: 1\n  pushMessagesSpeed: 1\n  sendCount: 20\n  sendRetryCount: 3\n  isPersistent: 0\n  isCleanConsumed: 1\ncluster:\n  isCluster: 0\n  clusterName: kapokmq-cluster-01\n  nodePort: 8013\n  registryAddr: 0.0.0.0\n  registryPort: 8020\n",
    "server:\n  addr: 10.1.2.3\n  port: 8011\nmq:\n  secretKey: test\n  pushType: 1\n  pushMessagesSpeed: 1\n  pushCount: 20\n  pushRetryCount: 3\n  consumeLogChanBuffer: 100\n  unconsumeLogChanBuffer: 100\n",
];

#[test]
fn the_files_of_earlier_kapokmq_servers() {
    let read = EARLIER.map(|text| Application::parse(text).unwrap());
    let mut topic = TopicConfig::default();
    topic.push_batches(20, Duration::from_secs(1));
    for application in &read {
        assert!(!application.dpmq && application.secret.as_ref().unwrap().matches(b"test"));
        assert_eq!(application.topic.push_interval, topic.push_interval, "`sendCount` is `pushCount`");
    }
    let [first, second, third, fourth] = read;
    assert_eq!((first.data, second.data), (Some("./data.csv".into()), Some("data".into())));
    for application in [&third, &fourth] {
        assert_eq!(application.advertise.as_deref(), Some("10.1.2.3"));
    }
    for (warnings, keys) in [
        (&first.warnings, &["mq.rePushSpeed", "mq.rePushCount", "mq.sendRetryCount", "mq.clearTime"][..]),
        (&second.warnings, &["mq.checkCount", "mq.sendRetryCount"]),
        (&third.warnings, &["cluster.clusterName", "mq.sendRetryCount"]),
        (&fourth.warnings, &["mq.pushRetryCount", "mq.consumeLogChanBuffer", "mq.unconsumeLogChanBuffer"]),
    ] {
        assert_eq!(warnings.len(), keys.len(), "{warnings:?}");
        for key in keys {
            let warning = warnings.iter().find(|warning| warning.starts_with(&format!("`{key}` ")));
            assert!(warning.is_some_and(|warning| warning.len() > 60), "{key}: {warnings:?}");
        }
    }
    assert!(
        first
            .warnings
            .iter()
            .any(|warning| warning.contains("after 259200 s, also those that wait: they are kept"))
    );
    let both = Application::parse(
        "mq:\n  secretKey: test\n  sendCount: 5\n  pushCount: 20\n  pushMessagesSpeed: 1\n",
    )
    .unwrap();
    assert_eq!(both.topic.push_interval, topic.push_interval, "the name of now goes first");
    assert_eq!(both.warnings, ["`mq.sendCount` has no effect: `mq.pushCount` stands there too"]);
}

#[test]
fn an_empty_secret_is_noted() {
    for (text, empty) in
        [("mq:\n  secretKey: ''\n", true), ("mq:\n  secretKey: a\n", false), ("mq:\n  pushType: 1\n", false)]
    {
        let application = Application::parse(text).unwrap();
        assert_eq!((application.empty_secret, application.secret.is_some()), (empty, text.contains(": a")));
    }
}

#[test]
fn what_is_wrong_is_named() {
    let long = format!("mq:\n  {}: 1\n", "k".repeat(500));
    for (text, parts) in [
        ("", &["no application.yaml"][..]),
        ("mq:\n", &["no application.yaml"]),
        ("- 1\n", &["no application.yaml"]),
        ("mq: [\n", &["not valid YAML", "line"]),
        ("mq: 5\n", &["unknown key `mq`"]),
        ("mq:\n  secretKy: canary\n", &["unknown key `mq.secretKy`", "`mq.secretKey`"]),
        ("mq:\n  secretkey: canary\n", &["unknown key `mq.secretkey`", "`mq.secretKey`"]),
        ("gin:\n  mode: x\n", &["unknown key `gin.mode`"]),
        ("mq:\n  1: x\n", &["no text"]),
        (&long, &["unknown key"]),
        (
            "server:\n  addr: 127.0.0.1\n  port: 8031\nregistry:\n  secretKey: canary\n  gossipPort: 8041\n",
            &["Serena registry", "--node"],
        ),
        ("mq:\n  secretKey: canary\n  pushType: 3\n", &["`mq.pushType` must be 1 or 2"]),
        ("mq:\n  secretKey: canary\n  isPersistent: yes\n", &["`mq.isPersistent` must be a whole number"]),
        ("mq:\n  secretKey: canary\n  isPersistent: 1\n", &["`mq.persistentFile`"]),
        ("mq:\n  secretKey: [canary]\n", &["`mq.secretKey` must be a text"]),
        ("mq:\n  secretKey: canary\n  pushCount: 0\n", &["`mq.pushCount` must be at least 1"]),
        ("mq:\n  secretKey: canary\n  pushRetryTime: 0\n", &["`mq.pushRetryTime` must be at least 1"]),
        ("mq:\n  messageChanBuffer: 0\n", &["`mq.messageChanBuffer` must be at least 1"]),
        ("mq:\n  pushMessagesSpeed: -1\n", &["`mq.pushMessagesSpeed` must be a whole number"]),
        ("mq:\n  pushMessagesSpeed: 0.5\n", &["`mq.pushMessagesSpeed` must be a whole number"]),
        ("server:\n  port: 80111\n", &["`server.port` must be at most 65535"]),
        ("server:\n  port: 1\n  port: 2\n", &["not valid YAML"]),
    ] {
        let error = Application::parse(text).unwrap_err();
        for part in parts {
            assert!(error.contains(part), "{error}");
        }
        assert!(!error.contains("canary") && error.len() < 300, "{error}");
    }
}
