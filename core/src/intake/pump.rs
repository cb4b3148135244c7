//! Submits to a producer that has no task of its own.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio_util::sync::CancellationToken;

use super::{Intake, Taken, Ticket};
use crate::client::{Context, Producer};
use crate::error::{Error, Kind, Outcome};

/// Runs submits through `send` of a producer that has no intake of its own. Ends after the close, when
/// the last call has ended; once `stop` is cancelled those under way end as `closed`.
pub async fn pump(intake: Arc<Intake>, producer: Arc<dyn Producer>, stop: CancellationToken) {
    let _guard = intake.task_guard();
    let mut taken = Taken::default();
    let mut running = FuturesUnordered::new();
    let mut cancels: HashMap<Ticket, CancellationToken> = HashMap::new();
    loop {
        tokio::select! {
            () = intake.take(&mut taken), if !taken.closed => {
                for ticket in taken.cancels.drain(..) {
                    if let Some(token) = cancels.get(&ticket) {
                        token.cancel();
                    }
                }
                for call in taken.calls.drain(..) {
                    let token = CancellationToken::new();
                    cancels.insert(call.ticket(), token.clone());
                    let ctx = Context::until(call.deadline).cancelled_by(token).with_room();
                    let (producer, stop) = (producer.clone(), stop.clone());
                    running.push(async move {
                        let send = async {
                            // Once for all strategies: a call that comes late says nothing of a member.
                            ctx.check().map_err(|error| error.by(producer.provider()))?;
                            producer.send(&ctx, Arc::new(call.message.clone())).await
                        };
                        let result = tokio::select! {
                            biased;
                            result = send => result,
                            () = stop.cancelled() => Err(Error::new(Kind::Closed, "the producer was closed")
                                .outcome_is(Outcome::Unknown)
                                .by(producer.provider())),
                        };
                        let ticket = call.ticket();
                        call.end(result);
                        ticket
                    });
                }
            }
            Some(ticket) = running.next(), if !running.is_empty() => {
                cancels.remove(&ticket);
            }
            else => return,
        }
        if taken.closed && running.is_empty() {
            return;
        }
    }
}
