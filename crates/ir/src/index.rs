//! Index arithmetic: how a view becomes an address, with nothing copied.
//!
//! An [`IndexMap`] takes coordinates of a view to coordinates of what it views, with the conditions
//! under which the element exists at all. Maps compose, so any tower of views is one map.
//!
//! The hard idea is the normal form. An [`Index`] is an affine sum over *atoms*: a coordinate, or a
//! quotient or remainder of another sum. Splitting a sum by divisibility before dividing it, and
//! recombining `n·(e / n) + e % n` into `e`, is enough to make a reshape and its inverse cancel.

use std::fmt;

use crate::shape::strides;

/// An integer expression over the coordinates of an index space, in normal form:
/// `constant + Σ coefficient · atom`, atoms distinct and sorted, coefficients not zero.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct Index {
    /// The constant term.
    pub constant: i64,
    /// `(coefficient, atom)` pairs.
    pub terms: Vec<(i64, Atom)>,
}

/// What an [`Index`] sums over. Division rounds down, and the remainder is never negative.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Atom {
    /// The coordinate along an axis of the index space.
    Var(usize),
    /// `⌊index / n⌋`, `n > 1`.
    Div(Box<Index>, i64),
    /// `index mod n`, `n > 1`.
    Mod(Box<Index>, i64),
}

impl Index {
    /// The constant `c`.
    pub fn constant(c: i64) -> Index {
        Index { constant: c, terms: Vec::new() }
    }

    /// The coordinate along `axis`.
    pub fn var(axis: usize) -> Index {
        Index { constant: 0, terms: vec![(1, Atom::Var(axis))] }
    }

    /// `Some(c)` iff the expression is the constant `c`.
    pub fn as_constant(&self) -> Option<i64> {
        self.terms.is_empty().then_some(self.constant)
    }

    /// The sum of two expressions.
    pub fn add(&self, other: &Index, dims: &[usize]) -> Index {
        let mut terms = self.terms.clone();
        terms.extend(other.terms.iter().cloned());
        Index { constant: self.constant + other.constant, terms }.normal(dims)
    }

    /// The expression plus a constant.
    pub fn offset(mut self, by: i64) -> Index {
        self.constant += by;
        self
    }

    /// The expression times a constant.
    pub fn scale(mut self, by: i64) -> Index {
        if by == 0 {
            return Index::constant(0);
        }
        self.constant *= by;
        self.terms.iter_mut().for_each(|t| t.0 *= by);
        self
    }

    /// `⌊self / n⌋` over an index space with these dims.
    pub fn div(&self, n: i64, dims: &[usize]) -> Index {
        assert!(n > 0, "index: divisor {n} is not positive");
        if n == 1 {
            return self.clone();
        }
        // (n·q + r) / n = q + r / n, exact for floor division.
        let (q, r) = self.split(n);
        let (lo, hi) = r.range(dims);
        if lo >= 0 && hi < n {
            return q;
        }
        if let Some((g, coarse, _)) = r.separate(n, dims) {
            return q.add(&coarse.div(n / g, dims), dims);
        }
        let rest = match (r.constant, r.terms.as_slice()) {
            (0, [(1, Atom::Div(e, m))]) => e.div(n * m, dims),
            (0, [(1, Atom::Mod(e, m))]) if m % n == 0 => e.div(n, dims).modulo(m / n, dims),
            _ => Index { constant: 0, terms: vec![(1, Atom::Div(Box::new(r), n))] },
        };
        q.add(&rest, dims)
    }

    /// `self mod n` over an index space with these dims.
    pub fn modulo(&self, n: i64, dims: &[usize]) -> Index {
        assert!(n > 0, "index: modulus {n} is not positive");
        if n == 1 {
            return Index::constant(0);
        }
        let (_, r) = self.split(n);
        let (lo, hi) = r.range(dims);
        if lo >= 0 && hi < n {
            return r;
        }
        if let Some((g, coarse, fine)) = r.separate(n, dims) {
            return coarse.modulo(n / g, dims).scale(g).add(&fine, dims);
        }
        if let (0, [(1, Atom::Mod(e, m))]) = (r.constant, r.terms.as_slice())
            && m % n == 0
        {
            return e.modulo(n, dims);
        }
        Index { constant: 0, terms: vec![(1, Atom::Mod(Box::new(r), n))] }
    }

    /// The least and greatest value over the index space; an empty space counts as one point.
    pub fn range(&self, dims: &[usize]) -> (i64, i64) {
        let (mut lo, mut hi) = (self.constant, self.constant);
        for (c, atom) in &self.terms {
            let (a, b) = atom.range(dims);
            lo += (c * a).min(c * b);
            hi += (c * a).max(c * b);
        }
        (lo, hi)
    }

    /// The expression with each coordinate replaced by an expression over a new space.
    pub fn substitute(&self, coords: &[Index], dims: &[usize]) -> Index {
        let mut out = Index::constant(self.constant);
        for (c, atom) in &self.terms {
            let value = match atom {
                Atom::Var(v) => coords[*v].clone(),
                Atom::Div(e, n) => e.substitute(coords, dims).div(*n, dims),
                Atom::Mod(e, n) => e.substitute(coords, dims).modulo(*n, dims),
            };
            let value = value.scale(*c);
            out.constant += value.constant;
            out.terms.extend(value.terms);
        }
        out.normal(dims)
    }

    /// The value at a point.
    pub fn eval(&self, at: &[usize]) -> i64 {
        self.terms.iter().fold(self.constant, |sum, (c, atom)| {
            sum + c * match atom {
                Atom::Var(v) => at[*v] as i64,
                Atom::Div(e, n) => e.eval(at).div_euclid(*n),
                Atom::Mod(e, n) => e.eval(at).rem_euclid(*n),
            }
        })
    }

    /// True iff the value depends on a coordinate whose axis satisfies `pred`.
    pub fn uses(&self, pred: &dyn Fn(usize) -> bool) -> bool {
        self.terms.iter().any(|(_, atom)| match atom {
            Atom::Var(v) => pred(*v),
            Atom::Div(e, _) | Atom::Mod(e, _) => e.uses(pred),
        })
    }

    /// The expression with axis `v` renamed to `to(v)`.
    pub fn rename(&self, to: &dyn Fn(usize) -> usize) -> Index {
        let atom = |a: &Atom| match a {
            Atom::Var(v) => Atom::Var(to(*v)),
            Atom::Div(e, n) => Atom::Div(Box::new(e.rename(to)), *n),
            Atom::Mod(e, n) => Atom::Mod(Box::new(e.rename(to)), *n),
        };
        let mut terms: Vec<(i64, Atom)> = self.terms.iter().map(|(c, a)| (*c, atom(a))).collect();
        terms.sort_by(|a, b| a.1.cmp(&b.1));
        Index { constant: self.constant, terms }
    }

    /// One stride per axis if the expression is affine in the coordinates, else `None`.
    pub fn affine(&self, rank: usize) -> Option<Vec<i64>> {
        let mut strides = vec![0; rank];
        for (c, atom) in &self.terms {
            let Atom::Var(v) = atom else { return None };
            strides[*v] += c;
        }
        Some(strides)
    }

    /// Splits into `(q, r)` with `self = n·q + r`, `r` having no coefficient divisible by `n`.
    fn split(&self, n: i64) -> (Index, Index) {
        let (mut q, mut r) =
            (Index::constant(self.constant.div_euclid(n)), Index::constant(self.constant.rem_euclid(n)));
        for (c, atom) in &self.terms {
            match c % n {
                0 => q.terms.push((c / n, atom.clone())),
                _ => r.terms.push((*c, atom.clone())),
            }
        }
        (q, r)
    }

    /// `(g, coarse, fine)` with `self = g·coarse + fine`, `g` a proper divisor of `n` and
    /// `0 ≤ fine < g`: then `self / n = coarse / (n/g)` and `self mod n = g·(coarse mod n/g) + fine`.
    fn separate(&self, n: i64, dims: &[usize]) -> Option<(i64, Index, Index)> {
        self.terms.iter().find_map(|(c, _)| {
            let g = gcd(c.abs(), n);
            let (coarse, fine) = self.split(g);
            let (lo, hi) = fine.range(dims);
            (g > 1 && g < n && lo >= 0 && hi < g).then_some((g, coarse, fine))
        })
    }

    /// Sorts, merges equal atoms, drops what is zero, and recombines quotients with remainders.
    fn normal(mut self, dims: &[usize]) -> Index {
        self.terms.retain(|(_, a)| !matches!(a, Atom::Var(v) if dims[*v] <= 1));
        self.terms.sort_by(|a, b| a.1.cmp(&b.1));
        self.terms.dedup_by(|next, kept| {
            let same = next.1 == kept.1;
            if same {
                kept.0 += next.0;
            }
            same
        });
        self.terms.retain(|t| t.0 != 0);
        // c·(e mod n) + c·n·⌊e / n⌋ = c·e, and c·(e mod n) + c·n·(⌊e / n⌋ mod m) = c·(e mod n·m).
        for i in 0..self.terms.len() {
            let (c, Atom::Mod(e, n)) = self.terms[i].clone() else { continue };
            let quotient = e.div(n, dims);
            let is_quotient = |atom: &Atom| quotient.constant == 0 && quotient.terms == [(1, atom.clone())];
            let whole = self.terms.iter().enumerate().find_map(|(j, (scale, atom))| match atom {
                _ if *scale != c * n => None,
                Atom::Mod(q, m) if **q == quotient => Some((j, e.modulo(n * m, dims))),
                _ if is_quotient(atom) => Some((j, (*e).clone())),
                _ => None,
            });
            let Some((j, whole)) = whole else { continue };
            let whole = whole.scale(c);
            self.terms.remove(i.max(j));
            self.terms.remove(i.min(j));
            self.constant += whole.constant;
            self.terms.extend(whole.terms);
            return self.normal(dims);
        }
        self
    }
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

impl Atom {
    fn range(&self, dims: &[usize]) -> (i64, i64) {
        match self {
            Atom::Var(v) => (0, dims[*v].saturating_sub(1) as i64),
            Atom::Div(e, n) => {
                let (lo, hi) = e.range(dims);
                (lo.div_euclid(*n), hi.div_euclid(*n))
            }
            Atom::Mod(e, n) => {
                let (lo, hi) = e.range(dims);
                if lo >= 0 && hi < *n { (lo, hi) } else { (0, n - 1) }
            }
        }
    }
}

impl fmt::Display for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for (c, atom) in &self.terms {
            if !first {
                f.write_str(" + ")?;
            }
            first = false;
            if *c != 1 {
                write!(f, "{c}*")?;
            }
            match atom {
                Atom::Var(v) => write!(f, "i{v}")?,
                Atom::Div(e, n) => write!(f, "(({e}) / {n})")?,
                Atom::Mod(e, n) => write!(f, "(({e}) % {n})")?,
            }
        }
        match (first, self.constant) {
            (true, c) => write!(f, "{c}"),
            (false, 0) => Ok(()),
            (false, c) => write!(f, " + {c}"),
        }
    }
}

/// A condition on a point: `lo ≤ index < hi`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Bound {
    /// The constrained expression.
    pub index: Index,
    /// The least admitted value.
    pub lo: i64,
    /// One more than the greatest admitted value.
    pub hi: i64,
}

impl Bound {
    /// True iff the condition holds at this point.
    pub fn holds(&self, at: &[usize]) -> bool {
        (self.lo..self.hi).contains(&self.index.eval(at))
    }

    /// Whether the condition holds at every point of a space, or at none; `None` if neither is plain from its range.
    pub fn decided(&self, dims: &[usize]) -> Option<bool> {
        let (least, most) = self.index.range(dims);
        match self.lo <= least && most < self.hi {
            true => Some(true),
            false => (most < self.lo || self.hi <= least).then_some(false),
        }
    }
}

/// A map from the coordinates of one index space to those of another, where `valid` holds.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct IndexMap {
    /// The dims of the space that is mapped from.
    pub dims: Vec<usize>,
    /// One expression per axis of the space that is mapped to.
    pub coords: Vec<Index>,
    /// All must hold for the element to exist; elsewhere the view shows its fill value.
    pub valid: Vec<Bound>,
}

impl IndexMap {
    /// The map from a space to itself.
    pub fn identity(dims: &[usize]) -> IndexMap {
        let var = |i: usize| if dims[i] <= 1 { Index::constant(0) } else { Index::var(i) };
        IndexMap { dims: dims.to_vec(), coords: (0..dims.len()).map(var).collect(), valid: Vec::new() }
    }

    /// First `self`, then `next`: a map from `self`'s space to the one that `next` reaches.
    pub fn then(&self, next: &IndexMap) -> IndexMap {
        let substitute = |e: &Index| e.substitute(&self.coords, &self.dims);
        let coords = next.coords.iter().map(substitute).collect();
        let bounds = next.valid.iter().map(|b| Bound { index: substitute(&b.index), ..*b });
        let mut valid: Vec<Bound> = self.valid.iter().cloned().chain(bounds).collect();
        valid.retain(|bound| bound.decided(&self.dims) != Some(true));
        valid.sort();
        valid.dedup();
        IndexMap { dims: self.dims.clone(), coords, valid }
    }

    /// The row-major element number that the coordinates name in a tensor with dims `shape`.
    pub fn flatten(&self, shape: &[usize]) -> Index {
        assert_eq!(shape.len(), self.coords.len(), "index map: rank of the target");
        let zero = Index::constant(0);
        self.coords
            .iter()
            .zip(strides(shape))
            .fold(zero, |sum, (c, stride)| sum.add(&c.clone().scale(stride as i64), &self.dims))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reshape(from: &[usize], to: &[usize]) -> IndexMap {
        crate::Movement::Reshape(to.into()).map(&from.into())
    }

    #[test]
    fn a_reshape_and_its_inverse_cancel() {
        let there = reshape(&[4, 6], &[2, 3, 4]);
        let back = reshape(&[2, 3, 4], &[4, 6]);
        assert_eq!(back.then(&there), IndexMap::identity(&[4, 6]));
        assert_eq!(there.then(&back), IndexMap::identity(&[2, 3, 4]));
    }

    #[test]
    fn splitting_a_contiguous_axis_stays_affine() {
        let map = reshape(&[24], &[2, 3, 4]);
        assert_eq!(map.flatten(&[24]).affine(3), Some(vec![12, 4, 1]));
    }

    #[test]
    fn simplification_never_changes_a_value() {
        let dims = [3, 5, 7];
        let e = Index { constant: 2, terms: vec![(12, Atom::Var(0)), (3, Atom::Var(1)), (1, Atom::Var(2))] };
        for n in 2..20 {
            let (q, r) = (e.div(n, &dims), e.modulo(n, &dims));
            let whole = q.clone().scale(n).add(&r, &dims);
            for i in 0..105 {
                let at = [i / 35, i / 7 % 5, i % 7];
                assert_eq!(q.eval(&at), e.eval(&at).div_euclid(n));
                assert_eq!(r.eval(&at), e.eval(&at).rem_euclid(n));
                assert_eq!(whole.eval(&at), e.eval(&at));
            }
        }
    }
}
