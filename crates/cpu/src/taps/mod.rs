//! Rows of a few elements along lines: pools, sums over windows that meet, convolutions channel by channel.
//!
//! Each element of a row is a *tap*: an address that goes on evenly along a line of results, as far as bounds let it.
//! The hard idea is phases. Windows that go on by `s` meet a point with every `s`-th tap only; with which ones depends on
//! a remainder. So coordinates are taken apart as `s·q + r`, each remainder has taps of its own, and what is left of
//! quotients and remainders is a sum over `q`, or a bound that always holds, or never.
//!
//! Reading order: `find` (what loops have such rows), `source` (of what), `phase` (their taps), `lines` (what lines have in
//! common), then how they are folded (`fold`, by `join` and in `vector`s), or sums are made over all of them (`sums`).

mod find;
mod fold;
mod join;
mod lines;
mod phase;
mod source;
mod sums;
pub(crate) mod vector;

use std::ops::Range;

use kiln_ir::kernel::Loop;
use pulp::{Arch, Simd, WithSimd};

pub(crate) use self::find::MOST as TAPS_MOST;
use self::fold::{Line, Operands};
use self::join::Fold;
use self::lines::Lines;
use self::source::Form;
use self::sums::Sums;
use self::vector::weave;
use crate::exec::{Env, Loan};
use crate::memory::View;
use crate::panel::{Block, Panel};
use crate::simd::Reg;
use crate::task::for_each;

/// Points of a task: some tiles of an epilogue.
const TASK: usize = 1 << 14;

/// A loop over taps.
pub(crate) enum Taps {
    /// They are its rows.
    Folded(Folded),
    /// They are its results.
    Summed(Box<Sums>),
}

/// A loop whose rows are taps.
pub(crate) struct Folded {
    form: Form,
    fold: Fold,
    /// What an element is where it does not exist.
    absent: f32,
    /// How many lines there are, and the points of each.
    n: usize,
    len: usize,
    /// How far apart what neighbours in a line see is.
    step: usize,
    lines: Lines,
    finish: Finish,
}

/// What becomes of a line.
enum Finish {
    /// It is the result's, and there are no others; where the first one begins.
    Stored { arg: usize, head: i64 },
    /// An epilogue takes a block of them.
    Epilogue(Box<Panel>),
}

/// What a task works with.
struct Worker {
    loan: Option<Loan>,
    block: Reg,
    /// What the remainders of a line have, where there are several.
    remainders: Reg,
    factors: Vec<f32>,
}

impl Taps {
    /// The loop, if it is over taps and that pays.
    pub(crate) fn new(kernel: &Loop) -> Option<Taps> {
        find::taps(kernel).map(Taps::Folded).or_else(|| Sums::new(kernel).map(|sums| Taps::Summed(Box::new(sums))))
    }

    pub(crate) fn run(&self, env: Env, parallel: bool) {
        match self {
            Taps::Folded(folded) => folded.run(env, parallel),
            Taps::Summed(sums) => sums.run(env, parallel),
        }
    }
}

impl Folded {
    fn run(&self, env: Env, parallel: bool) {
        let high = (TASK / self.len).clamp(1, self.n);
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
            remainders: Reg::with_bytes(4 * self.len),
            factors: Vec::new(),
        };
        let work = high * self.len * self.lines.weight();
        for_each(parallel, self.n.div_ceil(high), work, init, |worker, i| {
            let lines = i * high..self.n.min((i + 1) * high);
            match &self.finish {
                Finish::Stored { arg, head } => self.lines(worker, env, lines, (env.args[*arg], *head)),
                Finish::Epilogue(panel) => {
                    let mut block = std::mem::take(&mut worker.block);
                    let out = View::of(&mut block.lanes_mut::<f32>()[..lines.len() * self.len]);
                    // The block begins with the first line.
                    self.lines(worker, env, lines.clone(), (out, -((lines.start * self.len) as i64)));
                    let block_of = Block { batch: 0, rows: lines, columns: 0..self.len };
                    let loan = worker.loan.as_mut().expect("there is an epilogue");
                    panel.finish(loan, env, &block_of, out);
                    worker.block = block;
                }
            }
        });
    }

    /// Some lines, one after the other, to where they belong from an address on.
    fn lines(&self, worker: &mut Worker, env: Env, lines: Range<usize>, to: (View, i64)) {
        let whole = |arg: usize| {
            let view: View = env.args[arg];
            view.slice::<f32>(0, view.len::<f32>())
        };
        let none: &[f32] = &[];
        let (values, others) = match self.form {
            Form::Element(arg) => (whole(arg), none),
            Form::Product(arg, by) => (whole(arg), whole(by)),
            Form::Chosen { from, at } => (whole(from), whole(at)),
        };
        let Worker { remainders, factors, .. } = worker;
        let remainders = &mut remainders.lanes_mut::<f32>()[..self.len];
        Arch::new().dispatch(Task { folded: self, values, others, lines, to, remainders, factors });
    }
}

/// Some lines, and where they go.
struct Task<'a> {
    folded: &'a Folded,
    values: &'a [f32],
    others: &'a [f32],
    lines: Range<usize>,
    /// The result, and the address in it from which those of lines are counted.
    to: (View, i64),
    remainders: &'a mut [f32],
    factors: &'a mut Vec<f32>,
}

impl WithSimd for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Task {
            folded: Folded { form, fold: how, absent, len, step, lines, .. },
            values,
            others,
            remainders,
            factors,
            ..
        } = self;
        let (to, head) = self.to;
        let (mut ready, mut known) = (0, None);
        for (run, parts) in lines.runs(self.lines) {
            for part in parts {
                let kind = &lines.kinds[part.kind];
                let [first, second, line] = part.within(run);
                if let Form::Product(..) = form
                    && known != Some((part.kind, second))
                {
                    factors.clear();
                    factors.extend(kind.taps.iter().map(|tap| others[(second + tap.at[1]) as usize]));
                    known = Some((part.kind, second));
                }
                let from = &Operands { values, others, at: [first, second], step: *step, absent: *absent, factors };
                // SAFETY: a task's lines are its own.
                let result = unsafe { to.slice_mut::<f32>((head + line) as usize, *len) };
                let out = if lines.along == 1 { &mut *result } else { &mut remainders[ready..ready + kind.n] };
                Line { how: *how, kind, from, out }.with_simd(simd);
                if lines.along > 1 {
                    ready += kind.n;
                    if ready == *len {
                        ready = 0;
                        weave(lines.along, remainders, result);
                    }
                }
            }
        }
    }
}
