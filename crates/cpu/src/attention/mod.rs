//! Attention in tiles: scores are there for 64 queries and 64 keys at a time, and never all at once.
//!
//! The hard idea is which way a tile lies. With a row for each key and a column for each query, scores are
//! `k · qᵀ`, maxima and sums are those of whole vectors of queries, and all products, forward
//! and backward, read their left operand element by element and their right one row by row (see `product`): only
//! the queries are ever transposed, once. Tasks are cut by the kernel's sizes alone, so the number of threads
//! never changes a bit.

mod backward;
mod forward;
mod operand;
mod product;
mod softmax;

use std::cell::RefCell;
use std::ops::Range;

use kiln_ir::attention::Part;
use kiln_ir::kernel::Attention;
use kiln_ir::{DType, Reject};

use self::operand::{Operand, is_zero};
use self::product::{LANES, Left, multiply};
use self::softmax::{Scope, add};
use crate::exec::{Env, Loan};
use crate::panel::Block;
use crate::simd::Reg;

/// Queries and keys of a tile: its scores and all that they meet stay in the two nearest caches, and four vectors
/// of queries are what `product` computes at once.
const TILE: usize = 64;

/// Tasks that keep all threads busy, if there is so much to do.
const TASKS: usize = 32;

/// Why this device does not execute an attention, if it does not.
pub(crate) fn refuse(kernel: &Attention) -> Option<Reject> {
    let wide = kernel.operands.iter().any(|body| body.types.last() == Some(&DType::F64));
    wide.then_some(Reject::DType(DType::F64))
}

/// A lowered attention.
pub(crate) struct AttentionExe {
    batch: usize,
    t: usize,
    s: usize,
    d: usize,
    e: usize,
    causal: bool,
    /// What scores are multiplied by.
    scale: f32,
    /// `q, k, v, bias`, and for gradients `logsum, delta, g`.
    operands: Vec<Operand>,
    /// False iff the bias is 0 everywhere.
    biased: bool,
    /// Which parts are stored, in which argument and how.
    stores: Vec<(Part, usize, DType)>,
}

const Q: usize = 0;
const K: usize = 1;
const V: usize = 2;
const BIAS: usize = 3;
const LOGSUM: usize = 4;
const DELTA: usize = 5;
const G: usize = 6;

impl AttentionExe {
    pub(crate) fn new(kernel: &Attention) -> AttentionExe {
        let x = &kernel.extents;
        let dims = [[x.t, x.d], [x.s, x.d], [x.s, x.e], [x.t, x.s], [x.t, 1], [x.t, 1], [x.t, x.e]];
        let operand = |(body, dims)| Operand::new(body, &kernel.args, &x.batch, dims);
        let store = |&(part, arg): &(Part, u32)| (part, arg as usize, kernel.args[arg as usize].dtype);
        AttentionExe {
            batch: x.batch.iter().product(),
            t: x.t,
            s: x.s,
            d: x.d,
            e: x.e,
            causal: kernel.causal,
            scale: (x.d.max(1) as f64).sqrt().recip() as f32,
            operands: kernel.operands.iter().zip(dims).map(operand).collect(),
            biased: !is_zero(&kernel.operands[BIAS]),
            stores: kernel.stores.iter().map(store).collect(),
        }
    }

    fn is_backward(&self) -> bool {
        self.stores.iter().any(|s| s.0.is_backward())
    }

    /// Where a part is stored.
    fn store_of(&self, part: Part) -> Option<(usize, DType)> {
        self.stores.iter().find(|s| s.0 == part).map(|s| (s.1, s.2))
    }

    /// A measure of the work: a multiply-add costs a fraction of a step of a loop.
    pub(crate) fn work(&self) -> usize {
        let (products, steps) = match self.is_backward() {
            false => (self.d + self.e, 8),
            true => (3 * self.d + 2 * self.e, 10),
        };
        let bias = if self.biased { self.operands[BIAS].weight() } else { 0 };
        let scores = self.t * self.s / if self.causal { 2 } else { 1 };
        let rows = (self.t + self.s) * (self.d + self.e);
        self.batch * (scores * (products / 4 + steps + bias) + rows)
    }

    /// Bytes of memory that its tasks share while it runs.
    pub(crate) fn scratch_bytes(&self) -> usize {
        self.partials() * size_of::<f32>()
    }

    pub(crate) fn run(&self, env: Env, parallel: bool) {
        if self.is_backward() { self.backward(env, parallel) } else { self.forward(env, parallel) }
    }
}

/// What a task works on, all `f32`. Panels have rows of [`padded`] length, tiles of [`TILE`].
#[derive(Default)]
struct Panels {
    /// `k` and `v`, a row for each key that the task sees.
    k: Reg,
    v: Reg,
    /// The cotangents of `k` and `v`.
    grad_k: Reg,
    grad_v: Reg,
    /// `q` and `g`, a row for each query of a tile.
    q: Reg,
    g: Reg,
    /// `qᵀ / √d` and `gᵀ`, a column for each query of a tile.
    turned_q: Reg,
    turned_g: Reg,
    /// What a tile has for a key and a query: scores, then their exponentials; what becomes of `g · vᵀ`; the bias.
    scores: Reg,
    dp: Reg,
    bias: Reg,
    /// Sums over keys, a column for each query: of the output, or of the cotangent of `q`.
    sums: Reg,
    /// What a query has.
    logsum: Reg,
    delta: Reg,
    /// What operands are evaluated into, and results are turned in.
    space: Reg,
}

thread_local! {
    static IDLE: RefCell<Vec<Panels>> = const { RefCell::new(Vec::new()) };
}

/// The working memory of one task, on loan from its thread.
struct Task {
    loans: [Loan; 7],
    panels: Panels,
}

impl Task {
    fn new(exe: &AttentionExe, env: Env) -> Task {
        let mut loans = std::array::from_fn(|_| Loan::bare());
        exe.operands.iter().zip(&mut loans).for_each(|(operand, loan)| operand.prepare(loan, env));
        Task { loans, panels: IDLE.with_borrow_mut(Vec::pop).unwrap_or_default() }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        IDLE.with_borrow_mut(|idle| idle.push(std::mem::take(&mut self.panels)));
    }
}

/// The first rows of a panel, after making room for them.
fn room(panel: &mut Reg, rows: usize, pitch: usize) -> &mut [f32] {
    panel.reserve_bytes(rows * pitch * size_of::<f32>());
    &mut panel.lanes_mut()[..rows * pitch]
}

/// The width of a panel with so many columns, or the height of one with so many rows.
fn padded(n: usize) -> usize {
    n.max(1).next_multiple_of(LANES)
}

impl AttentionExe {
    /// What a tile of queries and keys has of the scores.
    fn scope(&self, queries: &Range<usize>, keys: &Range<usize>) -> Scope {
        let ahead = self.causal.then_some(keys.start as isize - queries.start as isize);
        Scope { keys: keys.len(), queries: queries.len(), ahead }
    }

    /// How many keys a range of queries sees, rounded so that rows of padding after them are no keys.
    fn seen(&self, queries: &Range<usize>) -> usize {
        if self.causal { self.s.min(padded(queries.end)) } else { self.s }
    }

    /// `k · qᵀ / √d + bias` for a tile; what no query of a vector sees is left as it was.
    fn score(&self, task: &mut Task, env: Env, batch: usize, queries: Range<usize>, keys: Range<usize>, first: usize) {
        let scope = self.scope(&queries, &keys);
        let (Panels { k, turned_q, scores, bias, space, .. }, pitch) = (&mut task.panels, padded(self.d));
        let scores = room(scores, TILE, TILE);
        let k = &k.lanes()[(keys.start - first) * pitch..];
        keys_by_queries(scope, self.d, Rows { data: k, pitch }, turned_q.lanes(), scores);
        if self.biased {
            let bias = room(bias, TILE, TILE);
            let block = Block { batch, rows: queries, columns: keys };
            self.operands[BIAS].lines(&mut task.loans[BIAS], space, env, &block).columns(bias, TILE, 1.0);
            add(scores, bias);
        }
    }
}

/// Rows of a panel.
#[derive(Clone, Copy)]
struct Rows<'a> {
    data: &'a [f32],
    pitch: usize,
}

/// `out = keys · queriesᵀ` over `depth` columns.
fn keys_by_queries(scope: Scope, depth: usize, keys: Rows, queries: &[f32], out: &mut [f32]) {
    for (rows, from) in scope.strips() {
        let dims = [rows.len(), scope.queries - from, depth];
        let lhs = Left { data: &keys.data[rows.start * keys.pitch..], pitch: keys.pitch, turned: false };
        multiply(dims, lhs, &queries[from..], &mut out[rows.start * TILE + from..], TILE, false);
    }
}

/// `sums += keysᵀ · tile`, `width` columns of the keys.
fn sum_over_keys(scope: Scope, width: usize, keys: Rows, tile: &[f32], sums: &mut [f32]) {
    for (rows, from) in scope.strips() {
        let dims = [width, scope.queries - from, rows.len()];
        let lhs = Left { data: &keys.data[rows.start * keys.pitch..], pitch: keys.pitch, turned: true };
        multiply(dims, lhs, &tile[rows.start * TILE + from..], &mut sums[from..], TILE, true);
    }
}

/// `sums += tile · queries`, `width` columns of the queries.
fn sum_over_queries(scope: Scope, width: usize, tile: &[f32], queries: Rows, sums: &mut [f32]) {
    for (rows, from) in scope.strips() {
        let dims = [rows.len(), width, scope.queries - from];
        let lhs = Left { data: &tile[rows.start * TILE + from..], pitch: TILE, turned: false };
        let (from, at) = (from * queries.pitch, rows.start * queries.pitch);
        multiply(dims, lhs, &queries.data[from..], &mut sums[at..], queries.pitch, true);
    }
}
