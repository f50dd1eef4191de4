//! Sums over axes at every point of a tile: what the trailing axes add is the same in each block of them, so it stands
//! in a table, and a tile's values are a block's head and a row of numbers added up.

use kiln_ir::Index;

use crate::simd::{Reg, multiversion};
use crate::space::Span;

/// Points of a block: enough that its head costs little, and few enough that a table stays in the nearest cache.
const BLOCK: std::ops::RangeInclusive<usize> = 128..=4096;

/// Affine expressions over a space, each of which fits 32 bits.
pub(crate) struct Table {
    /// Points in a block.
    len: usize,
    /// Dims of the axes before those of a block.
    lead: Vec<u32>,
    shares: Vec<Shares>,
}

/// What the axes add to an expression.
struct Shares {
    constant: i32,
    /// For each axis before a block's.
    strides: Vec<i32>,
    /// For each point of a block.
    rows: Rows,
    /// The least and the greatest.
    between: [i32; 2],
}

enum Rows {
    Listed(Vec<i32>),
    /// The axis is long: each point adds as much as the one before, and so much more.
    Even(i32),
}

impl Table {
    /// The expressions, or `None` if one is no sum over axes or too large.
    pub(crate) fn new(dims: &[usize], exprs: &[Index]) -> Option<Table> {
        let strides: Vec<Vec<i64>> = exprs.iter().map(|e| e.affine(dims.len())).collect::<Option<_>>()?;
        let small = |(lo, hi): (i64, i64)| lo > i32::MIN as i64 / 2 && hi < i32::MAX as i64 / 2;
        if !exprs.iter().all(|e| small(e.range(dims))) {
            return None;
        }
        let (mut lead, mut len) = (dims.len(), 1);
        while lead > 0 && len < *BLOCK.start() && (len == 1 || len * dims[lead - 1] <= *BLOCK.end()) {
            lead -= 1;
            len *= dims[lead];
        }
        let share = |strides: &[i64], mut point: usize| {
            let mut sum = 0;
            for axis in (lead..dims.len()).rev() {
                sum += strides[axis] * (point % dims[axis]) as i64;
                point /= dims[axis];
            }
            sum as i32
        };
        let shares = |(strides, expr): (&Vec<i64>, &Index)| {
            let constant = expr.constant as i32;
            let heads = strides[..lead].iter().map(|&s| s as i32).collect();
            if len > *BLOCK.end() {
                let by = strides.last().copied().unwrap_or(0);
                let end = (by * (len as i64 - 1)) as i32;
                return Shares {
                    constant,
                    strides: heads,
                    rows: Rows::Even(by as i32),
                    between: [end.min(0), end.max(0)],
                };
            }
            let listed: Vec<i32> = (0..len).map(|point| share(strides, point)).collect();
            let between = [listed.iter().copied().min().unwrap_or(0), listed.iter().copied().max().unwrap_or(0)];
            Shares { constant, strides: heads, rows: Rows::Listed(listed), between }
        };
        let shares = strides.iter().zip(exprs).map(shares).collect();
        let lead = dims[..lead].iter().map(|&dim| u32::try_from(dim).ok()).collect::<Option<_>>()?;
        Some(Table { len, lead, shares })
    }

    /// Calls `visit` for each part of a span within a block: where it begins in the span and in the block, how many
    /// points it has, and the expression's value at the block's head.
    #[inline(always)]
    fn blocks(&self, e: usize, span: Span, mut visit: impl FnMut(usize, usize, usize, i32)) {
        let mut point = 0;
        for range in span.ranges().filter(|r| !r.is_empty()) {
            let (mut block, mut skip, mut left) = (range.start / self.len, range.start % self.len, range.len());
            while left > 0 {
                let n = (self.len - skip).min(left);
                visit(point, skip, n, self.head(e, block));
                (point, left, skip, block) = (point + n, left - n, 0, block + 1);
            }
        }
    }

    /// An expression's value at the head of a block.
    fn head(&self, e: usize, mut block: usize) -> i32 {
        let Shares { constant, strides, .. } = &self.shares[e];
        let mut sum = *constant;
        for (&dim, stride) in self.lead.iter().zip(strides).rev() {
            let (rest, c) = match u32::try_from(block) {
                Ok(block) => ((block / dim) as usize, block % dim),
                Err(_) => (block / dim as usize, (block % dim as usize) as u32),
            };
            sum += stride * c as i32;
            block = rest;
        }
        sum
    }

    /// Writes an expression's value at each point of a span.
    pub(crate) fn write(&self, e: usize, span: Span, out: &mut Reg) {
        out.reserve_bytes(4 * span.points());
        let out = &mut out.lanes_mut::<i32>()[..span.points()];
        self.blocks(e, span, |point, skip, n, head| {
            let out = &mut out[point..point + n];
            match &self.shares[e].rows {
                Rows::Listed(listed) => add(head, &listed[skip..skip + n], out),
                Rows::Even(by) => count(head + by * skip as i32, *by, out),
            }
        });
    }

    /// Clears the mask wherever `lo ≤ value < hi` fails.
    pub(crate) fn clear(&self, e: usize, [lo, hi]: [i64; 2], span: Span, mask: &mut Reg) {
        let mask = &mut mask.lanes_mut::<u32>()[..span.points()];
        let clamp = |v: i64| v.clamp(i32::MIN as i64 / 2, i32::MAX as i64 / 2) as i32;
        let (lo, hi) = (clamp(lo), clamp(hi));
        // In unsigned numbers, one comparison is both.
        let wide = (hi - lo).max(0) as u32;
        let Shares { rows, between: [least, greatest], .. } = &self.shares[e];
        self.blocks(e, span, |point, skip, n, head| {
            if head + least >= lo && head + greatest < hi {
                return;
            }
            let mask = &mut mask[point..point + n];
            match rows {
                Rows::Listed(listed) => clear(head.wrapping_sub(lo), wide, &listed[skip..skip + n], mask),
                Rows::Even(by) => clear_even(head.wrapping_sub(lo) + by * skip as i32, *by, wide, mask),
            }
        });
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
    fn count(head: i32, by: i32, out: &mut [i32]) {
        for (i, o) in out.iter_mut().enumerate() {
            *o = head.wrapping_add(by.wrapping_mul(i as i32));
        }
    }
}

multiversion! {
    fn clear(head: i32, wide: u32, shares: &[i32], mask: &mut [u32]) {
        for (m, &share) in mask.iter_mut().zip(shares) {
            *m &= ((head.wrapping_add(share) as u32) < wide) as u32;
        }
    }
}

multiversion! {
    fn clear_even(head: i32, by: i32, wide: u32, mask: &mut [u32]) {
        for (i, m) in mask.iter_mut().enumerate() {
            *m &= ((head.wrapping_add(by.wrapping_mul(i as i32)) as u32) < wide) as u32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_ir::Atom;

    fn sum(constant: i64, strides: &[i64]) -> Index {
        Index { constant, terms: strides.iter().enumerate().map(|(a, &s)| (s, Atom::Var(a))).collect() }
    }

    #[test]
    fn every_point_has_its_value_and_its_bounds() {
        let spaces: [(&[usize], [i64; 5]); 3] = [
            (&[3, 5, 40, 2, 7], [1000, -3, 14, 7, 1]),
            (&[2, 3, 1, 1, 5000], [-50, 20_000, 0, 0, 3]),
            (&[1, 1, 1, 2, 5], [0, 0, 0, 1, -1]),
        ];
        for (dims, strides) in spaces {
            let expr = sum(9, &strides);
            let table = Table::new(dims, &[Index::constant(4), expr.clone()]).unwrap();
            let numel: usize = dims.iter().product();
            let (mut out, mut mask) = (Reg::default(), Reg::default());
            for span in [Span::range(0, numel), Span::range(numel / 3, numel / 2), Span::new(3, 2, 3, numel / 4)] {
                mask.reserve_bytes(4 * numel);
                mask.lanes_mut::<u32>().fill(1);
                table.write(1, span, &mut out);
                table.clear(1, [10, 1 << 40], span, &mut mask);
                for (i, mut point) in span.ranges().flatten().enumerate() {
                    let mut at = [0; 5];
                    for axis in (0..5).rev() {
                        (at[axis], point) = (point % dims[axis], point / dims[axis]);
                    }
                    let want = expr.eval(&at);
                    assert_eq!(out.lanes::<i32>()[i] as i64, want, "{at:?}");
                    assert_eq!(mask.lanes::<u32>()[i] != 0, want >= 10, "{at:?}");
                }
            }
        }
    }

    #[test]
    fn what_is_no_sum_or_too_large_has_no_table() {
        let dims = [40, 50];
        assert!(Table::new(&dims, &[Index::var(0).div(3, &dims)]).is_none());
        assert!(Table::new(&dims, &[sum(0, &[1 << 30, 1])]).is_none());
    }
}
