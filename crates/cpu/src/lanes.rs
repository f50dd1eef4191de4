//! Index expressions evaluated for a whole tile at once, in 32-bit lanes.
//!
//! This is the way for addresses without long runs: short windows, upsampling, transposed convolutions. An expression's
//! sum over axes comes from a [`Table`]. Division by a constant is a multiplication: for `0 ≤ x < 2³¹` and
//! `m = ⌈2ˢ / n⌉`, `s = 31 + ⌈log₂ n⌉`, `⌊x / n⌋ = x·m >> s` (Granlund and Montgomery 1994).

use kiln_ir::{Atom, Bound, Index};

use crate::simd::{Reg, multiversion};
use crate::space::Span;
use crate::table::Table;

/// An address and its bounds, every part of which fits 32 bits.
pub(crate) struct Lanes {
    table: Table,
    index: LaneIndex,
    bounds: Vec<(LaneIndex, [i64; 2])>,
}

/// An expression: a sum over axes, and what else is added.
struct LaneIndex {
    /// Which expression of the table the sum is.
    sum: usize,
    terms: Vec<(i32, LaneAtom)>,
}

enum LaneAtom {
    /// The gathered coordinate.
    Gathered,
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

/// The points of a tile, and working memory.
pub(crate) struct Points<'a> {
    pub(crate) span: Span,
    /// The gathered coordinate at each of them.
    pub(crate) gathered: Option<&'a Reg>,
    pub(crate) spare: &'a mut Vec<Reg>,
}

impl Lanes {
    /// For an address over a space, and a gathered coordinate below `gather`; `None` if 32 bits do not hold it.
    pub(crate) fn new(dims: &[usize], index: &Index, bounds: &[Bound], gather: Option<usize>) -> Option<Lanes> {
        let wide = [dims, gather.as_slice()].concat();
        let mut sums = Vec::new();
        let index = LaneIndex::new(index, &wide, dims.len(), &mut sums)?;
        let bound = |b: &Bound| Some((LaneIndex::new(&b.index, &wide, dims.len(), &mut sums)?, [b.lo, b.hi]));
        let bounds = bounds.iter().map(bound).collect::<Option<_>>()?;
        Some(Lanes { table: Table::new(dims, &sums)?, index, bounds })
    }

    /// Writes the address of each point.
    pub(crate) fn addresses(&self, points: &mut Points, offsets: &mut Reg) {
        self.index.eval(&self.table, points, offsets);
    }

    /// Writes whether each point's element exists.
    pub(crate) fn existing(&self, points: &mut Points, mask: &mut Reg) {
        let n = points.span.points();
        mask.reserve_bytes(4 * n);
        mask.lanes_mut::<u32>()[..n].fill(1);
        for (bound, within) in &self.bounds {
            if bound.terms.is_empty() {
                self.table.clear(bound.sum, *within, points.span, mask);
                continue;
            }
            let mut value = points.spare.pop().unwrap_or_default();
            bound.eval(&self.table, points, &mut value);
            mask_range(*within, n, &value, mask);
            points.spare.push(value);
        }
    }
}

impl LaneIndex {
    /// The expression; its sum over axes, of which there are `rank`, joins the others.
    fn new(index: &Index, dims: &[usize], rank: usize, sums: &mut Vec<Index>) -> Option<LaneIndex> {
        let mut most = index.constant.checked_abs()?;
        let (mut terms, mut sum) = (Vec::new(), Index::constant(index.constant));
        for (c, atom) in &index.terms {
            let single = Index { constant: 0, terms: vec![(1, atom.clone())] };
            let (lo, hi) = single.range(dims);
            most = most.checked_add(c.checked_abs()?.checked_mul(lo.abs().max(hi.abs()))?)?;
            let atom = match atom {
                Atom::Var(axis) if *axis < rank => {
                    sum.terms.push((*c, atom.clone()));
                    continue;
                }
                Atom::Var(_) => LaneAtom::Gathered,
                Atom::Div(e, n) => LaneAtom::Div(LaneIndex::new(e, dims, rank, sums)?, Divisor::new(e, *n, dims)?),
                Atom::Mod(e, n) => LaneAtom::Mod(LaneIndex::new(e, dims, rank, sums)?, Divisor::new(e, *n, dims)?),
            };
            terms.push((i32::try_from(*c).ok()?, atom));
        }
        sums.push(sum);
        (most < i32::MAX as i64).then_some(LaneIndex { sum: sums.len() - 1, terms })
    }

    /// Writes the value at each point.
    fn eval(&self, table: &Table, points: &mut Points, out: &mut Reg) {
        let n = points.span.points();
        table.write(self.sum, points.span, out);
        for (c, atom) in &self.terms {
            let (e, divisor) = match atom {
                LaneAtom::Gathered => {
                    add_scaled(*c, n, out, points.gathered.expect("a gathered coordinate is there"));
                    continue;
                }
                LaneAtom::Div(e, divisor) | LaneAtom::Mod(e, divisor) => (e, *divisor),
            };
            let mut part = points.spare.pop().unwrap_or_default();
            e.eval(table, points, &mut part);
            match atom {
                LaneAtom::Mod(..) => modulo(divisor, n, &mut part),
                _ => divide(divisor, n, &mut part),
            }
            add_scaled(*c, n, out, &part);
            points.spare.push(part);
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
    fn mask_range(within: [i64; 2], n: usize, x: &Reg, mask: &mut Reg) {
        let clamp = |v: i64| v.clamp(i32::MIN as i64, i32::MAX as i64) as i32;
        let (lo, hi) = (clamp(within[0]), clamp(within[1]));
        for (m, &x) in mask.lanes_mut::<u32>()[..n].iter_mut().zip(&x.lanes::<i32>()[..n]) {
            *m &= ((x >= lo) & (x < hi)) as u32;
        }
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
