//! Operands in strips, as `tile` reads them.

use bytemuck::Pod;

use super::lie::{COLUMNS, Packed, ROWS};
use crate::simd::{LINE, multiversion, prefetch, prefetch_now};
use crate::turn::{SQUARE, turn, turn_eights};

/// How an operand is packed: in strips of `width` lines and `depth` steps along `k`, a step's lines side by side.
#[derive(Clone, Copy)]
pub(super) struct Strips {
    pub(super) width: usize,
    pub(super) depth: usize,
}

/// A matrix to pack from: line `i` at step `p` is element `i·line + p·step`.
#[derive(Clone, Copy)]
pub(super) struct Lines<'a, T> {
    pub(super) data: &'a [T],
    pub(super) line: usize,
    pub(super) step: usize,
}

/// Lines of strips of rows, and of columns by how long vectors are.
const WIDTHS: [usize; 4] = [ROWS, QUARTER, HALF, COLUMNS];
const QUARTER: usize = COLUMNS / 4;
const HALF: usize = COLUMNS / 2;

impl<'a, T: Pod> Lines<'a, T> {
    /// The same as bits.
    fn cast<U: Pod>(self) -> Lines<'a, U> {
        Lines { data: bytemuck::cast_slice(self.data), line: self.line, step: self.step }
    }
}

impl Strips {
    /// Elements of so many lines, of which the last strip is filled up.
    pub(super) fn len(self, lines: usize) -> usize {
        lines.next_multiple_of(self.width) * self.depth
    }

    /// What is packed so.
    pub(super) fn packed<T>(self, data: &[T]) -> Packed<'_, T> {
        Packed { data, width: self.width, pitch: self.width * self.depth }
    }

    /// Where a line has its element of a step.
    #[inline(always)]
    pub(super) fn at(self, line: usize, step: usize) -> usize {
        line / self.width * self.width * self.depth + step * self.width + line % self.width
    }

    /// Zeros for the lines that fill up the last strip.
    pub(super) fn pad<T: Pod>(self, lines: usize, out: &mut [T]) {
        let rest = lines % self.width;
        if rest > 0 {
            let last = &mut out[lines / self.width * self.width * self.depth..][..self.width * self.depth];
            last.chunks_exact_mut(self.width).for_each(|step| step[rest..].fill(T::zeroed()));
        }
    }

    /// Packs `dims` lines and steps, to line and step `at` of these strips.
    pub(super) fn put<T: Pod>(self, src: Lines<'_, T>, at: [usize; 2], dims: [usize; 2], out: &mut [T]) {
        let ([first, from], [lines, steps]) = (at, dims);
        if src.line == 1 && WIDTHS.contains(&self.width) && lines > self.width {
            // Both only move bits.
            let to = [first, from];
            return match size_of::<T>() {
                4 => words_abreast(self, src.cast(), to, dims, bytemuck::cast_slice_mut(out)),
                _ => pairs_abreast(self, src.cast(), to, dims, bytemuck::cast_slice_mut(out)),
            };
        }
        let mut line = 0;
        while line < lines {
            let to = first + line;
            let n = (self.width - to % self.width).min(lines - line);
            let strip = &mut out[to / self.width * self.width * self.depth..][..self.width * self.depth];
            let strip = &mut strip[from * self.width + to % self.width..];
            let part = Lines { data: &src.data[line * src.line..], ..src };
            match (src.line, src.step) {
                (1, _) => across(part, [n, steps], strip, self.width),
                (_, 1) => along(part, [n, steps], strip, self.width, line + n < lines),
                _ => one_by_one(part, [n, steps], 0, strip, self.width),
            }
            line += n;
        }
    }
}

multiversion! {
    fn words_abreast(strips: Strips, src: Lines<'_, u32>, at: [usize; 2], dims: [usize; 2], out: &mut [u32]) {
        abreast(strips, src, at, dims, out)
    }
}

multiversion! {
    fn pairs_abreast(strips: Strips, src: Lines<'_, u64>, at: [usize; 2], dims: [usize; 2], out: &mut [u64]) {
        abreast(strips, src, at, dims, out)
    }
}

/// How far ahead of what is copied memory is asked for, in bytes.
const AHEAD: usize = 8192;

/// Lines beside each other, of several strips: step by step, as they lie in memory. Processors do not see where steps
/// that are far apart go on.
#[inline(always)]
fn abreast<T: Pod>(strips: Strips, src: Lines<'_, T>, at: [usize; 2], dims: [usize; 2], out: &mut [T]) {
    match strips.width {
        ROWS => step_by_step::<T, ROWS>(strips, src, at, dims, out),
        QUARTER => step_by_step::<T, QUARTER>(strips, src, at, dims, out),
        HALF => step_by_step::<T, HALF>(strips, src, at, dims, out),
        _ => step_by_step::<T, COLUMNS>(strips, src, at, dims, out),
    }
}

/// The same for strips of a width that is known to the compiler.
#[inline(always)]
fn step_by_step<T: Pod, const WIDTH: usize>(
    strips: Strips,
    src: Lines<'_, T>,
    [first, from]: [usize; 2],
    [lines, steps]: [usize; 2],
    out: &mut [T],
) {
    let pitch = WIDTH * strips.depth;
    let ahead = AHEAD.div_ceil(lines * size_of::<T>()).max(2) * src.step;
    // What is missing of the first strip.
    let head = (WIDTH - first % WIDTH) % WIDTH;
    for p in 0..steps {
        let line = &src.data[p * src.step..][..lines];
        if src.step > lines {
            for i in (0..lines).step_by(LINE / size_of::<T>()) {
                prefetch(line.as_ptr().wrapping_add(ahead + i));
            }
        }
        let (before, rest) = line.split_at(head);
        if head > 0 {
            out[strips.at(first, from + p)..][..head].copy_from_slice(before);
        }
        let (whole, rest) = rest.as_chunks::<WIDTH>();
        let mut to = strips.at(first + head, from + p);
        for part in whole {
            out[to..][..WIDTH].copy_from_slice(part);
            to += pitch;
        }
        if !rest.is_empty() {
            out[to..][..rest.len()].copy_from_slice(rest);
        }
    }
}

/// How many steps ahead where a step's part is short: each of them is a cache line or two.
const STEPS_AHEAD: usize = 32;

/// Lines beside each other: a step's part is copied.
fn across<T: Pod>(src: Lines<'_, T>, [lines, steps]: [usize; 2], out: &mut [T], width: usize) {
    match lines {
        ROWS => copy::<T, ROWS>(src, steps, out, width),
        QUARTER => copy::<T, QUARTER>(src, steps, out, width),
        HALF => copy::<T, HALF>(src, steps, out, width),
        COLUMNS => copy::<T, COLUMNS>(src, steps, out, width),
        _ => (0..steps).for_each(|p| out[p * width..][..lines].copy_from_slice(&src.data[p * src.step..][..lines])),
    }
}

/// As above for a number of lines that is known to the compiler.
#[inline(always)]
fn copy<T: Pod, const N: usize>(src: Lines<'_, T>, steps: usize, out: &mut [T], width: usize) {
    for (p, out) in out.chunks_mut(width).enumerate().take(steps) {
        let later = src.data.as_ptr().wrapping_add((p + STEPS_AHEAD) * src.step);
        prefetch(later);
        prefetch(later.wrapping_add(N - 1));
        out[..N].copy_from_slice(&src.data[p * src.step..][..N]);
    }
}

/// Steps beside each other: squares are turned, a cache line's steps of all lines before the next, so that what is
/// written stays in the nearest cache until it is whole. If `more` lines follow, they are asked for meanwhile.
fn along<T: Pod>(src: Lines<'_, T>, [lines, steps]: [usize; 2], out: &mut [T], width: usize, more: bool) {
    let done = if size_of::<T>() == size_of::<f32>() {
        // Only bits are moved.
        let out = (bytemuck::cast_slice_mut(out), width);
        turn_eights(bytemuck::cast_slice(src.data), src.line, [lines, steps], out, more)
    } else {
        0
    };
    let whole = [lines / SQUARE * SQUARE, steps / SQUARE * SQUARE];
    let piece = LINE / size_of::<T>();
    for from in (done..whole[1]).step_by(piece) {
        let len = piece.min(whole[1] - from);
        for line in (0..whole[0]).step_by(SQUARE) {
            let mut rows: [&[T]; SQUARE] = [&[]; SQUARE];
            for (i, row) in rows.iter_mut().enumerate() {
                *row = &src.data[(line + i) * src.line + from..][..len];
                prefetch_now(row.as_ptr().wrapping_add(2 * piece));
            }
            turn(rows, &mut out[from * width + line..], width);
        }
    }
    let right = Lines { data: src.data.get(whole[1]..).unwrap_or(&[]), ..src };
    one_by_one(right, [whole[0], steps - whole[1]], 0, out.get_mut(whole[1] * width..).unwrap_or(&mut []), width);
    one_by_one(src, [lines, steps], whole[0], out, width);
}

/// Any layout, from some line on.
fn one_by_one<T: Pod>(src: Lines<'_, T>, [lines, steps]: [usize; 2], from: usize, out: &mut [T], width: usize) {
    for line in from..lines {
        for p in 0..steps {
            out[p * width + line] = src.data[line * src.line + p * src.step];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_layout_is_packed_alike() {
        for (width, [lines, steps]) in [
            (ROWS, [29, 7]),
            (COLUMNS, [100, 9]),
            (COLUMNS, [5, 3]),
            (ROWS, [ROWS, 16]),
            (HALF, [100, 9]),
            (QUARTER, [25, 16]),
            (QUARTER, [12, 9]),
        ] {
            let strips = Strips { width, depth: steps + 2 };
            for (line, step) in [(1, lines + 1), (steps + 3, 1), (2 * steps, 2)] {
                let data: Vec<u32> = (0..(lines * line + steps * step) as u32).collect();
                let mut out = vec![7; strips.len(lines + 3)];
                strips.put(Lines { data: &data, line, step }, [3, 2], [lines, steps], &mut out);
                strips.pad(lines + 3, &mut out);
                for (at, p) in (0..lines + 3).flat_map(|at| (0..steps + 2).map(move |p| (at, p))) {
                    let found = out[at / width * width * strips.depth + p * width + at % width];
                    let want = if at < 3 || p < 2 { 7 } else { data[(at - 3) * line + (p - 2) * step] };
                    assert_eq!(found, want, "{width}: line {at}, step {p}");
                }
                let filled = (lines + 3).next_multiple_of(width);
                assert!((lines + 3..filled).all(|at| out[at / width * width * strips.depth + at % width] == 0));
            }
        }
    }
}
