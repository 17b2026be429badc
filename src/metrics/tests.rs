use super::*;

use test_support::alerts;

fn at_rest() -> Now {
    Now {
        jobs_in_flight: 0,
        events_in_flight: 0,
        deliveries_unread: 0,
        oldest_due_record: Duration::ZERO,
        oldest_due_event: Duration::ZERO,
        most_delayed_merchant: Duration::ZERO,
        merchants_waiting: 0,
        due_work_neglected: Duration::ZERO,
        database_up: true,
        consuming: true,
        publishing: true,
        open_records: [("current", 0), ("other", 0), ("missing", 0)],
        database_clock: ClockState::default(),
        merchants_clock: None,
    }
}

/// The one alert that nothing from outside brings about.
#[tokio::test]
async fn the_alert_about_a_defect_fires_after_a_panic() {
    let rules = alerts::rules();
    let rule = rules.iter().find(|rule| rule.name == "WorkerDefect").unwrap();
    let scrape = |metrics: &Metrics| metrics.text(&at_rest(), std::iter::empty());
    // A message's processing panics,
    let metrics = Metrics::new(std::iter::empty());
    let first = scrape(&metrics);
    assert!(!rule.fires(&first, &scrape(&metrics)));
    metrics.abandoned("panic");
    assert!(rule.fires(&first, &scrape(&metrics)));
    // or a long-lived task.
    let metrics = Metrics::new(std::iter::empty());
    let first = scrape(&metrics);
    let starts = std::sync::atomic::AtomicUsize::new(0);
    let fragile = tasks::supervise("a task of the alerts' test", move || {
        let number = starts.fetch_add(1, Relaxed);
        async move { assert!(number > 0, "the first start fails") }
    });
    while !rule.fires(&first, &scrape(&metrics)) {
        tokio::task::yield_now().await;
    }
    fragile.await.unwrap();
}
