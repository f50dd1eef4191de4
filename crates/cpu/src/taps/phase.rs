//! The taps of one remainder of each coordinate: addresses that are sums, and bounds that are left.

use std::ops::Range;

use kiln_ir::kernel::{Body, Instr};
use kiln_ir::{Atom, Bound, Index};

use super::source::Source;
use crate::space::admitted;

/// How far apart neighbours in a line may be for vectors.
const STEP: i64 = 2;

/// Remainders that are told apart, in all.
const PHASES: usize = 16;

/// What one remainder of each coordinate meets.
pub(super) struct Phase {
    pub(super) taps: Vec<Element>,
    /// The parts of addresses and bounds that only lines decide; taps share them.
    pub(super) shares: Vec<Share>,
    /// True iff what does not exist changes nothing.
    pub(super) neutral: bool,
}

impl Phase {
    /// True iff some tap sees along a line of so many points what another one sees at its beginning.
    pub(super) fn meets(&self, len: usize) -> bool {
        let first = self.taps.first().map_or(0, |tap| tap.places[0].constant);
        self.taps.iter().any(|tap| (1..tap.places[0].step * len as i64).contains(&(tap.places[0].constant - first)))
    }
}

/// An element of a row.
pub(super) struct Element {
    /// Which one it is.
    pub(super) number: i32,
    /// Where its value and what that is multiplied by or compared with lie.
    pub(super) places: Vec<Reach>,
    /// What the other is compared with.
    pub(super) coordinate: Option<Reach>,
    /// True iff the value exists at some point of some line: where limits admit it.
    pub(super) exists: bool,
    pub(super) limits: Vec<Limit>,
}

/// A sum over the coordinates of a line, in quotients.
#[derive(PartialEq, Eq)]
pub(super) struct Share(pub(super) Vec<i64>);

/// A value that goes on evenly along a line.
#[derive(Clone, Copy)]
pub(super) struct Reach {
    /// The number of the line's share.
    pub(super) share: usize,
    pub(super) constant: i64,
    pub(super) step: i64,
}

impl Reach {
    /// At the beginning of a line, whose shares are these.
    pub(super) fn head(&self, shares: &[i64]) -> i64 {
        shares[self.share] + self.constant
    }
}

/// A bound on such a value.
pub(super) struct Limit {
    pub(super) of: Reach,
    pub(super) lo: i64,
    pub(super) hi: i64,
}

impl Limit {
    /// The points of a line that it admits.
    pub(super) fn admitted(&self, shares: &[i64], n: usize) -> Range<usize> {
        admitted(self.of.head(shares), self.of.step, self.lo, self.hi, n)
    }
}

/// For each axis, how many remainders have taps of their own: as many as quotients and remainders tell apart.
pub(super) fn steps(body: &Body, outer: &[usize]) -> Option<Vec<usize>> {
    fn visit(index: &Index, n_outer: usize, steps: &mut [usize]) {
        for (_, atom) in &index.terms {
            let (Atom::Div(e, n) | Atom::Mod(e, n)) = atom else { continue };
            visit(e, n_outer, steps);
            for (c, atom) in &e.terms {
                if let Atom::Var(axis) = atom
                    && *axis < n_outer
                    && c % n != 0
                {
                    // The least common multiple of what is asked for.
                    let step = &mut steps[*axis];
                    let n = *n as usize;
                    *step = (1..=n).map(|k| *step * k).find(|m| m % n == 0).unwrap_or(*step);
                }
            }
        }
    }
    let mut steps = vec![1; outer.len()];
    for instr in &body.instrs {
        match instr {
            Instr::Load { index, valid, .. } => {
                visit(index, outer.len(), &mut steps);
                valid.iter().for_each(|b| visit(&b.index, outer.len(), &mut steps));
            }
            Instr::Coord(index) => visit(index, outer.len(), &mut steps),
            _ => {}
        }
    }
    let few = steps.iter().try_fold(1usize, |n, &step| n.checked_mul(step)).is_some_and(|n| n <= PHASES);
    (few && steps.iter().zip(outer).all(|(step, dim)| step <= dim)).then_some(steps)
}

/// The space of a loop, its coordinates taken apart.
pub(super) struct Space<'a> {
    pub(super) outer: &'a [usize],
    pub(super) row: &'a [usize],
    pub(super) steps: &'a [usize],
}

impl Space<'_> {
    /// The taps of one remainder of each coordinate; `None` if some address is no sum even then.
    pub(super) fn phase(&self, mut number: usize, source: &Source, neutral: bool) -> Option<Phase> {
        let rank = self.outer.len();
        let mut quotients = vec![0; rank];
        let mut coords = vec![Index::constant(0); rank];
        for axis in (0..rank).rev() {
            let (step, remainder) = (self.steps[axis], number % self.steps[axis]);
            number /= step;
            quotients[axis] = (self.outer[axis] - remainder).div_ceil(step);
            let q = if quotients[axis] == 1 { Index::constant(0) } else { Index::var(axis).scale(step as i64) };
            coords[axis] = q.offset(remainder as i64);
        }
        let mut phase = Phase { taps: Vec::new(), shares: Vec::new(), neutral };
        for number in 0..self.row.iter().product() {
            let mut coords = coords.clone();
            let mut rest = number;
            let mut within: Vec<Index> = Vec::new();
            for &dim in self.row.iter().rev() {
                within.insert(0, Index::constant((rest % dim) as i64));
                rest /= dim;
            }
            coords.extend(within);
            let put = |index: &Index| index.substitute(&coords, &quotients);
            let Phase { taps, shares, .. } = &mut phase;
            let mut reach = |index: &Index| -> Option<Reach> {
                let mut strides = index.affine(rank)?;
                let step = strides.pop().expect("a line is an axis");
                let share = Share(strides);
                let found = shares.iter().position(|s| *s == share).unwrap_or_else(|| {
                    shares.push(share);
                    shares.len() - 1
                });
                Some(Reach { share: found, constant: index.constant, step })
            };
            let mut limits = Vec::new();
            let mut exists = true;
            for bound in source.accesses[0].1 {
                let bound = Bound { index: put(&bound.index), ..*bound };
                let decided = bound.decided(&quotients);
                exists &= decided != Some(false);
                if decided != Some(true) {
                    limits.push(Limit { of: reach(&bound.index)?, lo: bound.lo, hi: bound.hi });
                }
            }
            // What is never there changes nothing, or counts as a 0.
            if !exists && neutral {
                continue;
            }
            let mut places = Vec::new();
            for (n, access) in source.accesses.iter().enumerate() {
                let index = if exists || n > 0 { put(access.0) } else { Index::constant(0) };
                places.push(reach(&index).filter(|r| (0..=STEP).contains(&r.step))?);
            }
            let coordinate = match source.coordinate {
                Some(index) => Some(reach(&put(index)).filter(|r| r.step == 0)?),
                None => None,
            };
            taps.push(Element { number: number as i32, places, coordinate, exists, limits });
        }
        Some(phase)
    }

    /// How far apart neighbours in a line are, if that is the same for all taps.
    pub(super) fn step(&self, phases: &[Phase]) -> Option<usize> {
        let (along, len) = (*self.steps.last()?, *self.outer.last()?);
        // A line of one point has no neighbours.
        let phases = phases.iter().enumerate().filter(|(i, _)| len > i % along + along);
        let taps = phases.flat_map(|(_, phase)| &phase.taps).filter(|tap| tap.exists);
        let mut steps = taps.flat_map(|tap| {
            let compared = tap.coordinate.and_then(|_| tap.places.get(1));
            [Some(&tap.places[0]), compared].into_iter().flatten().map(|place| place.step)
        });
        let step = steps.next().unwrap_or(1);
        (step > 0 && steps.all(|s| s == step)).then_some(step as usize)
    }
}
