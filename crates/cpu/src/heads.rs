//! Where runs begin: the values of several index expressions at the head of each run of a space.
//!
//! The hard idea is the odometer. Where all expressions are affine, going on to the next run adds a
//! stride to each, and carrying over takes back what an axis has added up; nothing is multiplied.

use kiln_ir::Index;

/// Index expressions over a space and a gathered coordinate, read at one run after another.
pub(crate) struct Heads {
    dims: Vec<usize>,
    /// Axes before those of a run.
    lead: usize,
    exprs: Vec<Index>,
    /// The expressions' values where all coordinates are 0.
    constants: Vec<i64>,
    /// One stride an axis and expression, those of the gathered coordinate last; `None` unless all are affine.
    strides: Option<Vec<Vec<i64>>>,
}

/// A place among the runs.
#[derive(Default)]
pub(crate) struct Place {
    /// Coordinates; the gathered one comes last.
    at: Vec<usize>,
    /// Without the gathered coordinate's share.
    values: Vec<i64>,
}

/// Runs that are all equally far apart.
#[derive(Clone, Copy)]
pub(crate) struct Series {
    /// The first expression's value at the first run.
    pub(crate) head: i64,
    /// What it gains from one run to the next.
    pub(crate) stride: i64,
}

impl Heads {
    /// The expressions over a space with these dims, in runs along the axes from `lead` on.
    pub(crate) fn new(dims: &[usize], lead: usize, exprs: &[&Index]) -> Heads {
        let rank = dims.len();
        let affine: Option<Vec<Vec<i64>>> = exprs.iter().map(|e| e.affine(rank + 1)).collect();
        let by_axis = |affine: Vec<Vec<i64>>| (0..=rank).map(|a| affine.iter().map(|s| s[a]).collect()).collect();
        Heads {
            dims: dims.to_vec(),
            lead,
            exprs: exprs.iter().map(|&e| e.clone()).collect(),
            constants: exprs.iter().map(|e| e.constant).collect(),
            strides: affine.map(by_axis),
        }
    }

    /// True iff going on costs an addition.
    pub(crate) fn are_affine(&self) -> bool {
        self.strides.is_some()
    }

    /// By how much an expression differs from one coordinate of an axis to the next, if that is known.
    pub(crate) fn stride(&self, e: usize, axis: usize) -> Option<i64> {
        self.strides.as_ref().map(|strides| strides[axis][e])
    }

    /// All runs as a series, if they are one: each axis goes on where the next one ends.
    pub(crate) fn whole_series(&self) -> Option<Series> {
        let strides = self.strides.as_ref()?;
        let mut series: Option<(i64, i64)> = None;
        for axis in (0..self.lead).rev().filter(|&axis| self.dims[axis] > 1) {
            let (stride, runs) = series.unwrap_or((strides[axis][0], 1));
            if strides[axis][0] != stride * runs {
                return None;
            }
            series = Some((stride, runs * self.dims[axis] as i64));
        }
        Some(Series { head: self.constants[0], stride: series.map_or(0, |(stride, _)| stride) })
    }

    /// Goes to the run with this number.
    pub(crate) fn seek(&self, mut number: usize, place: &mut Place) {
        place.at.clear();
        place.at.resize(self.dims.len() + 1, 0);
        for axis in (0..self.lead).rev() {
            place.at[axis] = number % self.dims[axis];
            number /= self.dims[axis];
        }
        place.values.clear();
        let Some(strides) = &self.strides else { return };
        place.values.extend(&self.constants);
        for (&c, strides) in place.at[..self.lead].iter().zip(strides) {
            place.values.iter_mut().zip(strides).for_each(|(v, s)| *v += s * c as i64);
        }
    }

    /// Goes to the next run, or after the last to the first.
    #[inline(always)]
    pub(crate) fn advance(&self, place: &mut Place) {
        for axis in (0..self.lead).rev() {
            let c = &mut place.at[axis];
            *c += 1;
            let carries = *c == self.dims[axis];
            let by = if carries { 1 - *c as i64 } else { 1 };
            if carries {
                *c = 0;
            }
            if let Some(strides) = &self.strides {
                place.values.iter_mut().zip(&strides[axis]).for_each(|(v, s)| *v += s * by);
            }
            if !carries {
                return;
            }
        }
    }

    /// The runs from this place on that differ only in the last axis before a run's: how many there are, and what
    /// the first expression gains from one to the next. `None` unless it is affine.
    #[inline(always)]
    pub(crate) fn series(&self, place: &Place) -> Option<(usize, i64)> {
        let strides = self.strides.as_ref()?;
        Some(match self.lead.checked_sub(1) {
            Some(axis) => (self.dims[axis] - place.at[axis], strides[axis][0]),
            None => (1, 0),
        })
    }

    /// Goes on by so many runs of a series.
    #[inline(always)]
    pub(crate) fn skip(&self, runs: usize, place: &mut Place) {
        if let (Some(strides), Some(axis)) = (&self.strides, self.lead.checked_sub(1)) {
            place.at[axis] += runs - 1;
            place.values.iter_mut().zip(&strides[axis]).for_each(|(v, s)| *v += s * (runs as i64 - 1));
        }
        self.advance(place);
    }

    /// The value of an expression at the head of this run, for a gathered coordinate.
    #[inline(always)]
    pub(crate) fn value(&self, e: usize, place: &mut Place, gathered: Option<usize>) -> i64 {
        let rank = self.dims.len();
        match &self.strides {
            Some(strides) => place.values[e] + gathered.map_or(0, |g| strides[rank][e] * g as i64),
            None => {
                place.at[rank] = gathered.unwrap_or(0);
                self.exprs[e].eval(&place.at)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_ir::Atom;

    #[test]
    fn runs_are_a_series_where_axes_go_on() {
        let stride = |strides: [i64; 4]| {
            let terms = strides.iter().enumerate().map(|(v, &c)| (c, Atom::Var(v))).collect();
            let heads = Heads::new(&[3, 1, 4, 5], 3, &[&Index { constant: 7, terms }]);
            heads.whole_series().map(|series| (series.head, series.stride))
        };
        assert_eq!(stride([28, 99, 7, 1]), Some((7, 7)));
        assert_eq!(stride([27, 99, 7, 1]), None);
        assert_eq!(stride([0, 0, 0, 1]), Some((7, 0)));
    }

    #[test]
    fn going_on_equals_going_there() {
        let dims = [3, 1, 4, 5];
        let e = |c: i64, terms: &[(i64, usize)]| Index {
            constant: c,
            terms: terms.iter().map(|&(c, v)| (c, Atom::Var(v))).collect(),
        };
        let (a, b) = (e(7, &[(20, 0), (-3, 2), (2, 4)]), e(-1, &[(1, 0), (1, 2)]));
        let broken = Index::var(2).div(3, &dims);
        for exprs in [vec![&a, &b], vec![&a, &broken]] {
            let heads = Heads::new(&dims, 3, &exprs);
            let (mut there, mut on) = (Place::default(), Place::default());
            heads.seek(0, &mut on);
            for run in 0..12 {
                heads.seek(run, &mut there);
                for (e, expr) in exprs.iter().enumerate() {
                    let want = expr.eval(&[run / 4, 0, run % 4, 0, 6]);
                    assert_eq!(heads.value(e, &mut there, Some(6)), want);
                    assert_eq!(heads.value(e, &mut on, Some(6)), want);
                }
                heads.advance(&mut on);
            }
            assert_eq!(heads.value(0, &mut on, None), exprs[0].eval(&[0; 5]));
        }
    }
}
