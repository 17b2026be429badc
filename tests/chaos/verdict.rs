//! Ends a run: waits until nothing is left to do, collects the history, and runs the history checker.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::Path,
    time::{Duration, Instant},
};

use history_checker::{Answered, DeadLetter, Files, History, Link, Published, Webhook};
use payout_link_worker::postgres::{self, Store};
use payout_link_worker::{
    cli::{read_actions, read_records},
    domain::idempotency_key,
};
use time::OffsetDateTime;
use tokio::time::sleep;

use crate::{
    announcements::Announcements,
    calls::Answer,
    connectors::{Provider, references},
    faults::FaultResults,
    letters::Letters,
    recipients::Recipients,
    report::Report,
    saturation::FULL_REPLIES,
    services::until,
    test_env::{SCHEDULE, TestEnv},
    workers::WORKERS,
};

pub struct Verdict {
    pub report: Report,
    /// Violations, and other results that a run must not have.
    pub problems: Vec<String>,
}

/// Limits the wait at the end. It is several times the webhook schedule, the longest Retry-After and a settle time.
const PATIENCE: Duration = Duration::from_mins(5);
/// Limits the wait at the end if there was a backlog.
const PATIENCE_WITH_BACKLOG: Duration = Duration::from_mins(25);
/// Limits the time without progress; it is longer than the checker allows. Then the workers restart, so that the
/// other rules can be judged.
const STALL: Duration = Duration::from_secs(75);

/// Waits until nothing is left to do, and returns the time that took, or `None` if it took too long.
pub async fn quiet(env: &TestEnv) -> Option<Duration> {
    let started = Instant::now();
    let (mut finished, mut since, mut said) = (0, started, started);
    let is_quiet = async || {
        let seen = env.samples.progress(env, started).await;
        sleep(Duration::from_millis(400)).await;
        if let Some((progress, replies)) = seen {
            // Only replies to the full reply queue are left, and deleting it affects nothing else.
            if progress.left == 0 && replies > 0 {
                let _ = env.upstream.empty(FULL_REPLIES, true).await;
            }
            if progress.finished > finished || progress.left == 0 {
                (finished, since) = (progress.finished, Instant::now());
            }
            if said.elapsed() > Duration::from_secs(15) {
                said = Instant::now();
                println!("{:>7} s after the heal: {progress:?}", started.elapsed().as_secs());
            }
        }
        if since.elapsed() > STALL {
            println!("  !! nothing finished for {STALL:?}: all workers are killed and started again");
            since = Instant::now();
            // If full reply queues caused the stall, they would cause it again.
            let _ = env.upstream.empty(FULL_REPLIES, true).await;
            for worker in 0..WORKERS {
                env.fleet.kill(worker);
                env.fleet.start(worker);
            }
        }
        let last = env.upstream.inbox.lock().unwrap().last;
        let is_still = last.is_none_or(|last| last.elapsed() > Duration::from_secs(2));
        seen.is_some_and(|(progress, replies)| progress.left + replies == 0)
            && is_still
            && is_announced(env).await
            && env.upstream.waiting().await == Some(0)
            && env.upstream.has_received_all().await
    };
    let patience = if env.variant.is_some() { PATIENCE_WITH_BACKLOG } else { PATIENCE };
    let quiet = until("quiet", patience, is_quiet).await;
    if quiet.is_err() {
        println!("  !! {} jobs have no result", env.upstream.unanswered());
        println!("  !! the last statuses of {:?} are not announced", Recipients::unannounced(env));
    }
    quiet.is_ok().then(|| started.elapsed())
}

/// Returns whether the last status of every changed link is published, but for links that are asked about later than the
/// run waits: a reversal whose announcement was lost.
async fn is_announced(env: &TestEnv) -> bool {
    let unannounced = Recipients::unannounced(env);
    let Ok(asked_later) = env.samples.asked_later().await else { return false };
    unannounced.iter().all(|key| asked_later.contains(key))
}

/// Prints how often each rule is broken, with its first violations. A file has the rest.
pub fn print(problems: &[String]) {
    let mut by_rule: BTreeMap<&str, Vec<&String>> = BTreeMap::new();
    for problem in problems {
        let rule = problem.split(':').next().filter(|rule| rule.len() <= 3 && rule.starts_with('R'));
        by_rule.entry(rule.unwrap_or("other")).or_default().push(problem);
    }
    for (rule, problems) in by_rule {
        println!("{rule}: {} times", problems.len());
        problems.iter().take(5).for_each(|problem| println!("    {problem:.1000}"));
    }
}

pub async fn judge(
    env: &TestEnv,
    done: FaultResults,
    quiet: Option<Duration>,
    took: Duration,
    published_for: Duration,
) -> Result<Verdict, String> {
    // Only a stopped worker holds no delivery unacknowledged. The next worker answers the deliveries that it
    // returned.
    let mut waiting = 0;
    for _ in 0..3 {
        for worker in 0..WORKERS {
            env.fleet.stop(worker).await;
        }
        waiting = env.upstream.waiting().await.ok_or("the jobs queue does not answer")?;
        if waiting == 0 || quiet.is_none() {
            break;
        }
        env.fleet.start(0);
        self::quiet(env).await;
    }
    let is_still = async || {
        let last = env.upstream.inbox.lock().unwrap().last;
        last.is_none_or(|last| last.elapsed() > Duration::from_secs(3))
    };
    until("the last results", Duration::from_mins(1), is_still).await?;
    env.upstream.stop();
    if env.variant.is_none() {
        env.upstream.take_letters().await?;
    }
    for merchant in &env.merchants {
        merchant.collect_webhooks();
    }
    let history = history(env, waiting).await?;
    let mut problems = logged_panics(env);
    let by_rule = |violations: &[history_checker::Violation]| {
        violations.iter().fold(BTreeMap::new(), |mut by_rule, violation| {
            *by_rule.entry(violation.rule).or_default() += 1;
            by_rule
        })
    };
    let violations = history_checker::check(&history, SCHEDULE.len() as u32 + 1);
    problems.extend(violations.iter().map(|found| format!("{}: {}", found.rule, found.evidence)));
    let unexpected_ends = env.fleet.unexpected_ends.lock().unwrap().clone();
    problems.extend(unexpected_ends.iter().cloned());
    problems.extend(done.failures.iter().cloned());
    problems.extend(quiet.is_none().then(|| format!("work was left after {PATIENCE:?}")));
    for (kind, recoveries) in &done.recoveries {
        let never = recoveries.iter().filter(|recovered| recovered.is_none()).count();
        problems.extend((never > 0).then(|| format!("no recovery from {kind}: {never} times")));
    }
    let report = Report {
        seed: env.seed,
        took,
        published: history.published.len(),
        records: history.records.len(),
        changed_links: env.recipients.count(),
        later_events: history.later.len(),
        states: history.records.iter().fold(BTreeMap::new(), |mut states, record| {
            *states.entry(record.state.clone()).or_default() += 1;
            states
        }),
        rejected: rejected(&history),
        rate: history.published.len() / (published_for.as_secs() as usize).max(1),
        until_quiet: quiet,
        repeats: repeats(env, &history),
        faults: done.recoveries,
        peak_kilobytes: env.fleet.peak_kilobytes(),
        unexpected_ends,
        violations: violations.len(),
        by_rule: by_rule(&violations),
        after_kills: env.samples.recoveries(),
        is_saturated: env.variant.is_some(),
    };
    Ok(Verdict { report, problems })
}

async fn history(env: &TestEnv, waiting: u32) -> Result<History, String> {
    let config = env.configuration()?;
    let pool = postgres::connect(&config.database()).await.map_err(|error| error.to_string())?;
    let keys = config.key_ring().map_err(|error| error.to_string())?;
    let store = Store::new(pool, keys, config.store());
    let inside = TestEnv::secrets_inside();
    let records = read_records(&store, None, &inside).await;
    let (records, mut leaks) = records.map_err(|error| error.to_string())?;
    let (actions, earlier) = read_actions(&store, None).await.map_err(|error| error.to_string())?;
    let logs = env.fleet.logs().map(Path::to_owned).collect();
    let files = Files { logs, ..Files::default() };
    let logs = history_checker::read(&files, &inside, |_| None, idempotency_key)
        .map_err(|error| error.to_string())?;
    leaks.extend(logs.leaks);

    let published = env.upstream.published();
    let (received, dead, received_leaks): (_, Vec<DeadLetter>, _) = {
        let inbox = env.upstream.inbox.lock().unwrap();
        (inbox.received.clone(), inbox.dead.clone(), inbox.leaks.clone())
    };
    leaks.extend(received_leaks);
    // A webhook does not name its merchant. In this run each payout id belongs to one merchant.
    let by_id: HashMap<&str, &str> = published.iter().map(|job| (id(job), job.key.as_str())).collect();
    let mut webhooks: Vec<Webhook> = Vec::new();
    for merchant in &env.merchants {
        let (seen, leaked) = merchant.webhooks();
        leaks.extend(leaked);
        webhooks.extend(seen.into_iter().map(|post| {
            let key = by_id.get(post.key.as_str()).map_or(post.key.clone(), |key| (*key).to_owned());
            Webhook { key, ..post }
        }));
    }
    let mut by_reference: HashMap<String, Vec<&Published>> = HashMap::new();
    for job in &published {
        for reference in references(merchant_id(job), id(job)).collect::<HashSet<_>>() {
            by_reference.entry(reference).or_default().push(job);
        }
    }
    let of = |reference: &str| by_reference.get(reference).cloned();
    let links: Vec<Link> = env.providers.iter().flat_map(|provider| provider.links(of)).collect();
    let sent = env.calls.references().into_iter();
    let arrived = env.providers.iter().flat_map(Provider::references);
    let called = sent.chain(arrived).filter_map(|reference| Some(of(&reference)?[0].key.clone()));
    let interrupted = env.samples.unknown_by_interruption().await?;
    let called: HashSet<String> = called.chain(interrupted).collect();
    let (overdue, progress) = env.samples.all();
    Ok(History {
        published: published.clone(),
        links: links.clone(),
        records,
        messages: received,
        dead,
        letters_seen: env.letters.seen(),
        letter_retention: env.variant.is_none().then(Letters::retention),
        webhooks,
        later: env.samples.later().await?,
        actions,
        earlier,
        asked_later: Some(env.samples.asked_later().await?),
        waiting,
        leaks,
        ambiguous: env.upstream.ambiguous(),
        called: Some(called),
        overdue,
        progress,
        overdue_at_end: env.samples.overdue_at_end().await?,
        answered: answered(env, &links, of).await?,
        unpublished: env.samples.unpublished(),
        ..History::default()
    })
}

/// Limits the age of an answer: a worker that waited longer may have abandoned the call before the answer came.
const ANSWERED_WITHIN: Duration = Duration::from_secs(3);

/// Lists links whose answer reached a worker that then ran until the record was concluded.
async fn answered<'a>(
    env: &TestEnv,
    links: &[Link],
    of: impl Fn(&str) -> Option<Vec<&'a Published>>,
) -> Result<Vec<Answered>, String> {
    let concluded_at = env.samples.concluded_at().await?;
    let by_key: HashMap<&str, &Link> = links.iter().map(|link| (link.key.as_str(), link)).collect();
    let read = |answer: Answer| {
        let is_readable = serde_json::from_slice::<serde_json::Value>(&answer.body).is_ok();
        if !matches!(answer.status, 200 | 201) || !is_readable || answer.took > ANSWERED_WITHIN {
            return None;
        }
        let key = &answer.references.iter().find_map(|reference| of(reference))?[0].key;
        let link = by_key.get(key.as_str())?;
        // A garbled answer may name the link but omit or change its URL.
        let body = String::from_utf8_lossy(&answer.body);
        let is_its = body.contains(&link.id) && link.url.as_ref().is_some_and(|url| body.contains(url));
        // A record without a conclusion counts until now.
        let until = concluded_at.get(key).copied().unwrap_or_else(OffsetDateTime::now_utc);
        let is_held = is_its && env.samples.lived(env, answer.worker, answer.at.into(), until);
        is_held.then(|| Answered { key: key.clone(), link_id: link.id.clone() })
    };
    let answered: Vec<Answered> = env.calls.answers().into_iter().filter_map(read).collect();
    println!("{} answers reached workers that ran on", answered.len());
    Ok(answered)
}

fn id(job: &Published) -> &str {
    job.key.rsplit('/').next().unwrap_or_default()
}

fn merchant_id(job: &Published) -> &str {
    job.key.rsplit_once('/').map_or("", |(merchant_id, _)| merchant_id)
}

fn logged_panics(env: &TestEnv) -> Vec<String> {
    let logs = env.fleet.logs().filter_map(|log| std::fs::read_to_string(log).ok());
    let panics = logs.flat_map(|log| {
        log.lines().filter(|line| line.contains("panicked at")).map(str::to_owned).collect::<Vec<_>>()
    });
    panics.collect()
}

/// Counts duplicates of every kind.
fn repeats(env: &TestEnv, history: &History) -> Vec<(&'static str, u64)> {
    let inbox = env.upstream.inbox.lock().unwrap();
    let posts: HashSet<_> = history.webhooks.iter().map(|post| &post.id).collect();
    let calls = env.providers.iter().map(Provider::repeats);
    let late: usize = history.records.iter().filter(|record| is_late(record)).count();
    let mut repeats = vec![
        ("messages published again without a confirm", env.upstream.repeats()),
        ("duplicates of finished jobs that got their result", inbox.replayed),
        ("conflicting jobs rejected", inbox.conflicts),
        ("repeated results under the same id", inbox.repeated() as u64),
        ("repeated webhooks under the same id", (history.webhooks.len() - posts.len()) as u64),
        ("repeated calls that the provider recognized", calls.sum()),
        ("answers after the end of their lease", late as u64),
    ];
    repeats.extend(Announcements::counts(env));
    let (succeeded, failed, each) = env.operators.counts();
    repeats.extend([
        ("operators' commands that succeeded", succeeded),
        ("… that failed or were refused", failed),
    ]);
    println!("operators' commands, succeeded and failed: {each}");
    let (letters, deleted) = env.letters.counts(&history.dead);
    let reversed = history.later.iter().filter(|later| later.event.kind == "payout_link.reversed");
    repeats.extend([
        ("reversals announced", reversed.count() as u64),
        ("dead letters of any age put into their queue", letters),
        ("… deleted after their retention", deleted),
    ]);
    repeats
}

/// Counts the rejected jobs.
fn rejected(history: &History) -> usize {
    let put: HashSet<&str> = history.letters_seen.iter().map(|letter| letter.message_id.as_str()).collect();
    let dead = history.dead.iter().filter_map(|dead| dead.message_id.as_deref());
    dead.filter(|message_id| !put.contains(message_id)).collect::<HashSet<_>>().len()
}

fn is_late(record: &history_checker::Record) -> bool {
    record.calls.iter().any(|call| call.starts_with("late: "))
}
