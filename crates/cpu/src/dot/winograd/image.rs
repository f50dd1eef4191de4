//! `V = Bᵀ d B`: the elements that tiles see, written as strips of tiles with a step for each channel.
//!
//! A vector holds the same place of neighbouring tiles, which see every other element of a row. What a vector
//! has too much is written over by the tiles that follow.

use super::plane::{Plane, Segment};
use super::{LANES, PLACES};
use crate::dot::tile::COLUMNS;
use crate::memory::View;
use crate::simd::multiversion;

/// Elements of a row that a segment's tiles see.
const SEEN: usize = 2 * LANES + 2;

/// What to transform.
#[derive(Clone, Copy)]
pub(super) struct Seen<'a> {
    pub(super) plane: &'a Plane,
    pub(super) src: View,
    pub(super) segments: &'a [Segment],
}

/// Elements of a place, of so many tiles: [`LANES`] more than it has, since the last vector may go beyond them.
pub(super) fn pitch(tiles: usize, channels: usize) -> usize {
    tiles.next_multiple_of(COLUMNS) * channels + LANES
}

multiversion! {
    /// Fills `PLACES` times `pitch` elements.
    pub(super) fn transform(seen: Seen, pitch: usize, out: &mut [f32]) {
        let Seen { plane, src, mut segments } = seen;
        let channels = plane.channels();
        while let Some(first) = segments.first() {
            let strip = first.tile / COLUMNS;
            let strip_segments;
            let n = segments.iter().take_while(|segment| segment.tile / COLUMNS == strip).count();
            (strip_segments, segments) = segments.split_at(n);
            for c in 0..channels {
                let (channel, row) = (plane.channel(c), (strip * channels + c) * COLUMNS);
                for segment in strip_segments {
                    let mut rest = [[0.0; SEEN]; 4];
                    let rows = rows(src, segment.at + channel, plane.below(), segment.is_whole, &mut rest);
                    let places = places(rows);
                    let at = row + segment.tile % COLUMNS;
                    for (i, place) in places.iter().enumerate() {
                        out[i * pitch + at..][..LANES].copy_from_slice(place);
                    }
                }
            }
        }
    }
}

/// The four rows that tiles see; where memory ends, zeros that no output sees follow.
#[inline(always)]
fn rows(src: View, at: i64, below: i64, is_whole: bool, rest: &mut [[f32; SEEN]; 4]) -> [&[f32; SEEN]; 4] {
    let len = src.len::<f32>();
    let last = if is_whole { 3 } else { 2 };
    let mut r = 0;
    rest.each_mut().map(|rest| {
        let at = (at + below * last.min(r)) as usize;
        r += 1;
        if at + SEEN <= len {
            return src.slice::<f32>(at, SEEN).try_into().expect("as long as the slice");
        }
        rest[..len - at].copy_from_slice(src.slice(at, len - at));
        &*rest
    })
}

/// All places of [`LANES`] tiles.
#[inline(always)]
fn places(rows: [&[f32; SEEN]; 4]) -> [[f32; LANES]; PLACES] {
    let mut tall = [[0.0; SEEN]; 4];
    for i in 0..SEEN {
        let [a, b, c, d] = rows.map(|row| row[i]);
        tall[0][i] = a - c;
        tall[1][i] = b + c;
        tall[2][i] = c - b;
        tall[3][i] = b - d;
    }
    let mut places = [[0.0; LANES]; PLACES];
    for y in 0..4 {
        for i in 0..LANES {
            let [a, b, c, d] = [0, 1, 2, 3].map(|x| tall[y][2 * i + x]);
            places[4 * y][i] = a - c;
            places[4 * y + 1][i] = b + c;
            places[4 * y + 2][i] = c - b;
            places[4 * y + 3][i] = b - d;
        }
    }
    places
}
