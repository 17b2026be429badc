//! The checker, with the matrix's webhook schedule.

pub use history_checker::{
    CommandRun, DeadLetter, EarlierEvent, Event, History, Link, OperatorAction, Published, ReceivedMessage,
    Record, RecordedAct, Rule, Violation, Webhook,
};

/// Posts of the schedule, the first included.
const TRIES: u32 = 4;

pub fn check(history: &History) -> Vec<Violation> {
    history_checker::check(history, TRIES)
}
