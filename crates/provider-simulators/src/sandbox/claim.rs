//! Serves the page behind a link's URL: shows the payout and accepts the claim.
//!
//! Bank details are checked and dropped. They are neither stored nor logged.

use std::sync::Arc;

use axum::extract::rejection::FormRejection;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, LOCATION, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderValue, StatusCode};
use axum::routing::get;
use axum::{Form, Router};

use super::bank::Problem;
use super::claim_form::ClaimForm;
use super::claim_page::{self, Notice};
use super::link::{Link, LinkStatus};
use super::payouts::{self, Course};
use super::shared::Shared;
use crate::fault_server::Reply;
use crate::link_change::LinkChange;

const MAX_FORM_BYTES: usize = 8 * 1024;

pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/l/{token}", get(show).post(claim))
        .layer(DefaultBodyLimit::max(MAX_FORM_BYTES))
        .with_state(shared)
}

async fn show(State(shared): State<Arc<Shared>>, Path(token): Path<String>) -> Reply {
    let Some(link) = find(&shared, &token) else { return notice(StatusCode::NOT_FOUND, &Notice::Unknown) };
    match link.status() {
        LinkStatus::Issued => form(StatusCode::OK, &link, &ClaimForm::prefilled(&link), &[]),
        LinkStatus::Claimed | LinkStatus::Processing => notice(StatusCode::OK, &Notice::Claimed(&link)),
        LinkStatus::Paid => notice(StatusCode::OK, &Notice::Paid(&link)),
        LinkStatus::Failed => notice(StatusCode::OK, &Notice::Failed(&link)),
        LinkStatus::Reversed => notice(StatusCode::OK, &Notice::Reversed(&link)),
        LinkStatus::Cancelled => notice(StatusCode::GONE, &Notice::Cancelled(&link)),
        LinkStatus::Expired => notice(StatusCode::GONE, &Notice::Expired(&link)),
    }
}

async fn claim(
    State(shared): State<Arc<Shared>>,
    Path(token): Path<String>,
    filled_in: Result<Form<ClaimForm>, FormRejection>,
) -> Reply {
    let Some(link) = find(&shared, &token) else { return notice(StatusCode::NOT_FOUND, &Notice::Unknown) };
    let Ok(Form(filled_in)) = filled_in else {
        return notice(StatusCode::BAD_REQUEST, &Notice::Unreadable);
    };
    let problems = filled_in.problems();
    if link.status() == LinkStatus::Issued && !problems.is_empty() {
        return form(StatusCode::UNPROCESSABLE_ENTITY, &link, &filled_in, &problems);
    }
    // Of two concurrent claims only one finds the link issued.
    let claimed = shared.change(|state| {
        let before = state.end(&link.id, LinkChange::Claim)?;
        Some((before, state.link(&link.id)?.version()))
    });
    match claimed {
        Some((LinkStatus::Issued, version)) => {
            let course = Course::of(link.request.amount.minor_amount, &filled_in.account_number);
            payouts::begin(shared.clone(), link.id, version, course);
            see_the_page_again(&token)
        }
        Some((LinkStatus::Cancelled, _)) => notice(StatusCode::GONE, &Notice::Cancelled(&link)),
        Some((LinkStatus::Expired, _)) => notice(StatusCode::GONE, &Notice::Expired(&link)),
        Some((
            LinkStatus::Claimed
            | LinkStatus::Processing
            | LinkStatus::Paid
            | LinkStatus::Failed
            | LinkStatus::Reversed,
            _,
        )) => notice(StatusCode::CONFLICT, &Notice::ClaimedBefore(&link)),
        None => notice(StatusCode::NOT_FOUND, &Notice::Unknown),
    }
}

fn find(shared: &Shared, token: &str) -> Option<Link> {
    shared.read(|state| state.link_by_token(token).cloned())
}

/// Redirects to the page, so that reloading it does not send the form again.
fn see_the_page_again(token: &str) -> Reply {
    let reply = page(StatusCode::SEE_OTHER, String::new());
    match HeaderValue::from_str(token) {
        // The location is relative to the page, so it also works behind a reverse proxy.
        Ok(location) => reply.with(LOCATION, location),
        Err(_) => reply,
    }
}

fn form(status: StatusCode, link: &Link, filled_in: &ClaimForm, problems: &[Problem]) -> Reply {
    page(status, claim_page::form(link, filled_in, problems))
}

fn notice(status: StatusCode, notice: &Notice<'_>) -> Reply {
    page(status, claim_page::notice(notice))
}

fn page(status: StatusCode, html: String) -> Reply {
    Reply::new(status, "text/html; charset=utf-8", html)
        .with(CONTENT_SECURITY_POLICY, claim_page::CONTENT_SECURITY.clone())
        .with(CACHE_CONTROL, HeaderValue::from_static("no-store"))
        // The address of this page is a secret, which other sites must not get as a referrer.
        .with(REFERRER_POLICY, HeaderValue::from_static("no-referrer"))
        .with(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"))
}
