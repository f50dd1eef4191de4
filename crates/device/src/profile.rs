//! Time per kernel, from the device's own clock.
//!
//! Profiling puts each kernel in a pass of its own, so the sum is a little more than without it.

use std::sync::{Arc, Mutex};

use kiln_ir::{KernelTime, Result};

use crate::gpu::{Gpu, lock};
use crate::memory::Pool;

/// Collects the times of replays until they are asked for.
#[derive(Default)]
pub(crate) struct Profiler {
    pending: Mutex<Vec<Queries>>,
}

/// The timestamps of one replay.
pub(crate) struct Queries {
    set: wgpu::QuerySet,
    resolved: wgpu::Buffer,
    names: Vec<String>,
}

/// Replays whose times are kept until somebody asks for them; later ones are not timed.
const MAX_PENDING: usize = 1024;

/// wgpu's limit for the size of a query set, in queries.
const MAX_QUERIES: usize = 4096;

impl Queries {
    /// The timestamps of the n-th kernel.
    pub(crate) fn writes(&self, n: u32) -> wgpu::ComputePassTimestampWrites<'_> {
        let (begin, end) = (Some(2 * n), Some(2 * n + 1));
        wgpu::ComputePassTimestampWrites {
            query_set: &self.set,
            beginning_of_pass_write_index: begin,
            end_of_pass_write_index: end,
        }
    }
}

impl Profiler {
    /// Timestamps for these kernels; `None` if there are none, or too many for one set.
    pub(crate) fn begin(&self, gpu: &Gpu, names: &[&str]) -> Option<Queries> {
        let count = 2 * names.len();
        let known = lock(&self.pending).len() >= MAX_PENDING;
        if names.is_empty()
            || known
            || count > MAX_QUERIES
            || !gpu.device.features().contains(wgpu::Features::TIMESTAMP_QUERY)
        {
            return None;
        }
        let label = Some("profile");
        let set = gpu.device.create_query_set(&wgpu::QuerySetDescriptor {
            label,
            ty: wgpu::QueryType::Timestamp,
            count: count as u32,
        });
        let resolved = gpu.device.create_buffer(&wgpu::BufferDescriptor {
            label,
            size: 8 * count as u64,
            usage: wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC,
            mapped_at_creation: false,
        });
        Some(Queries { set, resolved, names: names.iter().map(|n| n.to_string()).collect() })
    }

    /// Fetches the timestamps at the end of the replay.
    pub(crate) fn end(&self, queries: Queries, encoder: &mut wgpu::CommandEncoder) {
        encoder.resolve_query_set(&queries.set, 0..2 * queries.names.len() as u32, &queries.resolved, 0);
        lock(&self.pending).push(queries);
    }

    /// The times since the last call, in order of execution. Waits for the device.
    pub(crate) fn take(&self, pool: &Arc<Pool>) -> Result<Vec<KernelTime>> {
        let pending = std::mem::take(&mut *lock(&self.pending));
        let period = f64::from(pool.gpu.queue.get_timestamp_period());
        let mut times = Vec::new();
        for queries in pending {
            let bytes = pool.read(&queries.resolved, 0..queries.resolved.size()).wait()?;
            let (ticks, _) = bytes.as_chunks::<8>();
            for (name, pair) in queries.names.into_iter().zip(ticks.chunks(2)) {
                let [begin, end] = [pair[0], pair[1]].map(u64::from_ne_bytes);
                let [begin_ns, gpu_ns] = [begin, end.saturating_sub(begin)].map(|ticks| ticks as f64 * period);
                times.push(KernelTime { name, begin_ns, gpu_ns });
            }
        }
        Ok(times)
    }
}
