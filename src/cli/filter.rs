//! Reads the conditions of `list`, which the commands that act on many records share: as options, and as text for
//! `--where`.
//!
//! A condition is `NAME=VALUE`; conditions are separated by blanks, and a value with blanks is in double quotes. All
//! conditions have to be met.

use std::fmt::Display;

use time::{
    Date, OffsetDateTime, Time, UtcOffset, format_description::well_known::Rfc3339,
    macros::format_description,
};

use super::exit::{Ended, ExitStatus};
use crate::{
    domain::{ConclusionCode, LinkStatus, PayoutLinkState, PayoutStatus, did_you_mean},
    postgres::RecordFilter,
};

/// `--where`, for every command that acts on many records.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Where {
    /// Select records by conditions, such as 'state=failed merchant=m1 since=2h'; may be repeated
    #[arg(long = "where", value_name = "CONDITIONS")]
    conditions: Vec<String>,
}

impl Where {
    /// Returns whether no condition is given.
    pub(super) fn is_empty(&self) -> bool {
        self.conditions.iter().all(|text| text.trim().is_empty())
    }

    /// Reads the conditions.
    ///
    /// # Errors
    ///
    /// [`ExitStatus::WrongUse`] with the condition that is wrong, and what it may be.
    pub(super) fn filter(&self) -> Result<RecordFilter, Ended> {
        read(&self.conditions.join(" "))
    }
}

/// The same conditions as options, beside `--where`.
#[derive(Debug, Default, clap::Args)]
pub(super) struct FilterArguments {
    #[command(flatten)]
    text: Where,
    /// Records in these states: open, created, failed, unknown; several with commas
    #[arg(long, value_name = "STATES")]
    state: Option<String>,
    /// Records with this payout_status, such as REQUIRES_FULFILLMENT
    #[arg(long, value_name = "STATUS")]
    payout_status: Option<String>,
    /// Created links with this status, such as unclaimed or payout_failed
    #[arg(long, value_name = "STATUS")]
    link: Option<String>,
    /// Records of this x-merchant-id; '' for jobs without one
    #[arg(long, value_name = "ID")]
    merchant: Option<String>,
    /// Records of this connector account
    #[arg(long, value_name = "NAME")]
    connector: Option<String>,
    /// Records with this error code, such as CONNECTOR_UNAVAILABLE
    #[arg(long, value_name = "CODE")]
    error: Option<String>,
    /// Accepted at this time or later: RFC 3339, a date, or an age such as 15m, 2h, 3d
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Accepted before this time
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// At least this amount, in minor units of --currency
    #[arg(long, value_name = "MINOR_UNITS")]
    min_amount: Option<String>,
    /// At most this amount, in minor units of --currency
    #[arg(long, value_name = "MINOR_UNITS")]
    max_amount: Option<String>,
    /// Records in this currency
    #[arg(long, value_name = "CODE")]
    currency: Option<String>,
    /// Open records that were called before, whose outcome is not unknown, and that will be called again
    #[arg(long)]
    retrying: bool,
    /// Open records that have been due for more than a minute
    #[arg(long)]
    overdue: bool,
    /// Payouts whose outcome is unknown, concluded or not
    #[arg(long)]
    unknown: bool,
}

/// The names of the conditions.
const NAMES: [&str; 14] = [
    "state",
    "payout-status",
    "link",
    "merchant",
    "connector",
    "error",
    "since",
    "until",
    "min-amount",
    "max-amount",
    "currency",
    "retrying",
    "overdue",
    "unknown",
];

impl FilterArguments {
    /// Reads the conditions of all options.
    ///
    /// # Errors
    ///
    /// [`ExitStatus::WrongUse`] with the condition that is wrong, and what it may be.
    pub(super) fn filter(&self) -> Result<RecordFilter, Ended> {
        let values = [
            ("state", &self.state),
            ("payout-status", &self.payout_status),
            ("link", &self.link),
            ("merchant", &self.merchant),
            ("connector", &self.connector),
            ("error", &self.error),
            ("since", &self.since),
            ("until", &self.until),
            ("min-amount", &self.min_amount),
            ("max-amount", &self.max_amount),
            ("currency", &self.currency),
        ];
        let flags = [("retrying", self.retrying), ("overdue", self.overdue), ("unknown", self.unknown)];
        let mut conditions = self.text.conditions.clone();
        conditions.extend(
            values.iter().filter_map(|(name, value)| Some(format!("\"{name}={}\"", value.as_ref()?))),
        );
        conditions.extend(flags.iter().filter(|(_, given)| *given).map(|(name, _)| (*name).to_owned()));
        read(&conditions.join(" "))
    }
}

fn read(text: &str) -> Result<RecordFilter, Ended> {
    parse(text, OffsetDateTime::now_utc()).map_err(|problem| ExitStatus::WrongUse.because(problem))
}

/// Reads conditions, as `--where` has them. `now`: the end of ages.
///
/// # Errors
///
/// A sentence that says which condition is wrong, and what it may be.
pub(super) fn parse(text: &str, now: OffsetDateTime) -> Result<RecordFilter, String> {
    let mut filter = RecordFilter::default();
    let mut given: Vec<String> = Vec::new();
    for word in words(text)? {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name.replace('_', "-"), Some(value)),
            None => (word.replace('_', "-"), None),
        };
        if given.contains(&name) {
            return Err(format!("{name} is given twice"));
        }
        set(&mut filter, &name, value, now)?;
        given.push(name);
    }
    if (filter.min_amount.is_some() || filter.max_amount.is_some()) && filter.currency.is_none() {
        return Err("an amount needs a currency: add currency=EUR, for example".into());
    }
    Ok(filter)
}

fn set(
    filter: &mut RecordFilter,
    name: &str,
    value: Option<&str>,
    now: OffsetDateTime,
) -> Result<(), String> {
    match (name, value.filter(|value| !value.is_empty())) {
        ("retrying", None) => filter.is_retrying = true,
        ("overdue", None) => filter.is_overdue = true,
        ("unknown", None) => filter.is_unknown = true,
        ("retrying" | "overdue" | "unknown", Some(_)) => return Err(format!("{name} takes no value")),
        ("state", Some(states)) => {
            let all = PayoutLinkState::ALL.map(PayoutLinkState::as_str);
            let parse =
                |state: &str| PayoutLinkState::parse(state).ok_or_else(|| no_such("state", state, &all));
            filter.states = states.split(',').map(parse).collect::<Result<_, _>>()?;
        }
        ("payout-status", Some(status)) => {
            let status = status.to_ascii_uppercase();
            let all = PayoutStatus::ALL.map(PayoutStatus::as_str);
            let found = PayoutStatus::new(&status).ok_or_else(|| no_such(name, &status, &all))?;
            filter.payout_status = Some(found);
        }
        ("link", Some(status)) => {
            let all = LinkStatus::ALL.map(LinkStatus::as_str);
            filter.link_status =
                Some(LinkStatus::parse(status).ok_or_else(|| no_such("link", status, &all))?);
        }
        ("error", Some(code)) => {
            let all = ConclusionCode::ALL.map(ConclusionCode::as_str);
            let found =
                ConclusionCode::ALL.into_iter().find(|known| known.as_str() == code.to_ascii_uppercase());
            filter.error_code = Some(found.ok_or_else(|| no_such("error", code, &all))?);
        }
        // A job without x-merchant-id has the empty merchant.
        ("merchant", _) => filter.merchant_id = Some(value.unwrap_or_default().to_owned()),
        ("connector", Some(connector)) => filter.connector = Some(connector.to_owned()),
        ("currency", Some(currency)) => filter.currency = Some(currency.to_ascii_uppercase()),
        ("since", Some(time)) => filter.since = Some(time_of("since", time, now)?),
        ("until", Some(time)) => filter.until = Some(time_of("until", time, now)?),
        ("min-amount", Some(amount)) => filter.min_amount = Some(minor_units(name, amount)?),
        ("max-amount", Some(amount)) => filter.max_amount = Some(minor_units(name, amount)?),
        (name, None) if NAMES.contains(&name) => {
            return Err(format!("{name} has no value: write {name}=VALUE"));
        }
        (name, _) => {
            let meant = did_you_mean(name, NAMES);
            return Err(format!("there is no condition {name:?}.{meant} Known are: {}", NAMES.join(", ")));
        }
    }
    Ok(())
}

fn no_such(name: impl Display, value: &str, all: &[&str]) -> String {
    format!("{name}={value}: there is no such value. Known are: {}", all.join(", "))
}

fn minor_units(name: &str, text: &str) -> Result<i64, String> {
    text.parse().map_err(|_| {
        format!("{name}={text}: expected a number of minor units, such as 125000 for EUR 1250.00")
    })
}

/// Splits text at blanks that are not in double quotes.
pub(super) fn words(text: &str) -> Result<Vec<String>, String> {
    let (mut words, mut word, mut is_quoted) = (Vec::new(), None::<String>, false);
    for letter in text.chars() {
        match letter {
            '"' => {
                is_quoted = !is_quoted;
                word.get_or_insert_default();
            }
            blank if blank.is_whitespace() && !is_quoted => words.extend(word.take()),
            letter => word.get_or_insert_default().push(letter),
        }
    }
    if is_quoted {
        return Err("a double quote is not closed".into());
    }
    words.extend(word);
    Ok(words)
}

/// Reads a time: RFC 3339, a date (its begin, in UTC), or an age such as 90s, 15m, 2h or 3d.
pub(super) fn time_of(name: &str, text: &str, now: OffsetDateTime) -> Result<OffsetDateTime, String> {
    if let Ok(time) = OffsetDateTime::parse(text, &Rfc3339) {
        return Ok(time.to_offset(UtcOffset::UTC));
    }
    if let Ok(date) = Date::parse(text, format_description!("[year]-[month]-[day]")) {
        return Ok(date.with_time(Time::MIDNIGHT).assume_utc());
    }
    let age = text.char_indices().next_back().and_then(|(last, unit)| {
        let seconds = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            _ => return None,
        };
        let age = text[..last].parse::<u32>().ok()?;
        now.checked_sub(time::Duration::seconds(i64::from(age) * seconds))
    });
    age.ok_or_else(|| {
        format!("{name}={text}: expected a time (2026-11-29T06:00:00Z), a date (2026-11-29) or an age (90s, 15m, 2h, 3d)")
    })
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-11-29 06:00 UTC);

    #[test]
    fn conditions_are_read() {
        let filter = parse(
            "state=failed,unknown merchant=\"m 1\" connector=sandbox error=connector_rejected link=reversed \
             payout-status=failed since=2h until=2026-11-29T05:00:00+00:00 min_amount=100 max-amount=200 currency=eur \
             retrying overdue unknown",
            NOW,
        );
        let expected = RecordFilter {
            states: vec![PayoutLinkState::Failed, PayoutLinkState::Unknown],
            payout_status: Some(PayoutStatus::Failed),
            link_status: Some(LinkStatus::Reversed),
            merchant_id: Some("m 1".into()),
            connector: Some("sandbox".into()),
            error_code: Some(ConclusionCode::ConnectorRejected),
            since: Some(datetime!(2026-11-29 04:00 UTC)),
            until: Some(datetime!(2026-11-29 05:00 UTC)),
            min_amount: Some(100),
            max_amount: Some(200),
            currency: Some("EUR".into()),
            is_retrying: true,
            is_overdue: true,
            is_unknown: true,
            excludes_erased: false,
        };
        assert_eq!(filter.unwrap(), expected);
        assert_eq!(parse("", NOW).unwrap(), RecordFilter::default());
        assert_eq!(parse("merchant=", NOW).unwrap().merchant_id.unwrap(), "");
        assert_eq!(parse("since=2026-11-28", NOW).unwrap().since.unwrap(), datetime!(2026-11-28 00:00 UTC));
    }

    #[test]
    fn a_wrong_condition_is_named_with_what_it_may_be() {
        for (text, reason) in [
            ("stat=failed", "there is no condition \"stat\". Did you mean \"state\"?"),
            (
                "state=fialed",
                "state=fialed: there is no such value. Known are: open, created, failed, unknown",
            ),
            ("state", "state has no value: write state=VALUE"),
            ("state=", "state has no value: write state=VALUE"),
            ("state=open state=failed", "state is given twice"),
            ("overdue=yes", "overdue takes no value"),
            ("merchant=\"m1", "a double quote is not closed"),
            ("min-amount=12.50 currency=EUR", "min-amount=12.50: expected a number of minor units"),
            ("min-amount=1250", "an amount needs a currency"),
            ("since=yesterday", "since=yesterday: expected a time"),
            ("since=2w", "since=2w: expected a time"),
            ("error=DECLINED", "error=DECLINED: there is no such value. Known are: CONNECTOR_REJECTED"),
        ] {
            let problem = parse(text, NOW).unwrap_err();
            assert!(problem.starts_with(reason), "{text}: {problem}");
        }
    }
}
