//! `dead-letters list`.

use std::{cmp::Reverse, collections::BTreeMap};

use serde::Serialize;

use super::{row::Row, select::Selection};
use crate::{
    cli::{
        ExitStatus, note,
        output::Output,
        table::{Cell, Column},
    },
    config::Config,
};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    selection: Selection,
    /// Maximum number of letters
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: usize,
    /// Print only how many letters match, by their code
    #[arg(long)]
    count: bool,
}

/// How many letters have a code.
#[derive(Debug, Serialize)]
struct Count {
    code: String,
    count: usize,
}

const COUNTS: [Column; 2] = [Column::new("CODE"), Column::new("COUNT").number()];

pub(super) const NO_MATCH: &str = "no letter matches";

const COLUMNS: [Column; 8] = [
    Column::new("ID"),
    Column::new("AT").optional(),
    Column::new("KIND").optional(),
    Column::new("CODE"),
    Column::new("MERCHANT"),
    Column::new("PAYOUT"),
    Column::new("AMOUNT").number(),
    Column::new("REASON").shrinks(),
];

pub(super) async fn run(
    config: &Config,
    output: Output,
    arguments: &Arguments,
) -> anyhow::Result<ExitStatus> {
    if arguments.count {
        return count(config, output, arguments).await;
    }
    let mut reading = arguments.selection.open(config).await?;
    let (mut rows, mut is_cut) = (Vec::new(), false);
    while let Some((_, row)) = reading.next().await? {
        if rows.len() >= arguments.limit {
            is_cut = true;
            break;
        }
        rows.push(row);
    }
    reading.give_back().await?;
    print(output, &rows)?;
    if is_cut {
        note(format_args!("more letters follow: this is the limit of {}", arguments.limit));
    }
    if rows.is_empty() {
        note(NO_MATCH);
        return Ok(ExitStatus::NothingFound);
    }
    Ok(ExitStatus::Done)
}

/// Counts the letters that match by their code, those with the most first.
async fn count(config: &Config, output: Output, arguments: &Arguments) -> anyhow::Result<ExitStatus> {
    let mut reading = arguments.selection.open(config).await?;
    let mut by_code = BTreeMap::<String, usize>::new();
    while let Some((_, row)) = reading.next().await? {
        *by_code.entry(row.code).or_default() += 1;
    }
    reading.give_back().await?;
    let mut counts: Vec<Count> = by_code.into_iter().map(|(code, count)| Count { code, count }).collect();
    counts.sort_by_key(|one| Reverse(one.count));
    output.rows(&COUNTS, &counts, |one| vec![Cell::new(&one.code), Cell::new(one.count.to_string())])?;
    if counts.is_empty() {
        note(NO_MATCH);
        return Ok(ExitStatus::NothingFound);
    }
    Ok(ExitStatus::Done)
}

pub(super) fn print(output: Output, rows: &[Row]) -> anyhow::Result<()> {
    output.rows(&COLUMNS, rows, |row| {
        let amount = format!("{} {}", row.minor_amount, row.currency);
        let texts = [&row.kind, &row.code, &row.merchant_id, &row.merchant_payout_id].map(Cell::new);
        let cells = [Cell::new(&row.id), Cell::time(row.at)].into_iter().chain(texts);
        cells.chain([Cell::new(amount.trim()), Cell::new(&row.reason)]).collect()
    })
}
