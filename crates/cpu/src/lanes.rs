//! Index expressions evaluated for a whole tile at once, in 32-bit lanes.
//!
//! This is the way for addresses without long runs: short windows, upsampling, transposed
//! convolutions. Division by a constant is a multiplication: for `0 ≤ x < 2³¹` and
//! `m = ⌈2ˢ / n⌉`, `s = 31 + ⌈log₂ n⌉`, `⌊x / n⌋ = x·m >> s` (Granlund and Montgomery 1994).

use kiln_ir::{Atom, Index};

use crate::simd::{Reg, multiversion};
use crate::space::Span;

/// An [`Index`] whose every part fits 32 bits.
pub(crate) struct LaneIndex {
    constant: i32,
    terms: Vec<(i32, LaneAtom)>,
}

enum LaneAtom {
    Axis(usize),
    Div(LaneIndex, Divisor),
    Mod(LaneIndex, Divisor),
}

/// A divisor and what replaces division by it, for dividends above `-bias`, a multiple of `n`.
#[derive(Clone, Copy)]
struct Divisor {
    n: i32,
    magic: u64,
    shift: u32,
    bias: i32,
}

impl LaneIndex {
    /// The expression over a space with these dims, or `None` if 32 bits do not hold it.
    pub(crate) fn new(index: &Index, dims: &[usize]) -> Option<LaneIndex> {
        let mut most = index.constant.checked_abs()?;
        let mut terms = Vec::with_capacity(index.terms.len());
        for (c, atom) in &index.terms {
            let single = Index { constant: 0, terms: vec![(1, atom.clone())] };
            let (lo, hi) = single.range(dims);
            most = most.checked_add(c.checked_abs()?.checked_mul(lo.abs().max(hi.abs()))?)?;
            terms.push((
                i32::try_from(*c).ok()?,
                match atom {
                    Atom::Var(axis) => LaneAtom::Axis(*axis),
                    Atom::Div(e, n) => LaneAtom::Div(LaneIndex::new(e, dims)?, Divisor::new(e, *n, dims)?),
                    Atom::Mod(e, n) => LaneAtom::Mod(LaneIndex::new(e, dims)?, Divisor::new(e, *n, dims)?),
                },
            ));
        }
        (most < i32::MAX as i64).then_some(LaneIndex { constant: index.constant as i32, terms })
    }

    /// Writes the value at each point; `axes` has the coordinates that [`LaneIndex::mark_axes`] marks.
    pub(crate) fn eval(&self, n: usize, axes: &[Reg], out: &mut Reg, spare: &mut Vec<Reg>) {
        out.reserve_bytes(4 * n);
        out.lanes_mut::<i32>()[..n].fill(self.constant);
        for (c, atom) in &self.terms {
            let (e, divisor) = match atom {
                LaneAtom::Axis(axis) => {
                    add_scaled(*c, n, out, &axes[*axis]);
                    continue;
                }
                LaneAtom::Div(e, divisor) | LaneAtom::Mod(e, divisor) => (e, *divisor),
            };
            let mut part = spare.pop().unwrap_or_default();
            e.eval(n, axes, &mut part, spare);
            match atom {
                LaneAtom::Mod(..) => modulo(divisor, n, &mut part),
                _ => divide(divisor, n, &mut part),
            }
            add_scaled(*c, n, out, &part);
            spare.push(part);
        }
    }

    /// Marks the axes whose coordinates [`LaneIndex::eval`] reads.
    pub(crate) fn mark_axes(&self, used: &mut [bool]) {
        for (_, atom) in &self.terms {
            match atom {
                LaneAtom::Axis(axis) => used[*axis] = true,
                LaneAtom::Div(e, _) | LaneAtom::Mod(e, _) => e.mark_axes(used),
            }
        }
    }
}

impl Divisor {
    fn new(dividend: &Index, n: i64, dims: &[usize]) -> Option<Divisor> {
        let (lo, hi) = dividend.range(dims);
        let bias = if lo < 0 { (-lo).checked_add(n - 1)? / n * n } else { 0 };
        let fits = hi.checked_add(bias)? < i32::MAX as i64;
        let shift = 31 + (64 - (n as u64 - 1).leading_zeros());
        let magic = ((1u128 << shift).div_ceil(n as u128)) as u64;
        fits.then_some(Divisor { n: i32::try_from(n).ok()?, magic, shift, bias: bias as i32 })
    }

    #[inline(always)]
    fn quotient(self, x: i32) -> i32 {
        ((x as u32 as u64).wrapping_mul(self.magic) >> self.shift) as i32
    }
}

multiversion! {
    fn add_scaled(c: i32, n: usize, out: &mut Reg, x: &Reg) {
        for (o, &x) in out.lanes_mut::<i32>()[..n].iter_mut().zip(&x.lanes::<i32>()[..n]) {
            *o = o.wrapping_add(c.wrapping_mul(x));
        }
    }
}

multiversion! {
    fn divide(d: Divisor, n: usize, x: &mut Reg) {
        let whole = d.bias / d.n;
        x.lanes_mut::<i32>()[..n].iter_mut().for_each(|x| *x = d.quotient(x.wrapping_add(d.bias)).wrapping_sub(whole));
    }
}

multiversion! {
    fn modulo(d: Divisor, n: usize, x: &mut Reg) {
        for x in &mut x.lanes_mut::<i32>()[..n] {
            let up = x.wrapping_add(d.bias);
            *x = up.wrapping_sub(d.n.wrapping_mul(d.quotient(up)));
        }
    }
}

multiversion! {
    /// Clears the mask wherever `lo ≤ x < hi` fails.
    pub(crate) fn mask_range(lo: i64, hi: i64, n: usize, x: &Reg, mask: &mut Reg) {
        let clamp = |v: i64| v.clamp(i32::MIN as i64, i32::MAX as i64) as i32;
        let (lo, hi) = (clamp(lo), clamp(hi));
        for (m, &x) in mask.lanes_mut::<u32>()[..n].iter_mut().zip(&x.lanes::<i32>()[..n]) {
            *m &= ((x >= lo) & (x < hi)) as u32;
        }
    }
}

/// Writes the coordinate along `axis` at each point of a span.
pub(crate) fn coordinates(dims: &[usize], axis: usize, span: Span, out: &mut Reg) {
    let stride: usize = dims[axis + 1..].iter().product();
    out.reserve_bytes(4 * span.points());
    let out = &mut out.lanes_mut::<i32>()[..span.points()];
    for (range, out) in span.ranges().zip(out.chunks_exact_mut(span.len.max(1))) {
        let c = range.start / stride % dims[axis];
        if stride == 1 {
            count_up(c, dims[axis], out);
        } else {
            repeat(c, dims[axis], stride, range.start % stride, out);
        }
    }
}

/// `c, c + 1, …`, from 0 again at `dim`.
fn count_up(mut c: usize, dim: usize, mut out: &mut [i32]) {
    while !out.is_empty() {
        let (run, rest) = out.split_at_mut((dim - c).min(out.len()));
        for (i, o) in run.iter_mut().enumerate() {
            *o = (c + i) as i32;
        }
        (out, c) = (rest, 0);
    }
}

/// As [`count_up`], each number `stride` times; the first has been shown `skip` times already.
fn repeat(mut c: usize, dim: usize, stride: usize, skip: usize, mut out: &mut [i32]) {
    let mut left = stride - skip;
    while !out.is_empty() {
        let (run, rest) = out.split_at_mut(left.min(out.len()));
        run.fill(c as i32);
        (out, left) = (rest, stride);
        c = if c + 1 == dim { 0 } else { c + 1 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn division_by_multiplication_is_exact() {
        let dims = [usize::pow(2, 31) - 2];
        for n in [2, 3, 5, 7, 12, 641, 65_535, 65_536, 1_000_003, (1 << 30) + 1] {
            let d = Divisor::new(&Index::var(0), n, &dims).unwrap();
            for k in 0..1000 {
                let multiple = (k * n) % (i32::MAX as i64 - 1);
                for x in [multiple, (multiple - 1).max(0), multiple / 3, i32::MAX as i64 - 2 - k] {
                    assert_eq!(d.quotient(x as i32) as i64, x / n, "{x} / {n}");
                }
            }
        }
    }
}
