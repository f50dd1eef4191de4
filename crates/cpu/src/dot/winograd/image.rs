//! `V = Bᵀ d B`: the elements that tiles see, written as strips of tiles with a step for each channel.
//!
//! A vector holds the same place of neighbouring tiles, which see every other element of a row: so rows are first taken
//! apart into the first and the second ones of their pairs. What a vector has too much is written over by the tiles that
//! follow.

use pulp::{Arch, Simd, WithSimd};

use super::plane::{Plane, Tiles};
use super::{LANES, PLACES, width};
use crate::dot::element::{Element, lanes};
use crate::dot::lie::Packed;
use crate::memory::View;

/// The transformed images of a block: so many tiles, in strips that have each place of all channels.
#[derive(Clone, Copy)]
pub(super) struct Images {
    tiles: usize,
    channels: usize,
    /// Tiles of a strip.
    width: usize,
}

impl Images {
    pub(super) fn new(tiles: usize, channels: usize) -> Images {
        Images { tiles, channels, width: width() }
    }

    /// Tiles of all strips: the last ones may be none.
    pub(super) fn columns(self) -> usize {
        self.tiles.next_multiple_of(self.width)
    }

    /// Elements of all strips.
    pub(super) fn len(self) -> usize {
        self.tiles.div_ceil(self.width) * PLACES * self.pitch()
    }

    /// From a place of a strip to the next: the last vector may go beyond it. Not a power of two, or all places would
    /// compete for the same lines of the cache.
    fn pitch(self) -> usize {
        self.width * self.channels + LANES
    }

    /// The strips of a place.
    pub(super) fn packed(self, data: &[f32], place: usize) -> Packed<'_, f32> {
        Packed { data: &data[place * self.pitch()..], width: self.width, pitch: PLACES * self.pitch() }
    }

    /// Transforms what tiles see in `src`; `apart` has room for a channel's rows.
    pub(super) fn fill(self, plane: &Plane, src: View, tiles: &Tiles, apart: &mut [f32], out: &mut [f32]) {
        Arch::new().dispatch(Transform { images: self, plane, src, tiles, apart, out });
    }
}

/// Elements that a row taken apart has: two halves of pairs, and what vectors go beyond them.
pub(super) fn halves(plane: &Plane) -> usize {
    2 * half(plane)
}

fn half(plane: &Plane) -> usize {
    (plane.across() + 1).next_multiple_of(LANES) + LANES
}

struct Transform<'a> {
    images: Images,
    plane: &'a Plane,
    src: View,
    tiles: &'a Tiles,
    apart: &'a mut [f32],
    out: &'a mut [f32],
}

impl WithSimd for Transform<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Transform { images, plane, src, tiles, apart, out } = self;
        let (half, pairs, pitch) = (half(plane), plane.across() + 1, images.pitch());
        for c in 0..images.channels {
            let channel = plane.channel(c);
            for (&row, apart) in tiles.rows.iter().zip(apart.chunks_exact_mut(2 * half)) {
                take_apart(src, (row + channel) as usize, pairs, apart.split_at_mut(half));
            }
            for segment in &tiles.segments {
                let mut rows = [(&apart[..0], &apart[..0]); 4];
                for r in 0..4 {
                    let (first, second) = apart[segment.rows[r] * 2 * half..][..2 * half].split_at(half);
                    rows[r] = (&first[segment.pair..][..2 * LANES], &second[segment.pair..][..2 * LANES]);
                }
                let (width, mut from) = (images.width, 0);
                while from < segment.tiles() {
                    let (strip, tile) = ((segment.tile + from) / width, (segment.tile + from) % width);
                    transform_tiles(simd, rows, from, &mut out[strip * PLACES * pitch + c * width + tile..], pitch);
                    from += lanes::<f32, S>().min(width - tile);
                }
            }
        }
    }
}

/// Takes so many pairs of a row apart, and some more; beyond the end of memory are zeros, which no output sees.
#[inline(always)]
fn take_apart(src: View, at: usize, pairs: usize, (first, second): (&mut [f32], &mut [f32])) {
    let some = pairs.next_multiple_of(LANES);
    let inside = some.min((src.len::<f32>() - at) / 2);
    // A loop of unknown length: compilers make vectors of it, which they do not of short ones.
    let (row, _) = src.slice::<f32>(at, 2 * inside).as_chunks::<2>();
    for ((pair, first), second) in row.iter().zip(&mut first[..inside]).zip(&mut second[..inside]) {
        [*first, *second] = *pair;
    }
    if inside < some {
        first[inside..some].fill(0.0);
        second[inside..some].fill(0.0);
        if (src.len::<f32>() - at) % 2 == 1 {
            first[inside] = src.get(src.len::<f32>() - 1);
        }
    }
}

/// Writes all places of as many tiles as a vector has lanes, from the tile with this number in the segment on.
#[inline(always)]
fn transform_tiles<S: Simd>(simd: S, rows: [(&[f32], &[f32]); 4], from: usize, out: &mut [f32], pitch: usize) {
    let zero = f32::splat(simd, 0.0);
    // By columns: [x, y].
    let mut tall = [[zero; 4]; 4];
    for x in 0..4 {
        let mut column = [zero; 4];
        for y in 0..4 {
            let half = if x % 2 == 0 { rows[y].0 } else { rows[y].1 };
            column[y] = load(simd, &half[from + x / 2..]);
        }
        tall[x] = between(simd, column);
    }
    for y in 0..4 {
        let places = between(simd, [tall[0][y], tall[1][y], tall[2][y], tall[3][y]]);
        for x in 0..4 {
            store(simd, places[x], &mut out[(4 * y + x) * pitch..]);
        }
    }
}

/// `Bᵀ d`.
#[inline(always)]
pub(super) fn between<S: Simd>(simd: S, [a, b, c, d]: [S::f32s; 4]) -> [S::f32s; 4] {
    [simd.sub_f32s(a, c), simd.add_f32s(b, c), simd.sub_f32s(c, b), simd.sub_f32s(b, d)]
}

#[inline(always)]
pub(super) fn load<S: Simd>(_: S, from: &[f32]) -> S::f32s {
    bytemuck::pod_read_unaligned(bytemuck::cast_slice(&from[..lanes::<f32, S>()]))
}

#[inline(always)]
pub(super) fn store<S: Simd>(_: S, vector: S::f32s, to: &mut [f32]) {
    to[..lanes::<f32, S>()].copy_from_slice(bytemuck::cast_slice(&[vector]));
}
