//! Forward: for each tile of queries, a running softmax over tiles of keys.
//!
//! Milakov and Gimelshein 2018, <https://arxiv.org/abs/1805.02867>; in tiles, Dao et al. 2022,
//! <https://arxiv.org/abs/2205.14135>, alg. 1.

use std::ops::Range;

use kiln_ir::attention::Part;

use super::operand::{store, transpose};
use super::softmax::{State, finish, rescale, soften};
use super::{AttentionExe, K, Panels, Q, Rows, TASKS, TILE, Task, V, padded, room, sum_over_keys};
use crate::exec::Env;
use crate::panel::Block;
use crate::task::for_each;

impl AttentionExe {
    pub(super) fn forward(&self, env: Env, parallel: bool) {
        if self.batch * self.t == 0 {
            return;
        }
        // All queries of a batch element share its panels, unless there are too few of them for all threads.
        let groups = TASKS.div_ceil(self.batch).min(self.t.div_ceil(TILE));
        let group = self.t.div_ceil(groups).next_multiple_of(TILE);
        let groups = self.t.div_ceil(group);
        let n = self.batch * groups;
        let init = || Task::new(self, env);
        for_each(parallel, n, self.work() / n, init, |task, i| {
            let from = i % groups * group;
            self.forward_group(task, env, i / groups, from..self.t.min(from + group));
        });
    }

    /// The queries of one task.
    fn forward_group(&self, task: &mut Task, env: Env, batch: usize, queries: Range<usize>) {
        let seen = self.seen(&queries);
        self.load_keys(task, env, batch, 0..seen, self.store_of(Part::Out).is_some());
        for from in queries.clone().step_by(TILE) {
            self.forward_tile(task, env, batch, from..queries.end.min(from + TILE));
        }
    }

    /// Fills the panels of `k` and `v`.
    pub(super) fn load_keys(&self, task: &mut Task, env: Env, batch: usize, keys: Range<usize>, values: bool) {
        let (rows, Panels { k, v, space, .. }) = (padded(keys.len()), &mut task.panels);
        let panels = [(K, k, self.d), (V, v, if values { self.e } else { 0 })];
        for (operand, panel, width) in panels {
            let panel = room(panel, rows, padded(width));
            let block = Block { batch, rows: keys.clone(), columns: 0..width };
            let lines = self.operands[operand].lines(&mut task.loans[operand], space, env, &block);
            lines.rows(panel, padded(width), 1.0);
        }
    }

    /// One tile of queries, over all keys.
    fn forward_tile(&self, task: &mut Task, env: Env, batch: usize, queries: Range<usize>) {
        let (out, logsum) = (self.store_of(Part::Out), self.store_of(Part::LogSum));
        let Panels { turned_q, sums, space, .. } = &mut task.panels;
        let block = Block { batch, rows: queries.clone(), columns: 0..self.d };
        let lines = self.operands[Q].lines(&mut task.loans[Q], space, env, &block);
        lines.columns(room(turned_q, padded(self.d), TILE), TILE, self.scale);
        room(sums, padded(self.e), TILE).fill(0.0);
        let mut state = State::new();
        let seen = self.seen(&queries);
        for from in (0..seen).step_by(TILE) {
            let keys = from..seen.min(from + TILE);
            let scope = self.scope(&queries, &keys);
            self.score(task, env, batch, queries.clone(), keys, 0);
            let Panels { v, scores, sums, .. } = &mut task.panels;
            let (scores, sums) = (room(scores, TILE, TILE), &mut sums.lanes_mut()[..padded(self.e) * TILE]);
            soften(&mut state, scores, scope);
            if out.is_some() {
                if from > 0 {
                    rescale(&state, sums);
                }
                let pitch = padded(self.e);
                let v = Rows { data: &v.lanes()[from * pitch..], pitch };
                sum_over_keys(scope, self.e, v, scores, sums);
            }
        }
        let Panels { sums, space, .. } = &mut task.panels;
        let (sums, mut logs) = (&mut sums.lanes_mut()[..padded(self.e) * TILE], [0.0; TILE]);
        finish(&state, sums, &mut logs);
        let (row, n) = (batch * self.t + queries.start, queries.len());
        if let Some((arg, dtype)) = out {
            let turned = room(space, n, self.e);
            transpose(sums, TILE, turned, self.e, [self.e, n], 1.0);
            store(env, arg, dtype, row * self.e, turned);
        }
        if let Some((arg, dtype)) = logsum {
            store(env, arg, dtype, row, &logs[..n]);
        }
    }
}
