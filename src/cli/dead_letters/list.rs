//! `dead-letters list`.

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
}

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

pub(super) fn print(output: Output, rows: &[Row]) -> anyhow::Result<()> {
    output.rows(&COLUMNS, rows, |row| {
        let amount = format!("{} {}", row.minor_amount, row.currency);
        let texts = [&row.kind, &row.code, &row.merchant_id, &row.merchant_payout_id].map(Cell::new);
        let cells = [Cell::new(&row.id), Cell::time(row.at)].into_iter().chain(texts);
        cells.chain([Cell::new(amount.trim()), Cell::new(&row.reason)]).collect()
    })
}
