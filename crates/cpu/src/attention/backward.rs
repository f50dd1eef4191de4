//! Backward: all three cotangents in one walk over the tiles, their scores computed anew.
//!
//! Dao et al. 2022, <https://arxiv.org/abs/2205.14135>, alg. 4. A task has a range of keys and walks over all queries,
//! with five products a tile. If keys are divided among tasks, each leaves what it adds to the cotangent of `q`,
//! and these are added in the order of the keys.

use std::ops::Range;

use kiln_ir::DType;
use kiln_ir::attention::Part;

use super::operand::{store, transpose};
use super::softmax::{Scope, differentiate, weigh};
use super::{
    AttentionExe, DELTA, G, LOGSUM, Panels, Q, Rows, TASKS, TILE, Task, keys_by_queries, padded, room, sum_over_keys,
    sum_over_queries,
};
use crate::exec::Env;
use crate::memory::View;
use crate::panel::Block;
use crate::task::for_each;

/// Which cotangents are wanted.
#[derive(Clone, Copy)]
struct Wanted {
    q: bool,
    k: bool,
    v: bool,
}

/// Where a task leaves what it adds to the cotangent of `q`, if not in the result.
#[derive(Clone, Copy)]
struct Partial {
    view: View,
    /// The first element, for the first query.
    at: usize,
}

impl AttentionExe {
    /// How many chunks the keys are cut into, and how long they are.
    fn chunks(&self) -> [usize; 2] {
        let chunks = TASKS.div_ceil(self.batch).min(self.s.div_ceil(TILE)).max(1);
        let chunk = self.s.div_ceil(chunks).next_multiple_of(TILE).max(TILE);
        [self.s.div_ceil(chunk).max(1), chunk]
    }

    /// Elements of memory for what chunks leave of the cotangent of `q`.
    pub(super) fn partials(&self) -> usize {
        match self.store_of(Part::GradQ) {
            Some(_) if self.batch > 0 && self.chunks()[0] > 1 => self.batch * self.chunks()[0] * self.t * self.d,
            _ => 0,
        }
    }

    pub(super) fn backward(&self, env: Env, parallel: bool) {
        if self.batch == 0 {
            return;
        }
        let [chunks, chunk] = self.chunks();
        let n = self.batch * chunks;
        let grad_q = self.store_of(Part::GradQ).filter(|_| chunks > 1);
        let view = env.scratch;
        let init = || Task::new(self, env);
        for_each(parallel, n, self.work() / n, init, |task, i| {
            let from = i % chunks * chunk;
            let partial = grad_q.map(|_| Partial { view, at: i * self.t * self.d });
            self.backward_keys(task, env, i / chunks, from..self.s.min(from + chunk), partial);
        });
        if let Some((arg, dtype)) = grad_q {
            self.add_partials(env, parallel, (arg, dtype), view, [chunks, chunk]);
        }
    }

    /// The cotangent of `q` from what the chunks have left.
    fn add_partials(&self, env: Env, parallel: bool, to: (usize, DType), view: View, [chunks, chunk]: [usize; 2]) {
        let tiles = self.t.div_ceil(TILE);
        for_each(parallel, self.batch * tiles, chunks * TILE * self.d, Vec::new, |sums: &mut Vec<f32>, i| {
            let (batch, from) = (i / tiles, i % tiles * TILE);
            let len = TILE.min(self.t - from) * self.d;
            sums.clear();
            sums.resize(len, 0.0);
            // A chunk whose first key is later than all of these queries has left nothing.
            let seen = self.seen(&(from..self.t.min(from + TILE))).div_ceil(chunk);
            for c in batch * chunks..batch * chunks + seen {
                let partial = view.slice::<f32>((c * self.t + from) * self.d, len);
                sums.iter_mut().zip(partial).for_each(|(s, x)| *s += x);
            }
            store(env, to.0, to.1, (batch * self.t + from) * self.d, sums);
        });
    }

    /// One task: a range of keys.
    fn backward_keys(&self, task: &mut Task, env: Env, batch: usize, keys: Range<usize>, partial: Option<Partial>) {
        let wants = |part| self.store_of(part).is_some();
        let wanted = Wanted { q: wants(Part::GradQ), k: wants(Part::GradK), v: wants(Part::GradV) };
        self.load_keys(task, env, batch, keys.clone(), wanted.q || wanted.k);
        let (rows, Panels { grad_k, grad_v, .. }) = (padded(keys.len()), &mut task.panels);
        room(grad_k, rows, padded(self.d)).fill(0.0);
        room(grad_v, rows, padded(self.e)).fill(0.0);
        let first = if self.causal { keys.start / TILE * TILE } else { 0 };
        for from in (first..self.t).step_by(TILE) {
            self.backward_tile(task, env, batch, from..self.t.min(from + TILE), keys.clone(), wanted, partial);
        }
        let Panels { grad_k, grad_v, space, .. } = &mut task.panels;
        for (part, panel, width) in [(Part::GradK, grad_k, self.d), (Part::GradV, grad_v, self.e)] {
            if let Some((arg, dtype)) = self.store_of(part) {
                let (at, n) = ((batch * self.s + keys.start) * width, keys.len() * width);
                if width == padded(width) {
                    store(env, arg, dtype, at, &panel.lanes()[..n]);
                    continue;
                }
                let dense = room(space, keys.len(), width);
                for (out, row) in dense.chunks_exact_mut(width.max(1)).zip(panel.lanes().chunks_exact(padded(width))) {
                    out.copy_from_slice(&row[..width]);
                }
                store(env, arg, dtype, at, dense);
            }
        }
    }

    /// One tile of queries, over the keys of a task.
    #[expect(clippy::too_many_arguments, reason = "what a tile is, and what is wanted of it")]
    fn backward_tile(
        &self,
        task: &mut Task,
        env: Env,
        batch: usize,
        queries: Range<usize>,
        keys: Range<usize>,
        wanted: Wanted,
        partial: Option<Partial>,
    ) {
        self.load_queries(task, env, batch, &queries, wanted);
        room(&mut task.panels.sums, padded(self.d), TILE).fill(0.0);
        let end = keys.end.min(self.seen(&queries));
        for from in (keys.start..end).step_by(TILE) {
            let some = from..end.min(from + TILE);
            let scope = self.scope(&queries, &some);
            self.score(task, env, batch, queries.clone(), some, keys.start);
            self.backward_keys_of_tile(&mut task.panels, from - keys.start, scope, wanted);
        }
        if !wanted.q {
            return;
        }
        let Panels { sums, space, .. } = &mut task.panels;
        let (n, at) = (queries.len(), queries.start * self.d);
        let turned = room(space, n, self.d);
        transpose(sums.lanes(), TILE, turned, self.d, [self.d, n], 1.0);
        match (partial, self.store_of(Part::GradQ)) {
            (Some(partial), _) => {
                // SAFETY: each task has its own part of the partial sums, which outlive the tasks.
                unsafe { partial.view.slice_mut::<f32>(partial.at + at, turned.len()) }.copy_from_slice(turned);
            }
            (None, Some((arg, dtype))) => store(env, arg, dtype, batch * self.t * self.d + at, turned),
            (None, None) => unreachable!("wanted, so stored"),
        }
    }

    /// Fills what a tile of queries has, in the forms in which it is wanted.
    fn load_queries(&self, task: &mut Task, env: Env, batch: usize, queries: &Range<usize>, wanted: Wanted) {
        let Panels { q, g, turned_q, turned_g, logsum, delta, space, .. } = &mut task.panels;
        let block = |width: usize| Block { batch, rows: queries.clone(), columns: 0..width };
        let lines = self.operands[Q].lines(&mut task.loans[Q], space, env, &block(self.d));
        lines.columns(room(turned_q, padded(self.d), TILE), TILE, self.scale);
        if wanted.k {
            lines.rows(room(q, TILE, padded(self.d)), padded(self.d), 1.0);
        }
        let lines = self.operands[G].lines(&mut task.loans[G], space, env, &block(self.e));
        if wanted.q || wanted.k {
            lines.columns(room(turned_g, padded(self.e), TILE), TILE, 1.0);
        }
        if wanted.v {
            lines.rows(room(g, TILE, padded(self.e)), padded(self.e), 1.0);
        }
        for (operand, panel) in [(LOGSUM, logsum), (DELTA, delta)] {
            let panel = room(panel, 1, TILE);
            panel.fill(0.0);
            let lines = self.operands[operand].lines(&mut task.loans[operand], space, env, &block(1));
            lines.columns(panel, TILE, 1.0);
        }
    }

    /// The products of one tile; its keys begin at row `at` of the task's panels.
    fn backward_keys_of_tile(&self, panels: &mut Panels, at: usize, scope: Scope, wanted: Wanted) {
        let Panels { k, v, grad_k, grad_v, q, g, turned_g, scores, dp, sums, logsum, delta, .. } = panels;
        let (d, e) = (padded(self.d), padded(self.e));
        let p = room(scores, TILE, TILE);
        weigh(p, logsum.lanes(), scope);
        if wanted.v {
            let g = Rows { data: g.lanes(), pitch: e };
            sum_over_queries(scope, self.e, p, g, &mut grad_v.lanes_mut()[at * e..]);
        }
        if !wanted.q && !wanted.k {
            return;
        }
        let dp = room(dp, TILE, TILE);
        keys_by_queries(scope, self.e, Rows { data: &v.lanes()[at * e..], pitch: e }, turned_g.lanes(), dp);
        differentiate(dp, p, delta.lanes(), self.scale, scope);
        if wanted.k {
            let q = Rows { data: q.lanes(), pitch: d };
            sum_over_queries(scope, self.d, dp, q, &mut grad_k.lanes_mut()[at * d..]);
        }
        if wanted.q {
            sum_over_keys(scope, self.d, Rows { data: &k.lanes()[at * d..], pitch: d }, dp, sums.lanes_mut());
        }
    }
}
