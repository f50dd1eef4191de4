//! Products of tiles that are in the nearest caches already: no packing, a block of sums held in registers.
//!
//! The left operand is read one element at a time, which any layout serves; rows of the right one and of the
//! result are vectors. All products of attention are arranged so that this is how their operands lie.

#[cfg(target_arch = "x86_64")]
use crate::dot::by_hand;
#[cfg(target_arch = "x86_64")]
use crate::dot::element::{Destination, Walk};
use crate::math::fma;
use crate::simd::multiversion;
#[cfg(target_arch = "x86_64")]
use crate::simd::{Isa, isa};

/// Columns in a vector: what tiles and panels are padded to.
pub(super) const LANES: usize = 16;

/// What rows of a left operand and of a result are padded to.
const PADDING: usize = 4;

/// A left operand: element `(row, p)` at `row·pitch + p`.
#[derive(Clone, Copy)]
pub(super) struct Left<'a> {
    pub(super) data: &'a [f32],
    pub(super) pitch: usize,
    /// True iff its transpose is what lies there: `(row, p)` is at `p·pitch + row`.
    pub(super) turned: bool,
}

multiversion! {
    /// `out = lhs · rhs`, or `out += lhs · rhs` if `more`, for `[m, n, k]`; rows of `rhs` and `out` are `pitch` apart.
    ///
    /// Computes rows up to the next multiple of 4 and columns up to the next of 16, where all three have room;
    /// what it reads there reaches no other row or column.
    pub(super) fn multiply(dims: [usize; 3], lhs: Left<'_>, rhs: &[f32], out: &mut [f32], pitch: usize, more: bool) {
        let [m, n, k] = dims;
        let (m, n) = (m.next_multiple_of(PADDING), n.next_multiple_of(LANES));
        let block = Block { lhs, k, rhs, pitch, more };
        if !wide() {
            for column in (0..n).step_by(LANES) {
                block.column::<FMA>(m, column, out);
            }
            return;
        }
        for column in (0..n).step_by(4 * LANES) {
            match (n - column) / LANES {
                1 => block.rows::<FMA, 1>(m, column, out),
                2 => block.rows::<FMA, 2>(m, column, out),
                3 => block.rows::<FMA, 3>(m, column, out),
                _ => block.rows::<FMA, 4>(m, column, out),
            }
        }
    }
}

/// True iff 16 vectors of sums fit in registers; else 6 do, if each takes two of them.
#[inline(always)]
fn wide() -> bool {
    #[cfg(target_arch = "x86_64")]
    return isa() == Isa::Avx512;
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}

/// A product, of which a few rows and columns are computed at a time.
#[derive(Clone, Copy)]
struct Block<'a> {
    lhs: Left<'a>,
    k: usize,
    rhs: &'a [f32],
    pitch: usize,
    more: bool,
}

impl Block<'_> {
    /// `N` vectors of columns, four rows at a time.
    #[inline(always)]
    fn rows<const FMA: bool, const N: usize>(&self, m: usize, column: usize, out: &mut [f32]) {
        for row in (0..m).step_by(PADDING) {
            self.sums::<FMA, 4, N>(row, column, out);
        }
    }

    /// One vector of columns, six rows at a time where that leaves a multiple of four.
    #[inline(always)]
    fn column<const FMA: bool>(&self, m: usize, column: usize, out: &mut [f32]) {
        let mut row = 0;
        while row < m {
            match m - row {
                4 | 8 => {
                    self.sums::<FMA, 4, 1>(row, column, out);
                    row += 4;
                }
                _ => {
                    self.sums::<FMA, 6, 1>(row, column, out);
                    row += 6;
                }
            }
        }
    }

    /// `M` rows of `N` vectors.
    #[inline(always)]
    fn sums<const FMA: bool, const M: usize, const N: usize>(&self, row: usize, column: usize, out: &mut [f32]) {
        if self.by_hand::<FMA, M, N>(row, column, out) {
            return;
        }
        let mut sums = [[[0.0; LANES]; N]; M];
        self.step_by_step::<FMA, M, N>(row, column, &mut sums);
        for i in 0..M {
            let out = &mut out[(row + i) * self.pitch + column..][..N * LANES];
            for j in 0..N {
                let out: &mut [f32; LANES] = (&mut out[j * LANES..][..LANES]).try_into().expect("as long as the slice");
                for l in 0..LANES {
                    out[l] = if self.more { out[l] + sums[i][j][l] } else { sums[i][j][l] };
                }
            }
        }
    }

    /// The same, if there is code for it that compilers do not write; else false.
    #[inline(always)]
    #[cfg_attr(not(target_arch = "x86_64"), expect(unused_variables, reason = "there is none"))]
    fn by_hand<const FMA: bool, const M: usize, const N: usize>(
        &self,
        row: usize,
        column: usize,
        out: &mut [f32],
    ) -> bool {
        #[cfg(target_arch = "x86_64")]
        if FMA && [M, N] == [6, 1] && isa() == Isa::Avx2 && self.k > 0 {
            let Left { data, pitch, turned } = self.lhs;
            let strides = if turned { [1, pitch] } else { [pitch, 1] };
            let (lhs, rhs) = (&data[row * strides[0]..], &self.rhs[column..]);
            let last = self.k - 1;
            let holds =
                (M - 1) * strides[0] + last * strides[1] < lhs.len() && last * self.pitch + N * LANES <= rhs.len();
            assert!(holds, "the last step's rows and columns are all there");
            let walk = Walk { lhs: lhs.as_ptr(), strides, rhs: rhs.as_ptr(), pitch: self.pitch, steps: self.k };
            let out = &mut out[row * self.pitch + column..][..(M - 1) * self.pitch + N * LANES];
            let out = Destination { at: out.as_mut_ptr(), apart: self.pitch, more: self.more };
            // SAFETY: the last step's last row and columns are there, and so are rows of the result, which is this
            // thread's; on a processor that has AVX2 and FMA.
            unsafe { by_hand::tall(walk, out) };
            return true;
        }
        false
    }

    /// Adds all steps to the sums.
    #[inline(always)]
    fn step_by_step<const FMA: bool, const M: usize, const N: usize>(
        &self,
        row: usize,
        column: usize,
        sums: &mut [[[f32; LANES]; N]; M],
    ) {
        let Left { data, pitch, turned } = self.lhs;
        let rhs = self.rhs[column..].chunks(self.pitch).take(self.k);
        if turned {
            for (lhs, rhs) in data[row..].chunks(pitch).zip(rhs) {
                let lhs: [f32; M] = lhs[..M].try_into().expect("as long as the slice");
                step::<FMA, M, N>(sums, lhs, rhs);
            }
        } else {
            let (mut rows, mut lhs) = ([&data[..0]; M], [0.0; M]);
            for i in 0..M {
                rows[i] = &data[(row + i) * pitch..][..self.k];
            }
            for (p, rhs) in rhs.enumerate() {
                for i in 0..M {
                    lhs[i] = rows[i][p];
                }
                step::<FMA, M, N>(sums, lhs, rhs);
            }
        }
    }
}

/// Adds the outer product of a column of the left operand and a row of the right one.
#[inline(always)]
fn step<const FMA: bool, const M: usize, const N: usize>(
    sums: &mut [[[f32; LANES]; N]; M],
    lhs: [f32; M],
    rhs: &[f32],
) {
    let rhs = &rhs[..N * LANES];
    for j in 0..N {
        let rhs: &[f32; LANES] = rhs[j * LANES..][..LANES].try_into().expect("as long as the slice");
        for i in 0..M {
            for l in 0..LANES {
                sums[i][j][l] = fma::<FMA>(lhs[i], rhs[l], sums[i][j][l]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_of_every_shape_and_layout() {
        let value = |i: usize| (i * 7919 % 23) as f32 - 11.0;
        for [m, n, k] in [[1usize, 1, 1], [4, 16, 0], [7, 40, 5], [20, 100, 3], [64, 64, 64], [18, 33, 70]] {
            for (turned, more) in [(false, false), (false, true), (true, false), (true, true)] {
                let (rows, columns) = (m.next_multiple_of(PADDING), n.next_multiple_of(LANES));
                let (high, pitch) = if turned { (k, rows + 3) } else { (rows, k + 3) };
                let data: Vec<f32> = (0..high * pitch).map(value).collect();
                let rhs: Vec<f32> = (0..k * columns).map(value).collect();
                let mut out: Vec<f32> = (0..rows * columns).map(value).collect();
                let before = out.clone();
                multiply([m, n, k], Left { data: &data, pitch, turned }, &rhs, &mut out, columns, more);
                for (i, j) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
                    let lhs = |p: usize| data[if turned { p * pitch + i } else { i * pitch + p }];
                    let sum: f32 = (0..k).map(|p| lhs(p) * rhs[p * columns + j]).sum();
                    let old = if more { before[i * columns + j] } else { 0.0 };
                    assert_eq!(out[i * columns + j], sum + old, "{m}×{n}×{k} at {i}, {j}");
                }
            }
        }
    }
}
