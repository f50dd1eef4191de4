//! Single values spread over lanes.

use bytemuck::Pod;
use kiln_ir::DType;

use crate::reduce::Rows;
use crate::simd::{Operand, Out, multiversion};

/// Fills `n` lanes with a literal.
pub(crate) fn fill(dtype: DType, value: f64, n: usize, dst: &mut Out) {
    match dtype {
        DType::F64 => dst.lanes_mut::<f64>()[..n].fill(value),
        DType::F32 => dst.lanes_mut::<f32>()[..n].fill(value as f32),
        DType::I32 => dst.lanes_mut::<i32>()[..n].fill(value as i32),
        _ => dst.lanes_mut::<u32>()[..n].fill(value as u32),
    }
}

/// Repeats the first lane.
pub(crate) fn repeat(dtype: DType, n: usize, dst: &mut Out) {
    fn spread<T: Pod>(n: usize, lanes: &mut [T]) {
        let first = lanes[0];
        lanes[..n].fill(first);
    }
    match dtype {
        DType::F64 => spread::<u64>(n, dst.lanes_mut()),
        _ => spread::<u32>(n, dst.lanes_mut()),
    }
}

/// One lane a row, repeated for each of the row's points.
pub(crate) fn expand(dtype: DType, shape: Rows, src: Operand, dst: &mut Out) {
    match dtype {
        DType::F64 => pairs(shape, src.lanes(), dst.lanes_mut()),
        _ => words(shape, src.lanes(), dst.lanes_mut()),
    }
}

multiversion! {
    fn words(shape: Rows, src: &[u32], out: &mut [u32]) {
        expanded(shape, src, out)
    }
}

multiversion! {
    fn pairs(shape: Rows, src: &[u64], out: &mut [u64]) {
        expanded(shape, src, out)
    }
}

#[inline(always)]
fn expanded<T: Pod>(shape: Rows, src: &[T], out: &mut [T]) {
    let (src, out) = (&src[..shape.rows], &mut out[..shape.rows * shape.points]);
    if shape.inner {
        src.iter().zip(out.chunks_exact_mut(shape.points)).for_each(|(&x, out)| out.fill(x));
    } else {
        out.chunks_exact_mut(shape.rows).for_each(|out| out.copy_from_slice(src));
    }
}
