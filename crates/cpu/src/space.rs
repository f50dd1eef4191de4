//! Which points of an index space a tile holds, and the runs that an address makes of them.
//!
//! Points are numbered row-major. A tile is a few equally long ranges of numbers, [`Span`]. Along
//! the trailing axes where an expression's strides merge, consecutive points have equally spaced
//! values: a *run*. Copying a run is a `memcpy`; only its head is computed.

use std::ops::Range;

use kiln_ir::{Atom, Index};

/// `count` ranges of `len` points, `pitch` apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Span {
    pub(crate) start: usize,
    pub(crate) len: usize,
    pub(crate) count: usize,
    pub(crate) pitch: usize,
}

impl Span {
    /// A single range.
    pub(crate) fn range(start: usize, len: usize) -> Span {
        Span { start, len, count: 1, pitch: len }
    }

    /// Several ranges; adjoining ones become one.
    pub(crate) fn new(start: usize, len: usize, count: usize, pitch: usize) -> Span {
        if len == pitch { Span::range(start, len * count) } else { Span { start, len, count, pitch } }
    }

    /// How many points there are.
    pub(crate) fn points(self) -> usize {
        self.len * self.count
    }

    /// The ranges of point numbers.
    pub(crate) fn ranges(self) -> impl Iterator<Item = Range<usize>> {
        (0..self.count).map(move |i| self.start + i * self.pitch).map(move |at| at..at + self.len)
    }
}

/// The trailing axes along which several expressions are all affine with merging strides.
#[derive(Debug)]
pub(crate) struct Runs {
    /// Axes before those of the run.
    pub(crate) lead: usize,
    /// Points in a run.
    pub(crate) len: usize,
    /// One stride per expression.
    pub(crate) steps: Vec<i64>,
}

impl Runs {
    /// The longest runs over axes that `free` admits.
    pub(crate) fn new(dims: &[usize], exprs: &[&Index], free: impl Fn(usize) -> bool) -> Runs {
        let mut runs = Runs { lead: dims.len(), len: 1, steps: vec![0; exprs.len()] };
        for axis in (0..dims.len()).rev() {
            if dims[axis] != 1 {
                let strides: Option<Vec<i64>> = exprs.iter().map(|e| stride(e, axis)).collect();
                let Some(strides) = strides.filter(|_| free(axis)) else { break };
                let merges = |(s, step): (&i64, &i64)| *s == step * runs.len as i64;
                if runs.len > 1 && !strides.iter().zip(&runs.steps).all(merges) {
                    break;
                }
                if runs.len == 1 {
                    runs.steps = strides;
                }
                runs.len *= dims[axis];
            }
            runs.lead = axis;
        }
        runs
    }
}

/// The coefficient of an axis, or `None` if it occurs inside a quotient or remainder.
pub(crate) fn stride(index: &Index, axis: usize) -> Option<i64> {
    let mut sum = 0;
    for (c, atom) in &index.terms {
        match atom {
            Atom::Var(v) if *v == axis => sum += c,
            Atom::Var(_) => {}
            Atom::Div(e, _) | Atom::Mod(e, _) if e.uses(&|v| v == axis) => return None,
            Atom::Div(..) | Atom::Mod(..) => {}
        }
    }
    Some(sum)
}

/// The points `i` of a run of `len` where `lo ≤ head + step·i < hi`.
pub(crate) fn admitted(head: i64, step: i64, lo: i64, hi: i64, len: usize) -> Range<usize> {
    let whole = if lo <= head && head < hi { 0..len } else { 0..0 };
    let up = |v: i64, by: i64| (v + by - 1).div_euclid(by).clamp(0, len as i64) as usize;
    match step {
        0 => whole,
        1 => (lo - head).clamp(0, len as i64) as usize..(hi - head).clamp(0, len as i64) as usize,
        2.. => up(lo - head, step)..up(hi - head, step),
        // head + step·i < hi ⇔ i > (head - hi) / |step|, and so on.
        _ => up(head - hi + 1, -step)..up(head - lo + 1, -step),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admitted_points_are_those_that_hold() {
        for head in -9..9 {
            for step in -3..4 {
                for (lo, hi) in [(0, 5), (-4, 2), (3, 3), (-2, 9)] {
                    let range = admitted(head, step, lo, hi, 7);
                    for i in 0..7 {
                        let holds = (lo..hi).contains(&(head + step * i));
                        assert_eq!(range.contains(&(i as usize)), holds, "{head} + {step}·{i} in {lo}..{hi}");
                    }
                }
            }
        }
    }

    #[test]
    fn strides_merge_as_far_as_they_are_contiguous() {
        let e = |terms: &[(i64, usize)]| Index {
            constant: 0,
            terms: terms.iter().map(|&(c, v)| (c, Atom::Var(v))).collect(),
        };
        let dense = e(&[(12, 0), (4, 1), (1, 2)]);
        assert_eq!(Runs::new(&[5, 3, 4], &[&dense], |_| true).len, 60);
        assert_eq!(Runs::new(&[5, 3, 4], &[&dense, &e(&[(1, 0)])], |_| true).len, 12);
        assert_eq!(Runs::new(&[5, 3, 4], &[&dense], |axis| axis == 2).lead, 2);
    }
}
