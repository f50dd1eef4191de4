//! Sums over lines, one for each tap: the gradient by weights of a convolution channel by channel.
//!
//! Here the windows' places are the results, and what is summed goes along images. All sums of a channel are made in one
//! walk over both operands: what the one has at a point meets all that the other's taps have.

use kiln_ir::kernel::{Instr, Loop, Value};
use kiln_ir::{Bound, DType, Index, PointOp, ReduceOp};
use pulp::{Arch, Simd, WithSimd};

use super::find::{LINE, MOST, epilogue};
use super::lines::{Kind, Lines, Tap};
use super::phase::{Space, steps};
use super::source::{Form, Source};
use super::vector::{exists, lanes, load, span, vector};
use crate::exec::{Env, Loan};
use crate::memory::View;
use crate::order::reordered;
use crate::panel::{Block, Panel};
use crate::simd::Reg;
use crate::task::for_each;

/// Channels that keep all threads busy.
const CHANNELS: usize = 16;

/// Tasks that channels are shared out as, at most.
const TASKS: usize = 64;

/// Lines whose sums are made in single precision: they then join those of the lines before in double.
const EXACT: usize = 64;

/// The most lanes of a vector.
const LANES: usize = 16;

/// An argument, the address in it, and where that exists.
type Load<'a> = (usize, &'a Index, &'a [Bound]);

/// A loop whose results are sums over lines.
pub(crate) struct Sums {
    /// What has taps, and what is the same for all of them.
    args: [usize; 2],
    step: usize,
    lines: Lines,
    n_channels: usize,
    /// Lines of a channel.
    n: usize,
    n_taps: usize,
    /// What becomes of the sums, channel by channel.
    epilogue: Panel,
}

/// What a task works with.
struct Worker {
    loan: Loan,
    /// A vector's lanes for each tap of a channel.
    sums: Reg,
    totals: Vec<f64>,
    /// The results of some channels.
    block: Reg,
}

impl Sums {
    pub(super) fn new(kernel: &Loop) -> Option<Sums> {
        let n_outer = kernel.outer.len();
        let dims = [&kernel.outer[..], &kernel.row].concat();
        let body = &kernel.body;
        let mut reductions = body.instrs.iter().enumerate().filter(|(_, i)| matches!(i, Instr::Reduce(..)));
        let (at, &Instr::Reduce(ReduceOp::Sum, product)) = reductions.next()? else { return None };
        let Instr::Op(PointOp::Mul, [a, b, _]) = body.instrs[product as usize] else { return None };
        let load = |v: Value| -> Option<Load> {
            match &body.instrs[v as usize] {
                Instr::Load { arg, index, valid, gather: None } => Some((*arg as usize, index, valid)),
                _ => None,
            }
        };
        let (a, b) = (load(a)?, load(b)?);
        let float = |arg: usize| kernel.args[arg].dtype == DType::F32;
        if reductions.next().is_some() || !(float(a.0) && float(b.0)) || body.reduces_columns() {
            return None;
        }
        let repeated = |index: &Index, axis: usize| kernel.outer[axis] > 1 && !index.uses(&|a| a == axis);
        let plain = |x: Load| x.2.is_empty() && (0..n_outer).any(|axis| repeated(x.1, axis));
        let first = plain(b);
        let (taps, same) = if first { (a, b) } else { (b, a) };
        if !plain(same) {
            return None;
        }
        let (window, channels): (Vec<usize>, Vec<usize>) = (0..n_outer).partition(|&axis| repeated(same.1, axis));
        let order: Vec<usize> = channels.iter().copied().chain(n_outer..dims.len()).chain(window.clone()).collect();
        let dims_of = |axes: &[usize]| axes.iter().map(|&axis| dims[axis]).collect::<Vec<usize>>();
        let outer = dims_of(&order[..order.len() - window.len()]);
        let row = dims_of(&window);
        let n_taps: usize = row.iter().product();
        let (last, n_channels) = (outer.len() - 1, dims_of(&channels).iter().product());
        let fit = !kernel.row.is_empty() && (2..=MOST).contains(&n_taps) && LINE.contains(&outer[last]);
        if !fit || n_channels < CHANNELS || kernel.row.contains(&0) {
            return None;
        }

        let moved = reordered(body, &order);
        let access = |v: Value| match &moved.instrs[v as usize] {
            Instr::Load { index, valid, .. } => (index, &valid[..]),
            _ => unreachable!("it was a load before"),
        };
        let Instr::Op(_, [x, y, _]) = moved.instrs[product as usize] else { unreachable!("it was a product before") };
        let accesses = if first { [x, y] } else { [y, x] }.map(access).to_vec();
        let steps = steps(&moved, &outer)?;
        let source = Source::new(Form::Element(taps.0), accesses);
        let space = Space { outer: &outer, row: &row, steps: &steps };
        let phase = space.phase(0, &source, false)?;
        let step = space.step(std::slice::from_ref(&phase))?;
        let beside = phase.taps.iter().all(|tap| tap.places[1].step == 1);
        if steps.iter().any(|&step| step != 1) || !beside || !phase.meets(outer[last]) {
            return None;
        }
        let results: Vec<usize> = channels.iter().chain(&window).copied().collect();
        let epilogue = reordered(&epilogue(body, (at, None), n_outer)?, &results);
        let epilogue = Panel::new(&epilogue, &kernel.args, [&[], &dims_of(&channels), &row], false);
        if epilogue.swapped {
            return None;
        }
        let lines = Lines::new(&outer[..last], outer[last], &steps, &[phase], &vec![0; last])?;
        let n = outer[..last].iter().product::<usize>() / n_channels;
        Some(Sums { args: [taps.0, same.0], step, lines, n_channels, n, n_taps, epilogue })
    }

    pub(super) fn run(&self, env: Env, parallel: bool) {
        let whole = |arg: usize| {
            let view: View = env.args[arg];
            view.slice::<f32>(0, view.len::<f32>())
        };
        let [values, others] = self.args.map(whole);
        let n_taps = self.n_taps;
        let some = self.n_channels.div_ceil(TASKS);
        let init = || {
            let mut loan = Loan::bare();
            self.epilogue.prepare(&mut loan, env);
            let [sums, block] = [LANES, some].map(|n| Reg::with_bytes(4 * n * n_taps));
            Worker { loan, sums, totals: vec![0.0; n_taps], block }
        };
        let work = some * self.n * self.lines.weight() * LANES;
        for_each(parallel, self.n_channels.div_ceil(some), work, init, |worker, i| {
            let Worker { loan, sums, totals, block } = worker;
            let channels = i * some..self.n_channels.min((i + 1) * some);
            let sums = &mut sums.lanes_mut::<f32>()[..LANES * n_taps];
            let block = &mut block.lanes_mut::<f32>()[..channels.len() * n_taps];
            for (number, results) in channels.clone().zip(block.chunks_mut(n_taps)) {
                Arch::new().dispatch(Channel { all: self, values, others, number, sums, totals });
                results.iter_mut().zip(&*totals).for_each(|(result, total)| *result = *total as f32);
            }
            let part = Block { batch: 0, rows: channels, columns: 0..n_taps };
            self.epilogue.finish(loan, env, &part, View::of(block));
        });
    }
}

/// The sum of a vector's lanes.
fn across(mut lanes: [f32; LANES]) -> f32 {
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
    }
    lanes[0]
}

/// A channel, and its sums.
struct Channel<'a> {
    all: &'a Sums,
    values: &'a [f32],
    others: &'a [f32],
    number: usize,
    /// A vector's lanes for each tap.
    sums: &'a mut [f32],
    totals: &'a mut [f64],
}

impl WithSimd for Channel<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Channel { all, values, others, number, sums, totals } = self;
        totals.fill(0.0);
        for from in (0..all.n).step_by(EXACT) {
            sums.fill(0.0);
            let lines = number * all.n + from..number * all.n + all.n.min(from + EXACT);
            for (run, parts) in all.lines.runs(lines) {
                for part in parts {
                    let [first, second, _] = part.within(run);
                    let line = Line { values, others, at: [first, second], kind: &all.lines.kinds[part.kind], sums };
                    match all.step {
                        1 => line.walk::<S, 1>(simd),
                        _ => line.walk::<S, 2>(simd),
                    }
                }
            }
            for (total, sums) in totals.iter_mut().zip(sums.as_chunks::<LANES>().0) {
                *total += f64::from(across(*sums));
            }
        }
    }
}

/// One line, and the sums of all taps.
struct Line<'a> {
    values: &'a [f32],
    others: &'a [f32],
    at: [i64; 2],
    kind: &'a Kind,
    sums: &'a mut [f32],
}

impl Line<'_> {
    /// As many taps at a time as registers hold the sums of.
    #[inline(always)]
    fn walk<S: Simd, const STEP: usize>(mut self, simd: S) {
        let mut from = 0;
        while from < self.kind.taps.len() {
            from += match self.kind.taps.len() - from {
                9.. => self.some::<S, STEP, 9>(simd, from),
                3.. => self.some::<S, STEP, 3>(simd, from),
                _ => self.some::<S, STEP, 1>(simd, from),
            };
        }
    }

    #[inline(always)]
    fn some<S: Simd, const STEP: usize, const N: usize>(&mut self, simd: S, from: usize) -> usize {
        let (wide, n) = (lanes::<S>(), self.kind.n);
        let taps: &[Tap; N] = self.kind.taps[from..].first_chunk().expect("so many are left");
        let mut sums = [simd.splat_f32s(0.0); N];
        for (t, sum) in sums.iter_mut().enumerate() {
            *sum = vector(&self.sums[LANES * (from + t)..][..wide]);
        }
        for at in (0..n).step_by(wide) {
            let whole = self.kind.whole.start <= at && at + wide <= self.kind.whole.end;
            let pairs = if whole {
                self.pairs::<S, STEP, N, false>(simd, taps, at)
            } else {
                self.pairs::<S, STEP, N, true>(simd, taps, at)
            };
            match pairs {
                Some((x, y)) => {
                    for t in 0..N {
                        sums[t] = simd.mul_add_e_f32s(x[t], y, sums[t]);
                    }
                }
                None => {
                    for at in at..n.min(at + wide) {
                        for t in 0..N {
                            let [x, y] = self.point(&taps[t], STEP, at).map(|x| alone::<S>(x));
                            sums[t] = simd.mul_add_e_f32s(x, y, sums[t]);
                        }
                    }
                }
            }
        }
        for (t, sum) in sums.iter().enumerate() {
            let lanes: &[f32] = bytemuck::cast_slice(std::slice::from_ref(sum));
            self.sums[LANES * (from + t)..][..wide].copy_from_slice(lanes);
        }
        N
    }

    /// What each tap has at some points and what is the same for all, 0 where there is nothing; `None` if some lie beyond
    /// an argument.
    #[inline(always)]
    fn pairs<S: Simd, const STEP: usize, const N: usize, const SOME: bool>(
        &self,
        simd: S,
        taps: &[Tap; N],
        at: usize,
    ) -> Option<([S::f32s; N], S::f32s)> {
        let (wide, zero) = (lanes::<S>(), simd.splat_f32s(0.0));
        let mut y = vector(span(self.others, self.at[1] + at as i64, wide)?);
        if SOME {
            y = simd.select_f32s(exists(simd, at, 0..self.kind.n), y, zero);
        }
        let mut x = [zero; N];
        for (x, tap) in x.iter_mut().zip(taps) {
            let head = self.at[0] + tap.at[0] + (STEP * at) as i64;
            *x = load::<S, STEP>(span(self.values, head, STEP * wide)?);
            if SOME {
                *x = simd.select_f32s(exists(simd, at, tap.range.clone()), *x, zero);
            }
        }
        Some((x, y))
    }

    fn point(&self, tap: &Tap, step: usize, at: usize) -> [f32; 2] {
        let exists = tap.range.contains(&at);
        let x = if exists { self.values[(self.at[0] + tap.at[0] + (step * at) as i64) as usize] } else { 0.0 };
        [x, self.others[(self.at[1] + at as i64) as usize]]
    }
}

/// A vector of which only the first is not 0.
#[inline(always)]
fn alone<S: Simd>(x: f32) -> S::f32s {
    let mut lanes = [0.0; LANES];
    lanes[0] = x;
    vector(&lanes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_ir::kernel::{Access, Arg, Body, Store};

    /// Sums over `[20, 30]` of lines times what windows of 3 see, for each of some channels.
    fn gradient(channels: usize, step: i64) -> Loop {
        let dims = [channels, 3, 20, 30];
        let line = |pitch: i64, long: i64| Index::var(0).scale(20 * long).add(&Index::var(2).scale(pitch), &dims);
        let seen = line(64, 64).add(&Index::var(3).scale(step), &dims).add(&Index::var(1), &dims);
        let mut body = Body::default();
        let mut load = |arg, index| body.push(Instr::Load { arg, index, valid: vec![], gather: None }, DType::F32);
        let (x, g) = (load(0, seen), load(1, line(30, 30).add(&Index::var(3), &dims)));
        let product = body.push(Instr::Op(PointOp::Mul, [g, x, x]), DType::F32);
        let value = body.push(Instr::Reduce(ReduceOp::Sum, product), DType::F32);
        body.stores.push(Store { arg: 2, index: Index::var(0).scale(3).add(&Index::var(1), &dims), value });
        let arg = |numel, access| Arg { dtype: DType::F32, numel, access };
        let args = vec![
            arg(channels * 20 * 64, Access::Read),
            arg(channels * 20 * 30, Access::Read),
            arg(3 * channels, Access::Write),
        ];
        Loop { outer: vec![channels, 3], row: vec![20, 30], args, body }
    }

    #[test]
    fn channels_that_keep_threads_busy_are_summed_at_once() {
        let sums = Sums::new(&gradient(16, 2)).unwrap();
        assert_eq!((sums.n_channels, sums.n, sums.step, sums.n_taps), (16, 20, 2, 3));
        assert!(Sums::new(&gradient(15, 2)).is_none());
        assert!(Sums::new(&gradient(16, 3)).is_none());
    }
}
