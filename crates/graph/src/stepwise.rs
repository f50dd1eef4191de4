//! A plan run kernel by kernel, with a look at each: to check it, or to time it.

use std::time::{Duration, Instant};

use kiln_ir::kernel::Arg;
use kiln_ir::{Access, Buffer, Kernel, Result, Slot};

use crate::Device;
use crate::exec::compile;
use crate::plan::{Plan, PlanStep};

/// Runs each kernel by itself, waits for it, and shows what it is bound to and how long it took.
///
/// # Errors
/// If the device fails, or the look does.
pub(crate) fn run(
    device: &Device,
    plan: &Plan,
    args: &[Buffer],
    scalars: &[u32],
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
        let start = Instant::now();
        backend.replay(&tape, &buffers, scalars)?.wait()?;
        look(step, &buffers, start.elapsed())?;
    }
    Ok(())
}

/// As [`run`], printing a line a kernel: its time and its rates, each buffer counted once.
///
/// # Errors
/// If the device fails.
pub(crate) fn run_timed(device: &Device, plan: &Plan, args: &[Buffer], scalars: &[u32]) -> Result<()> {
    let (mut n, mut total) = (0, Duration::ZERO);
    eprintln!("  #       µs    GB/s  GFLOP/s  kernel");
    run(device, plan, args, scalars, |step, _, took| {
        let seconds = took.as_secs_f64().max(1e-9);
        let bytes = |arg: &Arg| {
            let passes = if arg.access == Access::ReadWrite { 2 } else { 1 };
            passes * device.caps().bytes(arg.dtype, arg.numel)
        };
        let bytes: u64 = step.kernel.args().iter().map(bytes).sum();
        let flops = match &step.kernel {
            Kernel::Dot(k) => 2.0 * [&k.batch, &k.m, &k.n, &k.k].into_iter().flatten().product::<usize>() as f64,
            Kernel::Loop(_) | Kernel::Scatter(_) => 0.0,
        };
        let rates = [bytes as f64, flops].map(|work| work / seconds / 1e9);
        eprintln!("{n:3} {:8.1} {:7.1} {:8.1}  {}", seconds * 1e6, rates[0], rates[1], step.name);
        n += 1;
        total += took;
        Ok(())
    })?;
    eprintln!("    {:8.1} µs in all, one kernel at a time", total.as_secs_f64() * 1e6);
    Ok(())
}
