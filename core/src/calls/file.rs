//! The clients of a file, opened together.

use std::sync::Arc;

use super::{consumer_close, consumer_open, producer_close, producer_open};
use crate::completion::CompletionQueue;
use crate::config::{ClientConfig, Role};
use crate::error::Result;
use crate::open;
use crate::registry::check_id;

/// Reads a file and checks it as far as that goes without a connection.
///
/// # Errors
/// Those of [`open::file`], and `invalid_argument` for an id that no client can have.
pub fn read_file(text: &str) -> Result<Vec<ClientConfig>> {
    let clients = open::file(text)?;
    for client in &clients {
        check_id(client.id.as_deref().unwrap_or_default(), "client")?;
    }
    Ok(clients)
}

/// Opens every client of a file, as [`read_file`] has them; none is left open when one fails. Returns roles and
/// ids in order.
pub async fn open_file(text: &str, queue: Option<Arc<CompletionQueue>>) -> Result<Vec<(Role, Arc<str>)>> {
    let mut opened = Vec::new();
    for client in read_file(text)? {
        let role = client.role.unwrap_or_default();
        let name = client.id.clone().unwrap_or_default();
        let result = match role {
            Role::Producer => producer_open(None, client, queue.clone()).await,
            Role::Consumer => consumer_open(None, client).await,
        };
        match result {
            Ok(id) => opened.push((role, id)),
            Err(error) => {
                // Later ones may hold earlier ones.
                for (role, id) in opened.into_iter().rev() {
                    let closed = match role {
                        Role::Producer => producer_close(&id, None).await,
                        Role::Consumer => consumer_close(&id, None).await,
                    };
                    if let Err(error) = closed {
                        tracing::warn!(id = %id, %error, "closing after a failed open");
                    }
                }
                return Err(error.at(&format!("the client `{name}` of the file")));
            }
        }
    }
    Ok(opened)
}
