//! What moves through a `Site`: elements of an argument into lanes and back, addresses, and whether they exist.
//!
//! Where a tile is a matrix in memory, it is moved line by line; where addresses were computed all at once, element by
//! element; else run by run.

use bytemuck::{Zeroable, cast_slice, cast_slice_mut};
use kiln_ir::DType;

use super::{Plane, Segment, Site, Walker};
use crate::cast::{Stored, with_stored};
use crate::heads::Series;
use crate::lanes::Points;
use crate::memory::View;
use crate::simd::{Operand, Out, WORDS, stream};
use crate::space::Span;
use crate::turn::{Block, turn_lines};

impl Site {
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
        match &self.pairs {
            Some(pairs) => pairs.load(dtype, arg, span, dst, &mut w.offsets),
            None => with_stored!(dtype, load::<_>(self, arg, span, gather, dst, w)),
        }
    }

    /// Stores lanes into an argument; with `past`, what is dense and stored as it is goes past the caches.
    pub(crate) fn store(&self, dtype: DType, arg: View, span: Span, src: Operand, past: bool, w: &mut Walker) {
        with_stored!(dtype, store::<_>(self, arg, span, src, past, w));
    }

    /// Moves words that lie across to where another site has them along, block by block; false iff they do not lie so.
    pub(crate) fn turn(&self, to: &Site, [src, dst]: [View; 2], span: Span, past: bool, w: &mut Walker) -> bool {
        let (Some(from), Some(into)) = (self.plane(span, w), to.plane(span, w)) else { return false };
        let even = from.down == 1 && into.across == 1 && from.across > 0 && into.down >= span.len as i64;
        if !even {
            return false;
        }
        let (line, pitch) = (from.across as usize, into.down as usize);
        let mut block = Block::default();
        for first in (0..span.len).step_by(WORDS) {
            let lines = WORDS.min(span.len - first);
            for word in (0..span.count).step_by(WORDS) {
                let words = WORDS.min(span.count - word);
                let src = src.slice(from.head as usize + first * line + word, (lines - 1) * line + words);
                // SAFETY: each point stores at an element of its own, which no other task touches.
                let out = unsafe { dst.lines_mut(into.head as usize + word * pitch + first, pitch, [words, lines]) };
                turn_lines(src, line, [lines, words], out, past, &mut block);
            }
        }
        true
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
    let (out, points) = (dst.lanes_mut::<S::Lane>(), span.points());
    if let Some(plane) = site.plane(span, w) {
        return load_plane::<S>(plane, arg, &mut out[..span.points()], span.len);
    }
    if let (Some(series), step @ (0 | 1)) = (site.series(span, gather), site.runs.steps[0]) {
        return load_series::<S>(series, [site.runs.len, step as usize], arg, span, out);
    }
    if site.eval(span, gather, w) {
        let n = span.points();
        return S::collect(arg, &w.offsets.lanes()[..n], &w.mask.lanes()[..n], &mut out[..n]);
    }
    site.walk(span, gather, w, |first, n, segment| {
        if let Segment::Run { head, step: 0 } = segment {
            return repeat(arg.get::<S>(head as usize).widen(), first, n, out);
        }
        let out = &mut out[first..first + n];
        match segment {
            Segment::Absent => out.fill(S::Lane::zeroed()),
            Segment::Run { head, step: 1 } => {
                if let Some(next) = site.next_gathered(gather, head, first, n, points) {
                    arg.prefetch(next * size_of::<S>()..(next + n) * size_of::<S>());
                }
                S::widen_run(arg.slice(head as usize, n), out);
            }
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

/// Sets `n` lanes from the `first` on, a cache line at a time: those after them are set later.
#[inline(always)]
fn repeat<T: Copy>(x: T, first: usize, n: usize, out: &mut [T]) {
    for at in (first..first + n).step_by(WORDS) {
        match out[at..].first_chunk_mut() {
            Some(line) => *line = [x; WORDS],
            None => out[at..first + n].fill(x),
        }
    }
}

/// Loads the points of a range, of which each run has one element or neighbours, and runs begin in a series.
fn load_series<S: Stored>(
    Series { head, stride }: Series,
    [run, step]: [usize; 2],
    arg: View,
    span: Span,
    out: &mut [S::Lane],
) {
    let (number, mut skip) = (span.start / run, span.start % run);
    let mut head = head + stride * number as i64;
    let mut at = 0;
    while at < span.len {
        let n = (run - skip).min(span.len - at);
        match step {
            0 => repeat(arg.get::<S>(head as usize).widen(), at, n, out),
            _ => S::widen_run(arg.slice(head as usize + skip, n), &mut out[at..at + n]),
        }
        (at, skip, head) = (at + n, 0, head + stride);
    }
}

/// Lines of a block that is turned: a cache line of `f32` each way, so that every line is read once.
const TURNED: usize = 16;

impl Plane {
    /// True iff ranges of so many elements lie across, as words that can be turned.
    fn turns<S: Stored>(self, count: usize) -> bool {
        size_of::<S>() == size_of::<u32>() && self.down == 1 && self.across >= count as i64
    }
}

/// Loads a plane that lies across, block by block.
fn turn_words(plane: Plane, arg: View, out: &mut [u32], len: usize) {
    let (head, across) = (plane.head as usize, plane.across as usize);
    let mut block = Block::default();
    for from in (0..len).step_by(WORDS) {
        let lines = WORDS.min(len - from);
        for (i, out) in out.chunks_mut(WORDS * len).enumerate() {
            let words = out.len() / len;
            let src = arg.slice(head + across * from + WORDS * i, (lines - 1) * across + words);
            let out = out.chunks_exact_mut(len).map(|out| &mut out[from..][..lines]);
            turn_lines(src, across, [lines, words], out, false, &mut block);
        }
    }
}

/// Stores `count` ranges of lanes as a plane that lies across.
fn put_words(plane: Plane, arg: View, src: &[u32], [count, len]: [usize; 2], past: bool) {
    let (head, across) = (plane.head as usize, plane.across as usize);
    let mut block = Block::default();
    for from in (0..len).step_by(WORDS) {
        let words = WORDS.min(len - from);
        for first in (0..count).step_by(WORDS) {
            let lines = WORDS.min(count - first);
            // SAFETY: each point stores at an element of its own, which no other task touches.
            let out = unsafe { arg.lines_mut(head + across * from + first, across, [words, lines]) };
            turn_lines(&src[first * len + from..], len, [lines, words], out, past, &mut block);
        }
    }
}

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
        _ if plane.turns::<S>(out.len() / len) => turn_words(plane, arg, cast_slice_mut(out), len),
        _ if down == 1 => {
            for from in (0..len).step_by(TURNED) {
                for (i, out) in out.chunks_mut(TURNED * len).enumerate() {
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
    match site.plane(span, w) {
        Some(Plane { head, down, across: 1 }) => {
            for (i, src) in src[..span.points()].chunks_exact(span.len).enumerate() {
                // SAFETY: as above, for the points of a range.
                keep(src, unsafe { arg.slice_mut((head + down * i as i64) as usize, span.len) });
            }
            return;
        }
        Some(plane) if plane.turns::<S>(span.count) => {
            return put_words(plane, arg, cast_slice(src), [span.count, span.len], past);
        }
        _ => {}
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
