//! What all clients count, for a scraper.

use super::{CLIENTS, consumer_status, producer_status};
use crate::metrics::Page;

/// The statuses of all open clients as Prometheus text; empty when there is none.
pub fn metrics() -> String {
    let mut page = Page::default();
    let Some(clients) = CLIENTS.get() else { return String::new() };
    // One that is closed meanwhile is left out.
    for id in clients.producers.ids() {
        if let Ok(status) = producer_status(&id) {
            page.add("producer", &id, &status);
        }
    }
    for id in clients.consumers.ids() {
        if let Ok(status) = consumer_status(&id) {
            page.add("consumer", &id, &status);
        }
    }
    page.text()
}
