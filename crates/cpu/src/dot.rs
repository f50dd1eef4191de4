//! Contractions: matrices where they lie or in panels, multiplied by `gemm`, finished while in cache.
//!
//! The result is cut into blocks, and a long inner dim into groups whose sums are added in order, by
//! sizes that follow from the kernel alone. An operand that is already a matrix in memory is used
//! in place. Any other body (a window view, a conversion) is evaluated into panels: block by block if each
//! panel then serves once, whole beforehand if several blocks need it. With a single row or column,
//! or nothing to sum, the contraction is a loop with a reduction.

use kiln_ir::kernel::{Body, Dot, Instr, Loop, Store};
use kiln_ir::{DType, PointOp, ReduceOp};

use crate::gemm::Gemm;
use crate::loops::LoopExe;
use crate::panel::renamed;

/// A lowered contraction.
pub(crate) enum DotExe {
    Loop(Box<LoopExe>),
    Gemm(Box<Gemm>),
}

impl DotExe {
    pub(crate) fn new(kernel: &Dot) -> DotExe {
        let numel = |dims: &[usize]| dims.iter().product::<usize>();
        let (m, n, k) = (numel(&kernel.m), numel(&kernel.n), numel(&kernel.k));
        if m <= 1 || n <= 1 || k == 0 || numel(&kernel.batch) == 0 {
            DotExe::Loop(Box::new(LoopExe::new(&as_loop(kernel))))
        } else {
            DotExe::Gemm(Box::new(Gemm::new(kernel)))
        }
    }
}

/// The same contraction as products summed along rows.
fn as_loop(dot: &Dot) -> Loop {
    let (b, m, n, k) = (dot.batch.len(), dot.m.len(), dot.n.len(), dot.k.len());
    // An empty list still is one product: a row of one point.
    let row = if k == 0 { vec![1] } else { dot.k.clone() };
    let rank = b + m + n + row.len();
    let lhs = |axis: usize| match axis {
        _ if axis < b + m => axis,
        _ if axis < b + m + k => axis + n,
        _ => rank,
    };
    let rhs = |axis: usize| match axis {
        _ if axis < b => axis,
        _ if axis < b + k => axis + m + n,
        _ if axis < b + k + n => axis + m - k,
        _ => rank,
    };
    let epilogue = |axis: usize| if axis < b + m + n { axis } else { rank };
    let mut body = Body::default();
    let x = append(&mut body, &renamed(&dot.lhs, &lhs), None);
    let y = append(&mut body, &renamed(&dot.rhs, &rhs), None);
    let dtype = dot.lhs.types.last().map_or(DType::F32, |t| t.compute());
    let product = body.push(Instr::Op(PointOp::Mul, [x, y, y]), dtype);
    let sum = body.push(Instr::Reduce(ReduceOp::Sum, product), dtype);
    append(&mut body, &renamed(&dot.epilogue, &epilogue), Some(sum));
    let outer = [&*dot.batch, &dot.m, &dot.n].concat();
    Loop { outer, row, args: dot.args.clone(), body }
}

/// Appends the steps and stores of a body, `acc` in place of its sum; the value of the last step.
fn append(to: &mut Body, from: &Body, acc: Option<u32>) -> u32 {
    let mut values: Vec<u32> = Vec::with_capacity(from.instrs.len());
    for (instr, &dtype) in from.instrs.iter().zip(&from.types) {
        let of = |v: u32| values[v as usize];
        let instr = match instr {
            Instr::Load { arg, index, valid, gather } => Instr::Load {
                arg: *arg,
                index: index.clone(),
                valid: valid.clone(),
                gather: gather.map(|(v, n)| (of(v), n)),
            },
            Instr::Op(op, args) => Instr::Op(*op, args.map(of)),
            Instr::Cast(dtype, v) => Instr::Cast(*dtype, of(*v)),
            Instr::Reduce(op, v) => Instr::Reduce(*op, of(*v)),
            Instr::Acc => {
                values.push(acc.expect("only an epilogue reads the sum"));
                continue;
            }
            Instr::Const(..) | Instr::Scalar(..) | Instr::Coord(_) | Instr::Inside(_) => instr.clone(),
        };
        values.push(to.push(instr, dtype));
    }
    to.stores.extend(from.stores.iter().map(|s| Store { value: values[s.value as usize], ..s.clone() }));
    values.last().copied().unwrap_or(0)
}
