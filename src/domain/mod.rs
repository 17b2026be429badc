//! Values and decisions.
//!
//! This module does no I/O and starts no task. Decisions take `now` as an argument.

mod account;
mod clock;
mod prism;
mod money;
mod customer;
mod payout_method;
mod job;
mod idempotency;
mod redaction;
mod text;
mod nearest;
mod payout_link;
mod outcome;
mod rejection;
mod conclusion;
mod state;
mod link_request;
mod order;
mod turns;
pub mod follow;
pub mod retry;
mod event;

pub use self::{
    account::AccountId,
    clock::{ClockSample, ClockWatch, MAX_STEP, SetBack, Steady},
    conclusion::{Conclusion, ConclusionCode},
    customer::{Address, BrowserInformation, Customer, CustomerDocument, PayoutAddress},
    event::{EventType, event_time},
    follow::{Followed, LinkAnswer, LinkReport, LinkStatus, NewLinkStatus},
    idempotency::{idempotency_key, idempotency_key_of, idempotency_uuid},
    job::{CreateLink, InvalidIdentifier, InvalidWebhookUrl, MerchantPayoutId, WebhookUrl},
    link_request::{LinkRequest, LinkRequestAnswer, LinkRequestKind, link_request_answer},
    money::{Currency, InvalidAmount, Money},
    nearest::{did_you_mean, nearest},
    order::{
        PRIORITIES, SERVICE_RANKS, ServiceClass, UNKNOWN_RANKS, event_priority, event_rank, service_rank,
    },
    outcome::{AttemptOutcome, ConnectorError, CreatedLink, Finding, LookUp, Outcome, ReplayRule},
    payout_link::{Attempt, AttemptKind, Lease, OpenLink, TraceContext},
    payout_method::{FieldKind, METHODS, MethodField, MethodFields, MethodKind, PayoutMethod, SOURCE_BANKS},
    prism::{Country, PayoutPriority, PayoutStatus, PrismEnum},
    redaction::Redactor,
    rejection::{Rejection, RejectionCode},
    retry::{Circumstances, Progress},
    state::PayoutLinkState,
    text::{escape_control, has_control, is_control},
    turns::{DueMerchants, Share, Turn, Turns},
};
