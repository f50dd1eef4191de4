//! A plan run kernel by kernel, with a look at each: to check it, or to time it.

use std::time::{Duration, Instant};

use kiln_ir::attention::Part;
use kiln_ir::kernel::{Arg, Attention};
use kiln_ir::{Access, Buffer, Kernel, Result, Slot};

use crate::Device;
use crate::cache::Ready;
use crate::exec::compile;
use crate::plan::{Plan, PlanStep};
use crate::timeline::event;

/// Runs each kernel by itself, waits for it, and shows what it is bound to and how long it took; if that is wanted, its
/// second time, after one on zeros.
///
/// # Errors
/// If the device fails, or the look does.
pub(crate) fn run(
    device: &Device,
    plan: &Plan,
    args: &[Buffer],
    scalars: &[u32],
    timed: bool,
    mut look: impl FnMut(&PlanStep, &[Buffer], Duration) -> Result<()>,
) -> Result<()> {
    let backend = device.backend();
    let temps: Vec<Buffer> = plan.temps.iter().map(|&bytes| backend.alloc(bytes)).collect::<Result<_>>()?;
    for (step, ready) in plan.steps.iter().zip(compile(device, plan)?) {
        let buffer = |(slot, _): &(Slot, Access)| match slot {
            Slot::Arg(n) => args[*n as usize].clone(),
            Slot::Temp(n) => temps[*n as usize].clone(),
        };
        let buffers: Vec<Buffer> = step.binds.iter().map(buffer).collect();
        let binds = step.binds.iter().zip(0..).map(|((_, access), n)| (Slot::Arg(n), *access)).collect();
        let tape = backend.record(&[kiln_ir::Step { binds, ..ready }], &[])?;
        // On other buffers first, if there is room for them: no kernel's time is that of memory met for the first time.
        if timed && let Ok(others) = buffers.iter().map(|b| zeros(device, b.bytes())).collect::<Result<Vec<Buffer>>>() {
            backend.replay(&tape, &others, scalars)?.wait()?;
        }
        let start = Instant::now();
        backend.replay(&tape, &buffers, scalars)?.wait()?;
        look(step, &buffers, start.elapsed())?;
    }
    Ok(())
}

fn zeros(device: &Device, bytes: u64) -> Result<Buffer> {
    let buffer = device.backend().alloc(bytes)?;
    device.backend().write(&buffer, 0, &vec![0; bytes as usize])?;
    Ok(buffer)
}

/// As [`run`], filling each temporary with NaN once nothing reads its value any more.
///
/// # Errors
/// If the device fails.
pub(crate) fn run_poisoned(device: &Device, plan: &Plan, args: &[Buffer], scalars: &[u32]) -> Result<()> {
    let mut n = 0;
    run(device, plan, args, scalars, false, |step, buffers, _| {
        n += 1;
        for ((slot, _), buffer) in step.binds.iter().zip(buffers) {
            let next = plan.steps[n..].iter().flat_map(|s| &s.binds).find(|(later, _)| later == slot);
            let dead = next.is_none_or(|(_, access)| *access == Access::Write);
            if dead && matches!(slot, Slot::Temp(_)) {
                // All bits set is NaN in every float dtype.
                device.backend().write(buffer, 0, &vec![0xff; buffer.bytes() as usize])?;
            }
        }
        Ok(())
    })
}

/// As [`run`], giving each kernel's time and rates to `KILN_DEBUG=2`, and a trace to `KILN_DUMP`.
///
/// # Errors
/// If the device fails.
pub(crate) fn run_timed(device: &Device, ready: &Ready, args: &[Buffer], scalars: &[u32]) -> Result<()> {
    let mut times = Vec::with_capacity(ready.plan.steps.len());
    run(device, &ready.plan, args, scalars, true, |_, _, took| {
        times.push(took.as_secs_f64().max(1e-9));
        Ok(())
    })?;
    if device.env().debug >= 2 {
        print_times(device, &ready.plan, &times);
    }
    if let Some(dir) = device.env().dump_of(ready.number)
        && let Err(error) = std::fs::write(dir.join("timeline.json"), trace(&ready.plan, &times))
    {
        eprintln!("KILN_DUMP: {}: {error}", dir.display());
    }
    Ok(())
}

/// A line a kernel; each buffer counts once.
fn print_times(device: &Device, plan: &Plan, times: &[f64]) {
    eprintln!("  #       µs    GB/s  GFLOP/s  kernel");
    for (n, (step, &seconds)) in plan.steps.iter().zip(times).enumerate() {
        let bytes = |arg: &Arg| {
            let passes = if arg.access == Access::ReadWrite { 2 } else { 1 };
            passes * device.caps().bytes(arg.dtype, arg.numel)
        };
        let bytes: u64 = step.kernel.args().iter().map(bytes).sum();
        let flops = match &step.kernel {
            Kernel::Dot(k) => 2.0 * [&k.batch, &k.m, &k.n, &k.k].into_iter().flatten().product::<usize>() as f64,
            Kernel::Attention(k) => attention_flops(k),
            Kernel::Loop(_) | Kernel::Group(_) | Kernel::Scatter(_) | Kernel::Scan(_) | Kernel::Sort(_) => 0.0,
        };
        let [bytes, flops] = [bytes as f64, flops].map(|work| work / seconds / 1e9);
        eprintln!("{n:3} {:8.1} {bytes:7.1} {flops:8.1}  {}", seconds * 1e6, step.name);
    }
    eprintln!("    {:8.1} µs in all, one kernel at a time", times.iter().sum::<f64>() * 1e6);
}

/// Those of the products that a kernel's parts need at least.
fn attention_flops(k: &Attention) -> f64 {
    let x = &k.extents;
    let points = (x.batch.iter().product::<usize>() * x.t * x.s) as f64 / if k.causal { 2.0 } else { 1.0 };
    let backward = k.stores.iter().any(|s| s.0.is_backward());
    let of = |part: &Part| if matches!(part, Part::Out | Part::GradV) { x.e } else { x.d };
    let columns = x.d + if backward { x.e } else { 0 };
    let stored = k.stores.iter().map(|(part, _)| if *part == Part::LogSum { 0 } else { of(part) }).sum::<usize>();
    2.0 * points * (columns + stored) as f64
}

/// The kernels one after the other, as Chrome's trace viewer reads it.
fn trace(plan: &Plan, times: &[f64]) -> String {
    let mut start = 0.0;
    let kernel = |(step, seconds): (&PlanStep, &f64)| {
        let (at, took) = (start, seconds * 1e6);
        start += took;
        event(&step.name, (0, 0), at, took)
    };
    let events: String = plan.steps.iter().zip(times).map(kernel).collect();
    format!("[\n{}\n]\n", events.trim_end_matches(",\n"))
}
