//! What mail servers and the services of notifications say.

use crate::error::{Kind, Outcome};
use crate::wire::dingtalk;
use crate::wire::sms::{aliyun, tencent};
use crate::wire::smtp::{Features, Step, is_full, read_reply, refused};

const STEPS: [Step; 5] = [Step::Hello, Step::Login, Step::Sender, Step::Recipient, Step::Message];

/// A reply of a mail server: it is read the same from its own bytes alone, not before they are all there, and nothing of
/// it moves a cursor.
pub(crate) fn smtp_reply(input: &[u8]) {
    let Ok(Some((reply, taken))) = read_reply(input) else { return };
    let own = input.get(..taken).expect("no more is taken than there is");
    assert_eq!(read_reply(own).expect("it was read"), Some((reply.clone(), taken)));
    let cut = own.get(..taken.saturating_sub(1)).unwrap_or_default();
    assert!(!matches!(read_reply(cut), Ok(Some(_))), "a reply without its end");
    assert!((200..600).contains(&reply.code));
    assert!(!(reply.is_done() && reply.is_refusal()));
    assert!(!reply.shown().chars().any(char::is_control));
    assert!(reply.shown().chars().count() <= 200);
    let _ = Features::of(&reply);
    if !reply.is_refusal() {
        return;
    }
    for step in STEPS {
        let error = refused(&reply, step, "smtp://h:25");
        assert_eq!((error.retryable(), error.outcome()), (reply.code < 500, Outcome::NotSent));
        // It could repeat the password.
        let told = reply.lines.iter().any(|line| line.len() > 8 && error.message().contains(line.as_str()));
        assert!(
            step != Step::Login || !told || "smtp://h:25 refused the login".contains(&reply.lines.concat())
        );
    }
    assert!(!is_full(&reply) || refused(&reply, Step::Recipient, "h").kind() == Kind::Throttled);
}

/// An answer of Aliyun. A number that is to blame means that nothing was sent: the others are sent again.
pub(crate) fn sms_aliyun(input: &[u8]) {
    let Ok(answer) = aliyun::Answer::decode(input) else { return };
    if answer.is_ok() {
        assert!(!aliyun::is_of_number(&answer.code));
        return;
    }
    let error = aliyun::fault(&answer.code).map(|fault| fault.error(String::new()));
    if aliyun::is_of_number(&answer.code) {
        let error = error.expect("such a code is known");
        assert_eq!((error.kind(), error.outcome()), (Kind::InvalidArgument, Outcome::NotSent));
    }
}

/// An answer of Tencent Cloud.
pub(crate) fn sms_tencent(input: &[u8]) {
    match tencent::decode(input) {
        Err(_) => {}
        Ok(tencent::Answer::Refused(refusal)) => drop(tencent::fault(&refusal.code)),
        Ok(tencent::Answer::Taken(statuses)) => {
            for status in statuses.iter().filter(|status| !status.is_ok()) {
                let _ = tencent::fault(&status.code);
            }
        }
    }
}

/// An answer of a robot's server. One that says that the robot is mute refused the message.
pub(crate) fn dingtalk_answer(input: &[u8]) {
    let Ok(answer) = dingtalk::Answer::decode(input) else { return };
    let error = answer.error(String::new());
    assert!(!answer.is_mute() || (error.kind(), error.outcome()) == (Kind::Throttled, Outcome::NotSent));
}
