//! The invariants of every reachable state.

use payout_link_worker::domain::LinkStatus;
use stateright::Model;

use super::{
    protocol::FollowProtocol,
    state::{Answer, Creation, System},
};

type Rule = fn(&FollowProtocol, &System) -> bool;

pub const ALL: [(&str, Rule); 11] = [
    (
        "F1 each change at the provider is announced at most once, in order, and nothing else is",
        |_, system| are_changes(&announced(system), system),
    ),
    ("F2 numbers without gaps", |_, system| {
        (1..).zip(&system.events).all(|(number, event)| event.sequence == number)
    }),
    ("F3 nothing final changes", |_, system| {
        use LinkStatus::{Cancelled, Expired, PayoutFailed, Reversed, Succeeded};
        system.events.windows(2).all(|pair| match (pair[0].status, pair[1].status) {
            (PayoutFailed | Reversed, _) => false,
            (Cancelled | Expired, after) => after == Succeeded,
            (Succeeded, after) => after == Reversed,
            _ => true,
        })
    }),
    ("F4 webhooks arrive in order", |_, system| system.arrivals.is_sorted()),
    ("F5 status, number and event are one write", |_, system| {
        system
            .events
            .last()
            .is_none_or(|newest| (newest.status, newest.sequence) == (system.row.status, system.row.sequence))
    }),
    ("F6 no cancelled link is announced as paid unless its provider says so", |_, system| {
        let announced_status = announced(system);
        !announced_status.windows(2).any(|pair| pair == [LinkStatus::Cancelled, LinkStatus::Succeeded])
            || system.ledger.history.contains(&LinkStatus::Succeeded)
    }),
    ("F7 a cancel is answered with the truth", |_, system| {
        system.answers.iter().all(|(_, answer)| match answer {
            Answer::Cancelled => system.events.iter().any(|event| event.status == LinkStatus::Cancelled),
            Answer::Over(count) => {
                let status = system.events[usize::from(*count) - 1].status;
                !matches!(status, LinkStatus::Unclaimed | LinkStatus::Cancelled)
            }
            Answer::NotCreated => matches!(system.creation, Creation::Failed | Creation::Unknown),
            Answer::GivenUp => true,
        })
    }),
    ("F8 the last status is announced", |protocol, system| {
        !is_at_rest(protocol, system) || system.creation != Creation::Created || {
            let (announced_status, truth) = (system.row.status, system.provider_status().unwrap());
            // A final link is asked about again only where a webhook says so.
            announced_status == truth
                || (announced_status == LinkStatus::Expired && is_ended_by_the_worker(system, truth))
                || (announced_status.is_final()
                    && (system.ledger.is_silent || !announced_status.may_become(truth)))
        }
    }),
    (
        "F9 a link that is to be cancelled, or whose end only the worker brings, is not left open",
        |protocol, system| {
            let is_untouched = system.ledger.history == [LinkStatus::Unclaimed];
            let is_to_end = system.is_cancel_asked || (protocol.provider.never_ends && system.row.is_over);
            !is_at_rest(protocol, system)
                || system.creation != Creation::Created
                || !is_untouched
                || !is_to_end
        },
    ),
    ("F11 a record that is cancelled before its call has no link", |_, system| {
        system.creation != Creation::Cancelled || system.ledger.history.is_empty()
    }),
    // Every step uses something up, so that every run ends: where it ends, nothing may be left open.
    ("F10 everything comes to rest, and every request has its answer", |protocol, system| {
        let sent = protocol.faults.messages - system.faults.messages;
        let is_answered = |number: u8| system.answers.iter().any(|(request, _)| *request == number);
        !is_at_rest(protocol, system) || (system.is_quiet() && (0..sent).all(is_answered))
    }),
];

fn is_at_rest(protocol: &FollowProtocol, system: &System) -> bool {
    let mut steps = Vec::new();
    protocol.actions(system, &mut steps);
    steps.is_empty()
}

/// The statuses of the events after the conclusion.
fn announced(system: &System) -> Vec<LinkStatus> {
    system.events.iter().skip(1).map(|event| event.status).collect()
}

/// A link that the worker cancelled at its end has expired.
fn is_ended_by_the_worker(system: &System, truth: LinkStatus) -> bool {
    truth == LinkStatus::Cancelled && system.row.is_over
}

/// Whether each announced status was entered, in this order. Some may be passed unseen.
fn are_changes(announced: &[LinkStatus], system: &System) -> bool {
    let mut rest = system.ledger.history.iter().skip(1);
    announced.iter().all(|announced_status| {
        rest.any(|entered| {
            entered == announced_status
                || (*announced_status == LinkStatus::Expired && is_ended_by_the_worker(system, *entered))
        })
    })
}
