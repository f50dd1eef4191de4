//! Execution: a captured program is planned once, and fired each time it comes again.

use std::panic::Location;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use kiln_ir::{Buffer, Error, Graph, Result, Step};

use rustc_hash::FxHashSet as HashSet;

use crate::Device;
use crate::cache::Ready;
use crate::capture::{Captured, capture};
use crate::node::Node;
use crate::owed::pay;
use crate::plan::{Output, Plan, PlanOptions, plan};
use crate::stepwise;
use crate::turn::Turn;

/// The run of a plan that `KILN_DEBUG=2` and `KILN_DUMP` time: by then everything is compiled and warm.
const TIMED_RUN: u32 = 3;

/// Computes the targets and whatever handles name on the way. With `cut`, what is computed becomes a
/// leaf; otherwise it keeps its history. Gives up the turn for one alone, if it needs that.
///
/// # Errors
/// If memory is short; then everything is pending as before. If the device cannot run the program; then every
/// result holds the error. If it fails on the way; then every leaf that was being overwritten holds it too.
pub(crate) fn run<'a>(
    device: &'a Device,
    targets: &[Arc<Node>],
    cut: Option<&'static Location<'static>>,
    mut turn: Turn<'a>,
) -> Result<()> {
    loop {
        pay(device, &turn);
        let captured = capture_timed(device, targets, &turn)?;
        if captured.graph().outputs.is_empty() {
            return Ok(());
        }
        let ready = ready_or_refused(device, &captured)?;
        if turn.is_alone() || !ready.plan.overwrites() {
            return run_captured(device, captured, &ready, cut, &turn);
        }
        captured.leave(device);
        drop(turn);
        turn = device.turn_alone();
    }
}

/// As [`capture`], noted in the device's timeline.
pub(crate) fn capture_timed(device: &Device, targets: &[Arc<Node>], turn: &Turn) -> Result<Captured> {
    let _span = device.env().span("capture");
    capture(device, targets, turn)
}

/// As [`run`], for a program that was captured in a turn alone; gives its plan.
pub(crate) fn run_new(
    device: &Device,
    captured: Captured,
    cut: Option<&'static Location<'static>>,
    turn: &Turn,
) -> Result<Arc<Ready>> {
    let ready = ready_or_refused(device, &captured)?;
    run_captured(device, captured, &ready, cut, turn).map(|()| ready)
}

fn ready_or_refused(device: &Device, captured: &Captured) -> Result<Arc<Ready>> {
    ready(device, captured).map_err(|error| refused(captured, error))
}

/// An error before anything ran: what lacks memory now may have it later, what the device cannot do it never can.
fn refused(captured: &Captured, error: Error) -> Error {
    if !error.is_out_of_memory() {
        captured.outputs().for_each(|node| node.fail(&error));
    }
    error
}

/// As [`run`], for a program whose plan is at hand.
pub(crate) fn run_captured(
    device: &Device,
    mut captured: Captured,
    ready: &Ready,
    cut: Option<&'static Location<'static>>,
    turn: &Turn,
) -> Result<()> {
    assert!(turn.is_alone() || !ready.plan.overwrites(), "what overwrites a leaf runs alone");
    let within = ready.plan.within(device.budget(), device.caps());
    let added = within.and_then(|()| add_results(device, &ready.plan, &mut captured.filling.args));
    added.map_err(|error| refused(&captured, error))?;
    if let Err(error) = fire(device, &captured, ready) {
        captured.outputs().for_each(|node| node.fail(&error));
        let donated = captured.leaf_nodes().zip(&captured.filling.donatable).filter(|(_, donated)| **donated);
        donated.for_each(|(leaf, _)| leaf.fail(&error));
        return Err(error);
    }
    let results = captured.take_results();
    // First, so that most nodes are referred to by what reads them only, and go with that.
    captured.leave(device);
    results.into_iter().for_each(|(node, buffer)| node.computed(buffer, cut));
    Ok(())
}

/// Adds one buffer per output to a plan's arguments, of which there are the leaves.
///
/// # Errors
/// If memory is short.
pub(crate) fn add_results(device: &Device, plan: &Plan, args: &mut Vec<Buffer>) -> Result<()> {
    for output in &plan.outputs {
        let buffer = match output {
            Output::Fresh(bytes) => device.backend().alloc(*bytes)?,
            Output::Donated(leaf) => args[*leaf as usize].clone(),
        };
        args.push(buffer);
    }
    Ok(())
}

fn fire(device: &Device, captured: &Captured, ready: &Ready) -> Result<()> {
    match device.env().check {
        true => crate::check::fire_checked(device, captured, &ready.plan),
        false => fire_plan(device, ready, &captured.filling.args, &captured.filling.scalars),
    }
}

/// Fires a plan whose arguments are complete.
pub(crate) fn fire_plan(device: &Device, ready: &Ready, args: &[Buffer], scalars: &[u32]) -> Result<()> {
    if device.options().poison {
        return stepwise::run_poisoned(device, &ready.plan, args, scalars);
    }
    let looks = device.env().debug >= 2 || device.env().dump.is_some();
    if looks && ready.n_runs.fetch_add(1, Ordering::Relaxed) + 1 == TIMED_RUN {
        return stepwise::run_timed(device, ready, args, scalars);
    }
    let _span = device.env().span("replay");
    device.backend().replay(&ready.tape, args, scalars).map(drop)
}

/// The program's plan, compiled and recorded; from the cache if it was met before.
pub(crate) fn ready(device: &Device, captured: &Captured) -> Result<Arc<Ready>> {
    if let Some(found) = device.plans().find(captured) {
        return Ok(found);
    }
    let _span = device.env().span("plan and compile");
    let (graph, donatable) = (captured.graph(), &captured.filling.donatable);
    let (why, too_many) = device.plans().news(captured);
    crate::inspect::missed(device, why.as_deref(), too_many);
    let plan = Arc::new(planned(device, graph, donatable, device.env().debug >= 3)?);
    let steps = compile(device, &plan)?;
    let tape = device.backend().record(&steps, &plan.temps)?;
    let mut plans = device.plans();
    let number = plans.n_planned;
    plans.n_planned += 1;
    crate::inspect::planned(device, number, &plan, &steps);
    let ready = Arc::new(Ready { plan, tape, number, n_runs: AtomicU32::new(0) });
    plans.keep(captured, ready.clone());
    Ok(ready)
}

/// A program's plan, made anew.
pub(crate) fn planned(device: &Device, graph: &Graph, donatable: &[bool], notes: bool) -> Result<Plan> {
    let backend = device.backend();
    let supports = |kernel: &kiln_ir::Kernel| backend.supports(kernel);
    plan(graph, donatable, backend.caps(), &supports, PlanOptions { notes, ..device.options() })
}

/// Executables for every step; equal kernels are compiled once a device.
pub(crate) fn compile(device: &Device, plan: &Plan) -> Result<Vec<Step>> {
    let keys: Vec<u128> = plan.steps.iter().map(|s| s.kernel.key()).collect();
    let mut missing: Vec<usize> = Vec::new();
    {
        let plans = device.plans();
        let mut met = HashSet::default();
        for (n, key) in keys.iter().enumerate() {
            if !plans.kernels.contains_key(key) && met.insert(*key) {
                missing.push(n);
            }
        }
    }
    let kernels: Vec<_> = missing.iter().map(|&n| plan.steps[n].kernel.clone()).collect();
    let compiled = device.backend().compile(&kernels);
    let mut plans = device.plans();
    for (&n, exe) in missing.iter().zip(compiled) {
        plans.kernels.insert(keys[n], exe?);
        plans.n_compiled += 1;
    }
    let step = |(step, key): (&crate::plan::PlanStep, &u128)| Step {
        exe: plans.kernels[key].clone(),
        binds: step.binds.clone(),
        scalars: step.scalars.clone(),
    };
    Ok(plan.steps.iter().zip(&keys).map(step).collect())
}
