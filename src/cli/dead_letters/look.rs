//! Looks at letters before an act: how many there are, what a correction makes of them, and which keys they would share.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context;

use super::{list, plan::Plan, row::Row, select::Selection};
use crate::{
    cli::{
        ExitStatus,
        confirm::confirm,
        note,
        output::{Output, counted},
    },
    config::Config,
    contract::masked,
    domain::escape_control,
    postgres::Store,
    rabbitmq::Letter,
};

const SAMPLE: usize = 5;

/// The letters that an act would be on.
pub(super) struct Looked {
    pub(super) ids: BTreeSet<String>,
    pub(super) payouts: Payouts,
    sample: Vec<Row>,
    refused: Vec<String>,
    /// The first letter that is corrected: its body before and after, masked.
    corrected: Option<(String, String, String)>,
    count: usize,
}

/// The jobs that would be published, by `x-merchant-id` and `merchant_payout_id`: the letters, and whether the correction has
/// changed the identifier of one of them.
#[derive(Default)]
pub(super) struct Payouts(BTreeMap<(String, String), (Vec<String>, bool)>);

/// Reads the selected letters. Returns `None` if there is none. No letter is held while an operator thinks about it.
pub(super) async fn look(
    config: &Config,
    selection: &Selection,
    limit: Option<usize>,
    plan: &impl Fn(&Letter, &Row) -> Result<Plan, String>,
) -> anyhow::Result<Option<Looked>> {
    let mut reading = selection.open(config).await?;
    let mut looked = Looked {
        ids: BTreeSet::new(),
        payouts: Payouts::default(),
        sample: Vec::new(),
        refused: Vec::new(),
        corrected: None,
        count: 0,
    };
    while limit.is_none_or(|limit| looked.count < limit)
        && let Some((letter, row)) = reading.next().await?
    {
        looked.add(&letter, row, plan);
    }
    reading.give_back().await?;
    Ok((looked.count > 0).then_some(looked))
}

impl Looked {
    fn add(&mut self, letter: &Letter, row: Row, plan: &impl Fn(&Letter, &Row) -> Result<Plan, String>) {
        self.count += 1;
        self.ids.insert(row.id.clone());
        match plan(letter, &row) {
            Err(reason) => self.refused.push(format!("{}: {reason}", row.id)),
            Ok(Plan::Remove) => {}
            Ok(Plan::Publish { body, payout, .. }) => {
                if let Some((id, is_changed)) = payout {
                    let (letters, any_changed) =
                        self.payouts.0.entry((row.merchant_id.clone(), id)).or_default();
                    letters.push(row.id.clone());
                    *any_changed |= is_changed;
                }
                if let Some(body) = body.filter(|_| self.corrected.is_none()) {
                    self.corrected = Some((row.id.clone(), shown(&letter.body), shown(&body)));
                }
            }
        }
        if self.sample.len() < SAMPLE {
            self.sample.push(row);
        }
    }

    /// Shows how many letters would be acted on, some of them, and the first one that is corrected, and asks.
    pub(super) fn preview(&self, output: Output, verb: &str) -> anyhow::Result<()> {
        list::print(output, &self.sample)?;
        if self.count > self.sample.len() {
            note(format_args!("these are the first {} of {} letters", self.sample.len(), self.count));
        }
        if let Some((id, before, after)) = &self.corrected {
            note(format_args!("letter {id} before the correction, with its secrets masked:\n{before}"));
            note(format_args!("letter {id} after the correction:\n{after}"));
        }
        let (count, stay) = (counted(self.count, "letter"), self.refused.len());
        note(match stay {
            0 => format!("{count} would be {verb}"),
            stay => {
                format!("{} of {count} would be {verb}; {stay} would be refused and stay:", self.count - stay)
            }
        });
        self.refused.iter().take(SAMPLE).for_each(note);
        if stay == self.count {
            return Err(ExitStatus::Refused.because("every selected letter is refused").into());
        }
        confirm("Continue?", false)?;
        Ok(())
    }
}

fn shown(body: &[u8]) -> String {
    let text = masked(body).and_then(|body| serde_json::to_string_pretty(&body).ok()).unwrap_or_default();
    text.lines().map(|line| format!("    {}", escape_control(line))).collect::<Vec<_>>().join("\n")
}

/// Refuses a correction that gives a letter the key of another letter or of a record. A worker would take its job for a
/// duplicate or a conflict, so its payout would not be made.
///
/// # Errors
///
/// [`ExitStatus::Refused`] with the key and the letters.
pub(super) async fn refuse_shared_keys(store: &Store, payouts: &Payouts) -> anyhow::Result<()> {
    for ((merchant_id, id), (letters, _)) in payouts.0.iter().filter(|(_, (_, is_changed))| *is_changed) {
        let key = format!("merchant {merchant_id:?} and merchant_payout_id {id:?}");
        if letters.len() > 1 {
            let reason = format!(
                "after the correction, the letters {} have the same {key}: a worker would make one payout of them. Correct \
                 each with a patch of its own",
                letters.join(", ")
            );
            return Err(ExitStatus::Refused.because(reason).into());
        }
        if store.link_of(merchant_id, id).await.context("database")?.is_some() {
            let reason = format!(
                "after the correction, the letter {} has {key}, and a record has them already: a worker would make no payout \
                 of it",
                letters.join(", ")
            );
            return Err(ExitStatus::Refused.because(reason).into());
        }
    }
    Ok(())
}
