//! Rows of a few elements along lines: pools, sums over windows that meet, convolutions channel by channel.
//!
//! Each element of a row is a *tap*: an address that goes on evenly along a line of results, as far as bounds let it.
//! The hard idea is phases. Windows that go on by `s` meet a point with every `s`-th tap only; with which ones depends on
//! a remainder. So coordinates are taken apart as `s·q + r`, each remainder has taps of its own, and what is left of
//! quotients and remainders is a sum over `q`, or a bound that always holds, or never.
//!
//! Reading order: `find` (what loops have such rows), `phase` (their taps), then how lines of them are folded (`fold`).

mod find;
mod fold;
mod phase;

use kiln_ir::kernel::Loop;

use self::find::Form;
use self::fold::{Fold, Here, fold};
use self::phase::{Phase, Reach, Tap};
use crate::exec::{Env, Loan};
use crate::memory::View;
use crate::panel::{Block, Panel};
use crate::simd::Reg;
use crate::task::for_each;

/// Points of a task: some tiles of an epilogue.
const TASK: usize = 1 << 14;

/// A loop whose rows are taps.
pub(crate) struct Taps {
    form: Form,
    fold: Fold,
    /// Dims of the lines, and the points of each.
    lines: Vec<usize>,
    len: usize,
    /// For each axis of the lines and then the line, how many remainders are told apart.
    steps: Vec<usize>,
    /// Row-major over the remainders.
    phases: Vec<Phase>,
    finish: Finish,
}

/// What becomes of a line.
enum Finish {
    /// It is the result's, and there are no others.
    Stored { arg: usize },
    /// An epilogue takes a block of them.
    Epilogue(Box<Panel>),
}

/// What a task works with.
struct Worker<'a> {
    loan: Option<Loan>,
    block: Reg,
    /// What one phase of a line has, where there are several.
    part: Reg,
    here: Vec<Here<'a>>,
    shares: Vec<i64>,
}

impl Taps {
    /// The loop, if its rows are taps and that pays.
    pub(crate) fn new(kernel: &Loop) -> Option<Taps> {
        find::taps(kernel)
    }

    pub(crate) fn run(&self, env: Env, parallel: bool) {
        let lines: usize = self.lines.iter().product();
        let high = (TASK / self.len).clamp(1, lines);
        let init = || Worker {
            loan: match &self.finish {
                Finish::Stored { .. } => None,
                Finish::Epilogue(panel) => {
                    let mut loan = Loan::bare();
                    panel.prepare(&mut loan, env);
                    Some(loan)
                }
            },
            block: Reg::with_bytes(4 * high * self.len),
            part: Reg::with_bytes(4 * self.len),
            here: Vec::new(),
            shares: Vec::new(),
        };
        let work =
            high * self.len * self.phases.iter().map(|phase| phase.taps.len()).sum::<usize>() / self.phases.len();
        for_each(parallel, lines.div_ceil(high), work, init, |worker, i| {
            let first = i * high;
            let n = high.min(lines - first);
            match &self.finish {
                Finish::Stored { arg } => {
                    // SAFETY: a task's lines are its own.
                    let out = unsafe { env.args[*arg].slice_mut::<f32>(first * self.len, n * self.len) };
                    self.lines(worker, env, first, out);
                }
                Finish::Epilogue(panel) => {
                    let mut block = std::mem::take(&mut worker.block);
                    let out = &mut block.lanes_mut::<f32>()[..n * self.len];
                    self.lines(worker, env, first, out);
                    let block_of = Block { batch: 0, rows: first..first + n, columns: 0..self.len };
                    let loan = worker.loan.as_mut().expect("there is an epilogue");
                    panel.finish(loan, env, &block_of, View::of(out));
                    worker.block = block;
                }
            }
        });
    }

    /// The lines from a number on, one after the other.
    fn lines<'a>(&self, worker: &mut Worker<'a>, env: Env<'a>, first: usize, out: &mut [f32]) {
        let (along, across) = self.steps.split_last().expect("a line is an axis");
        let mut at = vec![0; self.lines.len()];
        let mut coordinates = vec![0; self.lines.len()];
        let mut rest = first;
        for (coordinate, dim) in coordinates.iter_mut().zip(&self.lines).rev() {
            (*coordinate, rest) = (rest % dim, rest / dim);
        }
        for out in out.chunks_exact_mut(self.len) {
            let mut phase = 0;
            for ((at, &coordinate), &step) in at.iter_mut().zip(&coordinates).zip(across) {
                let (quotient, remainder) =
                    if step == 1 { (coordinate, 0) } else { (coordinate / step, coordinate % step) };
                *at = quotient as i64;
                phase = phase * step + remainder;
            }
            phase *= along;
            for (coordinate, &dim) in coordinates.iter_mut().zip(&self.lines).rev() {
                *coordinate += 1;
                if *coordinate < dim {
                    break;
                }
                *coordinate = 0;
            }
            for r in 0..*along {
                let n = (self.len - r).div_ceil(*along);
                let phase = &self.phases[phase + r];
                let Worker { here, shares, part, .. } = worker;
                shares.clear();
                shares.extend(phase.shares.iter().map(|share| share.at(&at)));
                here.clear();
                here.extend(phase.taps.iter().filter_map(|tap| self.here(tap, shares, n, env)));
                if *along == 1 {
                    fold(self.fold, here, out);
                    continue;
                }
                let part = &mut part.lanes_mut::<f32>()[..n];
                fold(self.fold, here, part);
                out[r..].iter_mut().step_by(*along).zip(part).for_each(|(o, x)| *o = *x);
            }
        }
    }

    /// A tap of a line, unless it adds nothing.
    fn here<'a>(&self, tap: &Tap, shares: &[i64], n: usize, env: Env<'a>) -> Option<Here<'a>> {
        let mut range = 0..n;
        for limit in &tap.limits {
            let live = limit.admitted(shares, n);
            range = range.start.max(live.start)..range.end.min(live.end);
        }
        let absent = range.is_empty();
        if absent && matches!(self.fold, Fold::Sum | Fold::SumOfChosen) {
            return None;
        }
        let slice = |place: &Reach, arg: usize, range: std::ops::Range<usize>| {
            let (head, step) = (place.head(shares), place.step as usize);
            let (at, len) = (head + (step * range.start) as i64, step * range.len().saturating_sub(1) + 1);
            (env.args[arg].slice::<f32>(at as usize, len), step)
        };
        let nothing: (&[f32], usize) = (&[0.0], 0);
        let range = if absent { 0..0 } else { range };
        let value = |arg: usize| if absent { nothing } else { slice(&tap.places[0], arg, range.clone()) };
        let (mut second, mut factor) = (nothing, 1.0);
        let first = match self.form {
            Form::Element(arg) => value(arg),
            Form::Product(arg, by) => {
                factor = env.args[by].get::<f32>(tap.places[1].head(shares) as usize);
                value(arg)
            }
            Form::Chosen { from, at } => {
                second = slice(&tap.places[1], at, range.clone());
                value(from)
            }
        };
        let number = match &tap.coordinate {
            Some(place) => place.head(shares) as i32,
            None => tap.number,
        };
        Some(Here { first, second, factor, range, number })
    }
}
