//! Claims due events, within the permits for them and in turns of the merchants (`domain::turns`).

use std::{collections::HashMap, sync::Arc, time::Instant};

use super::{Pipeline, work::Deliverable};
use crate::{
    domain::{Turn, Turns},
    limits::{Lane, MerchantSettings, Merchants},
    postgres::{DueEvent, EventPlaces, StoreError},
};

/// Where the search for due events goes on, and whose events are being delivered.
pub(super) struct EventClaims {
    places: EventPlaces,
    turns: Turns,
    /// Due events that are being delivered, by merchant.
    in_process: Merchants,
}

impl Default for EventClaims {
    fn default() -> Self {
        Self {
            places: EventPlaces::default(),
            turns: Turns::default(),
            in_process: Merchants::new(MerchantSettings::default()),
        }
    }
}

impl EventClaims {
    /// Claims due events while permits and due events are left, at most `batch`, and returns how many.
    pub(super) async fn claim_due(
        &mut self,
        pipeline: &Arc<Pipeline>,
        batch: usize,
    ) -> Result<usize, StoreError> {
        let oldest = pipeline.store.oldest_due_event().await?;
        pipeline.health.note_oldest_event(oldest.unwrap_or_default());
        let limit = pipeline.due_events.free().min(batch);
        if limit == 0 || oldest.is_none() {
            return Ok(0);
        }
        let broker_is_up = pipeline.publisher.is_up();
        let expired = pipeline.store.claim_events(limit, broker_is_up, &Turn::ExpiredLeases).await?;
        let mut claimed = expired.len();
        self.deliver(pipeline, expired).await;
        if claimed == limit {
            return Ok(claimed);
        }
        let mut due = pipeline.store.merchants_with_due_events(&mut self.places).await?;
        while claimed < limit {
            let in_process = |merchant_id: &str| self.in_process.taken(merchant_id);
            let Some(turn) = due.next_turn(limit - claimed, in_process, &mut self.turns) else { break };
            let events = pipeline.store.claim_events(limit - claimed, broker_is_up, &turn).await?;
            claimed += events.len();
            let of_merchants = self.deliver(pipeline, events).await;
            due.remove_exhausted(&turn, &of_merchants);
        }
        Ok(claimed)
    }

    /// Delivers claimed events, and returns their number by merchant.
    async fn deliver(
        &self,
        pipeline: &Arc<Pipeline>,
        events: Vec<Result<Box<DueEvent>, StoreError>>,
    ) -> HashMap<String, usize> {
        let mut of_merchants: HashMap<String, usize> = HashMap::new();
        for event in events {
            match event {
                Ok(event) => {
                    *of_merchants.entry(event.merchant_id.clone()).or_default() += 1;
                    let in_process = self.in_process.take(&event.merchant_id, Instant::now());
                    let publishing = pipeline.due_events.take().await;
                    let deliverable = Deliverable { event, publishing, lane: Lane::Due };
                    let pipeline = pipeline.clone();
                    pipeline.clone().spawn(async move {
                        pipeline.deliver_due(deliverable).await;
                        drop(in_process);
                    });
                }
                Err(error) => pipeline.report(&error),
            }
        }
        of_merchants
    }
}
