//! Whether a device's cooperative matrices multiply as they should: products that are known.
//!
//! Drivers may lay matrices out otherwise than the text says, or order memory otherwise, and nothing
//! that validates a kernel would tell. Operands are whole numbers, so that every sum is exact in f32
//! and any element in the wrong place shows.

use kiln_ir::kernel::{Access, Arg, Body, Dot, Instr, Store};
use kiln_ir::random::threefry2x32;
use kiln_ir::{DType, Error, ErrorKind, Index, Kernel, Result};

/// A product `[m, k] · [k, n]` of f16, stored in f32.
pub(crate) struct Probe {
    /// True iff both operands lie transposed, so that matrices are loaded by columns instead of rows.
    transposed: bool,
}

/// Extents: several tiles of every size, and several steps of k; the last of each reach beyond the edge.
const M: usize = 148;
const K: usize = 88;
const N: usize = 268;

impl Probe {
    /// Between them, both operands are loaded in both ways.
    pub(crate) const ALL: [Probe; 2] = [Probe { transposed: false }, Probe { transposed: true }];

    /// The contraction; its arguments are both operands and the result.
    pub(crate) fn kernel(&self) -> Kernel {
        let arg = |dtype, numel, access| Arg { dtype, numel, access };
        let load = |arg, [rows, columns]: [usize; 2]| {
            let mut body = Body::default();
            let [x, y] = if self.transposed { [1, rows] } else { [columns, 1] };
            let index = Index::var(0).scale(x as i64).add(&Index::var(1).scale(y as i64), &[rows, columns]);
            body.push(Instr::Load { arg, index, valid: Vec::new(), gather: None }, DType::F32);
            body
        };
        let mut epilogue = Body::default();
        let value = epilogue.push(Instr::Acc, DType::F32);
        let index = Index::var(0).scale(N as i64).add(&Index::var(1), &[M, N]);
        epilogue.stores.push(Store { arg: 2, index, value });
        Kernel::Dot(Dot {
            batch: vec![],
            m: vec![M],
            n: vec![N],
            k: vec![K],
            args: vec![
                arg(DType::F16, M * K, Access::Read),
                arg(DType::F16, K * N, Access::Read),
                arg(DType::F32, M * N, Access::Write),
            ],
            lhs: load(0, [M, K]),
            rhs: load(1, [K, N]),
            epilogue,
        })
    }

    /// The arguments' bytes, in their order.
    pub(crate) fn args(&self) -> [Vec<u8>; 3] {
        let stored = |operand: u32, [rows, columns]: [usize; 2]| {
            let at = |i: usize| match self.transposed {
                true => element(operand, i % rows * columns + i / rows),
                false => element(operand, i),
            };
            (0..rows * columns).flat_map(|i| half(at(i)).to_le_bytes()).collect()
        };
        [stored(0, [M, K]), stored(1, [K, N]), vec![0; 4 * M * N]]
    }

    /// Compares the result's bytes with the product.
    pub(crate) fn check(&self, found: &[u8]) -> Result<()> {
        let found = found.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
        let wrong = found.zip(product()).enumerate().find(|(_, (found, expected))| found != expected);
        let Some((i, (found, expected))) = wrong else { return Ok(()) };
        let place = format!("[{}, {}]", i / N, i % N);
        Err(Error::new(ErrorKind::Kernel, format!("a product has {found} at {place} instead of {expected}")))
    }
}

/// Element number `i` of an operand, row-major: a whole number in `-8..8`.
fn element(operand: u32, i: usize) -> f32 {
    (threefry2x32([operand, 0], [i as u32, 0])[0] % 16) as f32 - 8.0
}

/// The bits of a whole number in `-8..8` as f16: zero, or an exponent moved to its bias of 15.
fn half(v: f32) -> u16 {
    let (bits, sign) = (v.abs().to_bits(), if v < 0.0 { 0x8000 } else { 0 });
    let magnitude = if v == 0.0 { 0 } else { (bits >> 13) - ((127 - 15) << 10) };
    sign | magnitude as u16
}

/// The product, row-major.
fn product() -> Vec<f32> {
    let lhs: Vec<f32> = (0..M * K).map(|i| element(0, i)).collect();
    let rhs: Vec<f32> = (0..K * N).map(|i| element(1, i)).collect();
    let sum = |m: usize, n: usize| (0..K).map(|k| lhs[m * K + k] * rhs[k * N + n]).sum();
    (0..M * N).map(|i| sum(i / N, i % N)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_exact() {
        for v in -8..8 {
            assert_eq!(half(v as f32), half::f16::from_f32(v as f32).to_bits(), "{v}");
        }
    }

    #[test]
    fn one_wrong_element_is_told() {
        let mut bytes: Vec<u8> = product().iter().flat_map(|v| v.to_le_bytes()).collect();
        let probe = &Probe::ALL[0];
        probe.check(&bytes).unwrap();
        let at = 4 * (37 * N + 5);
        let expected = f32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        bytes[at..at + 4].copy_from_slice(&(expected + 1.0).to_le_bytes());
        let error = probe.check(&bytes).unwrap_err().to_string();
        assert!(error.contains(&format!("has {} at [37, 5] instead of {expected}", expected + 1.0)), "{error}");
    }

    #[test]
    fn no_two_rows_or_columns_of_the_product_are_alike() {
        let product = product();
        let alike = |lines: Vec<Vec<f32>>| (1..lines.len()).any(|i| lines[..i].contains(&lines[i]));
        assert!(!alike(product.chunks(N).map(<[f32]>::to_vec).collect()));
        assert!(!alike((0..N).map(|n| (0..M).map(|m| product[m * N + n]).collect()).collect()));
    }
}
