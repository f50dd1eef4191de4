//! `KILN_CHECK=cpu`: every kernel of a plan against the reference, stopping at the first difference.

use kiln_ir::{Buffer, DType, Error, ErrorKind, Result, reference};

use crate::Device;
use crate::capture::Captured;
use crate::element::to_f64;
use crate::known::Filling;
use crate::plan::Plan;
use crate::stepwise;

/// How far an `f32` may be from the reference, relative to the largest value that the kernel stores.
const TOLERANCE: f64 = 2e-3;

/// Runs the plan kernel by kernel, comparing what each stores.
///
/// # Errors
/// If the device fails, or a value differs: which kernel, node, line, element and values.
pub(crate) fn fire_checked(device: &Device, captured: &Captured, made: &Plan) -> Result<()> {
    let (backend, graph) = (device.backend(), &made.graph);
    let read = |buffer: &Buffer, dtype: DType, numel: usize| -> Result<Vec<f64>> {
        let bytes = backend.read(buffer, 0..backend.caps().bytes(dtype, numel)).wait()?;
        Ok(to_f64(dtype, &bytes, numel, backend.caps()))
    };
    let (leaves, scalars) = (captured.leaves()?, captured.scalar_values(graph));
    let expected = reference::eval_all(graph, &leaves, &scalars);
    let Filling { args, scalars: words, .. } = &captured.filling;
    stepwise::run(device, made, args, words, false, |step, buffers, _| {
        for &id in &step.stores {
            let node = &graph.nodes[id as usize];
            let at = step.args.iter().position(|&a| a == id).expect("a stored node is bound");
            let found = read(&buffers[at], node.dtype, node.shape.numel())?;
            compare(&step.name, node, &found, &expected[id as usize])?;
        }
        Ok(())
    })
}

fn compare(kernel: &str, node: &kiln_ir::Node, found: &[f64], expected: &[f64]) -> Result<()> {
    let finite = expected.iter().copied().filter(|v| v.is_finite());
    let scale = finite.fold(1.0f64, |a, b| a.max(b.abs()));
    let differs = |(f, e): (&f64, &f64)| {
        let same = f == e || (f.is_nan() && e.is_nan());
        !(same || (node.dtype.is_float() && (f - e).abs() <= TOLERANCE * scale))
    };
    let Some(n) = found.iter().zip(expected).position(differs) else { return Ok(()) };
    let at = node.place();
    let (op, dtype, shape) = (node.op.name(), node.dtype, node.shape);
    let message = format!(
        "KILN_CHECK: kernel {kernel}, {op} {dtype}{shape}{at}: element {n} is {}, expected {}",
        found[n], expected[n]
    );
    Err(Error::new(ErrorKind::Kernel, message))
}
