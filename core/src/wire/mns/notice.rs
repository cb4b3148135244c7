//! What a service writes that nobody of ours reads: messages pushed to subscribers, and the account.

use serde::Serialize;

use super::xml::Writer;

/// A message of a topic on its way to a subscriber.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Notice<'a> {
    /// The account of the topic.
    pub topic_owner: &'a str,
    /// The topic.
    pub topic_name: &'a str,
    /// The account that subscribed.
    pub subscriber: &'a str,
    /// The subscription.
    pub subscription_name: &'a str,
    /// The message's id, the same for every subscription.
    pub message_id: &'a str,
    /// The body.
    pub message: &'a str,
    /// The digest of the body.
    #[serde(rename = "MessageMD5")]
    pub message_md5: &'a str,
    /// The message's tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_tag: Option<&'a str>,
    /// When it was published, in milliseconds since 1970.
    pub publish_time: u64,
}

impl Notice<'_> {
    /// As XML.
    pub fn encode_xml(&self) -> String {
        let mut into = Writer::answer("Notification", self.message.len() + self.message.len() / 8 + 600);
        into.leaf("TopicOwner", self.topic_owner);
        into.leaf("TopicName", self.topic_name);
        into.leaf("Subscriber", self.subscriber);
        into.leaf("SubscriptionName", self.subscription_name);
        into.leaf("MessageId", self.message_id);
        into.leaf("Message", self.message);
        into.leaf("MessageMD5", self.message_md5);
        into.some("MessageTag", self.message_tag);
        into.number("PublishTime", Some(self.publish_time));
        into.finish("Notification")
    }

    /// As JSON.
    pub fn encode_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// The answer with what is told of an account.
pub fn encode_account(logging_bucket: Option<&str>) -> String {
    let mut into = Writer::answer("Account", 200);
    into.leaf("LoggingBucket", logging_bucket.unwrap_or_default());
    into.finish("Account")
}

/// The answer to an account that opened the service.
pub fn encode_order(id: &str) -> String {
    let mut into = Writer::answer("OpenService", 200);
    into.leaf("OrderId", id);
    into.finish("OpenService")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_in_both_forms() {
        let notice = Notice {
            topic_owner: "1",
            topic_name: "t",
            subscriber: "1",
            subscription_name: "s",
            message_id: "ID",
            message: "a<b \"c\"",
            message_md5: "MD",
            message_tag: None,
            publish_time: 7,
        };
        let xml = notice.encode_xml();
        assert!(xml.contains("<Message>a&lt;b") && xml.contains("<PublishTime>7</PublishTime>"), "{xml}");
        assert!(!xml.contains("MessageTag"));
        let json: serde_json::Value = serde_json::from_str(&notice.encode_json()).unwrap();
        assert_eq!(json["Message"], "a<b \"c\"");
        assert_eq!((&json["MessageMD5"], &json["PublishTime"]), (&"MD".into(), &7.into()));
        let tagged = Notice { message_tag: Some("g"), ..notice };
        assert!(tagged.encode_xml().contains("<MessageTag>g</MessageTag>"));
        assert!(tagged.encode_json().contains("\"MessageTag\":\"g\""));
    }
}
