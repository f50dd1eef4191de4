//! Both operands of a sum over tiles, with a step for each tile: `V = Bᵀ d B` and `A y Aᵀ`.
//!
//! Elements are packed into strips first, with a step for each of them; then lines are beside each other all the way.
//! What a vector has too much is written over by the next step.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

use super::image::{between, load, store};
use super::plane::{self, Plane};
use super::taps::Taps;
use super::{LANES, PLACES, width};
use crate::dot::element::{Element, lanes};
use crate::dot::lie::{Packed, ROWS};
use crate::dot::pack::Strips;
use crate::dot::run::Run;
use crate::exec::Worker;

/// Strips of so many lines, each of which has all places of so many tiles.
#[derive(Clone, Copy)]
pub(super) struct Steps {
    pub(super) width: usize,
    tiles: usize,
}

impl Steps {
    pub(super) fn of_images(tiles: usize) -> Steps {
        Steps { width: width(), tiles }
    }

    pub(super) fn of_outputs(tiles: usize) -> Steps {
        Steps { width: ROWS, tiles }
    }

    /// From a place of a strip to the next: the last vector may go beyond it.
    fn pitch(self) -> usize {
        self.width * self.tiles + LANES
    }

    /// Lines of all strips that so many take.
    pub(super) fn lines(self, lines: usize) -> usize {
        lines.next_multiple_of(self.width)
    }

    /// Elements of so many lines.
    pub(super) fn len(self, lines: usize) -> usize {
        lines.div_ceil(self.width) * PLACES * self.pitch()
    }

    /// The strips of a place.
    pub(super) fn packed(self, data: &[f32], place: usize) -> Packed<'_, f32> {
        Packed { data: &data[place * self.pitch()..], width: self.width, pitch: PLACES * self.pitch() }
    }
}

/// What is transformed: lines, a multiple of a strip's from the first on, and bands.
pub(super) struct Part<'a> {
    pub(super) taps: &'a Taps,
    pub(super) run: &'a Run<'a>,
    pub(super) batch: usize,
    pub(super) lines: Range<usize>,
    pub(super) bands: Range<usize>,
}

impl Part<'_> {
    fn tiles(&self) -> usize {
        self.bands.len() * self.taps.plane.across()
    }

    /// Elements that an image's lines are packed into first.
    pub(super) fn raw_images(&self) -> usize {
        let [high, wide] = self.taps.plane.seen();
        self.lines.len().next_multiple_of(width()) * wide * high.min(2 * self.bands.len() + 2)
    }

    /// Elements that outputs are packed into first.
    pub(super) fn raw_outputs(&self) -> usize {
        self.lines.len().next_multiple_of(ROWS) * 2 * self.bands.len() * self.taps.plane.width() + LANES
    }

    /// Transforms what the bands see.
    pub(super) fn transform_images(&self, raw: &mut [f32], out: &mut [f32]) {
        let Part { taps, run, lines, bands, .. } = self;
        let ([high, wide], places) = (taps.plane.seen(), Steps::of_images(self.tiles()));
        taps.plane.parts(bands.clone(), |part| {
            let (from, to) = (2 * part.bands.start, high.min(2 * part.bands.end + 2));
            let steps = (part.image * high + from) * wide..(part.image * high + to) * wide;
            let strips = Strips { width: places.width, depth: steps.len() };
            let raw = &mut raw[..strips.len(lines.len())];
            strips.pad(lines.len(), raw);
            taps.seen.pack((run.sources[1], run.env), self.batch, [lines, &steps], strips, raw);
            let seen = Seen { rows: to - from, wide, bands: part.bands.len(), across: taps.plane.across() };
            Arch::new().dispatch(ImageTiles { raw, seen, first: part.tile, places, out: &mut *out });
        });
    }

    /// Transforms the outputs of the bands.
    pub(super) fn transform_outputs(&self, worker: &mut Worker, raw: &mut [f32], out: &mut [f32]) {
        let Part { taps, run, lines, bands, .. } = self;
        let (plane, places) = (&taps.plane, Steps::of_outputs(self.tiles()));
        let steps = plane.first(bands.start)..plane.first(bands.end);
        let len = lines.len().next_multiple_of(ROWS) * steps.len();
        let source = (run.sources[0], run.env);
        run.gemm.operands[0].pack(worker, source, self.batch, lines, &steps, (ROWS, &mut raw[..len]));
        let raw = &raw[..len + LANES];
        plane.parts(bands.clone(), |part| {
            let first = plane.first(bands.start + part.tile / plane.across()) - steps.start;
            Arch::new().dispatch(OutputTiles { raw, first, depth: steps.len(), plane, part, places, out: &mut *out });
        });
    }
}

/// What a part of an image has.
#[derive(Clone, Copy)]
struct Seen {
    rows: usize,
    wide: usize,
    bands: usize,
    /// Tiles of a band.
    across: usize,
}

struct ImageTiles<'a> {
    raw: &'a [f32],
    seen: Seen,
    /// The number of the part's first tile.
    first: usize,
    places: Steps,
    out: &'a mut [f32],
}

impl WithSimd for ImageTiles<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let ImageTiles { raw, seen: Seen { rows, wide, bands, across }, first, places, out } = self;
        let (pitch, width) = (places.pitch(), places.width);
        for (s, raw) in raw.chunks_exact(rows * wide * width).enumerate() {
            for tile in 0..bands * across {
                let (band, x) = (tile / across, tile % across);
                let at = s * PLACES * pitch + (first + tile) * width;
                for from in (0..width).step_by(lanes::<f32, S>()) {
                    let zero = f32::splat(simd, 0.0);
                    // By columns: [x, y]. A tile's last row or column is not there if no output sees it.
                    let mut tall = [[zero; 4]; 4];
                    for (i, tall) in tall.iter_mut().enumerate() {
                        let mut column = [zero; 4];
                        for (j, seen) in column.iter_mut().enumerate() {
                            let (row, element) = ((2 * band + j).min(rows - 1), (2 * x + i).min(wide - 1));
                            *seen = load(simd, &raw[(row * wide + element) * width + from..]);
                        }
                        *tall = between(simd, column);
                    }
                    for j in 0..4 {
                        let row = between(simd, [tall[0][j], tall[1][j], tall[2][j], tall[3][j]]);
                        for i in 0..4 {
                            store(simd, row[i], &mut out[(4 * j + i) * pitch + at + from..]);
                        }
                    }
                }
            }
        }
    }
}

struct OutputTiles<'a> {
    raw: &'a [f32],
    /// The step of the part's first output, and how many steps there are.
    first: usize,
    depth: usize,
    plane: &'a Plane,
    part: plane::Part,
    places: Steps,
    out: &'a mut [f32],
}

impl WithSimd for OutputTiles<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let OutputTiles { raw, first, depth, plane, part, places, out } = self;
        let (pitch, across, wide) = (places.pitch(), plane.across(), plane.width());
        let zero = f32::splat(simd, 0.0);
        for s in 0..raw.len() / (depth * ROWS) {
            for tile in 0..part.bands.len() * across {
                let (band, x) = (tile / across, tile % across);
                let is_whole = plane.is_whole(part.bands.start + band);
                let at = s * PLACES * pitch + (part.tile + tile) * ROWS;
                for from in (0..LANES).step_by(lanes::<f32, S>()) {
                    // By columns: [x, y]; zeros where there are no outputs.
                    let mut tall = [[zero; 4]; 2];
                    for (i, tall) in tall.iter_mut().enumerate() {
                        let at = |row: usize| (s * depth + first + (2 * band + row) * wide + 2 * x + i) * ROWS + from;
                        if 2 * x + i < wide {
                            let lower = if is_whole { load(simd, &raw[at(1)..]) } else { zero };
                            *tall = spread(simd, [load(simd, &raw[at(0)..]), lower]);
                        }
                    }
                    for j in 0..4 {
                        let row = spread(simd, [tall[0][j], tall[1][j]]);
                        for i in 0..4 {
                            store(simd, row[i], &mut out[(4 * j + i) * pitch + at + from..]);
                        }
                    }
                }
            }
        }
    }
}

/// `A y`: two become four.
#[inline(always)]
fn spread<S: Simd>(simd: S, [a, b]: [S::f32s; 2]) -> [S::f32s; 4] {
    let zero = f32::splat(simd, 0.0);
    [a, simd.add_f32s(a, b), simd.sub_f32s(a, b), simd.sub_f32s(zero, b)]
}
