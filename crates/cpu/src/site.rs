//! One load or store: its address, compiled for the shape that it turned out to have.
//!
//! Runs are walked: an odometer over the leading axes gives each run's head, bounds cut the run to
//! the part that exists, and the rest is a copy, a fill or a strided loop. Where runs are short, all addresses of a
//! tile are computed at once instead (`lanes`), unless those would overflow.

mod moves;

use kiln_ir::{Bound, DType, Index};

use crate::heads::{Heads, Place, Series};
use crate::lanes::{Lanes, Points};
use crate::pairs;
use crate::simd::{Operand, Reg};
use crate::space::{Runs, Span, admitted};

/// Runs at least this long are walked: where heads are sums, and where they are not.
const LONG_RUN: [usize; 2] = [16, 96];

/// An address expression over a space, with the bounds outside of which nothing is touched.
pub(crate) struct Site {
    dims: Vec<usize>,
    bounds: Vec<Bound>,
    /// A lane value clamped to `0..n` is coordinate `rank`.
    gather: Option<(DType, usize)>,
    /// True iff no gathered coordinate varies: it is where a window begins.
    fixed: bool,
    runs: Runs,
    heads: Heads,
    /// Where runs begin, if that is so simple.
    series: Option<Series>,
    lanes: Option<Lanes>,
    /// Where elements lie in pairs.
    pairs: Option<pairs::Lines>,
}

/// What a walk says about some consecutive points.
pub(crate) enum Segment {
    /// A bound fails.
    Absent,
    /// Addresses from `head` on, each `step` further.
    Run { head: i64, step: i64 },
}

/// A tile as a matrix: the address of point `j` of range `i` is `head + i·down + j·across`.
#[derive(Clone, Copy)]
struct Plane {
    head: i64,
    down: i64,
    across: i64,
}

/// Working memory of address computations.
#[derive(Default)]
pub(crate) struct Walker {
    place: Place,
    spare: Vec<Reg>,
    gathered: Reg,
    offsets: Reg,
    mask: Reg,
}

impl Site {
    /// Compiles an address; a gathered coordinate varies along the axes that `gathered` admits.
    pub(crate) fn new(
        dims: &[usize],
        index: &Index,
        bounds: &[Bound],
        gather: Option<(DType, usize)>,
        gathered: impl Fn(usize) -> bool,
    ) -> Site {
        let exprs: Vec<&Index> = std::iter::once(index).chain(bounds.iter().map(|b| &b.index)).collect();
        let runs = Runs::new(dims, &exprs, |axis| gather.is_none() || !gathered(axis));
        let heads = Heads::new(dims, runs.lead, &exprs);
        let is_sum = heads.are_affine();
        let short = runs.len < LONG_RUN[!is_sum as usize] && dims.iter().product::<usize>() > runs.len;
        // Without bounds a run costs little where heads are sums, and a dense one less than its addresses.
        let costly = !bounds.is_empty() || runs.steps[0] != 1 || runs.len < LONG_RUN[0] / 2;
        let slow = !is_sum || (costly && gather.is_none());
        let lanes = (short && slow).then(|| Lanes::new(dims, index, bounds, gather.map(|g| g.1))).flatten();
        let series = heads.whole_series();
        let plain = is_sum && bounds.is_empty() && gather.is_none();
        let pairs = plain.then(|| pairs::Lines::new(dims, &runs, index, |axis| heads.stride(0, axis))).flatten();
        let fixed = gather.is_none() || !(0..dims.len()).any(gathered);
        Site { dims: dims.to_vec(), bounds: bounds.to_vec(), gather, fixed, runs, heads, series, lanes, pairs }
    }

    /// The coordinate that a gathered value stands for.
    fn gathered(&self, value: Option<Operand>, point: usize) -> Option<usize> {
        let ((dtype, n), value) = self.gather.zip(value)?;
        let last = n.saturating_sub(1);
        Some(match dtype {
            DType::I32 => (value.lanes::<i32>()[point].max(0) as usize).min(last),
            _ => (value.lanes::<u32>()[point] as usize).min(last),
        })
    }

    /// Where the run after one of `n` points from `first` on begins, if that is looked up elsewhere and among `points`.
    fn next_gathered(
        &self,
        gather: Option<Operand>,
        head: i64,
        first: usize,
        n: usize,
        points: usize,
    ) -> Option<usize> {
        if self.gather.is_none() || first + n >= points {
            return None;
        }
        let [here, next] = [first, first + n].map(|point| self.gathered(gather, point));
        let next = head + self.heads.stride(0, self.dims.len())? * (next? as i64 - here? as i64);
        usize::try_from(next).ok()
    }

    /// Calls `visit(first, n, segment)` for consecutive points of a span, numbered from 0.
    #[inline(always)]
    fn walk(
        &self,
        span: Span,
        gather: Option<Operand>,
        walker: &mut Walker,
        mut visit: impl FnMut(usize, usize, Segment),
    ) {
        let run = self.runs.len;
        let mut point = 0;
        for range in span.ranges().filter(|r| !r.is_empty()) {
            let (mut skip, mut left) = (range.start % run, range.len());
            self.heads.seek(range.start / run, &mut walker.place);
            if self.bounds.is_empty() && self.gather.is_none() && self.heads.are_affine() {
                self.walk_series(point, skip, left, &mut walker.place, &mut visit);
                point += left;
                continue;
            }
            while left > 0 {
                let n = (run - skip).min(left);
                let gathered = self.gathered(gather, point);
                self.visit_run(point, skip, n, gathered, &mut walker.place, &mut visit);
                point += n;
                left -= n;
                skip = 0;
                self.heads.advance(&mut walker.place);
            }
        }
    }

    /// Walks `left` points from `skip` points after a place on, where nothing depends on more than strides.
    #[inline(always)]
    fn walk_series(
        &self,
        mut point: usize,
        mut skip: usize,
        mut left: usize,
        place: &mut Place,
        visit: &mut impl FnMut(usize, usize, Segment),
    ) {
        let (run, step) = (self.runs.len, self.runs.steps[0]);
        while left > 0 {
            let (runs, stride) = self.heads.series(place).expect("affine");
            let mut head = self.heads.value(0, place, None);
            for _ in 0..runs {
                let n = (run - skip).min(left);
                visit(point, n, Segment::Run { head: head + step * skip as i64, step });
                (point, left, skip, head) = (point + n, left - n, 0, head + stride);
                if left == 0 {
                    break;
                }
            }
            self.heads.skip(runs, place);
        }
    }

    /// Cuts the points `skip..skip + n` of the run at this place by the bounds.
    #[inline(always)]
    fn visit_run(
        &self,
        first: usize,
        skip: usize,
        n: usize,
        gathered: Option<usize>,
        place: &mut Place,
        visit: &mut impl FnMut(usize, usize, Segment),
    ) {
        let mut live = 0..n;
        for (b, bound) in self.bounds.iter().enumerate() {
            let step = self.runs.steps[b + 1];
            let head = self.heads.value(b + 1, place, gathered) + step * skip as i64;
            let range = admitted(head, step, bound.lo, bound.hi, n);
            live = live.start.max(range.start)..live.end.min(range.end);
        }
        if live.is_empty() {
            return visit(first, n, Segment::Absent);
        }
        if live.start > 0 {
            visit(first, live.start, Segment::Absent);
        }
        let step = self.runs.steps[0];
        let head = self.heads.value(0, place, gathered) + step * (skip + live.start) as i64;
        visit(first + live.start, live.len(), Segment::Run { head, step });
        if live.end < n {
            visit(first + live.end, n - live.end, Segment::Absent);
        }
    }

    /// Computes the address of each point of a span in `walker.offsets`, and in `walker.mask` whether
    /// it exists; false iff this address is walked instead.
    fn eval(&self, span: Span, gather: Option<Operand>, walker: &mut Walker) -> bool {
        let Some(lanes) = &self.lanes else { return false };
        let n = span.points();
        if self.gather.is_some() {
            walker.gathered.reserve_bytes(4 * n);
            let out = &mut walker.gathered.lanes_mut::<i32>()[..n];
            out.iter_mut().enumerate().for_each(|(i, o)| *o = self.gathered(gather, i).unwrap_or(0) as i32);
        }
        let Walker { spare, gathered, offsets, mask, .. } = walker;
        let points = &mut Points { span, gathered: Some(&*gathered), spare };
        lanes.addresses(points, offsets);
        lanes.existing(points, mask);
        true
    }

    /// The first address of a span whose points are neighbours in memory and all exist, if they are.
    pub(crate) fn dense(&self, span: Span, gather: Option<Operand>, walker: &mut Walker) -> Option<usize> {
        (self.runs.steps[0] == 1).then(|| self.whole_run(span, gather, walker)).flatten()
    }

    /// How far apart two dense spans begin whose first points are so many points apart, if that is the same everywhere.
    pub(crate) fn stride(&self, points: usize) -> Option<usize> {
        let series = self.series.filter(|_| self.bounds.is_empty() && self.gather.is_none())?;
        let stride = match self.runs.len {
            run if run == self.dims.iter().product() => self.runs.steps[0] * points as i64,
            run if run == points => series.stride,
            _ => return None,
        };
        usize::try_from(stride).ok()
    }

    /// Where runs begin, if that is a series, a span's points are one range, and all that is touched exists.
    fn series(&self, span: Span, gather: Option<Operand>) -> Option<Series> {
        let plain = self.bounds.is_empty() && self.fixed && span.count == 1 && span.len > 0;
        let Series { head, stride } = self.series.filter(|_| plain)?;
        let gathered = self.gathered(gather, 0).unwrap_or(0) as i64;
        Some(Series { head: head + self.heads.stride(0, self.dims.len())? * gathered, stride })
    }

    /// True iff a span's points all have one address, and exist.
    pub(crate) fn is_constant(&self, span: Span, walker: &mut Walker) -> bool {
        self.runs.steps[0] == 0 && self.whole_run(span, None, walker).is_some()
    }

    /// The address of a span's first point, if the span is part of a single run and all of it exists.
    #[inline]
    fn whole_run(&self, span: Span, gather: Option<Operand>, walker: &mut Walker) -> Option<usize> {
        let run = self.runs.len;
        let (number, skip) = if span.start < run { (0, span.start) } else { (span.start / run, span.start % run) };
        if span.count != 1 || skip + span.len > run {
            return None;
        }
        if let Some(series) = self.series.filter(|_| self.bounds.is_empty() && gather.is_none()) {
            return Some((series.head + series.stride * number as i64 + self.runs.steps[0] * skip as i64) as usize);
        }
        let (gathered, place) = (self.gathered(gather, 0), &mut walker.place);
        self.heads.seek(number, place);
        let mut head = |e: usize| self.heads.value(e, place, gathered) + self.runs.steps[e] * skip as i64;
        for (b, bound) in self.bounds.iter().enumerate() {
            if admitted(head(b + 1), self.runs.steps[b + 1], bound.lo, bound.hi, span.len) != (0..span.len) {
                return None;
            }
        }
        Some(head(0) as usize)
    }

    /// The addresses of several ranges as a matrix, if they are part of one run, or each of one and all along one axis.
    fn plane(&self, span: Span, walker: &mut Walker) -> Option<Plane> {
        let (run, skip, across) = (self.runs.len, span.start % self.runs.len, self.runs.steps[0]);
        if !self.bounds.is_empty() || self.gather.is_some() || span.count < 2 {
            return None;
        }
        let mut head = || {
            self.heads.seek(span.start / run, &mut walker.place);
            self.heads.value(0, &mut walker.place, None) + across * skip as i64
        };
        if skip + (span.count - 1) * span.pitch + span.len <= run {
            return Some(Plane { head: head(), down: across * span.pitch as i64, across });
        }
        if skip + span.len > run || !span.pitch.is_multiple_of(run) {
            return None;
        }
        let pitch = |axis: usize| self.dims[axis + 1..].iter().product::<usize>();
        let axis = (0..self.runs.lead).find(|&axis| self.dims[axis] > 1 && pitch(axis) == span.pitch)?;
        if span.start / span.pitch % self.dims[axis] + span.count > self.dims[axis] {
            return None;
        }
        let down = self.heads.stride(0, axis)?;
        Some(Plane { head: head(), down, across })
    }
}
