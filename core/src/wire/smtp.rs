//! The SMTP dialog: what a client writes, and what a server's replies say.

mod command;
mod refusal;
mod reply;

pub use command::{END_OF_DATA, auth_login, auth_plain, data, ehlo, mail_from, rcpt_to};
pub use refusal::{Step, is_full, refused};
pub use reply::{Features, Reply, read_reply};
