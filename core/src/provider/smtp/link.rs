//! One connection to a server, and the dialog over it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use super::PROVIDER;
use super::section::{Site, Tls};
use crate::error::{Error, Kind, Result};
use crate::provider::socket::Live;
use crate::wire::smtp::{
    END_OF_DATA, Features, Reply, Step, auth_login, auth_plain, ehlo, is_full, mail_from, rcpt_to,
    read_reply, refused,
};

trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// How long a good-bye may take.
const FAREWELL: Duration = Duration::from_millis(500);
/// How long a server may take for its first answer on a connection that lay idle: a network between may have forgotten
/// it, and says nothing of that.
const REVIVAL: Duration = Duration::from_secs(5);
/// Commands that are written before their replies are read.
const GROUP: usize = 100;
/// Bytes of a mail that are written at once.
const PIECE: usize = 64 << 10;

/// A connection that is logged in.
pub(super) struct Link {
    site: Arc<Site>,
    stream: Box<dyn Io>,
    // What was read and not yet understood.
    inbox: BytesMut,
    features: Features,
    /// Whether a mail went over it before.
    pub(super) used: bool,
    /// Whether it is between two mails. One that is not is of no more use.
    pub(super) ready: bool,
    /// When it was used last.
    pub(super) since: Instant,
    /// Says that there is a connection.
    pub(super) live: Option<Live>,
}

/// A mail for some recipients.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mail<'a> {
    pub(super) from: &'a str,
    pub(super) to: &'a [String],
    pub(super) data: &'a [u8],
}

/// Why a mail reached nobody.
#[derive(Debug)]
pub(super) struct Failed {
    /// What it was.
    pub(super) error: Error,
    /// For each recipient, why the server refused it before that.
    pub(super) refused: Vec<Option<Error>>,
    /// The connection was gone, and no byte of the mail itself was written.
    pub(super) before_data: bool,
    /// It was gone without a word.
    pub(super) silent: bool,
}

/// How one recipient was answered.
#[derive(Debug)]
pub(super) enum Taken {
    /// It has the mail.
    Yes,
    /// It was refused.
    No(Error),
    /// One mail takes no more recipients: it is for the next.
    Next(Error),
}

impl Link {
    /// Connects, encrypts and logs in.
    pub(super) async fn open(site: Arc<Site>, tls: Option<Arc<ClientConfig>>) -> Result<Link> {
        let unreachable = |error: io::Error| {
            let text = format!("{} cannot be reached", site.label);
            Error::new(Kind::Unavailable, text).caused_by(error).by(PROVIDER)
        };
        let tcp = TcpStream::connect((site.host.as_str(), site.port)).await.map_err(unreachable)?;
        tcp.set_nodelay(true).map_err(unreachable)?;
        rustix::net::sockopt::set_socket_keepalive(&tcp, true).map_err(|error| unreachable(error.into()))?;
        let hello = match (&site.hello, tcp.local_addr()) {
            (Some(name), _) => name.clone(),
            (None, Ok(address)) => match address.ip().to_canonical() {
                std::net::IpAddr::V4(ip) => format!("[{ip}]"),
                std::net::IpAddr::V6(ip) => format!("[IPv6:{ip}]"),
            },
            (None, Err(error)) => return Err(unreachable(error)),
        };
        let mut inbox = BytesMut::new();
        let stream: Box<dyn Io> = match (site.tls, tls) {
            (Tls::None, _) => Box::new(tcp),
            (Tls::Implicit, Some(tls)) => Box::new(encrypted(&site, tls, tcp).await?),
            (Tls::Starttls, Some(tls)) => {
                let mut tcp = tcp;
                greet(&site, &mut tcp, &mut inbox).await?;
                let features = say_hello(&site, &mut tcp, &mut inbox, &hello).await?;
                if !features.starttls {
                    let text = format!("{} does not offer STARTTLS, and `tls` asks for it", site.label);
                    return Err(Error::new(Kind::Unavailable, text).retryable_is(false).by(PROVIDER));
                }
                let reply = ask(&site, &mut tcp, &mut inbox, b"STARTTLS\r\n").await?;
                accepted(&site, &reply, Step::Hello)?;
                // What came in clear behind the answer is not the server's word.
                if !inbox.is_empty() {
                    return Err(lost(&site, Kind::Protocol, "wrote in clear after it agreed to encrypt"));
                }
                Box::new(encrypted(&site, tls, tcp).await?)
            }
            (_, None) => return Err(Error::new(Kind::Internal, "TLS was not set up").by(PROVIDER)),
        };
        let mut link = Link {
            site,
            stream,
            inbox,
            features: Features::default(),
            used: false,
            ready: true,
            since: Instant::now(),
            live: None,
        };
        if link.site.tls != Tls::Starttls {
            greet(&link.site, &mut link.stream, &mut link.inbox).await?;
        }
        link.features = say_hello(&link.site, &mut link.stream, &mut link.inbox, &hello).await?;
        link.log_in().await?;
        Ok(link)
    }

    async fn ask(&mut self, command: &[u8]) -> Result<Reply> {
        ask(&self.site, &mut self.stream, &mut self.inbox, command).await
    }

    async fn log_in(&mut self) -> Result<()> {
        let site = self.site.clone();
        let Some((user, password)) = &site.login else { return Ok(()) };
        if self.features.plain {
            let reply = self.ask(auth_plain(user, password.expose()).as_bytes()).await?;
            return accepted(&site, &reply, Step::Login);
        }
        if !self.features.login {
            let text = format!("{} offers no login by PLAIN or LOGIN", site.label);
            return Err(Error::new(Kind::Authentication, text).by(PROVIDER));
        }
        let mut line = "AUTH LOGIN\r\n".to_owned();
        for next in [user.as_str(), password.expose()] {
            let reply = self.ask(line.as_bytes()).await?;
            if reply.code != 334 {
                accepted(&site, &reply, Step::Login)?;
                return Err(lost(&site, Kind::Protocol, "did not ask for the user or the password"));
            }
            line = auth_login(next);
        }
        let reply = self.ask(line.as_bytes()).await?;
        accepted(&site, &reply, Step::Login)
    }

    /// Sends a mail: for each recipient whether it has it. `written` is set before the last bytes are written with
    /// which the server may take it.
    ///
    /// # Errors
    /// What kept it from every recipient whom the server had not refused already.
    pub(super) async fn send(&mut self, mail: Mail<'_>, written: &AtomicBool) -> Result<Vec<Taken>, Failed> {
        self.ready = false;
        let mut answers = Vec::new();
        let mut in_data = false;
        let mut silent = false;
        let sent = self.dialog(mail, written, &mut answers, &mut in_data, &mut silent).await;
        self.used = true;
        self.since = Instant::now();
        match sent {
            Ok(()) => Ok(answers),
            Err((error, gone)) => {
                let refusal = |answer| match answer {
                    Taken::Yes => None,
                    Taken::No(error) | Taken::Next(error) => Some(error),
                };
                let mut refused: Vec<Option<Error>> = answers.into_iter().map(refusal).collect();
                refused.resize(mail.to.len(), None);
                Err(Failed { error, refused, before_data: gone && !in_data, silent })
            }
        }
    }

    // The flag of an error says that the connection is gone.
    async fn dialog(
        &mut self,
        mail: Mail<'_>,
        written: &AtomicBool,
        answers: &mut Vec<Taken>,
        in_data: &mut bool,
        silent: &mut bool,
    ) -> Result<(), (Error, bool)> {
        let gone = |error| (error, true);
        if self.features.size.is_some_and(|most| most != 0 && mail.data.len() as u64 > most) {
            self.ready = true;
            let text = format!(
                "{} takes mails of up to {} bytes, and this one has {}",
                self.site.label,
                self.features.size.unwrap_or_default(),
                mail.data.len()
            );
            return Err((Error::new(Kind::TooLarge, text).by(PROVIDER), false));
        }
        let sender = mail_from(mail.from, mail.data.len(), &self.features);
        // Both sides could fill what the network holds, were all replies read at the end.
        let group = if self.features.pipelining { GROUP } else { 1 };
        let mut groups = mail.to.chunks(group);
        let first =
            if self.features.pipelining { groups.next().unwrap_or_default() } else { Default::default() };
        let commands = |to: &[String]| to.iter().map(|address| rcpt_to(address)).collect::<String>();
        let begin = sender + &commands(first);
        let begun = async {
            write(&self.site, &mut self.stream, begin.as_bytes()).await?;
            next_reply(&self.site, &mut self.stream, &mut self.inbox).await
        };
        let reply = if self.used {
            match tokio::time::timeout(REVIVAL, begun).await {
                Ok(reply) => reply.map_err(gone)?,
                Err(_) => {
                    *silent = true;
                    let what = "does not answer on a connection that lay idle";
                    return Err(gone(lost(&self.site, Kind::Unavailable, what)));
                }
            }
        } else {
            begun.await.map_err(gone)?
        };
        self.accepted(&reply, Step::Sender)?;
        self.recipients(first.len(), answers).await?;
        for group in groups {
            write(&self.site, &mut self.stream, commands(group).as_bytes()).await.map_err(gone)?;
            self.recipients(group.len(), answers).await?;
        }
        if !answers.iter().any(|answer| matches!(answer, Taken::Yes)) {
            let reply = self.ask(b"RSET\r\n").await;
            self.ready = reply.is_ok_and(|reply| reply.is_done());
            return Ok(());
        }
        let reply = self.ask(b"DATA\r\n").await.map_err(gone)?;
        if reply.code != 354 {
            if reply.is_refusal() {
                self.accepted(&reply, Step::Message)?;
            }
            return Err(gone(lost(&self.site, Kind::Protocol, "did not ask for the mail")));
        }
        *in_data = true;
        for piece in mail.data.chunks(PIECE) {
            write(&self.site, &mut self.stream, piece).await.map_err(gone)?;
        }
        // What was said before the end of the mail is no answer to it.
        if let Some((kind, what)) = self.stray() {
            return Err(gone(lost(&self.site, kind, what)));
        }
        written.store(true, Ordering::Relaxed);
        let reply = self.ask(END_OF_DATA).await.map_err(gone)?;
        // A refusal is an answer: the server does not have it. Neither yes nor no leaves it unknown.
        if reply.is_done() || reply.is_refusal() {
            written.store(false, Ordering::Relaxed);
            self.ready = reply.code != 421;
        }
        self.accepted(&reply, Step::Message)
    }

    // Reads the answers for so many recipients; an error ends the mail.
    async fn recipients(&mut self, count: usize, answers: &mut Vec<Taken>) -> Result<(), (Error, bool)> {
        for _ in 0..count {
            let reply = self.reply().await.map_err(|error| (error, true))?;
            answers.push(self.recipient(&reply)?);
        }
        Ok(())
    }

    fn recipient(&self, reply: &Reply) -> Result<Taken, (Error, bool)> {
        if reply.code == 421 || !(reply.is_done() || reply.is_refusal()) {
            self.accepted(reply, Step::Recipient)?;
        }
        if reply.is_done() {
            return Ok(Taken::Yes);
        }
        let error = refused(reply, Step::Recipient, &self.site.label).by(PROVIDER).tried(1);
        Ok(if is_full(reply) { Taken::Next(error) } else { Taken::No(error) })
    }

    fn accepted(&self, reply: &Reply, step: Step) -> Result<(), (Error, bool)> {
        // With 421 the server closes the connection.
        accepted(&self.site, reply, step).map_err(|error| (error, reply.code == 421))
    }

    async fn reply(&mut self) -> Result<Reply> {
        next_reply(&self.site, &mut self.stream, &mut self.inbox).await
    }

    /// Whether nothing came that was not asked for: the end of the connection, or a word that announces it.
    pub(super) fn is_quiet(&mut self) -> bool {
        self.stray().is_none()
    }

    // What came that was not asked for. The connection is of no more use then.
    fn stray(&mut self) -> Option<(Kind, &'static str)> {
        let mut one = [0];
        let mut one = ReadBuf::new(&mut one);
        let mut context = Context::from_waker(Waker::noop());
        let word = Some((Kind::Protocol, "said something that it was not asked for"));
        if !self.inbox.is_empty() {
            return word;
        }
        match Pin::new(&mut self.stream).poll_read(&mut context, &mut one) {
            Poll::Pending => None,
            Poll::Ready(Ok(())) if !one.filled().is_empty() => word,
            Poll::Ready(_) => Some((Kind::Unavailable, "closed the connection")),
        }
    }

    /// Takes leave, for a short time.
    pub(super) async fn close(mut self) {
        self.live = None;
        let farewell = async {
            if self.stream.write_all(b"QUIT\r\n").await.is_ok() {
                let _ = self.reply().await;
            }
            let _ = self.stream.shutdown().await;
        };
        let _ = tokio::time::timeout(FAREWELL, farewell).await;
    }
}

fn lost(site: &Site, kind: Kind, what: &str) -> Error {
    Error::new(kind, format!("{} {what}", site.label)).by(PROVIDER)
}

fn accepted(site: &Site, reply: &Reply, step: Step) -> Result<()> {
    match (reply.is_done(), reply.is_refusal()) {
        (true, _) => Ok(()),
        (false, true) => Err(refused(reply, step, &site.label).by(PROVIDER)),
        (false, false) => {
            let what = format!("asks for more ({}) where it should say yes or no", reply.code);
            Err(lost(site, Kind::Protocol, &what))
        }
    }
}

async fn write(site: &Site, stream: &mut (impl Io + ?Sized), bytes: &[u8]) -> Result<()> {
    let broken = |error| lost(site, Kind::Unavailable, "lost the connection").caused_by(error);
    stream.write_all(bytes).await.map_err(broken)?;
    stream.flush().await.map_err(broken)
}

async fn next_reply(site: &Site, stream: &mut (impl Io + ?Sized), inbox: &mut BytesMut) -> Result<Reply> {
    loop {
        let read = read_reply(inbox)
            .map_err(|error| lost(site, Kind::Protocol, "does not speak SMTP").caused_by(error))?;
        if let Some((reply, taken)) = read {
            inbox.advance(taken);
            return Ok(reply);
        }
        match stream.read_buf(inbox).await {
            Ok(0) => return Err(lost(site, Kind::Unavailable, "closed the connection")),
            Ok(_) => {}
            Err(error) => {
                return Err(lost(site, Kind::Unavailable, "lost the connection").caused_by(error));
            }
        }
    }
}

async fn ask(
    site: &Site,
    stream: &mut (impl Io + ?Sized),
    inbox: &mut BytesMut,
    command: &[u8],
) -> Result<Reply> {
    write(site, stream, command).await?;
    next_reply(site, stream, inbox).await
}

async fn greet(site: &Site, stream: &mut (impl Io + ?Sized), inbox: &mut BytesMut) -> Result<()> {
    accepted(site, &next_reply(site, stream, inbox).await?, Step::Hello)
}

async fn say_hello(
    site: &Site,
    stream: &mut (impl Io + ?Sized),
    inbox: &mut BytesMut,
    hello: &str,
) -> Result<Features> {
    let reply = ask(site, stream, inbox, ehlo(hello).as_bytes()).await?;
    accepted(site, &reply, Step::Hello)?;
    Ok(Features::of(&reply))
}

async fn encrypted(
    site: &Site,
    tls: Arc<ClientConfig>,
    tcp: TcpStream,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let name = ServerName::try_from(site.host.clone()).map_err(|error| {
        let text = format!("the host of {} cannot be in a certificate", site.label);
        Error::new(Kind::InvalidConfig, text).caused_by(error).by(PROVIDER)
    })?;
    TlsConnector::from(tls).connect(name, tcp).await.map_err(|error| {
        // A certificate that is refused now is refused at the next try: it is no matter of time.
        let certificate = error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<rustls::Error>())
            .is_some_and(|inner| matches!(inner, rustls::Error::InvalidCertificate(_)));
        let text = if certificate {
            format!("the certificate of {} is not trusted", site.label)
        } else {
            format!("TLS with {} failed", site.label)
        };
        Error::new(Kind::Unavailable, text).retryable_is(!certificate).caused_by(error).by(PROVIDER)
    })
}
