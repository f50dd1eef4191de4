//! Operands that are windows of 3 × 3 over images, and the tiles of their outputs.

use super::LANES;
use crate::dot::tile::COLUMNS;
use crate::dot::window::{Axis, Window, address};

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

/// Tiles beside each other: of one band, in one strip, no more than are transformed at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    /// Where the first one's elements begin, in the first channel.
    pub(super) at: i64,
    /// The number of the first one in the block, and how many they are.
    pub(super) tile: usize,
    pub(super) n: usize,
    /// The first output in the block, and how many they are in a row.
    pub(super) column: usize,
    pub(super) columns: usize,
    /// True iff there are outputs in a second row.
    pub(super) is_whole: bool,
}

impl Plane {
    /// The images that an operand looks at in windows of 3 × 3, each one element from the last.
    pub(super) fn new(window: &Window) -> Option<Plane> {
        let [_, lines, steps] = &window.axes;
        let ([images @ .., (height, below), (width, 1)], [channels @ .., (3, row), (3, 1)]) = (&lines[..], &steps[..])
        else {
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

    /// From an element to the one below it.
    pub(super) fn below(&self) -> i64 {
        self.below
    }

    /// Bands of all images.
    pub(super) fn bands(&self) -> usize {
        self.n_images() * self.height.div_ceil(2)
    }

    /// Tiles of a band.
    pub(super) fn across(&self) -> usize {
        self.width.div_ceil(2)
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

    /// Lists the tiles of a block of bands; elements are counted from `start` on.
    pub(super) fn list(&self, bands: std::ops::Range<usize>, start: i64, out: &mut Vec<Segment>) {
        out.clear();
        let (across, high, first) = (self.across(), self.height.div_ceil(2), self.first(bands.start));
        for band in bands.clone() {
            let (image, row) = (band / high, band % high * 2);
            let at = start + address(&self.images, image) + row as i64 * self.below;
            let mut x = 0;
            while x < across {
                let tile = (band - bands.start) * across + x;
                let n = (across - x).min(LANES).min(COLUMNS - tile % COLUMNS);
                out.push(Segment {
                    at: at + 2 * x as i64,
                    tile,
                    n,
                    column: self.first(band) - first + 2 * x,
                    columns: (2 * n).min(self.width - 2 * x),
                    is_whole: row + 1 < self.height,
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
