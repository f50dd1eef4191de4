//! A recorded program as plain data: for oracles, exporters and curious readers.

use std::sync::Arc;

use kiln_ir::{Buffer, DType, Graph, Op, Result, reference};

use crate::Tensor;
use crate::capture::{Captured, capture};
use crate::element::to_f64;
use crate::node::Node;

/// What some tensors would compute now, with the values that it starts from.
pub struct Program {
    /// The recorded graph; its outputs are the tensors in the order given.
    pub graph: Graph,
    /// The elements of each leaf.
    pub leaves: Vec<Vec<f64>>,
    /// The value of each scalar slot.
    pub scalars: Vec<f64>,
}

impl Program {
    /// The program behind these tensors.
    ///
    /// # Errors
    /// If the device fails, or a value on the way failed before.
    #[track_caller]
    pub fn behind(tensors: &[&Tensor]) -> Result<Program> {
        let targets: Vec<_> = tensors.iter().map(|t| t.node().clone()).collect();
        let device = tensors[0].device();
        let turn = device.turn();
        let captured = capture(device, &targets, &turn)?;
        let mut graph = captured.graph().clone();
        let outputs = tensors.iter().map(|t| captured.entry_of(t.node())).collect();
        graph.outputs = outputs;
        let leaves = captured.leaves()?;
        let scalars = captured.scalar_values(&graph);
        Ok(Program { graph, leaves, scalars })
    }

    /// The outputs as the reference computes them, in `f64`.
    pub fn reference(&self) -> Vec<Vec<f64>> {
        reference::eval(&self.graph, &self.leaves, &self.scalars)
    }
}

impl Captured {
    /// The elements of each leaf, read back.
    pub(crate) fn leaves(&self) -> Result<Vec<Vec<f64>>> {
        let read = |(node, buffer): (&Arc<Node>, &Buffer)| {
            let (backend, numel) = (node.device.backend(), node.shape.numel());
            let bytes = backend.read(buffer, 0..backend.caps().bytes(node.dtype, numel)).wait()?;
            Ok(to_f64(node.dtype, &bytes, numel, backend.caps()))
        };
        self.leaf_nodes().zip(&self.filling.args).map(read).collect()
    }

    /// The value of each scalar slot of the graph that this became.
    pub(crate) fn scalar_values(&self, graph: &Graph) -> Vec<f64> {
        let mut values = vec![0.0; self.filling.scalars.len()];
        for node in &graph.nodes {
            match node.op {
                Op::Scalar(n) => values[n as usize] = word(node.dtype, self.filling.scalars[n as usize]),
                Op::Offset(n) => values[n as usize] = word(DType::U32, self.filling.scalars[n as usize]),
                Op::Leaf(_)
                | Op::Const(_)
                | Op::Iota(_)
                | Op::Map(_)
                | Op::Reduce(..)
                | Op::View(_)
                | Op::Gather(_)
                | Op::Scatter { .. }
                | Op::Dot(_)
                | Op::Linear
                | Op::Attention(_)
                | Op::Scan(_)
                | Op::Sort(_) => {}
            }
        }
        values
    }
}

/// A scalar word as a number.
fn word(dtype: DType, word: u32) -> f64 {
    match dtype {
        DType::I32 => f64::from(word as i32),
        DType::F32 => f64::from(f32::from_bits(word)),
        _ => f64::from(word),
    }
}
