//! One load or store: its address, compiled for the shape that it turned out to have.
//!
//! Runs are walked: an odometer over the leading axes gives each run's head, bounds cut the run to
//! the part that exists, and the rest is a copy, a fill or a strided loop. Where runs are short, all addresses of a
//! tile are computed at once instead (`lanes`), unless those would overflow.

use bytemuck::{Zeroable, cast_slice, cast_slice_mut};
use kiln_ir::{Bound, DType, Index};

use crate::cast::{Stored, with_stored};
use crate::heads::{Heads, Place, Series};
use crate::lanes::{Lanes, Points};
use crate::memory::View;
use crate::pairs;
use crate::simd::{Operand, Out, Reg, stream};
use crate::space::{Runs, Span, admitted};

/// Runs at least this long are walked: where heads are sums, and where they are not.
const LONG_RUN: [usize; 2] = [16, 96];

/// An address expression over a space, with the bounds outside of which nothing is touched.
pub(crate) struct Site {
    dims: Vec<usize>,
    bounds: Vec<Bound>,
    /// A lane value clamped to `0..n` is coordinate `rank`.
    gather: Option<(DType, usize)>,
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
        Site { dims: dims.to_vec(), bounds: bounds.to_vec(), gather, runs, heads, series, lanes, pairs }
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

    /// The addresses of several ranges as a matrix, if each is part of one run and all along one axis.
    fn plane(&self, span: Span, walker: &mut Walker) -> Option<Plane> {
        let (run, skip) = (self.runs.len, span.start % self.runs.len);
        let alone = self.bounds.is_empty() && self.gather.is_none() && span.count > 1;
        if !alone || skip + span.len > run || !span.pitch.is_multiple_of(run) {
            return None;
        }
        let pitch = |axis: usize| self.dims[axis + 1..].iter().product::<usize>();
        let axis = (0..self.runs.lead).find(|&axis| self.dims[axis] > 1 && pitch(axis) == span.pitch)?;
        if span.start / span.pitch % self.dims[axis] + span.count > self.dims[axis] {
            return None;
        }
        let (down, across) = (self.heads.stride(0, axis)?, self.runs.steps[0]);
        self.heads.seek(span.start / run, &mut walker.place);
        let head = self.heads.value(0, &mut walker.place, None) + across * skip as i64;
        Some(Plane { head, down, across })
    }

    /// Loads elements of an argument, 0 where a bound fails.
    pub(crate) fn load(
        &self,
        dtype: DType,
        arg: View,
        span: Span,
        gather: Option<Operand>,
        dst: &mut Out,
        w: &mut Walker,
    ) {
        match (&self.pairs, dtype) {
            (Some(pairs), DType::F32 | DType::I32 | DType::U32) => {
                pairs.load(arg, span, &mut dst.lanes_mut()[..span.points()], &mut w.offsets);
            }
            _ => with_stored!(dtype, load::<_>(self, arg, span, gather, dst, w)),
        }
    }

    /// Stores lanes into an argument; with `past`, what is dense and stored as it is goes past the caches.
    pub(crate) fn store(&self, dtype: DType, arg: View, span: Span, src: Operand, past: bool, w: &mut Walker) {
        with_stored!(dtype, store::<_>(self, arg, span, src, past, w));
    }

    /// Writes the addresses themselves, as `i32`.
    pub(crate) fn coord(&self, span: Span, dst: &mut Out, w: &mut Walker) {
        if let Some(lanes) = &self.lanes {
            let (n, Walker { spare, offsets, .. }) = (span.points(), w);
            lanes.addresses(&mut Points { span, gathered: None, spare }, offsets);
            return dst.lanes_mut::<i32>()[..n].copy_from_slice(&offsets.lanes::<i32>()[..n]);
        }
        let out = dst.lanes_mut::<i32>();
        self.walk(span, None, w, |first, n, segment| {
            let Segment::Run { head, step } = segment else { unreachable!("a coordinate has no bounds") };
            let (head, step) = (head as i32, step as i32);
            for (i, o) in out[first..first + n].iter_mut().enumerate() {
                *o = head.wrapping_add(step.wrapping_mul(i as i32));
            }
        });
    }

    /// Writes whether all bounds hold.
    pub(crate) fn inside(&self, span: Span, dst: &mut Out, w: &mut Walker) {
        if let Some(lanes) = &self.lanes {
            let (n, Walker { spare, mask, .. }) = (span.points(), w);
            lanes.existing(&mut Points { span, gathered: None, spare }, mask);
            return dst.lanes_mut::<u32>()[..n].copy_from_slice(&mask.lanes::<u32>()[..n]);
        }
        let out = dst.lanes_mut::<u32>();
        self.walk(span, None, w, |first, n, segment| {
            out[first..first + n].fill(matches!(segment, Segment::Run { .. }) as u32);
        });
    }
}

fn load<S: Stored>(site: &Site, arg: View, span: Span, gather: Option<Operand>, dst: &mut Out, w: &mut Walker) {
    let out = dst.lanes_mut::<S::Lane>();
    if let Some(plane) = site.plane(span, w) {
        return load_plane::<S>(plane, arg, &mut out[..span.points()], span.len);
    }
    if site.eval(span, gather, w) {
        let n = span.points();
        return S::collect(arg, &w.offsets.lanes()[..n], &w.mask.lanes()[..n], &mut out[..n]);
    }
    site.walk(span, gather, w, |first, n, segment| {
        let out = &mut out[first..first + n];
        match segment {
            Segment::Absent => out.fill(S::Lane::zeroed()),
            Segment::Run { head, step: 1 } => S::widen_run(arg.slice(head as usize, n), out),
            Segment::Run { head, step: 0 } => out.fill(arg.get::<S>(head as usize).widen()),
            Segment::Run { head, step: 2 } => {
                // Pairs of neighbours, which vectors can take apart; behind the last element there may be nothing.
                let src = arg.slice::<S>(head as usize, 2 * n - 1);
                for (o, [x, _]) in out.iter_mut().zip(src.as_chunks::<2>().0) {
                    *o = x.widen();
                }
                out[n - 1] = src[2 * n - 2].widen();
            }
            Segment::Run { head, step } => {
                out.iter_mut().zip(arg.stepped::<S>(head, step, n)).for_each(|(o, x)| *o = x.widen());
            }
        }
    });
}

/// Lines of a block that is turned: a cache line of `f32` each way, so that every line is read once.
const TURNED: usize = 16;

fn load_plane<S: Stored>(plane: Plane, arg: View, out: &mut [S::Lane], len: usize) {
    let Plane { head, down, across } = plane;
    match across {
        1 => {
            for (i, out) in out.chunks_exact_mut(len).enumerate() {
                S::widen_run(arg.slice((head + down * i as i64) as usize, len), out);
            }
        }
        0 => {
            for (i, out) in out.chunks_exact_mut(len).enumerate() {
                out.fill(arg.get::<S>((head + down * i as i64) as usize).widen());
            }
        }
        _ if down == 1 => {
            for (i, out) in out.chunks_mut(TURNED * len).enumerate() {
                for from in (0..len).step_by(TURNED) {
                    let at = head + (i * TURNED) as i64 + across * from as i64;
                    turn::<S>(arg, at, across, out, len, from);
                }
            }
        }
        _ => {
            for (i, out) in out.chunks_exact_mut(len).enumerate() {
                let line = arg.stepped::<S>(head + down * i as i64, across, len);
                out.iter_mut().zip(line).for_each(|(o, x)| *o = x.widen());
            }
        }
    }
}

/// Turns one block: lines that lie `across` apart become columns `from..` of some rows of `len` lanes.
fn turn<S: Stored>(arg: View, at: i64, across: i64, out: &mut [S::Lane], len: usize, from: usize) {
    let (rows, columns) = (out.len() / len, (len - from).min(TURNED));
    let mut block = [[S::Lane::zeroed(); TURNED]; TURNED];
    for (j, line) in block[..columns].iter_mut().enumerate() {
        S::widen_run(arg.slice((at + across * j as i64) as usize, rows), &mut line[..rows]);
    }
    if columns == TURNED {
        for (i, out) in out.chunks_exact_mut(len).enumerate() {
            let out: &mut [S::Lane; TURNED] = out[from..].first_chunk_mut().expect("so many columns");
            *out = std::array::from_fn(|j| block[j][i]);
        }
    } else {
        for (i, out) in out.chunks_exact_mut(len).enumerate() {
            out[from..][..columns].iter_mut().zip(&block).for_each(|(o, line)| *o = line[i]);
        }
    }
}

fn store<S: Stored>(site: &Site, arg: View, span: Span, src: Operand, past: bool, w: &mut Walker) {
    let src = src.lanes::<S::Lane>();
    let put = |at: i64, lane: S::Lane| {
        // SAFETY: each point stores at an element of its own, which no other task touches.
        let element = unsafe { arg.slice_mut::<S>(at as usize, 1) };
        element[0] = S::narrow(lane);
    };
    let keep = |src: &[S::Lane], dst: &mut [S]| match past {
        true => stream(cast_slice(src), cast_slice_mut(dst)),
        false => S::narrow_run(src, dst),
    };
    if let Some(Plane { head, down, across: 1 }) = site.plane(span, w) {
        for (i, src) in src[..span.points()].chunks_exact(span.len).enumerate() {
            // SAFETY: as above, for the points of a range.
            keep(src, unsafe { arg.slice_mut((head + down * i as i64) as usize, span.len) });
        }
        return;
    }
    if site.eval(span, None, w) {
        let n = span.points();
        return w.offsets.lanes::<i32>()[..n].iter().zip(src).for_each(|(&at, &lane)| put(at as i64, lane));
    }
    site.walk(span, None, w, |first, n, segment| {
        let src = &src[first..first + n];
        match segment {
            Segment::Absent => unreachable!("a store has no bounds"),
            Segment::Run { head, step: 1 } => {
                // SAFETY: as above, for the points of a run.
                keep(src, unsafe { arg.slice_mut(head as usize, n) });
            }
            Segment::Run { head, step } => {
                src.iter().enumerate().for_each(|(i, &lane)| put(head + step * i as i64, lane));
            }
        }
    });
}
