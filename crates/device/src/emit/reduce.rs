//! Reductions as WGSL: where they start, how two values combine, what is left at the end.
//!
//! A `bool` is reduced as a word, since workgroup memory and `max` know no truth values. The place of
//! the greatest is reduced as a pair of value and place.

use kiln_ir::{DType, ReduceOp};

use super::code::{Code, literal, value_type};

/// One reduction of a body: its op, the type that it reduces, the step whose value it is.
#[derive(Clone, Copy)]
pub(crate) struct Reduction {
    /// The op.
    pub(crate) op: ReduceOp,
    /// Compute dtype of the operand.
    pub(crate) dtype: DType,
    /// The step that names the result.
    pub(crate) value: u32,
    /// The step that makes the operand.
    pub(crate) operand: u32,
}

impl Reduction {
    /// The dtype in which it accumulates.
    pub(crate) fn word(&self) -> DType {
        if self.dtype == DType::Bool { DType::U32 } else { self.dtype }
    }

    /// Declares `acc`, and the place beside it.
    pub(crate) fn start(&self, code: &mut Code, acc: &str) {
        let least = if self.op == ReduceOp::ArgMax { ReduceOp::Max } else { self.op };
        code.line(format!("var {acc} = {};", literal(self.word(), least.identity(self.word()))));
        if self.op == ReduceOp::ArgMax {
            code.line(format!("var {acc}_at = 0xffffffffu;"));
        }
    }

    /// Takes in the operand at place `j` of the row.
    pub(crate) fn take(&self, code: &mut Code, acc: &str, j: &str) {
        let x = match self.dtype {
            DType::Bool => format!("select(0u, 1u, t{})", self.operand),
            _ => format!("t{}", self.operand),
        };
        self.combine(code, acc, &x, j);
    }

    /// Takes in another partial result, and its place.
    pub(crate) fn combine(&self, code: &mut Code, acc: &str, x: &str, at: &str) {
        let suffix = value_type(self.word());
        let is_bool = self.dtype == DType::Bool;
        match self.op {
            ReduceOp::Sum if is_bool => code.line(format!("{acc} |= {x};")),
            ReduceOp::Sum => code.line(format!("{acc} += {x};")),
            ReduceOp::Prod => code.line(format!("{acc} *= {x};")),
            ReduceOp::Max => code.line(format!("{acc} = k_max_{suffix}({acc}, {x});")),
            ReduceOp::Min => code.line(format!("{acc} = k_min_{suffix}({acc}, {x});")),
            ReduceOp::ArgMax => {
                code.open(format!("if (k_first_{suffix}({x}, {at}, {acc}, {acc}_at))"));
                code.line(format!("{acc} = {x};"));
                code.line(format!("{acc}_at = {at};"));
                code.close();
            }
        }
    }

    /// Names the finished value, from an accumulator and its place.
    pub(crate) fn finish(&self, code: &mut Code, acc: &str, at: &str) {
        code.line(format!("let t{} = {};", self.value, self.finished(acc, at)));
    }

    /// The finished value, from an accumulator and its place.
    pub(crate) fn finished(&self, acc: &str, at: &str) -> String {
        match (self.op, self.dtype) {
            (ReduceOp::ArgMax, _) => format!("i32(select({at}, 0u, {at} == 0xffffffffu))"),
            (_, DType::Bool) => format!("{acc} != 0u"),
            _ => acc.into(),
        }
    }
}
