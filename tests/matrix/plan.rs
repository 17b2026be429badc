//! Which points there are, and which of them are gone through.

use std::collections::BTreeMap;

use crate::{
    kinds::Kind,
    point::Outcome,
    proxy::{Blow, Cut, Hit, Service},
    words::PING,
};

/// How a worker, or one of its connections, is struck.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    KilledBefore,
    KilledAfter,
    Reset,
    Silence,
    Stopped,
    /// The one that comes after the first is killed as well.
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

    fn first(self, random: usize) -> Blow {
        match self {
            Self::KilledBefore => Blow::KillBefore,
            Self::KilledAfter => Blow::KillAfter,
            Self::Reset => Blow::Reset,
            Self::Silence => Blow::Silence,
            Self::Stopped | Self::StoppedAndKilled => Blow::Stop,
            Self::KilledTwice => kill(random),
        }
    }

    pub fn is_pair(self) -> bool {
        matches!(self, Self::KilledTwice | Self::StoppedAndKilled)
    }
}

fn kill(random: usize) -> Blow {
    if random.is_multiple_of(2) { Blow::KillBefore } else { Blow::KillAfter }
}

#[derive(Debug, Clone, Copy)]
pub struct Point {
    pub kind: Kind,
    pub mode: Mode,
    pub service: Service,
    pub first: Cut,
    /// Counted from the first.
    pub second: Option<Cut>,
}

impl Point {
    pub fn cuts(&self) -> impl Iterator<Item = Cut> {
        [self.first].into_iter().chain(self.second)
    }

    /// The same at the next chunk.
    pub fn further(self) -> Self {
        Self { first: Cut { chunk: self.first.chunk + 1, ..self.first }, ..self }
    }
}

/// A recovery, and a shutdown, are seldom longer.
const LONGEST_RECOVERY: usize = 40;
/// Of the pairs, which are too many, so many are taken of each kind and mode.
const PAIRS: usize = 12;

/// Every mode at every chunk that passed where nothing fell; of pairs, a sample.
pub fn points(unharmed: &[Outcome], seed: usize) -> Vec<Point> {
    let mut points = Vec::new();
    for Outcome { kind, passed, .. } in unharmed {
        for mode in Mode::ALL {
            let mut counts = BTreeMap::new();
            let mut of_mode = Vec::new();
            for hit in passed {
                let chunk: &mut usize = counts.entry(hit.service).or_default();
                *chunk += 1;
                // The worker that comes after a dead one is no help to a command.
                let is_no_pair = mode.is_pair() && hit.service.is_operators();
                if is_a_moment_of_its_own(mode, hit) && !is_no_pair {
                    let random = mix(seed, points.len() + of_mode.len());
                    let first = Cut { of: Some(hit.service), chunk: *chunk, blow: mode.first(random) };
                    let chunk = 1 + random / 4 % LONGEST_RECOVERY;
                    let second = mode.is_pair().then_some(Cut { of: None, chunk, blow: kill(random / 2) });
                    of_mode.push(Point { kind: *kind, mode, service: hit.service, first, second });
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

/// A ping changes nothing: to die at it is to die at what comes next. That nobody answers it is another matter.
fn is_a_moment_of_its_own(mode: Mode, hit: &Hit) -> bool {
    let is_asked = matches!(mode, Mode::Reset | Mode::Silence) && hit.words.starts_with("->");
    is_asked || !hit.words.ends_with(PING)
}

/// A sample, or as many points as are wanted: the seed says which. The sample has one point of each mode, kind and every
/// third service. A kind that runs while something is full, or whose link changes, takes longer: it has one point of
/// every fourth mode.
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

/// A number that follows from two others and looks like neither (splitmix64).
fn mix(seed: usize, number: usize) -> usize {
    let mut mixed = (seed as u64) ^ (number as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    usize::try_from((mixed ^ (mixed >> 31)) >> 1).unwrap()
}
