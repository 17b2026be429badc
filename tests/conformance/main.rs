//! Tests every connector with one suite, against its provider's simulator. Most tests call the connector: each
//! answer, each replay rule, each limit of what it accepts. The main tests use the real worker with a real broker and
//! database.
//!
//! A new connector needs a file that describes it (see `description.rs`) and a line here.

#![expect(clippy::unwrap_used, reason = "in a test an unwrap is an assertion")]

use test_support as support;
use test_support::accounts;

/// Expands to the whole suite for a description, with a test function for each test.
macro_rules! conformance {
    ($description:expr) => {
        scenarios! { $description;
            answers::a_job_becomes_a_link
            answers::every_status_has_its_meaning
            answers::a_link_that_is_not_there_yet_is_asked_for
            answers::errors_are_judged
            answers::a_call_that_may_have_been_carried_out_is_unknown
            answers::a_request_that_never_left_is_not_sent
            answers::a_question_without_an_answer_settles_nothing
            answers::a_repeat_makes_no_second_link
            answers::a_payout_that_was_never_created_is_not_found
            answers::a_wait_is_the_providers
            answers::credentials_are_tried
            answers::the_jobs_own_credential_goes_first
            answers::a_link_is_cancelled
            follow::every_status_is_reported
            follow::a_link_is_followed_until_its_money_comes_back
            follow::a_payout_that_fails_is_reported
            follow::an_end_is_reported_by_the_provider_alone
            follow::a_link_is_cancelled_in_no_status_but_an_open_one
            follow::nothing_follows_from_a_question_without_an_answer
            follow::a_link_that_is_not_there_is_not_found
            follow::webhooks_of_the_provider_name_their_link
            follow::webhooks_without_the_providers_proof_are_refused
            jobs::every_amount_keeps_its_digits
            jobs::missing_fields_and_settings_are_named
            jobs::an_unsupported_job_is_rejected
            jobs::feature_data_has_known_keys_alone
            worker::lost_answers_end_as_the_rule_says
            worker::a_refusal_is_reported_with_the_providers_words
            worker::a_limit_is_waited_for
            worker::repeated_jobs_make_one_link
            worker::a_claimed_link_is_followed_until_its_money_comes_back
            worker::a_change_that_the_provider_announces_is_found_at_once
            worker::a_link_that_takes_its_time_takes_no_permit
            worker::secrets_are_nowhere
            commands::check_tries_each_account
            commands::cancel_cancels_a_link
            commands::connectors_says_what_an_account_needs
        }
    };
}

macro_rules! scenarios {
    ($description:expr; $($module:ident::$scenario:ident)+) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $scenario() {
                crate::$module::$scenario(&$description).await;
            }
        )+
    };
}

mod answers;
mod commands;
mod description;
mod follow;
mod jobs;
mod openapi;
mod worker;

mod hyperswitch;
mod razorpayx;
mod revolut;
mod sandbox;
mod xendit;
