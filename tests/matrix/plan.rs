//! Plans the points of a run.

use std::collections::BTreeMap;

use crate::{
    kinds::Kind,
    moments,
    point::Outcome,
    proxy::{Fault, Service, Trigger},
};

/// The faults of a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    KilledBefore,
    KilledAfter,
    Reset,
    Silence,
    Stopped,
    /// The worker after the killed one is killed too.
    KilledTwice,
    StoppedAndKilled,
}

impl Mode {
    pub const ALL: [Self; 7] = [
        Self::KilledBefore,
        Self::KilledAfter,
        Self::Reset,
        Self::Silence,
        Self::Stopped,
        Self::KilledTwice,
        Self::StoppedAndKilled,
    ];

    fn first(self, random: usize) -> Fault {
        match self {
            Self::KilledBefore => Fault::KillBefore,
            Self::KilledAfter => Fault::KillAfter,
            Self::Reset => Fault::Reset,
            Self::Silence => Fault::Silence,
            Self::Stopped | Self::StoppedAndKilled => Fault::Stop,
            Self::KilledTwice => kill(random),
        }
    }

    pub fn is_pair(self) -> bool {
        matches!(self, Self::KilledTwice | Self::StoppedAndKilled)
    }
}

fn kill(random: usize) -> Fault {
    if random.is_multiple_of(2) { Fault::KillBefore } else { Fault::KillAfter }
}

#[derive(Debug, Clone, Copy)]
pub struct Point {
    pub kind: Kind,
    pub mode: Mode,
    pub service: Service,
    pub first: Trigger,
    /// Counted from the first fault.
    pub second: Option<Trigger>,
}

impl Point {
    /// Returns whether both are the same chunk of the same kind, mode and service.
    pub fn is_at(&self, other: &Self) -> bool {
        let key = |point: &Self| (point.kind, point.mode, point.service, point.first.number);
        key(self) == key(other)
    }

    pub fn triggers(&self) -> impl Iterator<Item = Trigger> {
        [self.first].into_iter().chain(self.second)
    }

    /// Returns the same point at the next chunk.
    pub fn further(self) -> Self {
        Self { first: Trigger { number: self.first.number + 1, ..self.first }, ..self }
    }
}

/// The number of chunks that a recovery or a shutdown rarely exceeds.
const LONGEST_RECOVERY: usize = 40;
/// The number of pairs of each kind and mode. There are too many pairs to test all of them.
const PAIRS: usize = 12;

/// Returns every mode at each of its moments, and a sample of the pairs.
pub fn points(unharmed: &[Outcome], seed: usize) -> Vec<Point> {
    let mut points = Vec::new();
    for Outcome { kind, passed, .. } in unharmed {
        for mode in Mode::ALL {
            let mut counts = BTreeMap::new();
            let mut of_mode = Vec::new();
            for (chunk, is_moment) in std::iter::zip(passed, moments::of(mode, passed)) {
                let number: &mut usize = counts.entry(chunk.service).or_default();
                *number += 1;
                // No second worker continues a command.
                let is_no_pair = mode.is_pair() && chunk.service.is_operators();
                if is_moment && !is_no_pair {
                    let random = mix(seed, points.len() + of_mode.len());
                    let first =
                        Trigger { of: Some(chunk.service), number: *number, fault: mode.first(random) };
                    let number = 1 + random / 4 % LONGEST_RECOVERY;
                    let second =
                        mode.is_pair().then_some(Trigger { of: None, number, fault: kill(random / 2) });
                    of_mode.push(Point { kind: *kind, mode, service: chunk.service, first, second });
                }
            }
            if mode.is_pair() {
                let count = PAIRS.min(of_mode.len());
                of_mode =
                    (0..count).map(|n| of_mode[(n * of_mode.len() / count + seed) % of_mode.len()]).collect();
            }
            points.extend(of_mode);
        }
    }
    points
}

/// Chooses points by the seed: `wanted` of them, or a sample. The sample has one point of each mode, kind and every third
/// service. A kind that takes longer (something is full, or its link changes) has one point of every fourth mode.
pub fn sample(points: Vec<Point>, wanted: Option<usize>, seed: usize) -> Vec<Point> {
    let mut groups: BTreeMap<_, Vec<Point>> = BTreeMap::new();
    let is_in_turn = |point: &Point| {
        let turn = point.mode as usize + point.kind as usize + seed;
        if point.kind.is_long() {
            turn.is_multiple_of(4)
        } else {
            (turn + point.service as usize).is_multiple_of(3)
        }
    };
    for point in points.into_iter().filter(|point| wanted.is_some() || is_in_turn(point)) {
        let service = (!point.kind.is_long()).then_some(point.service);
        groups.entry((point.mode, point.kind, service)).or_default().push(point);
    }
    let turn = |group: &Vec<Point>, turn: usize| {
        (turn < group.len()).then(|| group[(mix(seed, group.len()) + turn) % group.len()])
    };
    let longest = groups.values().map(Vec::len).max().unwrap_or_default();
    let turns = (0..longest).flat_map(|number| groups.values().filter_map(move |group| turn(group, number)));
    turns.take(wanted.unwrap_or(groups.len())).collect()
}

/// Returns a pseudo-random number of two numbers (splitmix64).
fn mix(seed: usize, number: usize) -> usize {
    let mut mixed = (seed as u64) ^ (number as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    usize::try_from((mixed ^ (mixed >> 31)) >> 1).unwrap()
}
