//! Lists the invariants of every reachable state.

use payout_link_worker::domain::LinkStatus;
use stateright::Model;

use super::{
    protocol::FollowProtocol,
    state::{Answer, Creation, System},
};

type Rule = fn(&FollowProtocol, &System) -> bool;

pub const ALL: [(&str, Rule); 12] = [
    (
        "F1 each change at the provider is announced at most once and in order, and nothing else is announced",
        |_, system| are_changes(&announced(system), system),
    ),
    ("F2 event numbers have no gaps", |_, system| {
        (1..).zip(&system.events).all(|(number, event)| event.sequence == number)
    }),
    ("F3 a final status changes only by a late payout or a reversal", |_, system| {
        use LinkStatus::{Cancelled, Expired, PayoutFailed, Reversed, Succeeded};
        system.events.windows(2).all(|pair| match (pair[0].status, pair[1].status) {
            (PayoutFailed | Reversed, _) => false,
            (Cancelled | Expired, after) => after == Succeeded,
            (Succeeded, after) => after == Reversed,
            _ => true,
        })
    }),
    ("F4 webhooks arrive in order", |_, system| system.arrivals.is_sorted()),
    ("F5 a status, its number and its event are written together", |_, system| {
        system
            .events
            .last()
            .is_none_or(|newest| (newest.status, newest.sequence) == (system.row.status, system.row.sequence))
    }),
    ("F6 a cancelled link is announced as paid only if its provider says so", |_, system| {
        let announced_status = announced(system);
        !announced_status.windows(2).any(|pair| pair == [LinkStatus::Cancelled, LinkStatus::Succeeded])
            || system.ledger.history.contains(&LinkStatus::Succeeded)
    }),
    ("F7 the answer to a cancel request is true", |_, system| {
        system.answers.iter().all(|(_, answer)| match answer {
            Answer::Cancelled => system.events.iter().any(|event| event.status == LinkStatus::Cancelled),
            Answer::Over(count) => {
                let status = system.events[usize::from(*count) - 1].status;
                !matches!(status, LinkStatus::Unclaimed | LinkStatus::Cancelled)
            }
            Answer::NotCreated => system.creation == Creation::Failed,
            Answer::GivenUp => true,
        })
    }),
    ("F8 the last status is announced", |protocol, system| {
        !has_ended(protocol, system) || system.creation != Creation::Created || {
            let (announced_status, truth) = (system.row.status, system.provider_status().unwrap());
            // A final link causes another question only after a webhook.
            announced_status == truth
                || (announced_status == LinkStatus::Expired && is_ended_by_the_worker(system, truth))
                || (announced_status.is_final()
                    && (system.ledger.is_silent || !announced_status.may_become(truth)))
        }
    }),
    ("F9 a link that the worker has to cancel does not stay open", |protocol, system| {
        let is_untouched = system.ledger.history == [LinkStatus::Unclaimed];
        let is_to_end = system.is_cancel_asked || (protocol.provider.never_ends && system.row.is_over);
        !has_ended(protocol, system) || system.creation != Creation::Created || !is_untouched || !is_to_end
    }),
    ("F11 a record that is cancelled before its call has no link", |_, system| {
        system.creation != Creation::Cancelled || system.ledger.history.is_empty()
    }),
    ("F12 the first arrivals of results are in order and have no gap", |_, system| {
        (1..).zip(&system.results).all(|(number, sequence)| *sequence == number)
    }),
    // Every step uses up something finite, so every run ends. Where it ends, nothing may be left open.
    ("F10 every run ends with nothing left to do, and every request has its answer", |protocol, system| {
        let sent = protocol.faults.messages - system.faults.messages;
        let is_answered = |number: u8| system.answers.iter().any(|(request, _)| *request == number);
        !has_ended(protocol, system) || (system.is_quiet() && (0..sent).all(is_answered))
    }),
];

fn has_ended(protocol: &FollowProtocol, system: &System) -> bool {
    let mut steps = Vec::new();
    protocol.actions(system, &mut steps);
    steps.is_empty()
}

/// Returns the statuses of the events after the conclusion.
fn announced(system: &System) -> Vec<LinkStatus> {
    system.events.iter().skip(1).map(|event| event.status).collect()
}

/// Says whether the worker cancelled the link at its end, which counts as expired.
fn is_ended_by_the_worker(system: &System, truth: LinkStatus) -> bool {
    truth == LinkStatus::Cancelled && system.row.is_over
}

/// Says whether the link entered each announced status, in this order. A status between two questions may stay unseen.
fn are_changes(announced: &[LinkStatus], system: &System) -> bool {
    let mut rest = system.ledger.history.iter().skip(1);
    announced.iter().all(|announced_status| {
        rest.any(|entered| {
            entered == announced_status
                || (*announced_status == LinkStatus::Expired && is_ended_by_the_worker(system, *entered))
        })
    })
}
