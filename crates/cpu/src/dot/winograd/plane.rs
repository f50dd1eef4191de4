//! Operands that are windows of 3 × 3 over images, and the tiles of their outputs.

use std::ops::Range;

use super::LANES;
use crate::dot::runs::{Axis, address};

/// The images of an operand, and where its windows lie.
///
/// Two rows of outputs are a *band* of tiles; the bands of all images are numbered one after the other, so that
/// some of them are columns of the result beside each other.
#[derive(Debug)]
pub(super) struct Plane {
    images: Vec<Axis>,
    channels: Vec<Axis>,
    /// Outputs of an image.
    height: usize,
    width: usize,
    /// From an element to the one below it.
    below: i64,
}

/// Tiles beside each other: of one band, no more than are transformed at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    /// Which of the block's rows they see, and from which pair of elements on.
    pub(super) rows: [usize; 4],
    pub(super) pair: usize,
    /// The number of the first one in the block.
    pub(super) tile: usize,
    /// The first output in the block, and how many they are in a row.
    pub(super) column: usize,
    pub(super) columns: usize,
    /// True iff there are outputs in a second row.
    pub(super) is_whole: bool,
}

impl Segment {
    /// How many they are.
    pub(super) fn tiles(&self) -> usize {
        self.columns.div_ceil(2)
    }
}

/// The tiles of some bands.
#[derive(Default)]
pub(super) struct Tiles {
    /// Where the rows that they see begin, in the first channel; those of an image one after the other.
    pub(super) rows: Vec<i64>,
    pub(super) segments: Vec<Segment>,
    pub(super) n: usize,
}

/// Some bands of one image.
pub(super) struct Part {
    pub(super) image: usize,
    /// Counted from the image's first.
    pub(super) bands: Range<usize>,
    /// The number of the first one's first tile in the block.
    pub(super) tile: usize,
}

impl Plane {
    /// The images that are looked at in windows of 3 × 3, each one element from the last: axes over outputs, and over
    /// channels and taps.
    pub(super) fn new(outputs: &[Axis], taps: &[Axis]) -> Option<Plane> {
        let ([images @ .., (height, below), (width, 1)], [channels @ .., (3, row), (3, 1)]) = (outputs, taps) else {
            return None;
        };
        let [images, channels] = [images, channels].map(<[Axis]>::to_vec);
        (row == below && *row > 0).then_some(Plane { images, channels, height: *height, width: *width, below: *below })
    }

    pub(super) fn channels(&self) -> usize {
        self.channels.iter().map(|axis| axis.0).product()
    }

    /// Where a channel begins.
    #[inline(always)]
    pub(super) fn channel(&self, number: usize) -> i64 {
        address(&self.channels, number)
    }

    /// Bands of all images.
    pub(super) fn bands(&self) -> usize {
        self.n_images() * self.height.div_ceil(2)
    }

    /// Tiles of a band.
    pub(super) fn across(&self) -> usize {
        self.width.div_ceil(2)
    }

    /// Tiles of all images.
    pub(super) fn tiles(&self) -> usize {
        self.bands() * self.across()
    }

    /// Outputs of all images.
    pub(super) fn points(&self) -> usize {
        self.n_images() * self.height * self.width
    }

    fn n_images(&self) -> usize {
        self.images.iter().map(|axis| axis.0).product()
    }

    /// The first output of a band.
    pub(super) fn first(&self, band: usize) -> usize {
        let high = self.height.div_ceil(2);
        (band / high * self.height + band % high * 2) * self.width
    }

    /// Rows and columns that are looked at: one before and one after the outputs'.
    pub(super) fn seen(&self) -> [usize; 2] {
        [self.height + 2, self.width + 2]
    }

    /// The axes of channels, and of all elements that are looked at, image by image.
    pub(super) fn axes(&self) -> [Vec<Axis>; 2] {
        let [high, wide] = self.seen();
        [self.channels.clone(), [&self.images[..], &[(high, self.below), (wide, 1)]].concat()]
    }

    /// Calls `visit` for the parts of some bands that are of one image.
    pub(super) fn parts(&self, bands: Range<usize>, mut visit: impl FnMut(Part)) {
        let high = self.height.div_ceil(2);
        let mut from = bands.start;
        while from < bands.end {
            let image = from / high;
            let to = bands.end.min((image + 1) * high);
            let (start, end) = (from - image * high, to - image * high);
            visit(Part { image, bands: start..end, tile: (from - bands.start) * self.across() });
            from = to;
        }
    }

    /// True iff an image's band has a second row of outputs.
    pub(super) fn is_whole(&self, band: usize) -> bool {
        2 * band + 1 < self.height
    }

    /// Lists the tiles of a block of bands; elements are counted from `start` on.
    pub(super) fn list(&self, bands: Range<usize>, start: i64, tiles: &mut Tiles) {
        let Tiles { rows, segments, n } = tiles;
        rows.clear();
        segments.clear();
        let (across, high, first) = (self.across(), self.height.div_ceil(2), self.first(bands.start));
        *n = bands.len() * across;
        for band in bands.clone() {
            let (image, row) = (band / high, band % high * 2);
            let at = start + address(&self.images, image) + row as i64 * self.below;
            // The last two rows of a band are the first two of the next.
            let seen = if self.is_whole(band % high) { 4 } else { 3 };
            let known = if row > 0 && band > bands.start { 2 } else { 0 };
            rows.extend((known..seen).map(|r| at + r as i64 * self.below));
            let upper = rows.len() - seen;
            let mut x = 0;
            while x < across {
                let tile = (band - bands.start) * across + x;
                let n = (across - x).min(LANES);
                segments.push(Segment {
                    rows: [0, 1, 2, 3].map(|r| upper + r.min(seen - 1)),
                    pair: x,
                    tile,
                    column: self.first(band) - first + 2 * x,
                    columns: (2 * n).min(self.width - 2 * x),
                    is_whole: seen == 4,
                });
                x += n;
            }
        }
    }

    /// Outputs in a row.
    pub(super) fn width(&self) -> usize {
        self.width
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plane(n: usize, c: usize, height: usize, width: usize) -> Plane {
        let (below, image) = (width as i64 + 2, ((height + 2) * (width + 2)) as i64);
        let outputs = [(n, c as i64 * image), (height, below), (width, 1)];
        Plane::new(&outputs, &[(c, image), (3, below), (3, 1)]).expect("windows of 3 × 3")
    }

    #[test]
    fn only_windows_that_go_on_by_one_are() {
        let outputs = [(2, 500), (8, 10), (8, 1)];
        assert!(Plane::new(&outputs, &[(5, 100), (3, 10), (3, 1)]).is_some());
        assert!(Plane::new(&outputs, &[(5, 100), (3, 20), (3, 2)]).is_none(), "dilated");
        assert!(Plane::new(&[(2, 500), (4, 20), (4, 2)], &[(5, 100), (3, 10), (3, 1)]).is_none(), "strided");
        assert!(Plane::new(&outputs, &[(5, 100), (5, 10), (5, 1)]).is_none(), "5 × 5");
    }

    #[test]
    fn tiles_have_every_output_once_and_know_their_rows() {
        for (height, width) in [(4, 4), (7, 5), (3, 70), (32, 32), (5, 33)] {
            let plane = plane(3, 2, height, width);
            let (mut tiles, mut seen) = (Tiles::default(), vec![0; plane.points()]);
            for from in (0..plane.bands()).step_by(3) {
                let bands = from..plane.bands().min(from + 3);
                let first = plane.first(bands.start);
                plane.list(bands, 0, &mut tiles);
                for segment in &tiles.segments {
                    let column = first + segment.column;
                    let [image, y, x] = [column / (height * width), column / width % height, column % width];
                    assert_eq!(x, 2 * segment.pair);
                    for (r, &row) in segment.rows.iter().enumerate() {
                        let below = (y + r).min(height + 1);
                        assert_eq!(tiles.rows[row], ((image * 2 * (height + 2) + below) * (width + 2)) as i64);
                    }
                    for row in 0..1 + usize::from(segment.is_whole) {
                        (0..segment.columns).for_each(|x| seen[column + row * width + x] += 1);
                    }
                }
            }
            assert!(seen.iter().all(|&n| n == 1), "{height}×{width}");
        }
    }

    #[test]
    fn parts_are_of_one_image_each() {
        let mut found = Vec::new();
        plane(3, 2, 5, 4).parts(2..8, |part| found.push((part.image, part.bands, part.tile)));
        assert_eq!(found, [(0, 2..3, 0), (1, 0..3, 2), (2, 0..2, 8)]);
    }
}
