//! `U = G g Gᵀ`: the windows of weights, once a run, for all tiles.

use super::PLACES;
use super::outputs::Outputs;
use super::vector::{add, half, sub};
use crate::dot::lie::ROWS;
use crate::dot::run::Run;
use crate::dot::task::{Room, Task};
use crate::memory::View;
use crate::simd::multiversion;
use crate::task::for_each;

/// Channels whose weights are packed at a time: the nearest cache holds a strip of them.
const CHANNELS: usize = 64;

/// Elements of a window.
const TAPS: usize = 9;

impl Outputs {
    /// Transforms the left operand, strip by strip, into the memory that tasks share.
    pub(super) fn transform_filters(&self, run: &Run) {
        let (strips, channels) = (self.rows.div_ceil(ROWS), self.plane.channels());
        let operand = &run.gemm.operands[0];
        let work = ROWS * channels * TAPS * (operand.weight() + 2);
        let init = || {
            let mut task = Task::bare();
            operand.prepare(&mut task.workers[0], run.env);
            task
        };
        for_each(run.parallel, self.batch * strips, work, init, |task, i| {
            let (batch, strip) = (i / strips, i % strips);
            let lines = strip * ROWS..self.rows.min((strip + 1) * ROWS);
            for from in (0..channels).step_by(CHANNELS) {
                let some = from..channels.min(from + CHANNELS);
                let steps = some.start * TAPS..some.end * TAPS;
                let Room { workers: [worker, ..], panels: [packed, ..] } = &mut **task;
                packed.reserve_bytes(ROWS * steps.len() * size_of::<f32>());
                let packed = &mut packed.lanes_mut::<f32>()[..ROWS * steps.len()];
                let source = (run.sources[0], run.env);
                operand.pack(worker, source, batch, &lines, &steps, (ROWS, &mut *packed));
                let at = batch * PLACES * self.pitch() + (strip * channels + from) * ROWS;
                transform(packed, run.env.scratch, [at, self.pitch()]);
            }
        });
    }
}

multiversion! {
    /// From each channel's nine rows of a strip to one row in each place, at `at + place · pitch`.
    fn transform(packed: &[f32], out: View, place: [usize; 2]) {
        let (windows, _) = packed.as_chunks::<ROWS>();
        let (windows, _) = windows.as_chunks::<TAPS>();
        let [at, pitch] = place;
        let places: [&mut [[f32; ROWS]]; PLACES] = std::array::from_fn(|i| {
            // SAFETY: a task's own strip, in each place.
            unsafe { out.slice_mut::<f32>(at + i * pitch, windows.len() * ROWS) }.as_chunks_mut().0
        });
        for (c, window) in windows.iter().enumerate() {
            // Columns first: [4, 3].
            let mut tall = [[[0.0; ROWS]; 3]; 4];
            for x in 0..3 {
                let column = spread([&window[x], &window[3 + x], &window[6 + x]]);
                for y in 0..4 {
                    tall[y][x] = column[y];
                }
            }
            for y in 0..4 {
                let row = spread([&tall[y][0], &tall[y][1], &tall[y][2]]);
                for x in 0..4 {
                    places[4 * y + x][c] = row[x];
                }
            }
        }
    }
}

/// `G g`: three become four.
#[inline(always)]
fn spread([a, b, c]: [&[f32; ROWS]; 3]) -> [[f32; ROWS]; 4] {
    let (ends, middle) = (half(&add(a, c)), half(b));
    [*a, add(&ends, &middle), sub(&ends, &middle), *c]
}
