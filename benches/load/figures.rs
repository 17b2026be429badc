//! Computes the figures of a run, and formats the table of all runs.

use std::time::Duration;

use serde::Serialize;

use crate::scenarios::Scenario;

#[derive(Serialize)]
pub struct Figures {
    pub scenario: &'static str,
    jobs: usize,
    seconds: f64,
    jobs_per_s: f64,
    /// The CPU of the workers per job, and of the whole machine per job: worker, services, stubs and everything else.
    worker_cpu_ms_per_job: f64,
    all_cpu_ms_per_job: f64,
    /// The CPU of the workers in per cent of one core.
    worker_cpu_share: f64,
    peak_memory_mib: f64,
    commits_per_job: f64,
    wal_bytes_per_job: f64,
    /// The time from the publish of the job. Only paced runs have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    result_ms: Option<Latencies>,
    #[serde(skip_serializing_if = "Option::is_none")]
    webhook_ms: Option<Latencies>,
}

#[derive(Serialize, Clone, Copy)]
pub struct Latencies {
    p50: f64,
    p99: f64,
}

impl Latencies {
    pub fn of(mut waited: Vec<Duration>) -> Option<Self> {
        waited.sort_unstable();
        let last = waited.len().checked_sub(1)?;
        let at = |per_cent: usize| waited[last * per_cent / 100].as_secs_f64() * 1000.0;
        Some(Self { p50: at(50), p99: at(99) })
    }

    pub fn percentiles(&self) -> (f64, f64) {
        (self.p50, self.p99)
    }
}

impl Figures {
    pub fn new(
        scenario: &'static str,
        jobs: usize,
        took: Duration,
        worker_cpu: Duration,
        all_cpu: Duration,
    ) -> Self {
        let (jobs_in, seconds) = (per(jobs), took.as_secs_f64());
        Self {
            scenario,
            jobs,
            seconds,
            jobs_per_s: count(jobs) / seconds,
            worker_cpu_ms_per_job: worker_cpu.as_secs_f64() * 1000.0 / jobs_in,
            all_cpu_ms_per_job: all_cpu.as_secs_f64() * 1000.0 / jobs_in,
            worker_cpu_share: worker_cpu.as_secs_f64() / seconds * 100.0,
            peak_memory_mib: 0.0,
            commits_per_job: 0.0,
            wal_bytes_per_job: 0.0,
            result_ms: None,
            webhook_ms: None,
        }
    }

    pub fn with_memory(self, peak_memory_mib: f64) -> Self {
        Self { peak_memory_mib, ..self }
    }

    pub fn with_database(self, commits: i64, wal_bytes: i64) -> Self {
        let a_job = |sum: i64| count(usize::try_from(sum).unwrap()) / per(self.jobs);
        Self { commits_per_job: a_job(commits), wal_bytes_per_job: a_job(wal_bytes), ..self }
    }

    pub fn with_latencies(self, result_ms: Option<Latencies>, webhook_ms: Option<Latencies>) -> Self {
        Self { result_ms, webhook_ms, ..self }
    }

    pub fn in_a_line(&self) -> String {
        let latency = self
            .webhook_ms
            .map(|ms| format!(", webhook {:.1} / {:.1} ms", ms.p50, ms.p99))
            .unwrap_or_default();
        format!("{}: {:.0} jobs/s, {:.0} MiB{latency}", self.scenario, self.jobs_per_s, self.peak_memory_mib)
    }
}

/// Formats the medians of the rounds in Markdown.
pub fn table(scenarios: &[&Scenario], all: &[Figures]) -> String {
    let mut lines = vec![
        "| scenario | jobs/s (min–max) | against | worker CPU ms/job (all) | of a core | commits/job | WAL kB/job | peak MiB | result ms p50 / p99 | webhook ms p50 / p99 | p99 against |".to_owned(),
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |".to_owned(),
    ];
    for scenario in scenarios {
        let of = |name: &str, figure: &dyn Fn(&Figures) -> Option<f64>| {
            let mut values: Vec<f64> =
                all.iter().filter(|run| run.scenario == name).filter_map(figure).collect();
            values.sort_by(f64::total_cmp);
            values
        };
        let median = |name: &str, figure: &dyn Fn(&Figures) -> Option<f64>| {
            let values = of(name, figure);
            values.get(values.len() / 2).copied()
        };
        let ratio = |figure: &dyn Fn(&Figures) -> Option<f64>| {
            let against = scenario.against?;
            let (ours, theirs) = (median(scenario.name, figure)?, median(against, figure)?);
            Some(format!("{:.2} × {against}", ours / theirs)).filter(|_| theirs > 0.0)
        };
        let here = |figure: &dyn Fn(&Figures) -> Option<f64>| median(scenario.name, figure);
        let speed = |run: &Figures| Some(run.jobs_per_s);
        let speeds = of(scenario.name, &speed);
        let shown = |value: Option<f64>, digits: usize| {
            value.map(|value| format!("{value:.digits$}")).unwrap_or_default()
        };
        let latency = |of: &dyn Fn(&Figures) -> Option<Latencies>| {
            let p50 = here(&|run| of(run).map(|ms| ms.p50));
            let p99 = here(&|run| of(run).map(|ms| ms.p99));
            p50.zip(p99).map(|(p50, p99)| format!("{p50:.1} / {p99:.1}")).unwrap_or_default()
        };
        let is_paced = scenario.rate.is_some();
        lines.push(format!(
            "| {} | {} ({}–{}) | {} | {} ({}) | {} % | {} | {} | {} | {} | {} | {} |",
            scenario.name,
            shown(here(&speed), 0),
            shown(speeds.first().copied(), 0),
            shown(speeds.last().copied(), 0),
            ratio(&speed).filter(|_| !is_paced).unwrap_or_default(),
            shown(here(&|run| Some(run.worker_cpu_ms_per_job)), 3),
            shown(here(&|run| Some(run.all_cpu_ms_per_job)), 2),
            shown(here(&|run| Some(run.worker_cpu_share)), 1),
            shown(here(&|run| Some(run.commits_per_job)), 3),
            shown(here(&|run| Some(run.wal_bytes_per_job / 1024.0)), 1),
            shown(here(&|run| Some(run.peak_memory_mib)), 0),
            latency(&|run| run.result_ms),
            latency(&|run| run.webhook_ms),
            ratio(&|run| run.webhook_ms.map(|ms| ms.p99)).unwrap_or_default(),
        ));
    }
    lines.join("\n")
}

/// Converts a count without loss: a count of jobs is far below 2^53.
#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
fn count(number: usize) -> f64 {
    number as f64
}

/// Returns the divisor of a sum over jobs. It is at least 1.
fn per(jobs: usize) -> f64 {
    count(jobs.max(1))
}
