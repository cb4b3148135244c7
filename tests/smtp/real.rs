//! A real server with TLS and logins: what it delivered is read back by Python's parser of mail.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use ceiba_core::error::{Kind, Outcome};
use ceiba_core::message::{Attachment, Message, Receipt};
use serde_json::{Value, json};

use crate::{letter, try_open, within};

const PASSWORD: &str = "canary-9d27 ü";

/// The server of one test. Dropping it stops it and removes its folder.
struct Real {
    folder: PathBuf,
    starttls: u16,
    tls: u16,
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/smtp").join(name)
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Why there can be no server here; said in the report of the tests.
fn missing() -> Option<String> {
    static MISSING: OnceLock<Option<String>> = OnceLock::new();
    let check = || {
        let root = Command::new("id").arg("-u").output().is_ok_and(|id| id.stdout == b"0\n");
        let here = |program: &str| Path::new("/usr/sbin").join(program).exists();
        let why = match (root, here("postfix") && here("saslpasswd2")) {
            (true, true) => return None,
            (false, _) => "tests with a real mail server need root, as postfix does",
            (_, false) => "tests with a real mail server need postfix and sasl2-bin: make tools",
        };
        if let Some(path) = std::env::var_os("CEIBA_SKIPPED") {
            let mut report = std::fs::OpenOptions::new().append(true).create(true).open(path).unwrap();
            writeln!(report, "smtp::real: {why}").unwrap();
        }
        Some(why.to_owned())
    };
    MISSING.get_or_init(check).clone()
}

impl Real {
    fn start() -> Option<Real> {
        if let Some(why) = missing() {
            eprintln!("skipped: {why}");
            return None;
        }
        let folder = std::env::temp_dir().join(format!("ceiba-smtp-{:016x}", rand::random::<u64>()));
        std::fs::create_dir(&folder).unwrap();
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        std::fs::write(folder.join("cert.pem"), made.cert.pem()).unwrap();
        std::fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
        let real = Real { folder, starttls: free_port(), tls: free_port() };
        let mut start = Command::new(script("start.sh"))
            .arg(&real.folder)
            .args([real.starttls.to_string(), real.tls.to_string()])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        start.stdin.take().unwrap().write_all(format!("{PASSWORD}\n").as_bytes()).unwrap();
        assert!(start.wait().unwrap().success(), "the mail server did not start");
        let begun = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", real.tls)).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(20), "the mail server does not listen");
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(real)
    }

    /// The section of a client that logs in.
    fn section(&self) -> Value {
        json!({"url": format!("smtp://ceiba@localhost:{}", self.starttls), "password": PASSWORD,
               "ca_file": self.folder.join("cert.pem")})
    }

    /// What came for this name: waits until there are so many.
    fn mails(&self, name: &str, count: usize) -> Vec<Value> {
        let begun = Instant::now();
        loop {
            let folder = self.folder.join("mail").join(name);
            let read = Command::new("python3").arg(script("read.py")).arg(folder).output().unwrap();
            assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
            let mails: Vec<Value> = String::from_utf8(read.stdout)
                .unwrap()
                .lines()
                .map(|line| serde_json::from_str(line).unwrap())
                .collect();
            if mails.len() >= count {
                assert_eq!(mails.len(), count, "{name} has more mails than were sent");
                for mail in &mails {
                    assert_eq!(mail["defects"], json!([]), "{mail}");
                }
                return mails;
            }
            assert!(
                begun.elapsed() < Duration::from_secs(30),
                "{} of {count} mails came to {name}",
                mails.len()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        let _ = Command::new(script("stop.sh")).arg(&self.folder).status();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn header<'a>(mail: &'a Value, name: &str) -> Option<&'a str> {
    let headers = mail["headers"].as_array().unwrap();
    headers
        .iter()
        .find(|field| field[0].as_str().unwrap().eq_ignore_ascii_case(name))
        .and_then(|field| field[1].as_str())
}

#[tokio::test(flavor = "multi_thread")]
async fn mails_arrive_as_they_were_meant() {
    let Some(real) = Real::start() else { return };
    let mut section = real.section();
    section["bcc"] = json!("eve@example.test");
    section["headers"] = json!({"X-Team": "Größe"});
    section["templates"] = json!({"welcome": {
        "subject": "Willkommen, {{ name }}!", "text": "Hallo {{ name }},\n.\nEnde", "html": "<p>Hallo {{ name }}</p>"}});
    let producer = try_open(section, json!({"connect": "eager"})).await.unwrap();
    let send = |message: Message| {
        let producer = producer.clone();
        async move { producer.send(&within(20.0), Arc::new(message)).await.unwrap() }
    };
    let everything: String =
        (32..0x1_1000).step_by(7).filter_map(char::from_u32).filter(|sign| !sign.is_control()).collect();
    let subject = "Übersicht 木 \u{1f333} a very long subject that has to be folded because it is far longer than one \
                   line of a header may be";
    let plain = send(Message::new(everything.clone()).with(|fields| {
        fields.recipients = vec!["\"Ännchen, Dr. \\\"A\\\"\" <ann@example.test>".into()];
        fields.attributes.insert("subject".into(), subject.into());
        fields.attributes.insert("reply_to".into(), "Bob Müller <bob@example.test>".into());
        fields.attributes.insert("header.X-Trace".into(), "7 木".into());
    }))
    .await;
    let html = send(Message::new("<h1>ä</h1>").with(|fields| {
        fields.content_type = Some("text/html".into());
        fields.recipients = vec!["ann@example.test".into()];
    }))
    .await;
    let bytes: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let both = send(Message::default().with(|fields| {
        fields.template = Some("welcome".into());
        fields.args = Some(json!({"name": "<Zoë>"}));
        fields.recipients = vec!["ann@example.test".into()];
        fields.attributes.insert("cc".into(), "Bob <bob@example.test>".into());
        let attach = |name: &str, content_type: &str, body: &[u8]| Attachment {
            name: name.into(),
            content_type: content_type.into(),
            body: Bytes::copy_from_slice(body),
        };
        fields.attachments = vec![
            attach("Größe \u{1f333}.bin", "application/octet-stream", &bytes),
            attach("a.csv", "text/csv", b"a;b\r\n.\n\rc"),
        ];
    }))
    .await;

    let mails = real.mails("ann", 3);
    // The server delivers in whatever order it likes.
    let of = |receipt: &Receipt| {
        let id = receipt.message_id.as_deref();
        mails.iter().find(|mail| header(mail, "message-id") == id).expect("no mail with the receipt's id")
    };
    let (text, html, both) = (of(&plain), of(&html), of(&both));
    assert_eq!(header(text, "subject"), Some(subject));
    assert_eq!(text["to"], json!([["Ännchen, Dr. \"A\"", "ann@example.test"]]));
    assert_eq!(header(text, "from"), Some("Ceiba <c@example.test>"));
    assert_eq!(header(text, "reply-to"), Some("Bob Müller <bob@example.test>"));
    assert_eq!((header(text, "x-trace"), header(text, "x-team")), (Some("7 木"), Some("Größe")));
    assert!(header(text, "date").is_some());
    assert_eq!(text["type"], "text/plain");
    assert_eq!(text["parts"][0]["text"].as_str().unwrap().trim_end_matches('\n'), everything);

    assert_eq!((&html["type"], &html["parts"][0]["charset"]), (&json!("text/html"), &json!("utf-8")));
    assert_eq!(html["parts"][0]["text"].as_str().unwrap().trim_end(), "<h1>ä</h1>");

    assert_eq!(header(both, "subject"), Some("Willkommen, <Zoë>!"));
    assert_eq!(both["type"], "multipart/mixed");
    let parts = both["parts"].as_array().unwrap();
    let kinds: Vec<&str> = parts.iter().map(|part| part["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["text/plain", "text/html", "application/octet-stream", "text/csv"]);
    assert_eq!(parts[0]["text"].as_str().unwrap().replace("\r\n", "\n").trim_end(), "Hallo <Zoë>,\n.\nEnde");
    assert_eq!(parts[1]["text"].as_str().unwrap().trim_end(), "<p>Hallo &lt;Zoë&gt;</p>");
    assert_eq!((&parts[2]["name"], &parts[2]["attached"]), (&json!("Größe \u{1f333}.bin"), &json!(true)));
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(parts[2]["hex"].as_str().unwrap(), hex);
    assert_eq!(parts[3]["hex"], "613b620d0a2e0a0d63");

    // The copy in secret came, and nobody sees it; its Received line names its own recipient alone.
    let secret = real.mails("eve", 3);
    assert_eq!(header(&secret[0], "delivered-to"), Some("eve@example.test"));
    assert_eq!(real.mails("bob", 1).len(), 1);
    for mail in mails.iter().chain(&real.mails("bob", 1)) {
        assert!(!mail["raw"].as_str().unwrap().contains("eve@"), "{}", mail["raw"]);
        assert!(header(mail, "bcc").is_none());
    }
    producer.close(&within(5.0)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn logins_certificates_and_recipients_are_checked() {
    let Some(real) = Real::start() else { return };
    let eager = || json!({"connect": "eager", "connect_timeout": "10s"});
    let with = |changes: Value| {
        let mut section = real.section();
        section.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        section
    };
    let wrong = try_open(with(json!({"password": "canary-wrong"})), eager()).await.map(drop).unwrap_err();
    assert_eq!((wrong.kind(), wrong.retryable()), (Kind::Authentication, false), "{wrong}");
    for shown in [wrong.to_string(), wrong.text(), format!("{wrong:?}")] {
        assert!(!shown.contains("canary"), "{shown}");
    }

    // Another authority; the system's; and a name that is not in the certificate.
    let other = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let other_file = real.folder.join("other.pem");
    std::fs::write(&other_file, other.cert.pem()).unwrap();
    for changes in [
        json!({"ca_file": other_file}),
        json!({"url": format!("smtp://ceiba@127.0.0.1:{}", real.starttls)}),
        json!({"url": format!("smtps://ceiba@127.0.0.1:{}", real.tls)}),
        json!({"url": format!("smtps://ceiba@localhost:{}", real.tls), "ca_file": other_file}),
    ] {
        let error = try_open(with(changes), eager()).await.map(drop).unwrap_err();
        assert_eq!((error.kind(), error.retryable()), (Kind::Unavailable, false), "{error}");
        assert!(error.message().contains("not trusted"), "{error}");
    }

    let implicit = with(json!({"url": format!("smtps://ceiba@localhost:{}", real.tls)}));
    let producer = try_open(implicit, eager()).await.unwrap();
    producer.send(&within(20.0), letter(&["bob@example.test"])).await.unwrap();
    assert_eq!(producer.status()["tls"], "implicit");
    real.mails("bob", 1);

    let producer = try_open(real.section(), eager()).await.unwrap();
    let error = producer
        .send(&within(20.0), letter(&["ann@example.test", "zed@example.test", "Eve <eve@example.test>"]))
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.retryable(), error.outcome()),
        (Kind::Partial, false, Outcome::NotSent),
        "{error}"
    );
    let told: Vec<_> =
        error.parts().iter().map(|part| part.error.as_ref().map(|error| error.kind())).collect();
    assert_eq!(told, [None, Some(Kind::NotFound), None]);
    real.mails("ann", 1);
    real.mails("eve", 1);
    let error = producer.send(&within(20.0), letter(&["zed@example.test"])).await.unwrap_err();
    assert_eq!((error.kind(), error.retryable()), (Kind::NotFound, false), "{error}");
    let mut large = (*letter(&["ann@example.test"])).clone();
    large.set_body("line of text\n".repeat(100_000));
    let error = producer.send(&within(20.0), Arc::new(large)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::TooLarge, "{error}");

    // A server that is stopped and comes back, with idle connections in the pool.
    assert!(
        Command::new("postfix")
            .arg("-c")
            .arg(&real.folder)
            .arg("stop")
            .stderr(Stdio::null())
            .status()
            .unwrap()
            .success()
    );
    let start = Instant::now();
    let error = producer.send(&within(1.0), letter(&["ann@example.test"])).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (Kind::Timeout, Outcome::NotSent), "{error}");
    assert!(start.elapsed() < Duration::from_secs(4));
    let send = tokio::spawn({
        let producer = producer.clone();
        async move { producer.send(&within(30.0), letter(&["ann@example.test"])).await }
    });
    assert!(
        Command::new("postfix")
            .arg("-c")
            .arg(&real.folder)
            .arg("start")
            .stderr(Stdio::null())
            .status()
            .unwrap()
            .success()
    );
    send.await.unwrap().unwrap();
    real.mails("ann", 2);
}

/// More recipients than a mail names, and than one mail of this server takes.
#[tokio::test(flavor = "multi_thread")]
async fn many_recipients_get_their_mail_and_do_not_see_each_other() {
    let Some(real) = Real::start() else { return };
    let mut section = real.section();
    section["recipients_per_mail"] = json!(10_000);
    let producer = try_open(section, json!({"connect": "eager"})).await.unwrap();
    let names: Vec<String> = (0..1005).map(|number| format!("bob+{number}@example.test")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let receipt = producer.send(&within(60.0), letter(&names)).await.unwrap();
    assert_eq!(receipt.parts.unwrap().len(), 1005);
    let mails = real.mails("bob", 1005);
    let to: std::collections::HashSet<&str> =
        mails.iter().filter_map(|mail| header(mail, "delivered-to")).collect();
    assert_eq!(to.len(), 1005);
    for mail in &mails {
        assert_eq!(header(mail, "to"), Some("undisclosed-recipients:;"));
        assert!(mail["raw"].as_str().unwrap().len() < 3000, "{}", mail["raw"]);
    }
}
