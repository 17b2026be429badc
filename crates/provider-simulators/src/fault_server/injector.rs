//! Stores the fault rules and returns the fault of each call.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::answer::Answer;
use super::fault::{ActiveFault, Fault, Operation, When};
use super::form::Form;
use super::hold::HeldCall;
use super::server::Stop;

/// The maximum number of pending fault rules.
const MAX_FAULT_RULES: usize = 1_000;

/// A rule that injects a fault into the next calls of an operation.
///
/// As JSON: `{"count": 2, "on": "create", "reference": "po_1001", "when": "after", "fault": "reset"}`. Only `fault`
/// is required.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultRule {
    #[serde(default = "once")]
    count: u32,
    #[serde(default)]
    on: Operation,
    /// Limits the rule to calls about this reference; for webhooks, to this `data.merchant_payout_id`.
    #[serde(default)]
    reference: Option<String>,
    #[serde(default)]
    when: When,
    fault: Fault,
}

fn once() -> u32 {
    1
}

impl FaultRule {
    /// Creates a rule that injects the fault once, into the next create, before its work.
    pub fn new(fault: Fault) -> Self {
        Self { count: once(), on: Operation::default(), reference: None, when: When::default(), fault }
    }

    /// Sets the number of calls.
    #[must_use]
    pub fn times(self, count: u32) -> Self {
        Self { count, ..self }
    }

    /// Applies the rule to every call.
    #[must_use]
    pub fn always(self) -> Self {
        self.times(u32::MAX)
    }

    /// Sets the operation.
    #[must_use]
    pub fn on(self, on: Operation) -> Self {
        Self { on, ..self }
    }

    /// Injects the fault after the work.
    #[must_use]
    pub fn after_the_work(self) -> Self {
        Self { when: When::After, ..self }
    }

    /// Limits the rule to one reference.
    #[must_use]
    pub fn for_reference(self, reference: impl Into<String>) -> Self {
        Self { reference: Some(reference.into()), ..self }
    }

    fn matches(&self, operation: Operation, reference: Option<&str>) -> bool {
        self.on == operation && (self.reference.is_none() || self.reference.as_deref() == reference)
    }
}

impl From<Fault> for FaultRule {
    fn from(fault: Fault) -> Self {
        Self::new(fault)
    }
}

/// The error that too many fault rules are pending.
#[derive(Debug, thiserror::Error)]
#[error("{MAX_FAULT_RULES} fault rules are pending already: delete them with DELETE /control/faults")]
pub(crate) struct TooManyFaultRules;

pub(crate) struct FaultInjector {
    form: &'static Form,
    rules: Mutex<Vec<FaultRule>>,
    pub(crate) stop: Stop,
}

impl FaultInjector {
    pub(crate) fn new(form: &'static Form, stop: Stop) -> Self {
        Self { form, rules: Mutex::default(), stop }
    }

    pub(crate) fn add(&self, rule: FaultRule) -> Result<(), TooManyFaultRules> {
        let mut rules = self.rules();
        if rules.len() >= MAX_FAULT_RULES {
            return Err(TooManyFaultRules);
        }
        if rule.count > 0 {
            rules.push(rule);
        }
        Ok(())
    }

    /// Holds the next such call, unless an earlier rule matches it.
    pub(crate) fn hold_next(&self, operation: Operation, when: When) -> HeldCall {
        let (held, gate) = HeldCall::new();
        let rule = FaultRule { when, ..FaultRule::new(Fault::Hold(gate)).on(operation) };
        self.rules().push(rule);
        held
    }

    pub(crate) fn clear(&self) {
        self.rules().clear();
    }

    pub(crate) fn waiting(&self) -> Vec<FaultRule> {
        self.rules().clone()
    }

    /// Returns the fault of this call: that of the first rule that matches. Decrements the rule's count.
    pub(crate) fn take_fault(&self, operation: Operation, reference: Option<&str>) -> Option<ActiveFault> {
        let mut rules = self.rules();
        let index = rules.iter().position(|rule| rule.matches(operation, reference))?;
        let rule = &mut rules[index];
        let active_fault = ActiveFault { fault: rule.fault.clone(), when: rule.when };
        rule.count -= 1;
        if rule.count == 0 {
            rules.remove(index);
        }
        Some(active_fault)
    }

    /// Does the work and answers the call, as far as its fault allows.
    pub(crate) async fn around(
        &self,
        active_fault: Option<ActiveFault>,
        work: impl FnOnce() -> Answer,
    ) -> Answer {
        match active_fault {
            Some(active_fault) => active_fault.around(self.form, &self.stop, work).await,
            None => work(),
        }
    }

    fn rules(&self) -> MutexGuard<'_, Vec<FaultRule>> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
