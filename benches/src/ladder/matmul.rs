//! `out [m, n] = lhs [m, k] · rhs [k, n]` of `f32`, row-major, from three loops to Kiln.

use kiln::prelude::*;
use pulp::bytemuck::cast_slice;
use pulp::{Arch, Simd, WithSimd};

/// A rung: the dims `[m, n, k]`, each at least 1, both operands and the result.
pub type Matmul = fn([usize; 3], &[f32], &[f32], &mut [f32]);

/// Every rung below Kiln, the slowest first.
pub const RUNGS: &[(&str, Matmul)] = &[
    ("1_three_loops", three_loops),
    ("2_rows_in_order", rows_in_order),
    ("3_sums_in_registers", sums_in_registers),
    ("4_packed_strips", packed_strips),
];

/// The definition. Each step of the inner loop is in another row of the right operand: one number of a cache line.
pub fn three_loops([m, n, k]: [usize; 3], lhs: &[f32], rhs: &[f32], out: &mut [f32]) {
    for i in 0..m {
        for j in 0..n {
            let mut sum = 0.0;
            for p in 0..k {
                sum += lhs[i * k + p] * rhs[p * n + j];
            }
            out[i * n + j] = sum;
        }
    }
}

/// The same loops in another order: the inner one walks along rows, which caches and the compiler's vectors like. Each
/// multiplication now reads and writes a sum in memory.
pub fn rows_in_order([_, n, k]: [usize; 3], lhs: &[f32], rhs: &[f32], out: &mut [f32]) {
    for (lhs, out) in lhs.chunks_exact(k).zip(out.chunks_exact_mut(n)) {
        out.fill(0.0);
        for (&x, rhs) in lhs.iter().zip(rhs.chunks_exact(n)) {
            for (sum, &y) in out.iter_mut().zip(rhs) {
                *sum += x * y;
            }
        }
    }
}

/// Rows of a block of sums. With two vectors of columns that fills 12 of at least 16 registers.
const ROWS: usize = 6;

/// Vectors of columns of a block.
const VECTORS: usize = 2;

/// A block of sums stays in vector registers until it is done: memory is only read, `ROWS` + `VECTORS` times for
/// `ROWS · VECTORS` multiply-adds of vectors.
pub fn sums_in_registers(dims: [usize; 3], lhs: &[f32], rhs: &[f32], out: &mut [f32]) {
    Arch::new().dispatch(InRegisters { dims, lhs, rhs, out });
}

struct InRegisters<'a> {
    dims: [usize; 3],
    lhs: &'a [f32],
    rhs: &'a [f32],
    out: &'a mut [f32],
}

impl WithSimd for InRegisters<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let InRegisters { dims: [m, n, k], lhs, rhs, out } = self;
        let width = VECTORS * S::F32_LANES;
        let (rows, columns) = (m / ROWS * ROWS, n / width * width);
        for column in (0..columns).step_by(width) {
            for row in (0..rows).step_by(ROWS) {
                let steps = (0..k).map(|p| {
                    let lhs: [f32; ROWS] = std::array::from_fn(|i| lhs[(row + i) * k + p]);
                    (lhs, &rhs[p * n + column..][..width])
                });
                let sums = block(simd, steps);
                write(&sums, width, [ROWS, width], &mut out[row * n + column..], n);
            }
        }
        // What is left over below and to the right.
        for i in 0..m {
            for j in if i < rows { columns } else { 0 }..n {
                out[i * n + j] = (0..k).map(|p| lhs[i * k + p] * rhs[p * n + j]).sum();
            }
        }
    }
}

/// Both operands are copied first, in the order in which the block reads them: every cache line and every page is used
/// up before the next. Strips are filled with zeros, so no block is smaller than the others.
///
/// Goto and van de Geijn 2008, "Anatomy of high-performance matrix multiplication". What Kiln's product has beyond it:
/// blocks that fit caches, tiles as high as there are registers, operands that are windows or other dtypes, and threads.
pub fn packed_strips(dims: [usize; 3], lhs: &[f32], rhs: &[f32], out: &mut [f32]) {
    Arch::new().dispatch(Packed { dims, lhs, rhs, out });
}

struct Packed<'a> {
    dims: [usize; 3],
    lhs: &'a [f32],
    rhs: &'a [f32],
    out: &'a mut [f32],
}

impl WithSimd for Packed<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Packed { dims: [m, n, k], lhs, rhs, out } = self;
        let width = VECTORS * S::F32_LANES;
        let lhs = strips([m, k], ROWS, |i, p| lhs[i * k + p]);
        let rhs = strips([n, k], width, |j, p| rhs[p * n + j]);
        for (column, rhs) in (0..n).step_by(width).zip(rhs.chunks_exact(k * width)) {
            for (row, lhs) in (0..m).step_by(ROWS).zip(lhs.chunks_exact(k * ROWS)) {
                let steps = lhs.chunks_exact(ROWS).zip(rhs.chunks_exact(width));
                let sums = block(simd, steps.map(|(lhs, rhs)| (lhs.try_into().expect("as long as a chunk"), rhs)));
                let dims = [ROWS.min(m - row), width.min(n - column)];
                write(&sums, width, dims, &mut out[row * n + column..], n);
            }
        }
    }
}

/// Lines of an operand in strips of `width`: what the lines of a strip have for one step along `k` lies together.
#[inline(always)]
fn strips([n_lines, k]: [usize; 2], width: usize, at: impl Fn(usize, usize) -> f32) -> Vec<f32> {
    let mut packed = vec![0.0; n_lines.next_multiple_of(width) * k];
    for (strip, packed) in packed.chunks_exact_mut(width * k).enumerate() {
        let lines = strip * width..n_lines.min((strip + 1) * width);
        for (p, packed) in packed.chunks_exact_mut(width).enumerate() {
            for (x, line) in packed.iter_mut().zip(lines.clone()) {
                *x = at(line, p);
            }
        }
    }
    packed
}

/// Sums of the products of a column of the left operand with vectors of the right one, over all steps.
#[inline(always)]
fn block<'a, S: Simd>(simd: S, steps: impl Iterator<Item = ([f32; ROWS], &'a [f32])>) -> [[S::f32s; VECTORS]; ROWS] {
    let mut sums = [[simd.splat_f32s(0.0); VECTORS]; ROWS];
    for (lhs, rhs) in steps {
        let rhs: &[S::f32s; VECTORS] = cast_slice(rhs).try_into().expect("as wide as the block");
        for i in 0..ROWS {
            let x = simd.splat_f32s(lhs[i]);
            for j in 0..VECTORS {
                sums[i][j] = simd.mul_add_e_f32s(x, rhs[j], sums[i][j]);
            }
        }
    }
    // Callers want a place in memory: that of this copy, so that the sums themselves need none.
    let mut copy = [[simd.splat_f32s(0.0); VECTORS]; ROWS];
    for i in 0..ROWS {
        for j in 0..VECTORS {
            copy[i][j] = sums[i][j];
        }
    }
    copy
}

/// Rows and columns of a block into the result, whose rows are `pitch` apart.
#[inline(always)]
fn write<V: pulp::bytemuck::Pod>(
    sums: &[[V; VECTORS]; ROWS],
    width: usize,
    [rows, columns]: [usize; 2],
    out: &mut [f32],
    pitch: usize,
) {
    let sums: &[f32] = cast_slice(sums.as_flattened());
    for (sums, out) in sums.chunks_exact(width).zip(out.chunks_mut(pitch)).take(rows) {
        out[..columns].copy_from_slice(&sums[..columns]);
    }
}

/// The top rung: what a user of Kiln writes.
pub fn kiln(lhs: &Tensor, rhs: &Tensor) -> Tensor {
    lhs.matmul(rhs)
}

/// The definition in `f64`.
pub fn oracle([m, n, k]: [usize; 3], lhs: &[f32], rhs: &[f32]) -> Vec<f64> {
    let mut out = vec![0.0; m * n];
    for (lhs, out) in lhs.chunks_exact(k).zip(out.chunks_exact_mut(n)) {
        for (&x, rhs) in lhs.iter().zip(rhs.chunks_exact(n)) {
            for (sum, &y) in out.iter_mut().zip(rhs) {
                *sum += f64::from(x) * f64::from(y);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::{assert_close, numbers};
    use super::*;

    /// Blocks of every width that there is, with and without something left over.
    const DIMS: [[usize; 3]; 6] = [[1, 1, 1], [6, 32, 8], [12, 64, 40], [7, 33, 5], [5, 3, 17], [50, 70, 90]];

    #[test]
    fn rungs_are_close_to_the_oracle() {
        for dims in DIMS {
            let [m, n, k] = dims;
            let (lhs, rhs) = (numbers(m * k, 1), numbers(k * n, 2));
            let oracle = oracle(dims, &lhs, &rhs);
            for (name, rung) in RUNGS {
                let mut out = vec![f32::NAN; m * n];
                rung(dims, &lhs, &rhs, &mut out);
                assert_close(&format!("{name} {dims:?}"), &out, &oracle, 1e-5);
            }
        }
    }

    #[test]
    fn kiln_is_close_to_the_oracle() {
        let device = Device::cpu();
        for dims in DIMS {
            let [m, n, k] = dims;
            let (lhs, rhs) = (numbers(m * k, 1), numbers(k * n, 2));
            let tensors = (Tensor::new(&lhs, &[m, k], &device).unwrap(), Tensor::new(&rhs, &[k, n], &device).unwrap());
            let out = kiln(&tensors.0, &tensors.1).to_vec::<f32>().unwrap();
            assert_close(&format!("kiln {dims:?}"), &out, &oracle(dims, &lhs, &rhs), 1e-5);
        }
    }
}
