//! Both operands of a sum over tiles, with a step for each tile: `V = Bᵀ d B` and `A y Aᵀ`.
//!
//! Elements are packed into strips first, with a step for each of them; then lines are beside each other all the way.
//! What a vector has too much is written over by the next step.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

use super::image::{between, load, store};
use super::taps::Taps;
use super::{LANES, PLACES};
use crate::dot::gemm::Product;
use crate::dot::pack::Strips;
use crate::dot::tile::{COLUMNS, Element, Packed, ROWS, lanes};
use crate::exec::Loan;

/// Strips of tiles at each place.
#[derive(Clone, Copy)]
struct Places {
    width: usize,
    strips: usize,
    tiles: usize,
}

impl Places {
    /// From a strip to the next: the last vector may go beyond it.
    fn strip(self) -> usize {
        self.width * self.tiles + LANES
    }

    /// From a place to the next.
    fn pitch(self) -> usize {
        self.strips * self.strip() + LANES
    }

    fn packed(self, data: &[f32], place: usize) -> Packed<'_, f32> {
        Packed { data: &data[place * self.pitch()..], pitch: self.strip() }
    }
}

/// The transformed images of a block.
pub(super) struct Images<'a> {
    data: &'a [f32],
    places: Places,
}

impl Images<'_> {
    fn places(taps: &Taps, bands: usize) -> Places {
        let strips = taps.plane.channels().div_ceil(COLUMNS);
        Places { width: COLUMNS, strips, tiles: bands * taps.plane.across() }
    }

    /// Elements for so many bands: transformed, and before that.
    pub(super) fn len(taps: &Taps, bands: usize) -> usize {
        let places = Images::places(taps, bands);
        // A band sees four rows at most, wherever it is.
        PLACES * places.pitch() + places.strips * COLUMNS * 4 * bands * taps.plane.seen()[1]
    }

    /// Transforms what some bands see.
    pub(super) fn new<'a>(
        taps: &Taps,
        product: &Product<f32>,
        bands: &Range<usize>,
        memory: &'a mut [f32],
    ) -> Images<'a> {
        let places = Images::places(taps, bands.len());
        let (data, raw) = memory.split_at_mut(PLACES * places.pitch());
        let (run, channels, [high, wide]) = (product.run, taps.plane.channels(), taps.plane.seen());
        taps.plane.parts(bands.clone(), |part| {
            let (from, to) = (2 * part.bands.start, high.min(2 * part.bands.end + 2));
            let steps = (part.image * high + from) * wide..(part.image * high + to) * wide;
            let strips = Strips { width: COLUMNS, depth: steps.len() };
            let raw = &mut raw[..strips.len(channels)];
            strips.pad(channels, raw);
            taps.seen.pack((run.sources[1], run.env), product.batch, [&(0..channels), &steps], strips, raw);
            let [rows, bands, across] = [to - from, part.bands.len(), taps.plane.across()];
            let seen = Seen { rows, wide, bands, across };
            Arch::new().dispatch(ImageTiles { raw, seen, first: part.tile, places, out: &mut *data });
        });
        Images { data, places }
    }

    /// The strips of a place.
    pub(super) fn packed(&self, place: usize) -> Packed<'_, f32> {
        self.places.packed(self.data, place)
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
    places: Places,
    out: &'a mut [f32],
}

impl WithSimd for ImageTiles<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let ImageTiles { raw, seen: Seen { rows, wide, bands, across }, first, places, out } = self;
        let pitch = places.pitch();
        for (s, raw) in raw.chunks_exact(rows * wide * COLUMNS).enumerate() {
            for tile in 0..bands * across {
                let (band, x) = (tile / across, tile % across);
                let at = s * places.strip() + (first + tile) * COLUMNS;
                for from in (0..COLUMNS).step_by(lanes::<f32, S>()) {
                    let zero = f32::splat(simd, 0.0);
                    // By columns: [x, y]. A tile's last row or column is not there if no output sees it.
                    let mut tall = [[zero; 4]; 4];
                    for i in 0..4 {
                        let mut column = [zero; 4];
                        for j in 0..4 {
                            let (row, element) = ((2 * band + j).min(rows - 1), (2 * x + i).min(wide - 1));
                            column[j] = load(simd, &raw[(row * wide + element) * COLUMNS + from..]);
                        }
                        tall[i] = between(simd, column);
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

/// The transformed left operand of a block.
pub(super) struct Cotangents<'a> {
    data: &'a [f32],
    places: Places,
}

impl Cotangents<'_> {
    fn places(taps: &Taps, bands: usize) -> Places {
        Places { width: ROWS, strips: taps.rows.div_ceil(ROWS), tiles: bands * taps.plane.across() }
    }

    /// Elements for so many bands: transformed, and before that.
    pub(super) fn len(taps: &Taps, bands: usize) -> usize {
        let places = Cotangents::places(taps, bands);
        PLACES * places.pitch() + places.strips * ROWS * 2 * bands * taps.plane.width() + LANES
    }

    /// Transforms the outputs of some bands.
    pub(super) fn new<'a>(
        taps: &Taps,
        product: &Product<f32>,
        loan: &mut Loan,
        bands: &Range<usize>,
        memory: &'a mut [f32],
    ) -> Cotangents<'a> {
        let (places, plane, run) = (Cotangents::places(taps, bands.len()), &taps.plane, product.run);
        let (data, raw) = memory.split_at_mut(PLACES * places.pitch());
        let steps = plane.first(bands.start)..plane.first(bands.end);
        let len = places.strips * ROWS * steps.len();
        let source = (run.sources[0], run.env);
        run.gemm.operands[0].pack(loan, source, product.batch, &(0..taps.rows), &steps, (ROWS, &mut raw[..len]));
        let raw = &raw[..len + LANES];
        plane.parts(bands.clone(), |part| {
            let first = plane.first(bands.start + part.tile / plane.across()) - steps.start;
            Arch::new().dispatch(OutputTiles { raw, first, depth: steps.len(), taps, part, places, out: &mut *data });
        });
        Cotangents { data, places }
    }

    /// The strips of a place.
    pub(super) fn packed(&self, place: usize) -> Packed<'_, f32> {
        self.places.packed(self.data, place)
    }
}

struct OutputTiles<'a> {
    raw: &'a [f32],
    /// The step of the part's first output, and how many steps there are.
    first: usize,
    depth: usize,
    taps: &'a Taps,
    part: super::plane::Part,
    places: Places,
    out: &'a mut [f32],
}

impl WithSimd for OutputTiles<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let OutputTiles { raw, first, depth, taps, part, places, out } = self;
        let (pitch, across, wide) = (places.pitch(), taps.plane.across(), taps.plane.width());
        let zero = f32::splat(simd, 0.0);
        for s in 0..places.strips {
            for tile in 0..part.bands.len() * across {
                let (band, x) = (tile / across, tile % across);
                let is_whole = taps.plane.is_whole(part.bands.start + band);
                let at = s * places.strip() + (part.tile + tile) * ROWS;
                for from in (0..LANES).step_by(lanes::<f32, S>()) {
                    // By columns: [x, y]; zeros where there are no outputs.
                    let mut tall = [[zero; 4]; 2];
                    for i in 0..2 {
                        let at = |row: usize| (s * depth + first + (2 * band + row) * wide + 2 * x + i) * ROWS + from;
                        if 2 * x + i < wide {
                            let lower = if is_whole { load(simd, &raw[at(1)..]) } else { zero };
                            tall[i] = spread(simd, [load(simd, &raw[at(0)..]), lower]);
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
