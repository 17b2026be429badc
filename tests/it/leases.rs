//! Tests the store without a worker, with two holders of one row: a holder whose lease expired changes nothing.

use std::time::Duration;

use payout_link_worker::{
    domain::{Attempt, AttemptKind, AttemptOutcome},
    postgres::{DueEvent, EventProgress, Store, StoreError, Unconcluded, WebhookState, migrate},
};

use crate::support::{TestEnv, accept, all_delivered, claim, claim_events, created, eventually, store};

/// Expires all leases by the database's clock, without the holders' knowledge.
async fn let_leases_run_out(env: &TestEnv) {
    let lapse = "UPDATE payout_links SET due_at = now() - interval '1 second'";
    sqlx::query(lapse).execute(&env.pool).await.unwrap();
}

/// Checks a worker that returns with an answer after its lease has expired.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_answer_concludes_nothing() {
    let env = TestEnv::new().await;
    migrate(&env.pool).await.unwrap();
    let store = store(env.pool.clone());
    // Given a row whose lease expires by the database's clock without its holder's knowledge,
    let mut late = accept(&store, "po_1").await;
    let_leases_run_out(&env).await;
    // and another holder, for whom the outcome is unknown,
    let mut claimed = claim(&store, 10).await;
    assert_eq!(claimed.len(), 1);
    let mut link = claimed.remove(0).unwrap();
    assert!(link.progress.in_doubt_since.is_some());
    // when both have an answer, the first holder last,
    let reply = created(&mut link, "plink_second");
    let event = store.conclude(link, reply).await.unwrap();
    let reply = created(&mut late, "plink_first");
    let refused = store.conclude(late, reply).await.unwrap_err().error;
    // then the late one gets the error, the record is unchanged, and the answer is in the timeline.
    assert!(matches!(refused, StoreError::LeaseLost), "{refused}");
    let shown = store.reader().show("po_1").await.unwrap().remove(0);
    assert_eq!(shown.connector_payout_id.as_deref(), Some("plink_second"));
    assert_eq!(shown.event.unwrap().id, event.id);
    let late: Vec<_> = shown.timeline.iter().filter(|call| call.outcome == "late: created").collect();
    assert_eq!(late.len(), 1);
    assert_eq!(late[0].detail.as_deref(), Some("plink_first"));
    let events: i64 = sqlx::query_scalar("SELECT count(*) FROM events").fetch_one(&env.pool).await.unwrap();
    assert_eq!(events, 1);
}

/// Checks that an attempt to deliver a webhook is stored even if another worker has claimed the event since.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_attempt_is_in_the_timeline() {
    let env = TestEnv::new().await;
    migrate(&env.pool).await.unwrap();
    let store = store(env.pool.clone());
    // Given an event whose lease expires during its webhook, and another holder,
    let mut link = accept(&store, "po_1").await;
    let reply = created(&mut link, "plink_1");
    let event = store.conclude(link, reply).await.unwrap();
    let lapse = "UPDATE events SET due_at = now() - interval '1 second'";
    sqlx::query(lapse).execute(&env.pool).await.unwrap();
    assert_eq!(claim_events(&store, 10).await.len(), 1);
    // when the first holder returns,
    let refused = store.delivered(&event, delivered_at_once(&event)).await.unwrap_err();
    // then it gets the error, the event is unchanged, and the attempt is in the timeline.
    assert!(matches!(refused, StoreError::LeaseLost), "{refused}");
    let shown = store.reader().show("po_1").await.unwrap().remove(0);
    assert!(shown.event.unwrap().due_at.is_some());
    let posts: Vec<_> = shown.timeline.iter().filter(|call| call.kind == "post").collect();
    assert_eq!((posts.len(), posts[0].status_code), (1, 204));
}

/// Returns the progress of most events: a result that is published, and a webhook that is delivered at its first attempt.
fn delivered_at_once(event: &DueEvent) -> EventProgress {
    let post = Attempt {
        kind: AttemptKind::Post,
        number: 1,
        started_at: event.lease.granted_at,
        took: Duration::from_millis(5),
        status_code: 204,
        outcome: AttemptOutcome::Delivered,
        detail: None,
    };
    EventProgress {
        webhook: WebhookState::Delivered,
        webhook_attempts: 1,
        webhook_calls: vec![post],
        ..all_delivered()
    }
}

/// Creates two webhooks of a record that one worker has claimed. The second one waits for the first one.
async fn two_webhooks(env: &TestEnv, store: &Store) -> [Box<DueEvent>; 2] {
    migrate(&env.pool).await.unwrap();
    let mut link = accept(store, "po_1").await;
    let reply = created(&mut link, "plink_1");
    store.conclude(link, reply).await.unwrap();
    let second = "WITH first AS (UPDATE events SET holder = NULL, due_at = now(), webhook_state = 'pending', webhook_due_at = now(),
            webhook_url = 'https://merchant.example/', next_event_id = gen_random_uuid() RETURNING *)
        INSERT INTO events (id, payout_link_id, sequence, previous_event_id, webhook_waits, type, due_at, webhook_state,
            webhook_due_at, webhook_url, new_payout_status, occurred_at)
        SELECT next_event_id, payout_link_id, 2, id, true, 'payout_link.claimed', due_at + interval '1 millisecond', webhook_state,
            webhook_due_at, webhook_url, 'PAYOUT_STATUS_PENDING', now() FROM first";
    sqlx::raw_sql(second).execute(&env.pool).await.unwrap();
    let claimed = eventually("both events are due", async || {
        let claimed = claim_events(store, 10).await;
        (!claimed.is_empty()).then_some(claimed)
    })
    .await;
    let claimed: Vec<_> = claimed.into_iter().map(Result::unwrap).collect();
    let [first, second] = claimed.try_into().unwrap_or_else(|_| panic!("not two"));
    assert_eq!((first.webhook_waits, second.webhook_waits), (false, true));
    [first, second]
}

fn webhook(webhook: WebhookState, webhook_waits: bool) -> EventProgress {
    EventProgress { webhook, webhook_waits, ..all_delivered() }
}

async fn assert_is_due(store: &Store, event: &DueEvent) {
    let again = claim_events(store, 10).await.remove(0).unwrap();
    assert_eq!((again.id, again.webhook_waits), (event.id, false));
}

/// Checks a first webhook that finishes before the worker of the second stores that it waits. Without a wake-up the second
/// one would wait for the next sweep.
#[tokio::test]
async fn a_webhook_whose_previous_one_is_finished_meanwhile_is_due_at_once() {
    let env = TestEnv::new().await;
    let store = store(env.pool.clone());
    let [first, second] = two_webhooks(&env, &store).await;
    // When the first webhook finishes before the wait of the second is stored,
    assert!(store.delivered(&first, webhook(WebhookState::Abandoned, false)).await.unwrap());
    // then the worker gets the information that the second one is due, and claims it.
    assert!(store.delivered(&second, webhook(WebhookState::Pending, true)).await.unwrap());
    assert_is_due(&store, &second).await;
}

#[tokio::test]
async fn a_webhook_whose_previous_one_is_finished_in_the_same_batch_is_due_at_once() {
    let env = TestEnv::new().await;
    let store = store(env.pool.clone());
    let [first, second] = two_webhooks(&env, &store).await;
    // When both are stored together (on one thread, both are in the queue before the batch is formed),
    let (first, waits) = tokio::join!(
        store.delivered(&first, webhook(WebhookState::Abandoned, false)),
        store.delivered(&second, webhook(WebhookState::Pending, true)),
    );
    // then the second one is due.
    assert!(first.unwrap() && waits.unwrap());
    assert_is_due(&store, &second).await;
}

/// Checks a worker that died between the end of the first webhook and the wake-up of the second.
#[tokio::test]
async fn a_webhook_that_nobody_woke_is_due_as_soon_as_its_wait_is_stored() {
    let env = TestEnv::new().await;
    let store = store(env.pool.clone());
    let [first, second] = two_webhooks(&env, &store).await;
    let finished = "UPDATE events SET published_at = now(), webhook_state = 'delivered', webhook_due_at = NULL, holder = NULL,
            due_at = NULL
         WHERE id = $1";
    sqlx::query(finished).bind(first.id).execute(&env.pool).await.unwrap();
    assert!(store.delivered(&second, webhook(WebhookState::Pending, true)).await.unwrap());
    assert_is_due(&store, &second).await;
}

/// Returns the progress of an event whose webhook is far away.
fn result(published: bool, publish_after: Option<Duration>) -> EventProgress {
    EventProgress {
        published,
        publish_after,
        webhook_after: Some(Duration::from_hours(1)),
        ..webhook(WebhookState::Pending, false)
    }
}

fn waits() -> EventProgress {
    EventProgress { result_waits: true, ..result(false, Some(Duration::from_mins(5))) }
}

#[tokio::test]
async fn a_result_waits_for_the_one_before_it() {
    let env = TestEnv::new().await;
    let store = store(env.pool.clone());
    let [first, second] = two_webhooks(&env, &store).await;
    assert_eq!((first.result_waits, second.result_waits), (false, true));
    assert!(first.publish_due_in.is_zero() && !second.publish_due_in.is_zero());
    // Given a first result that the broker has rejected, and that is published again in an hour,
    let rejected = EventProgress { publish_attempts: 1, ..result(false, Some(Duration::from_hours(1))) };
    assert!(!store.delivered(&first, rejected).await.unwrap());
    assert!(!store.delivered(&second, waits()).await.unwrap());
    // when the second one is claimed again, then it waits for as long.
    let due = "UPDATE events SET due_at = now(), publish_due_at = NULL WHERE id = $1";
    sqlx::query(due).bind(second.id).execute(&env.pool).await.unwrap();
    let again = claim_events(&store, 10).await.remove(0).unwrap();
    assert_eq!((again.id, again.result_waits), (second.id, true));
    assert!(again.publish_due_in > Duration::from_mins(59), "{:?}", again.publish_due_in);
}

#[tokio::test]
async fn a_result_is_due_at_once_when_the_one_before_it_is_published() {
    // The wait of the second result is stored before the first one is published, after it, and together with it.
    for order in ["before", "after", "together"] {
        let env = TestEnv::new().await;
        let store = store(env.pool.clone());
        let [first, second] = two_webhooks(&env, &store).await;
        let (publish, wait) =
            (store.delivered(&first, result(true, None)), store.delivered(&second, waits()));
        let is_due = match order {
            "before" => {
                assert!(!wait.await.unwrap());
                publish.await
            }
            "after" => {
                publish.await.unwrap();
                wait.await
            }
            _ => tokio::join!(publish, wait).1,
        };
        assert!(is_due.unwrap(), "{order}");
        let again = claim_events(&store, 10).await.remove(0).unwrap();
        assert_eq!((again.id, again.result_waits, again.publish_due_in), (second.id, false, Duration::ZERO));
    }
}

/// Checks that one statement finishes a webhook and wakes the next one: no worker can die in between.
async fn assert_one_transaction_finishes_it_and_wakes_the_next(
    finished: impl Fn(&DueEvent) -> EventProgress,
) {
    let env = TestEnv::new().await;
    let store = store(env.pool.clone());
    let [first, second] = two_webhooks(&env, &store).await;
    // Given a second webhook that nobody holds and that looks again in five minutes,
    assert!(!store.delivered(&second, webhook(WebhookState::Pending, true)).await.unwrap());
    // when the first one is finished,
    assert!(store.delivered(&first, finished(&first)).await.unwrap());
    // then one transaction has written both rows.
    let writers = "SELECT count(DISTINCT xmin::text) FROM events";
    assert_eq!(sqlx::query_scalar::<_, i64>(writers).fetch_one(&env.pool).await.unwrap(), 1);
    assert_is_due(&store, &second).await;
}

#[tokio::test]
async fn a_webhook_is_abandoned_and_the_next_one_woken_in_one_transaction() {
    let abandoned = |_: &DueEvent| webhook(WebhookState::Abandoned, false);
    assert_one_transaction_finishes_it_and_wakes_the_next(abandoned).await;
}

#[tokio::test]
async fn a_webhook_is_delivered_and_the_next_one_woken_in_one_transaction() {
    assert_one_transaction_finishes_it_and_wakes_the_next(delivered_at_once).await;
}

/// Checks a late holder of an open row: only the present holder may renew or postpone it.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_holder_can_neither_renew_nor_postpone() {
    let env = TestEnv::new().await;
    migrate(&env.pool).await.unwrap();
    let store = store(env.pool.clone());
    let mut late = accept(&store, "po_1").await;
    let_leases_run_out(&env).await;
    let link = claim(&store, 10).await.remove(0).unwrap();
    assert!(matches!(store.renew_for_call(&mut late).await, Err(StoreError::LeaseLost)));
    assert!(matches!(store.postpone(late, Duration::ZERO).await, Err(StoreError::LeaseLost)));
    // No other worker finds it while the second lease runs.
    assert!(claim(&store, 10).await.is_empty());
    store.postpone(link, Duration::ZERO).await.unwrap();
    let again = claim(&store, 10).await.remove(0).unwrap();
    assert_eq!(again.progress.attempts, 1);
}

/// Checks a worker that was paused past its lease, before any other worker noticed. Its decision may be out of date,
/// because the connector may have forgotten the key. So it may look up, but not call.
#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_ran_out_is_not_renewed_for_a_call() {
    let env = TestEnv::new().await;
    migrate(&env.pool).await.unwrap();
    let store = store(env.pool.clone());
    let mut link = accept(&store, "po_1").await;
    let_leases_run_out(&env).await;
    assert!(matches!(store.renew_for_call(&mut link).await, Err(StoreError::LeaseLost)));
    store.renew_for_look_up(&mut link).await.unwrap();
    // The look-up renewed the lease, so it may call.
    store.renew_for_call(&mut link).await.unwrap();
}

/// Checks a worker that was paused and claims its own row again: both of its tasks write in one statement.
#[tokio::test]
async fn two_holders_in_one_batch_are_reported_apart() {
    let env = TestEnv::new().await;
    migrate(&env.pool).await.unwrap();
    let store = store(env.pool.clone());
    let mut late = accept(&store, "po_1").await;
    let_leases_run_out(&env).await;
    let mut link = claim(&store, 10).await.remove(0).unwrap();
    // On one thread, both requests are in the queue before the first is read.
    let (refused, renewed) = tokio::join!(store.renew_for_call(&mut late), store.renew_for_call(&mut link));
    assert!(matches!(refused, Err(StoreError::LeaseLost)), "{refused:?}");
    renewed.unwrap();
    let (first, second) = (created(&mut late, "plink_first"), created(&mut link, "plink_second"));
    let (refused, event) = tokio::join!(store.conclude(late, first), store.conclude(link, second));
    assert!(matches!(refused, Err(Unconcluded { error: StoreError::LeaseLost, .. })), "{refused:?}");
    let shown = store.reader().show("po_1").await.unwrap().remove(0);
    assert_eq!(shown.event.unwrap().id, event.unwrap().id);
    assert_eq!(shown.connector_payout_id.as_deref(), Some("plink_second"));
    let outcomes: Vec<&str> = shown.timeline.iter().map(|call| call.outcome.as_str()).collect();
    assert!(outcomes.contains(&"late: created") && outcomes.contains(&"created"), "{outcomes:?}");
}
