//! Reads a queue, and selects letters of it.

use std::{collections::BTreeSet, str::FromStr};

use anyhow::Context;
use time::OffsetDateTime;

use super::row::{Queue, Row};
use crate::{
    cli::{
        ExitStatus,
        filter::{time_of, words},
        note,
    },
    config::Config,
    rabbitmq::{Letter, Letters, Names, Source},
};

/// Which letters of which queue.
#[derive(Debug, clap::Args)]
pub(super) struct Selection {
    /// Letters by id, message_id or merchant_payout_id; without one, all that match
    #[arg(value_name = "ID")]
    pub(super) ids: Vec<String>,
    /// Which queue
    #[arg(long, value_enum, default_value_t)]
    pub(super) queue: Queue,
    /// Conditions that must all be met: code, field, kind, merchant, connector, currency, payout, since, until. Commas
    /// separate alternatives
    #[arg(long = "where", value_name = "CONDITIONS")]
    conditions: Vec<Conditions>,
    /// A policy gives the queue a delivery limit, so reading is safe although broker.letter_delivery_limit is 0
    #[arg(long)]
    delivery_limit_is_set: bool,
}

/// Conditions as text: `code=INVALID_JOB since=2h`.
#[derive(Debug, Clone)]
struct Conditions(Vec<Filter>);

impl FromStr for Conditions {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        words(text)?.iter().map(|word| word.parse()).collect::<Result<_, _>>().map(Self)
    }
}

impl Conditions {
    fn match_all(&self, row: &Row) -> bool {
        self.0.iter().all(|filter| filter.matches(row))
    }
}

#[derive(Debug, Clone)]
struct Filter {
    key: Key,
    values: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Code,
    /// The field that a job was rejected for.
    Field,
    Kind,
    Merchant,
    Connector,
    Currency,
    Payout,
    Since(OffsetDateTime),
    Until(OffsetDateTime),
}

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, value) = text.split_once('=').ok_or("KEY=VALUE is expected, such as code=INVALID_JOB")?;
        let time = || time_of(key, value, OffsetDateTime::now_utc());
        let key = match key {
            "code" => Key::Code,
            "field" => Key::Field,
            "kind" => Key::Kind,
            "merchant" => Key::Merchant,
            "connector" => Key::Connector,
            "currency" => Key::Currency,
            "payout" => Key::Payout,
            "since" => Key::Since(time()?),
            "until" => Key::Until(time()?),
            other => {
                return Err(format!(
                    "{other:?} is no key: code, field, kind, merchant, connector, currency, payout, since and until are known"
                ));
            }
        };
        Ok(Self { key, values: value.split(',').map(str::to_owned).collect() })
    }
}

impl Filter {
    fn matches(&self, row: &Row) -> bool {
        let is = |given: &str| self.values.iter().any(|value| value == given);
        match self.key {
            Key::Code => is(&row.code),
            // The reason begins with the field.
            Key::Field => row.reason.split_once(": ").is_some_and(|(field, _)| is(field)),
            Key::Kind => is(&row.kind),
            Key::Merchant => is(&row.merchant_id),
            Key::Connector => is(&row.connector),
            Key::Currency => is(&row.currency),
            Key::Payout => is(&row.merchant_payout_id),
            Key::Since(since) => row.at.is_some_and(|at| at >= since),
            Key::Until(until) => row.at.is_some_and(|at| at < until),
        }
    }
}

/// A queue that is being read.
pub(super) struct Reading<'a> {
    pub(super) letters: Letters,
    pub(super) names: Names,
    selection: &'a Selection,
    started: OffsetDateTime,
    /// Those of an earlier look; `None`: all that match.
    only: Option<BTreeSet<String>>,
}

/// Maximum number of letters that are read for the order alone.
const READ_ON: usize = 10_000;

impl Selection {
    /// Returns a selection of the whole queue.
    pub(super) fn every(queue: Queue) -> Self {
        Self { ids: Vec::new(), queue, conditions: Vec::new(), delivery_limit_is_set: false }
    }

    /// Returns whether it names letters, instead of meaning the whole queue.
    pub(super) fn is_narrowed(&self) -> bool {
        !self.ids.is_empty() || !self.conditions.is_empty()
    }

    /// Opens the queue.
    ///
    /// # Errors
    ///
    /// [`ExitStatus::Refused`] if reading could delete letters.
    pub(super) async fn open(&self, config: &Config) -> anyhow::Result<Reading<'_>> {
        let settings = config.broker();
        if settings.letter_delivery_limit == 0 && !self.delivery_limit_is_set {
            let reason = "broker.letter_delivery_limit is 0: RabbitMQ 4.0 to 4.2 deletes a letter that returns to its \
                          queue for the 21st time, and each look counts. Set a policy (docs/how-to/requeue-dead-letters.md), \
                          then add --delivery-limit-is-set";
            return Err(ExitStatus::Refused.because(reason).into());
        }
        let names = settings.names.clone();
        let queue = match self.queue {
            Queue::Jobs => &names.dead_queue,
            Queue::Results => &names.unrouted_queue,
        };
        let letters = Letters::open(&settings, queue).await.context("broker")?;
        Ok(Reading { letters, names, selection: self, started: OffsetDateTime::now_utc(), only: None })
    }
}

impl Reading<'_> {
    /// Keeps to the letters of an earlier look.
    pub(super) fn only(self, ids: Option<BTreeSet<String>>) -> Self {
        Self { only: ids, ..self }
    }

    /// Reads on to the next letter that is selected; `None` at the end of the queue.
    pub(super) async fn next(&mut self) -> anyhow::Result<Option<(Letter, Row)>> {
        while let Some(letter) = self.letters.next().await.context("broker")? {
            let row = Row::of(&letter, self.selection.queue, &self.names);
            if self.is_selected(&letter, &row) {
                return Ok(Some((letter, row)));
            }
        }
        Ok(None)
    }

    fn is_selected(&self, letter: &Letter, row: &Row) -> bool {
        // This command published it again, and a worker has rejected it again already.
        let is_ours = letter.requeued_at().is_some_and(|at| at >= self.started);
        let ids = &self.selection.ids;
        let names = [&row.id, &row.message_id, &row.merchant_payout_id];
        !is_ours
            && self.only.as_ref().is_none_or(|only| only.contains(&row.id))
            && (ids.is_empty() || ids.iter().any(|id| names.contains(&id)))
            && self.selection.conditions.iter().all(|conditions| conditions.match_all(row))
    }

    /// Gives every letter back that was not removed. It reads to the end of the queue first: a quorum queue appends
    /// letters that return to those that returned before, so only a whole queue keeps its order. Returns how many of the
    /// letters on this way are selected.
    pub(super) async fn give_back(mut self) -> anyhow::Result<usize> {
        let (mut left, mut selected) = (READ_ON, 0);
        while left > 0
            && let Some(letter) = self.letters.next().await.context("broker")?
        {
            let row = Row::of(&letter, self.selection.queue, &self.names);
            selected += usize::from(self.is_selected(&letter, &row));
            left -= 1;
        }
        if left == 0 {
            note("the queue is long: the letters that were read may be behind the others now");
        }
        self.letters.give_back().await.context("broker")?;
        Ok(selected)
    }
}

/// Reads `--to`.
pub(super) fn source(text: &str) -> Result<Source, String> {
    Source::parse(text).ok_or_else(|| "create, cancel or status is expected".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Row {
        Row {
            id: "0011223344556677".into(),
            at: Some(OffsetDateTime::UNIX_EPOCH),
            kind: "create".into(),
            code: "INVALID_JOB".into(),
            reason: "currency: EURO is no currency: a code of ISO 4217 is expected".into(),
            merchant_id: "m_1".into(),
            merchant_payout_id: "po_1".into(),
            minor_amount: "1250".into(),
            currency: "EUR".into(),
            connector: String::new(),
            message_id: String::new(),
            bytes: 2,
            requeued_count: 0,
            source: Some(Source::Jobs),
        }
    }

    #[test]
    fn a_filter_selects_by_one_value_or_another() {
        for (filter, matches) in [
            ("code=INVALID_JOB", true),
            ("code=UNKNOWN_CONNECTOR,INVALID_JOB", true),
            ("code=UNKNOWN_CONNECTOR", false),
            ("field=currency", true),
            ("field=amount.minor_amount,currency", true),
            ("field=destination_currency", false),
            ("merchant=m_1", true),
            ("merchant=", false),
            ("connector=", true),
            ("payout=po_2", false),
            ("since=1970-01-01T00:00:00Z", true),
            ("until=1970-01-01T00:00:00Z", false),
            ("code=INVALID_JOB since=2h", false),
            ("code=INVALID_JOB payout=po_1", true),
        ] {
            assert_eq!(filter.parse::<Conditions>().unwrap().match_all(&row()), matches, "{filter}");
        }
        for bad in ["code", "colour=red", "since=yesterday"] {
            assert!(bad.parse::<Conditions>().is_err(), "{bad}");
        }
    }
}
