//! The desk where faults are ordered, and where each call asks what befalls it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::answer::Answer;
use super::fault::{Fault, Operation, Trouble, When};
use super::form::Form;
use super::hold::HeldCall;
use super::server::Stop;

/// Orders waiting at one time; one more is refused.
const MOST_ORDERS: usize = 1_000;

/// A fault for the next calls of a kind.
///
/// As JSON: `{"count": 2, "on": "create", "reference": "po_1001", "when": "after", "fault": "reset"}`;
/// all but `fault` may be left out.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    #[serde(default = "once")]
    count: u32,
    #[serde(default)]
    on: Operation,
    /// Only calls about this reference: of a webhook, its `data.merchant_payout_id`.
    #[serde(default)]
    reference: Option<String>,
    #[serde(default)]
    when: When,
    fault: Fault,
}

fn once() -> u32 {
    1
}

impl Order {
    /// The fault, once, for the next create, before its work is done.
    pub fn new(fault: Fault) -> Self {
        Self { count: once(), on: Operation::default(), reference: None, when: When::default(), fault }
    }

    #[must_use]
    pub fn times(self, count: u32) -> Self {
        Self { count, ..self }
    }

    #[must_use]
    pub fn always(self) -> Self {
        self.times(u32::MAX)
    }

    #[must_use]
    pub fn on(self, on: Operation) -> Self {
        Self { on, ..self }
    }

    #[must_use]
    pub fn after_the_work(self) -> Self {
        Self { when: When::After, ..self }
    }

    #[must_use]
    pub fn for_reference(self, reference: impl Into<String>) -> Self {
        Self { reference: Some(reference.into()), ..self }
    }

    fn concerns(&self, operation: Operation, reference: Option<&str>) -> bool {
        self.on == operation && (self.reference.is_none() || self.reference.as_deref() == reference)
    }
}

impl From<Fault> for Order {
    fn from(fault: Fault) -> Self {
        Self::new(fault)
    }
}

/// Too many orders wait already.
#[derive(Debug, thiserror::Error)]
#[error("{MOST_ORDERS} faults are waiting already")]
pub(crate) struct DeskFull;

pub(crate) struct Desk {
    form: &'static Form,
    orders: Mutex<Vec<Order>>,
    pub(crate) stop: Stop,
}

impl Desk {
    pub(crate) fn new(form: &'static Form, stop: Stop) -> Self {
        Self { form, orders: Mutex::default(), stop }
    }

    pub(crate) fn order(&self, order: Order) -> Result<(), DeskFull> {
        let mut orders = self.orders();
        if orders.len() >= MOST_ORDERS {
            return Err(DeskFull);
        }
        if order.count > 0 {
            orders.push(order);
        }
        Ok(())
    }

    /// Holds the next such call that no earlier order concerns.
    pub(crate) fn hold_next(&self, operation: Operation, when: When) -> HeldCall {
        let (held, gate) = HeldCall::new();
        let order = Order { when, ..Order::new(Fault::Hold(gate)).on(operation) };
        self.orders().push(order);
        held
    }

    pub(crate) fn clear(&self) {
        self.orders().clear();
    }

    pub(crate) fn waiting(&self) -> Vec<Order> {
        self.orders().clone()
    }

    /// What befalls this call: the first order that concerns it, counted down.
    pub(crate) fn trouble(&self, operation: Operation, reference: Option<&str>) -> Option<Trouble> {
        let mut orders = self.orders();
        let place = orders.iter().position(|order| order.concerns(operation, reference))?;
        let order = &mut orders[place];
        let trouble = Trouble { fault: order.fault.clone(), when: order.when };
        order.count -= 1;
        if order.count == 0 {
            orders.remove(place);
        }
        Some(trouble)
    }

    /// Does the work and answers the call, as far as its trouble lets it.
    pub(crate) async fn around(&self, trouble: Option<Trouble>, work: impl FnOnce() -> Answer) -> Answer {
        match trouble {
            Some(trouble) => trouble.around(self.form, &self.stop, work).await,
            None => work(),
        }
    }

    fn orders(&self) -> MutexGuard<'_, Vec<Order>> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
