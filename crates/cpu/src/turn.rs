//! Rows that become columns: squares, turned in registers.

use bytemuck::{Pod, cast_slice, cast_slice_mut};

#[cfg(target_arch = "x86_64")]
use crate::simd::{Isa, LINE, isa, prefetch, prefetch_now};
use crate::simd::{WORDS, stream_line};

/// Lines and steps of a square that is turned at once.
pub(crate) const SQUARE: usize = 4;

/// Rows become columns `0..4` of rows that are `width` apart; whole squares of them.
#[inline(always)]
pub(crate) fn turn<T: Pod>(rows: [&[T]; SQUARE], out: &mut [T], width: usize) {
    for p in 0..rows[0].len() / SQUARE {
        // Loops rather than `map`: these are moves of vectors once they are unrolled.
        let mut square = [[T::zeroed(); SQUARE]; SQUARE];
        for i in 0..SQUARE {
            square[i] = rows[i][p * SQUARE..][..SQUARE].try_into().expect("as long as the slice");
        }
        let square = turned(square);
        for j in 0..SQUARE {
            out[(p * SQUARE + j) * width..][..SQUARE].copy_from_slice(&square[j]);
        }
    }
}

/// A square's transpose.
#[inline(always)]
fn turned<T: Pod>(square: [[T; SQUARE]; SQUARE]) -> [[T; SQUARE]; SQUARE] {
    #[cfg(target_arch = "x86_64")]
    if size_of::<T>() == 4 {
        use std::arch::x86_64::{__m128, _mm_movehl_ps, _mm_movelh_ps, _mm_unpackhi_ps, _mm_unpacklo_ps};
        // Compilers do not find these eight moves.
        let vector = |i: usize| bytemuck::cast::<[T; SQUARE], __m128>(square[i]);
        let (a, b, c, d) = (vector(0), vector(1), vector(2), vector(3));
        // SAFETY: every processor of this architecture has these instructions.
        let rows = unsafe {
            let (low, high) =
                ([_mm_unpacklo_ps(a, b), _mm_unpacklo_ps(c, d)], [_mm_unpackhi_ps(a, b), _mm_unpackhi_ps(c, d)]);
            [
                _mm_movelh_ps(low[0], low[1]),
                _mm_movehl_ps(low[1], low[0]),
                _mm_movelh_ps(high[0], high[1]),
                _mm_movehl_ps(high[1], high[0]),
            ]
        };
        let row = |i: usize| bytemuck::cast::<__m128, [T; SQUARE]>(rows[i]);
        return [row(0), row(1), row(2), row(3)];
    }
    let mut turned = square;
    for j in 0..SQUARE {
        for i in 0..SQUARE {
            turned[j][i] = square[i][j];
        }
    }
    turned
}

/// Words of lines that are turned together, one line after the other.
pub(crate) type Block = [[u32; WORDS]; WORDS];

/// Turns up to as many lines as a cache line has words, `line` apart, of as many words at most: each gives one to each
/// line of the result. With `past`, whole lines that begin where those of the cache do go past the caches. `block` is room
/// for what no registers hold.
#[inline(always)]
pub(crate) fn turn_lines<'a>(
    src: &[u32],
    line: usize,
    [lines, words]: [usize; 2],
    out: impl Iterator<Item = &'a mut [u32]>,
    past: bool,
    block: &mut Block,
) {
    #[cfg(target_arch = "x86_64")]
    if isa() == Isa::Avx512 {
        // SAFETY: `isa` found this feature on this processor.
        return unsafe { turn_wide(src, line, [lines, words], out, past) };
    }
    #[cfg(target_arch = "x86_64")]
    if [lines, words] == [WORDS; 2] && isa() == Isa::Avx2 {
        let (src, turned): (&[f32], &mut [f32]) = (cast_slice(src), cast_slice_mut(block));
        for (from, word) in [(0, 0), (EIGHT, 0), (0, EIGHT), (EIGHT, EIGHT)] {
            // SAFETY: as above.
            unsafe { square(&src[from * line + word..], line, &mut turned[word * WORDS + from..], WORDS) };
        }
        return put_lines(block, lines, out, past);
    }
    for (i, line) in src.chunks(line).take(lines).enumerate() {
        line.iter().take(words).zip(&mut *block).for_each(|(&word, turned)| turned[i] = word);
    }
    put_lines(block, lines, out, past);
}

/// Puts the first words of a block's lines where they belong.
#[inline(always)]
fn put_lines<'a>(block: &Block, words: usize, out: impl Iterator<Item = &'a mut [u32]>, past: bool) {
    for (turned, out) in block.iter().zip(out) {
        match out.try_into() {
            Ok(out) if past => stream_line(turned, out),
            Ok(out) => *out = *turned,
            Err(_) => out.copy_from_slice(&turned[..words]),
        }
    }
}

/// [`turn_lines`] in registers: neighbours take turns, then pairs of them, and so on.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn turn_wide<'a>(
    src: &[u32],
    line: usize,
    [lines, words]: [usize; 2],
    out: impl Iterator<Item = &'a mut [u32]>,
    past: bool,
) {
    use std::arch::x86_64::{
        _mm512_mask_storeu_epi32, _mm512_maskz_loadu_epi32, _mm512_setzero_si512, _mm512_shuffle_i32x4,
        _mm512_stream_si512, _mm512_unpackhi_epi32, _mm512_unpackhi_epi64, _mm512_unpacklo_epi32,
        _mm512_unpacklo_epi64,
    };
    let mut rows = [_mm512_setzero_si512(); WORDS];
    let firsts = |n: usize| ((1u32 << n) - 1) as u16;
    for (i, row) in rows.iter_mut().enumerate().take(lines) {
        let line = &src[i * line..][..words];
        // SAFETY: as many words as the slice has are read.
        *row = unsafe { _mm512_maskz_loadu_epi32(firsts(line.len()), line.as_ptr().cast()) };
    }
    let (mut pairs, mut fours, mut eights) = (rows, rows, rows);
    for i in (0..WORDS).step_by(2) {
        pairs[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
        pairs[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
    }
    // Of words `4q + j` of rows `4i..`, quarter `q` of `fours[4i + j]` has all.
    for i in (0..WORDS).step_by(4) {
        for j in 0..2 {
            fours[i + 2 * j] = _mm512_unpacklo_epi64(pairs[i + j], pairs[i + 2 + j]);
            fours[i + 2 * j + 1] = _mm512_unpackhi_epi64(pairs[i + j], pairs[i + 2 + j]);
        }
    }
    for j in 0..4 {
        for i in [0, 8] {
            eights[i + j] = _mm512_shuffle_i32x4::<0x88>(fours[i + j], fours[i + 4 + j]);
            eights[i + 4 + j] = _mm512_shuffle_i32x4::<0xdd>(fours[i + j], fours[i + 4 + j]);
        }
    }
    for j in 0..8 {
        rows[j] = _mm512_shuffle_i32x4::<0x88>(eights[j], eights[8 + j]);
        rows[8 + j] = _mm512_shuffle_i32x4::<0xdd>(eights[j], eights[8 + j]);
    }
    for (row, out) in rows.into_iter().zip(out).take(words) {
        let out = &mut out[..lines];
        // SAFETY: as many words as the slice has are written, all of a line of the cache if they go past it.
        unsafe {
            match past && lines == WORDS && out.as_ptr().addr().is_multiple_of(LINE) {
                true => _mm512_stream_si512(out.as_mut_ptr().cast(), row),
                false => _mm512_mask_storeu_epi32(out.as_mut_ptr().cast(), firsts(lines), row),
            }
        }
    }
}

/// Lines and steps of a larger square.
pub(crate) const EIGHT: usize = 8;

/// Makes rows of so many steps, `line` apart, columns of rows that are `pitch` apart, if they are whole eights, as far as the
/// processor has instructions for it and whole squares go; gives how many steps these are. A cache line's steps of all
/// rows come before the next. If `more` rows follow, they are asked for.
#[cfg_attr(not(target_arch = "x86_64"), expect(unused_variables, reason = "nothing is turned here"))]
pub(crate) fn turn_eights(
    src: &[f32],
    line: usize,
    [rows, steps]: [usize; 2],
    (out, pitch): (&mut [f32], usize),
    more: bool,
) -> usize {
    #[cfg(target_arch = "x86_64")]
    if rows.is_multiple_of(EIGHT) && matches!(isa(), Isa::Avx2 | Isa::Avx512) {
        let whole = steps / EIGHT * EIGHT;
        for from in (0..whole).step_by(WORDS) {
            let steps = from..whole.min(from + WORDS);
            for row in (0..rows).step_by(EIGHT) {
                for i in row..row + EIGHT {
                    let piece = src.as_ptr().wrapping_add(i * line + from);
                    prefetch_now(piece.wrapping_add(2 * WORDS));
                    if more {
                        prefetch(piece.wrapping_add(rows * line));
                    }
                }
                for step in steps.clone().step_by(EIGHT) {
                    // SAFETY: `isa` found the features on this processor.
                    unsafe { square(&src[row * line + step..], line, &mut out[step * pitch + row..], pitch) };
                }
            }
        }
        return whole;
    }
    0
}

/// One square.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn square(src: &[f32], line: usize, out: &mut [f32], pitch: usize) {
    use std::arch::x86_64::{
        _mm256_loadu_ps, _mm256_permute2f128_ps, _mm256_setzero_ps, _mm256_shuffle_ps, _mm256_storeu_ps,
        _mm256_unpackhi_ps, _mm256_unpacklo_ps,
    };
    // Seven times what a slice of numbers is long does not overflow.
    let holds = |len: usize, line: usize| line <= len && 7 * line + EIGHT <= len;
    assert!(holds(src.len(), line) && holds(out.len(), pitch), "a square is there, and room for it");
    let mut rows = [_mm256_setzero_ps(); EIGHT];
    for (i, row) in rows.iter_mut().enumerate() {
        // SAFETY: the farthest row ends within the slice, as asserted.
        *row = unsafe { _mm256_loadu_ps(src.as_ptr().add(i * line)) };
    }
    // Pairs of rows, pairs of these, and then halves: columns `j` and `j + 4` come from the same places.
    let (mut pairs, mut fours) = (rows, rows);
    for i in (0..EIGHT).step_by(2) {
        pairs[i] = _mm256_unpacklo_ps(rows[i], rows[i + 1]);
        pairs[i + 1] = _mm256_unpackhi_ps(rows[i], rows[i + 1]);
    }
    for i in (0..EIGHT).step_by(4) {
        for j in 0..2 {
            fours[i + 2 * j] = _mm256_shuffle_ps::<0x44>(pairs[i + j], pairs[i + 2 + j]);
            fours[i + 2 * j + 1] = _mm256_shuffle_ps::<0xee>(pairs[i + j], pairs[i + 2 + j]);
        }
    }
    for j in 0..4 {
        let low = _mm256_permute2f128_ps::<0x20>(fours[j], fours[j + 4]);
        let high = _mm256_permute2f128_ps::<0x31>(fours[j], fours[j + 4]);
        // SAFETY: the farthest column ends within the slice, as asserted.
        unsafe {
            _mm256_storeu_ps(out.as_mut_ptr().add(j * pitch), low);
            _mm256_storeu_ps(out.as_mut_ptr().add((j + 4) * pitch), high);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{Isa, fence, with_isa};

    #[test]
    fn words_of_lines_become_lines() {
        for isa in Isa::available() {
            for [lines, words] in [[16, 16], [16, 5], [3, 16], [1, 1], [15, 13]] {
                for (line, first, past) in [(37, 0, true), (16, 0, false), (40, 3, true)] {
                    let src: Vec<u32> = (0..(lines - 1) * line + words).map(|i| i as u32).collect();
                    let mut room = crate::simd::Reg::with_bytes(4 * (48 * 16 + 64));
                    let out = &mut room.lanes_mut::<u32>()[first..];
                    let to = out.chunks_mut(48).map(|out| &mut out[..lines]).take(words);
                    with_isa(isa, || turn_lines(&src, line, [lines, words], to, past, &mut Block::default()));
                    fence();
                    for (at, &x) in out.iter().enumerate() {
                        let (word, i) = (at / 48, at % 48);
                        let want = if word < words && i < lines { src[i * line + word] } else { 0 };
                        assert_eq!(x, want, "{lines} lines of {words}, {isa:?}, to {first}");
                    }
                }
            }
        }
    }

    #[test]
    fn eights_of_rows_become_columns() {
        for isa in Isa::available() {
            for ([rows, steps], line, pitch) in
                [([8, 7], 9, 8), ([8, 8], 8, 8), ([16, 37], 40, 48), ([48, 64], 64, 48), ([12, 16], 16, 12)]
            {
                let src: Vec<f32> = (0..(rows - 1) * line + steps).map(|i| i as f32).collect();
                let mut out = vec![-1.0; steps * pitch];
                let mut done = 0;
                with_isa(isa, || done = turn_eights(&src, line, [rows, steps], (&mut out, pitch), true));
                let whole = if isa == Isa::Base || rows % 8 != 0 { 0 } else { steps / 8 * 8 };
                assert_eq!(done, whole, "of {steps} steps of {rows} rows, {isa:?}");
                for (at, &x) in out.iter().enumerate() {
                    let (p, i) = (at / pitch, at % pitch);
                    let want = if p < done && i < rows { src[i * line + p] } else { -1.0 };
                    assert_eq!(x, want, "row {i}, step {p} of {steps}, {isa:?}");
                }
            }
        }
    }
}
