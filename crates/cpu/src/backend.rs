//! [`CpuBackend`]: the seven verbs of [`Backend`] over host memory and a thread pool.
//!
//! A replay runs to its end before it returns, so fences and readbacks are ready at once. It holds
//! its buffers, and one lock lets no other replay, write or read run beside it: that is what makes
//! shared views of memory sound.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use kiln_ir::{
    Backend, Buffer, Caps, DType, Error, ErrorKind, Executable, Fence, Kernel, Readback, Reject, Result, Slot, Step,
    Tape,
};

use crate::attention;
use crate::block::ALIGN;
use crate::columns::takes_columns;
use crate::exe::Exe;
use crate::exec::Env;
use crate::memory::{Memory, Pool, View};
use crate::task::GRAIN;
use crate::threads::Threads;

/// The host as a device: all dtypes, every kernel.
///
/// Results are the same to the bit for any number of threads.
pub struct CpuBackend {
    caps: Caps,
    memory: Arc<Pool>,
    threads: Threads,
    turn: Mutex<Turn>,
}

/// Whoever has this may touch memory; and lists that replays fill anew, so that none allocates any.
#[derive(Default)]
struct Turn {
    blocks: Vec<Memory>,
    views: Vec<View>,
    words: Vec<u32>,
}

/// A recorded sequence of steps.
struct Recorded {
    steps: Vec<Step>,
    /// Where each temporary lies; the last one is what tasks of a kernel share.
    temps: Vec<Place>,
    /// Bytes of the blocks that they lie in.
    blocks: Vec<u64>,
    /// True iff some step is worth several threads.
    parallel: bool,
}

/// A part of a block.
struct Place {
    block: usize,
    at: usize,
    bytes: usize,
}

/// Temporaries up to so many bytes share a block: taking one costs as much as a small kernel does.
const SMALL: u64 = 4096;

/// Where temporaries of so many bytes lie, and the bytes of the blocks.
fn places(temps: &[u64]) -> (Vec<Place>, Vec<u64>) {
    let mut blocks = vec![0];
    let place = |&bytes: &u64| {
        let (block, at) = if bytes > SMALL {
            blocks.push(bytes);
            (blocks.len() - 1, 0)
        } else {
            let at = blocks[0];
            blocks[0] += bytes.next_multiple_of(ALIGN as u64);
            (0, at)
        };
        Place { block, at: at as usize, bytes: bytes as usize }
    };
    (temps.iter().map(place).collect(), blocks)
}

impl CpuBackend {
    /// A backend on as many threads as `KILN_THREADS` says, or as there are processors; all such share one pool.
    pub fn new() -> CpuBackend {
        static SHARED: OnceLock<Threads> = OnceLock::new();
        let asked = || std::env::var("KILN_THREADS").ok().and_then(|n| n.parse().ok()).unwrap_or(0);
        CpuBackend::on(SHARED.get_or_init(|| Threads::new(asked())).clone(), false)
    }

    /// A backend on a pool of its own.
    pub fn with_threads(n: usize) -> CpuBackend {
        CpuBackend::on(Threads::new(n), false)
    }

    /// A backend for tests: memory that nothing has written yet reads as NaN.
    pub fn poisoned() -> CpuBackend {
        CpuBackend::on(Threads::new(0), true)
    }

    fn on(threads: Threads, poisoned: bool) -> CpuBackend {
        let n = threads.len();
        let caps = Caps {
            name: format!("cpu, {n} thread{}", if n == 1 { "" } else { "s" }),
            dtypes: DType::ALL.to_vec(),
            // No limit but one on how long formulas grow: what 50 times of a GRU read is put together by one kernel.
            max_bindings: 192,
            max_binding_bytes: u64::MAX,
            max_workgroups: u32::MAX,
            bool_bytes: DType::Bool.size_bytes(),
            // Long rows are cut into groups by the kernels themselves.
            lanes: 1,
            // A core with 256-bit fused multiply-add at some 3 GHz; memory is shared by all of them.
            flops: 1e11 * n as f64,
            bandwidth: 2e10,
        };
        CpuBackend { caps, memory: Pool::new(poisoned), threads, turn: Mutex::default() }
    }

    /// Waits until no other call touches memory.
    fn turn(&self) -> MutexGuard<'_, Turn> {
        // A panic in a kernel leaves memory as defined as before, and what it held is given back here.
        let mut turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        turn.blocks.clear();
        turn
    }

    fn run(&self, recorded: &Recorded, args: &[Buffer], scalars: &[u32], turn: &mut Turn) {
        let Turn { blocks, views, words } = turn;
        let temp = |place: &Place| blocks[place.block].view().part(place.at, place.bytes);
        let view = |slot: Slot| match slot {
            Slot::Arg(i) => args[i as usize].memory::<Memory>().view(),
            Slot::Temp(i) => temp(&recorded.temps[i as usize]),
        };
        let parallel = recorded.parallel;
        let scratch = temp(recorded.temps.last().expect("the shared memory is always there"));
        let mut all = || {
            for step in &recorded.steps {
                views.clear();
                views.extend(step.binds.iter().map(|b| view(b.0)));
                words.clear();
                words.extend(step.scalars.iter().map(|&i| scalars[i as usize]));
                step.exe.get::<Exe>().run(Env { args: views, scalars: words, scratch, sums: View::NONE }, parallel);
            }
        };
        if parallel { self.threads.run(all) } else { all() }
    }
}

impl Default for CpuBackend {
    fn default() -> CpuBackend {
        CpuBackend::new()
    }
}

impl Backend for CpuBackend {
    fn caps(&self) -> &Caps {
        &self.caps
    }

    fn supports(&self, kernel: &Kernel) -> Result<(), Reject> {
        let alone = matches!(kernel, Kernel::Loop(_));
        if kernel.loops().iter().any(|k| k.body.reduces_columns() && !(alone && takes_columns(k))) {
            return Err(Reject::Unsupported("reductions over rows that no tile holds"));
        }
        let (needed, limit) = (kernel.args().len(), self.caps.max_bindings);
        if let Kernel::Attention(kernel) = kernel
            && let Some(why) = attention::refuse(kernel)
        {
            return Err(why);
        }
        if needed > limit { Err(Reject::Bindings { needed, limit }) } else { Ok(()) }
    }

    fn alloc(&self, bytes: u64) -> Result<Buffer> {
        Ok(Buffer::new(bytes, self.memory.alloc(bytes)?))
    }

    fn write(&self, dst: &Buffer, at: u64, data: &[u8]) -> Result<()> {
        let _turn = self.turn();
        // SAFETY: it is this call's turn, so nothing else uses the memory.
        unsafe { dst.memory::<Memory>().view().slice_mut(at as usize, data.len()) }.copy_from_slice(data);
        Ok(())
    }

    fn read(&self, src: &Buffer, range: Range<u64>) -> Readback {
        let _turn = self.turn();
        let len = range.end.saturating_sub(range.start) as usize;
        let bytes = src.memory::<Memory>().view().slice::<u8>(range.start as usize, len).to_vec();
        Readback::new(move || Ok(bytes))
    }

    fn compile(&self, kernels: &[Kernel]) -> Vec<Result<Executable>> {
        let compile = |kernel: &Kernel| match self.supports(kernel) {
            Ok(()) => Ok(Executable::new(Exe::new(kernel))),
            Err(why) => Err(Error::new(ErrorKind::Unsupported, format!("cpu: {why:?}"))),
        };
        kernels.iter().map(compile).collect()
    }

    fn record(&self, steps: &[Step], temps: &[u64]) -> Result<Tape> {
        let scratch = steps.iter().map(|step| step.exe.get::<Exe>().scratch_bytes() as u64).max().unwrap_or(0);
        let (temps, blocks) = places(&[temps, &[scratch]].concat());
        let heavy = |step: &Step| step.exe.get::<Exe>().work() > GRAIN;
        let parallel = self.threads.len() > 1 && steps.iter().any(heavy);
        // Taken once and given back: a replay then finds them in the pool.
        let reserved: Result<Vec<Memory>> = blocks.iter().map(|&bytes| self.memory.alloc(bytes)).collect();
        reserved.map(|_| Tape::new(Recorded { steps: steps.to_vec(), temps, blocks, parallel }))
    }

    fn replay(&self, tape: &Tape, args: &[Buffer], scalars: &[u32]) -> Result<Fence> {
        let mut turn = self.turn();
        let recorded = tape.get::<Recorded>();
        let taken = recorded.blocks.iter().try_for_each(|&bytes| {
            turn.blocks.push(self.memory.alloc(bytes)?);
            Ok(())
        });
        if taken.is_ok() {
            self.run(recorded, args, scalars, &mut turn);
        }
        turn.blocks.clear();
        taken?;
        Ok(Fence::new(|| Ok(())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_temporaries_lie_beside_each_other_and_large_ones_alone() {
        let (temps, blocks) = places(&[100, SMALL + 1, SMALL, 0, 64]);
        let found: Vec<_> = temps.iter().map(|place| (place.block, place.at, place.bytes)).collect();
        assert_eq!(found, [(0, 0, 100), (1, 0, 4097), (0, 128, 4096), (0, 4224, 0), (0, 4224, 64)]);
        assert_eq!(blocks, [4288, SMALL + 1]);
    }
}
