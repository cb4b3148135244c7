//! KapokMQ clients.
