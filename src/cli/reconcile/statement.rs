//! Reads a provider's statement: CSV with a line of column names.

use std::io::Read;

use csv::{Reader, ReaderBuilder, StringRecord, Trim};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::super::exit::{Ended, ExitStatus};

/// The names of the statement's columns.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Columns {
    /// The column with the provider's id of the link, or of the payout that came of it
    #[arg(long, value_name = "NAME", default_value = "id")]
    id_column: String,
    /// The column with the status; left out if the statement has none of this name
    #[arg(long, value_name = "NAME", default_value = "status")]
    status_column: String,
    /// The column with the amount: minor units as an integer, or decimal text with --major-units
    #[arg(long, value_name = "NAME", default_value = "amount")]
    amount_column: String,
    /// The column with the currency
    #[arg(long, value_name = "NAME", default_value = "currency")]
    currency_column: String,
    /// The column with the time of the line (RFC 3339)
    #[arg(long, value_name = "NAME", default_value = "created_at")]
    time_column: String,
}

/// One line of a statement.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Line {
    /// The number of the line in the file; the names are line 1. A text with line ends counts as one line.
    pub(super) number: u64,
    pub(super) id: String,
    pub(super) status: Option<String>,
    pub(super) amount: Option<String>,
    pub(super) currency: Option<String>,
    pub(super) at: Option<OffsetDateTime>,
}

/// A statement that is read line by line.
pub(super) struct Statement {
    reader: Reader<Box<dyn Read + Send>>,
    id: usize,
    status: Option<usize>,
    amount: Option<usize>,
    currency: Option<usize>,
    time: Option<usize>,
    record: StringRecord,
    number: u64,
}

impl Statement {
    /// Reads the line of names.
    pub(super) fn new(source: Box<dyn Read + Send>, columns: &Columns) -> Result<Self, Ended> {
        let mut reader = ReaderBuilder::new().trim(Trim::All).from_reader(source);
        let names = reader.headers().map_err(|error| unreadable(&error))?.clone();
        let place = |name: &str| names.iter().position(|known| known.eq_ignore_ascii_case(name));
        let id = place(&columns.id_column).ok_or_else(|| {
            let known: Vec<&str> = names.iter().collect();
            ExitStatus::WrongUse.because(format_args!(
                "the statement has no column {}: name it with --id-column; its columns are {}",
                columns.id_column,
                known.join(", ").escape_debug()
            ))
        })?;
        Ok(Self {
            id,
            status: place(&columns.status_column),
            amount: place(&columns.amount_column),
            currency: place(&columns.currency_column),
            time: place(&columns.time_column),
            reader,
            record: StringRecord::new(),
            number: 1,
        })
    }

    /// Reads the next line that has an id. `None`: the statement has ended.
    pub(super) fn next(&mut self) -> Result<Option<Line>, Ended> {
        loop {
            if !self.reader.read_record(&mut self.record).map_err(|error| unreadable(&error))? {
                return Ok(None);
            }
            self.number += 1;
            let number = self.number;
            let field = |place: Option<usize>| {
                place
                    .and_then(|place| self.record.get(place))
                    .filter(|text| !text.is_empty())
                    .map(str::to_owned)
            };
            // A line of sums at the end has no id.
            let Some(id) = field(Some(self.id)) else { continue };
            let at = field(self.time).map(|text| time(&text, number)).transpose()?;
            return Ok(Some(Line {
                number,
                id,
                status: field(self.status),
                amount: field(self.amount),
                currency: field(self.currency),
                at,
            }));
        }
    }
}

fn time(text: &str, line: u64) -> Result<OffsetDateTime, Ended> {
    OffsetDateTime::parse(text, &Rfc3339).map_err(|_| {
        ExitStatus::WrongUse.because(format_args!(
            "line {line} of the statement has the time {}, which is not RFC 3339: name another --time-column",
            text.escape_debug()
        ))
    })
}

fn unreadable(error: &csv::Error) -> Ended {
    let status = if error.is_io_error() { ExitStatus::Failed } else { ExitStatus::WrongUse };
    status.because(format_args!("the statement cannot be read: {error}"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Options {
        #[command(flatten)]
        columns: Columns,
    }

    fn read(text: &'static str, options: &[&str]) -> Result<Vec<Line>, Ended> {
        let options = Options::parse_from([&["test"], options].concat());
        let mut statement = Statement::new(Box::new(text.as_bytes()), &options.columns)?;
        std::iter::from_fn(|| statement.next().transpose()).collect()
    }

    #[test]
    fn columns_are_found_by_name() {
        let lines = read(
            "Status, Payout ,amount\r\npaid,\"tr,1\",12\r\nfailed,tr_2,\r\n,,12\r\n",
            &["--id-column", "payout"],
        );
        let line = |number, id: &str, status: &str, amount: Option<&str>| Line {
            number,
            id: id.into(),
            status: Some(status.into()),
            amount: amount.map(str::to_owned),
            ..Line::default()
        };
        assert_eq!(lines.unwrap(), [line(2, "tr,1", "paid", Some("12")), line(3, "tr_2", "failed", None)]);
    }

    #[test]
    fn a_statement_that_cannot_be_read_is_wrong_use() {
        for (text, options, reason) in [
            ("a,b\n1,2\n", &[][..], "no column id: name it with --id-column; its columns are a, b"),
            ("id,created_at\n1,yesterday\n", &[], "line 2 of the statement has the time yesterday"),
            ("id,b\n1\n", &[], "the statement cannot be read"),
        ] {
            let ended = read(text, options).unwrap_err();
            assert_eq!(ended.status, ExitStatus::WrongUse);
            assert!(ended.reason.contains(reason), "{}", ended.reason);
        }
    }
}
