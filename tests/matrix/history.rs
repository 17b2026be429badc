//! The checker, with the matrix's webhook schedule.

pub use history_checker::{
    CommandRun, DeadLetter, EarlierEvent, Event, History, LetterRetention, Link, OperatorAction, Published,
    ReceivedMessage, Record, RecordedAct, Rule, SeenLetter, Violation, Webhook,
};

/// The number of attempts of a webhook, with the first one.
const TRIES: u32 = 4;

pub fn check(history: &History) -> Vec<Violation> {
    history_checker::check(history, TRIES)
}
