//! Formats the table of a run.

use std::{collections::BTreeMap, time::Duration};

/// The figures of a run.
pub struct Report {
    pub seed: u64,
    pub took: Duration,
    pub published: usize,
    pub records: usize,
    /// Links that recipients claimed, or that expired or were cancelled at the provider.
    pub changed_links: usize,
    /// Events after the first ones of their records.
    pub later_events: usize,
    pub states: BTreeMap<String, usize>,
    pub rejected: usize,
    pub rate: usize,
    pub until_quiet: Option<Duration>,
    pub faults: BTreeMap<String, Vec<Option<Duration>>>,
    pub repeats: Vec<(&'static str, u64)>,
    pub peak_kilobytes: u64,
    pub unexpected_ends: Vec<String>,
    pub violations: usize,
    pub by_rule: BTreeMap<&'static str, usize>,
    /// The times from each SIGKILL until all called records that were open were concluded.
    pub after_kills: Vec<Option<Duration>>,
    pub is_saturated: bool,
}

impl Report {
    pub fn markdown(&self) -> String {
        let faults: usize = self.faults.values().map(Vec::len).sum();
        let mut lines = vec!["| | |".to_owned(), "| --- | ---: |".to_owned()];
        let mut row = |name: &str, value: String| lines.push(format!("| {name} | {value} |"));
        row("seed", self.seed.to_string());
        row("length", format!("{} min {} s", self.took.as_secs() / 60, self.took.as_secs() % 60));
        row("jobs published", self.published.to_string());
        row("jobs a second, with all faults", self.rate.to_string());
        row("records", self.records.to_string());
        for (state, count) in &self.states {
            row(&format!("… {state}"), count.to_string());
        }
        row("links that changed after their creation", self.changed_links.to_string());
        row("… events of these changes", self.later_events.to_string());
        row("rejected jobs", self.rejected.to_string());
        row("faults", faults.to_string());
        for (what, count) in &self.repeats {
            row(what, count.to_string());
        }
        row("SIGKILL of a worker until all open called records were concluded", summary(&self.after_kills));
        row(
            "time until nothing was left after the last fault",
            self.until_quiet.map_or("never".into(), seconds),
        );
        row("peak memory of a worker", format!("{} MB", self.peak_kilobytes / 1024));
        row("workers that ended by themselves", self.unexpected_ends.len().to_string());
        row("**violations**", format!("**{}**", self.violations));
        for (rule, count) in &self.by_rule {
            row(&format!("… {rule}"), count.to_string());
        }
        lines.push(String::new());
        let recovered = if self.is_saturated { "workers ready, median" } else { "recovered, median" };
        lines.push(format!("| fault | times | {recovered} | slowest |"));
        lines.push("| --- | ---: | ---: | ---: |".to_owned());
        for (kind, recoveries) in &self.faults {
            let (median, slowest) = median_and_slowest(recoveries);
            lines.push(format!("| {kind} | {} | {median} | {slowest} |", recoveries.len()));
        }
        lines.join("\n") + "\n"
    }
}

fn median_and_slowest(recoveries: &[Option<Duration>]) -> (String, String) {
    let mut known: Vec<Duration> = recoveries.iter().flatten().copied().collect();
    known.sort_unstable();
    let all = known.len() == recoveries.len();
    let median = known.get(known.len() / 2).copied().map_or("-".into(), seconds);
    (median, known.last().copied().filter(|_| all).map_or("not within 180 s".into(), seconds))
}

fn summary(recoveries: &[Option<Duration>]) -> String {
    if recoveries.is_empty() {
        return "-".into();
    }
    let (median, slowest) = median_and_slowest(recoveries);
    format!("{} times, median {median}, slowest {slowest}", recoveries.len())
}

fn seconds(duration: Duration) -> String {
    format!("{}.{} s", duration.as_secs(), duration.subsec_millis() / 100)
}
