//! Compares a line of a statement with a record.

use std::collections::BTreeMap;

use serde::Serialize;
use time::{Duration, OffsetDateTime};

use super::statement::Line;
use crate::{
    domain::{Currency, LinkStatus, Money},
    postgres::BookedRecord,
};

/// The finding about a line or a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Finding {
    Matched,
    /// The statement has it, and no record does.
    MissingHere,
    /// A record has it, and the statement does not.
    MissingThere,
    AmountDiffers,
    StatusDiffers,
    /// The statement has it more than once.
    Repeated,
    /// It is so new that the other side may not have it yet.
    NotYetVisible,
}

impl Finding {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Matched => "matched",
            Self::MissingHere => "missing_here",
            Self::MissingThere => "missing_there",
            Self::AmountDiffers => "amount_differs",
            Self::StatusDiffers => "status_differs",
            Self::Repeated => "repeated",
            Self::NotYetVisible => "not_yet_visible",
        }
    }

    /// Returns whether somebody has to look at it.
    pub(super) fn is_difference(self) -> bool {
        !matches!(self, Self::Matched | Self::NotYetVisible)
    }
}

/// How lines and records are compared.
#[derive(Debug)]
pub(super) struct Rules {
    /// Our status for each word of the provider.
    pub(super) words: BTreeMap<String, LinkStatus>,
    /// The amounts of the statement are decimal text.
    pub(super) major_units: bool,
    /// A line or a record after this time may be on one side only.
    pub(super) settled_before: OffsetDateTime,
}

impl Rules {
    /// Compares a line with its record. The text says what differs.
    ///
    /// # Errors
    ///
    /// Returns a text for the operator if the line has a value that cannot be compared.
    pub(super) fn compare(
        &self,
        line: &Line,
        record: Option<&BookedRecord>,
    ) -> Result<(Finding, String), String> {
        let is_new = |at: Option<OffsetDateTime>| at.is_some_and(|at| at >= self.settled_before);
        let Some(record) = record else {
            let finding = if is_new(line.at) { Finding::NotYetVisible } else { Finding::MissingHere };
            return Ok((finding, String::new()));
        };
        if let Some(difference) = self.amount(line, record)? {
            return Ok((Finding::AmountDiffers, difference));
        }
        let (Some(word), Some(ours)) = (&line.status, &record.link_status) else {
            return Ok((Finding::Matched, String::new()));
        };
        let theirs = self.status(word).ok_or_else(|| {
            let known: Vec<&str> = LinkStatus::ALL.iter().map(|status| status.as_str()).collect();
            format!(
                "line {}: the status {} is not known: --status {}=STATUS says which of ours it is ({})",
                line.number,
                word.escape_debug(),
                word.escape_debug(),
                known.join(", ")
            )
        })?;
        if theirs.as_str() == ours {
            return Ok((Finding::Matched, String::new()));
        }
        let difference = format!("{} there, {ours} here", theirs.as_str());
        let is_new = is_new(line.at) || is_new(record.status_changed_at.or(record.concluded_at));
        Ok((if is_new { Finding::NotYetVisible } else { Finding::StatusDiffers }, difference))
    }

    /// Returns what a record is that the statement does not have.
    pub(super) fn without_line(&self, record: &BookedRecord) -> Finding {
        match record.concluded_at {
            Some(at) if at >= self.settled_before => Finding::NotYetVisible,
            Some(_) | None => Finding::MissingThere,
        }
    }

    fn status(&self, word: &str) -> Option<LinkStatus> {
        let word = word.to_lowercase();
        self.words.get(&word).copied().or_else(|| LinkStatus::parse(&word))
    }

    fn amount(&self, line: &Line, record: &BookedRecord) -> Result<Option<String>, String> {
        let ours = format!("{} {}", record.amount_minor, record.currency);
        if let Some(currency) = &line.currency
            && !currency.eq_ignore_ascii_case(&record.currency)
        {
            return Ok(Some(format!("{} there, {ours} here", currency.escape_debug())));
        }
        let Some(amount) = &line.amount else { return Ok(None) };
        let is_equal = if self.major_units {
            let money = Currency::new(&record.currency)
                .and_then(|currency| Money::new(record.amount_minor, currency).ok());
            money.is_some_and(|money| money.is_major_units(amount))
        } else {
            let minor: i64 = amount.parse().map_err(|_| {
                format!(
                    "line {}: the amount {} is no integer of minor units: --major-units reads decimal text",
                    line.number,
                    amount.escape_debug()
                )
            })?;
            minor == record.amount_minor
        };
        Ok((!is_equal).then(|| format!("{} there, {ours} here", amount.escape_debug())))
    }
}

/// How old a line or a record has to be without `--settled-after`.
pub(super) const SETTLED_AFTER: Duration = Duration::HOUR;

#[cfg(test)]
mod tests {
    use time::macros::datetime;
    use uuid::Uuid;

    use super::*;

    const SETTLED: OffsetDateTime = datetime!(2026-11-29 12:00 UTC);

    fn rules() -> Rules {
        let words = BTreeMap::from([("paid".to_owned(), LinkStatus::Succeeded)]);
        Rules { words, major_units: false, settled_before: SETTLED }
    }

    fn record() -> BookedRecord {
        BookedRecord {
            id: Uuid::nil(),
            merchant_id: String::new(),
            merchant_payout_id: "po_1".into(),
            connector_payout_id: "plink_1".into(),
            provider_payout_id: None,
            amount_minor: 1250,
            currency: "EUR".into(),
            link_status: Some("succeeded".into()),
            concluded_at: Some(SETTLED - Duration::HOUR),
            status_changed_at: None,
        }
    }

    fn line(status: &str, amount: &str, currency: &str) -> Line {
        let given = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        Line {
            number: 2,
            id: "plink_1".into(),
            status: given(status),
            amount: given(amount),
            currency: given(currency),
            at: Some(SETTLED - Duration::HOUR),
        }
    }

    #[test]
    fn each_difference_has_a_finding() {
        use Finding::{AmountDiffers, Matched, MissingHere, NotYetVisible, StatusDiffers};
        let new = |line: Line| Line { at: Some(SETTLED), ..line };
        let (here, changed) = (record(), BookedRecord { status_changed_at: Some(SETTLED), ..record() });
        for (line, record, expected) in [
            (line("paid", "1250", "eur"), Some(&here), (Matched, "")),
            (line("Succeeded", "", ""), Some(&here), (Matched, "")),
            (line("", "", ""), Some(&here), (Matched, "")),
            (line("paid", "1250", "EUR"), None, (MissingHere, "")),
            (new(line("paid", "1250", "EUR")), None, (NotYetVisible, "")),
            (line("paid", "1251", "EUR"), Some(&here), (AmountDiffers, "1251 there, 1250 EUR here")),
            (line("paid", "1250", "USD"), Some(&here), (AmountDiffers, "USD there, 1250 EUR here")),
            (line("expired", "1250", ""), Some(&here), (StatusDiffers, "expired there, succeeded here")),
            (new(line("expired", "1250", "")), Some(&here), (NotYetVisible, "expired there, succeeded here")),
            (line("expired", "1250", ""), Some(&changed), (NotYetVisible, "expired there, succeeded here")),
        ] {
            let (finding, text) = rules().compare(&line, record).unwrap();
            assert_eq!((finding, text.as_str()), expected, "{line:?}");
        }
        assert_eq!(rules().without_line(&here), Finding::MissingThere);
        let concluded = BookedRecord { concluded_at: Some(SETTLED), ..record() };
        assert_eq!(rules().without_line(&concluded), NotYetVisible);
    }

    #[test]
    fn decimal_amounts_have_the_digits_of_their_currency() {
        let rules = Rules { major_units: true, ..rules() };
        for (amount, finding) in
            [("12.50", Finding::Matched), ("12.51", Finding::AmountDiffers), ("1250", Finding::AmountDiffers)]
        {
            assert_eq!(
                rules.compare(&line("paid", amount, ""), Some(&record())).unwrap().0,
                finding,
                "{amount}"
            );
        }
    }

    #[test]
    fn what_cannot_be_compared_is_said() {
        let rules = rules();
        let settled = rules.compare(&line("settled", "1250", ""), Some(&record())).unwrap_err();
        assert!(settled.contains("--status settled=STATUS"), "{settled}");
        let amount = rules.compare(&line("paid", "12.50", ""), Some(&record())).unwrap_err();
        assert!(amount.contains("--major-units"), "{amount}");
    }
}
