//! The login of a connection: the broker asks for the key and says whether it is the right one.

use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::Message;

use super::PROVIDER;
use crate::error::{Error, Kind, Result};
use crate::provider::socket::{Target, Wire};
use crate::secret::Secret;
use crate::wire::kapokmq::{LOGIN_ERROR, LOGIN_OK, PROMPT};

/// Logs in on a new connection.
pub(super) async fn log_in(wire: &mut Wire, target: &Target, secret: &Secret) -> Result<()> {
    if read_text(wire, target).await? != PROMPT {
        return Err(target.strange("asked for something else than the key"));
    }
    wire.send(Message::text(secret.expose())).await.map_err(|error| target.lost(error))?;
    match read_text(wire, target).await?.as_str() {
        LOGIN_OK => Ok(()),
        LOGIN_ERROR => {
            // The server would ask again; it gets no second guess.
            let _ = wire.close(None).await;
            let text = format!(
                "{} refused the secret: `secret_key`, in a URL the SECRET of kapokmq://:SECRET@HOST:PORT, must be the \
                 one that the broker was started with",
                target.label
            );
            Err(Error::new(Kind::Authentication, text).by(PROVIDER))
        }
        _ => Err(target.strange("answered the key with something else")),
    }
}

async fn read_text(wire: &mut Wire, target: &Target) -> Result<String> {
    loop {
        match wire.next().await {
            Some(Ok(Message::Text(text))) => return Ok(text.as_str().to_owned()),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            Some(Ok(Message::Close(_))) | None => {
                return Err(
                    target.unavailable(format!("{} closed the connection during the login", target.label))
                );
            }
            Some(Ok(_)) => return Err(target.strange("did not speak in texts during the login")),
            Some(Err(error)) => return Err(target.lost(error)),
        }
    }
}
