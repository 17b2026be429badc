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

const COLUMNS: [Column; 8] = [
    Column::new("ID"),
    Column::new("AT"),
    Column::new("KIND"),
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
    Ok(if rows.is_empty() { ExitStatus::NothingFound } else { ExitStatus::Done })
}

pub(super) fn print(output: Output, rows: &[Row]) -> anyhow::Result<()> {
    output.rows(&COLUMNS, rows, |row| {
        let at = row.at.map(|at| at.to_string().chars().take(19).collect::<String>()).unwrap_or_default();
        let amount = format!("{} {}", row.minor_amount, row.currency);
        let texts = [&row.id, &at, &row.kind, &row.code, &row.merchant_id, &row.merchant_payout_id];
        let cells = texts.into_iter().map(Cell::new);
        cells.chain([Cell::new(amount.trim()), Cell::new(&row.reason)]).collect()
    })
}
