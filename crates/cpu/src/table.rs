//! Addresses of short runs: what the trailing axes add to an address is the same in each block of them, so it stands
//! in a table, and a tile's addresses are sums of a block's head and a row of numbers.

use kiln_ir::{Bound, Index};

use crate::heads::{Heads, Place};
use crate::simd::{Reg, multiversion};
use crate::space::Span;

/// Points of a block: enough that its head costs little, and few enough that the table stays in the nearest cache.
const BLOCK: std::ops::RangeInclusive<usize> = 128..=4096;

/// An affine address and its bounds over the trailing axes of a space.
pub(crate) struct Table {
    /// Points in a block.
    len: usize,
    heads: Heads,
    /// What each point of a block adds to the address, and to each bounded value.
    shares: Vec<Vec<i32>>,
    /// Where bounded values may lie, and between what numbers their shares do.
    within: Vec<[i32; 2]>,
    between: Vec<[i32; 2]>,
}

impl Table {
    /// The table of an address, unless it is no sum over axes or 32 bits do not hold it.
    pub(crate) fn new(dims: &[usize], index: &Index, bounds: &[Bound]) -> Option<Table> {
        let exprs: Vec<&Index> = std::iter::once(index).chain(bounds.iter().map(|b| &b.index)).collect();
        let strides: Vec<Vec<i64>> = exprs.iter().map(|e| e.affine(dims.len())).collect::<Option<_>>()?;
        let small = |(lo, hi): (i64, i64)| lo > i32::MIN as i64 / 2 && hi < i32::MAX as i64 / 2;
        if !exprs.iter().all(|e| small(e.range(dims))) {
            return None;
        }
        let (mut lead, mut len) = (dims.len(), 1);
        while lead > 0 && len < *BLOCK.start() && len * dims[lead - 1] <= *BLOCK.end() {
            lead -= 1;
            len *= dims[lead];
        }
        let share = |strides: &Vec<i64>, point: usize| {
            let (mut sum, mut rest) = (0, point);
            for axis in (lead..dims.len()).rev() {
                sum += strides[axis] * (rest % dims[axis]) as i64;
                rest /= dims[axis];
            }
            sum as i32
        };
        let shares: Vec<Vec<i32>> = strides.iter().map(|s| (0..len).map(|point| share(s, point)).collect()).collect();
        let between = |shares: &Vec<i32>| Some([*shares.iter().min()?, *shares.iter().max()?]);
        let clamp = |v: i64| v.clamp(i32::MIN as i64, i32::MAX as i64) as i32;
        Some(Table {
            len,
            heads: Heads::new(dims, lead, &exprs),
            between: shares[1..].iter().map(between).collect::<Option<_>>()?,
            shares,
            within: bounds.iter().map(|b| [clamp(b.lo), clamp(b.hi)]).collect(),
        })
    }

    /// Writes the address of each point of a span, and whether it exists.
    pub(crate) fn eval(&self, span: Span, place: &mut Place, offsets: &mut Reg, mask: &mut Reg) {
        let n = span.points();
        offsets.reserve_bytes(4 * n);
        mask.reserve_bytes(4 * n);
        let (offsets, mask) = (&mut offsets.lanes_mut::<i32>()[..n], &mut mask.lanes_mut::<u32>()[..n]);
        mask.fill(1);
        let mut point = 0;
        for range in span.ranges() {
            self.heads.seek(range.start / self.len, place);
            let (mut skip, mut left) = (range.start % self.len, range.len());
            while left > 0 {
                let n = (self.len - skip).min(left);
                let value = |e: usize, place: &mut Place| self.heads.value(e, place, None) as i32;
                add(value(0, place), &self.shares[0][skip..skip + n], &mut offsets[point..point + n]);
                for (b, (&[lo, hi], &[least, greatest])) in self.within.iter().zip(&self.between).enumerate() {
                    let head = value(b + 1, place);
                    if head + least < lo || head + greatest >= hi {
                        // In unsigned numbers, one comparison is both.
                        let wide = (hi as u32).wrapping_sub(lo as u32);
                        let shares = &self.shares[b + 1][skip..skip + n];
                        clear(head.wrapping_sub(lo), wide, shares, &mut mask[point..point + n]);
                    }
                }
                (point, left, skip) = (point + n, left - n, 0);
                self.heads.advance(place);
            }
        }
    }
}

multiversion! {
    fn add(head: i32, shares: &[i32], out: &mut [i32]) {
        for (o, &share) in out.iter_mut().zip(shares) {
            *o = head + share;
        }
    }
}

multiversion! {
    /// Clears the mask wherever `0 ≤ head + share < wide` fails.
    fn clear(head: i32, wide: u32, shares: &[i32], mask: &mut [u32]) {
        for (m, &share) in mask.iter_mut().zip(shares) {
            *m &= (head.wrapping_add(share) as u32).lt(&wide) as u32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_point_has_its_address_and_its_bounds() {
        let dims = [3, 5, 40, 2, 7];
        let e = |constant: i64, strides: [i64; 5]| Index {
            constant,
            terms: strides.iter().enumerate().map(|(a, &s)| (s, kiln_ir::Atom::Var(a))).collect(),
        };
        let index = e(9, [1000, -3, 14, 7, 1]);
        let bounds = [
            Bound { index: e(-1, [0, 1, 0, 1, 0]), lo: 0, hi: 4 },
            Bound { index: e(0, [0, 0, 1, 0, -1]), lo: 2, hi: 1 << 40 },
        ];
        let table = Table::new(&dims, &index, &bounds).unwrap();
        assert_eq!(table.len, 560);
        let (mut place, mut offsets, mut mask) = (Place::default(), Reg::default(), Reg::default());
        for span in [Span::range(0, 8400), Span::range(555, 20), Span::new(3, 100, 4, 700)] {
            table.eval(span, &mut place, &mut offsets, &mut mask);
            for (i, point) in span.ranges().flatten().enumerate() {
                let at = [point / 2800, point / 560 % 5, point / 14 % 40, point / 7 % 2, point % 7];
                assert_eq!(offsets.lanes::<i32>()[i] as i64, index.eval(&at), "{point}");
                let exists = bounds.iter().all(|b| (b.lo..b.hi).contains(&b.index.eval(&at)));
                assert_eq!(mask.lanes::<u32>()[i] != 0, exists, "{point}");
            }
        }
        assert!(Table::new(&dims, &index.scale(1 << 30), &[]).is_none());
    }
}
