//! Convolutions by windows of 3 × 3, in less than half the products: F(2×2, 3×3).
//!
//! A tile of 2 × 2 outputs sees 4 × 4 elements of each channel. Transformed, `V = Bᵀ d B` of these elements and
//! `U = G g Gᵀ` of the window, the tile's sums are `Aᵀ [Σ U ⊙ V] A`: 16 products for 4 outputs where sums over windows
//! take 36. For each of the 16 places the sum over channels is a product of matrices, so `tile` does the work:
//! `[rows, channels] · [channels, tiles]`, whose operands are written as strips right away.
//! Lavin and Gray 2015, "Fast Algorithms for Convolutional Neural Networks", <https://arxiv.org/abs/1509.09308>.
//!
//! Reading order: `plane` (which operands are windows of this kind, and their tiles), `filter` (`U`), `image` (`V`),
//! `sums` (what becomes of the products), `run` (blocks of tiles, while they are in cache); `vector` under them.
//!
//! A sum's error is relative to the largest elements of its tile in each channel, not to those that it sees. Infinities
//! and NaN would reach the whole tile; so a block with such a sum is computed once more, over windows.

mod filter;
mod image;
mod plane;
mod run;
mod sums;
mod vector;

use self::plane::Plane;
use super::operand::Operand;
use super::tile::ROWS;

/// Places of a transformed tile.
const PLACES: usize = 16;

/// Tiles that are transformed at once: a vector of AVX-512.
const LANES: usize = 16;

/// Elements of `V` and of the products that a block has, as the second cache holds them.
const ROOM: usize = 1 << 18;

/// Tiles of a block, at least (or `U` is read too often) and at most.
const TILES: [usize; 2] = [64, 256];

/// Blocks that keep all threads busy.
const BLOCKS: usize = 16;

/// A contraction whose right operand is an image's windows.
pub(super) struct Winograd {
    plane: Plane,
    batch: usize,
    rows: usize,
    /// Bands of tiles in a block.
    bands: usize,
}

impl Winograd {
    /// For `rows` rows times an operand, if that pays.
    pub(super) fn new(batch: usize, rows: usize, operand: &Operand) -> Option<Winograd> {
        let plane = Plane::new(operand.window()?)?;
        pays(rows, &plane).then(|| {
            let bands = bands(rows, &plane);
            Winograd { plane, batch, rows, bands }
        })
    }

    /// Elements of `U`, which all tasks share.
    pub(super) fn scratch(&self) -> usize {
        self.batch * PLACES * self.pitch()
    }

    /// From a place of `U` to the next. Not a power of two, or all places would compete for the same lines of the cache.
    fn pitch(&self) -> usize {
        self.rows.next_multiple_of(ROWS) * self.plane.channels() + LANES
    }

    /// Blocks of one element of the batch.
    fn blocks(&self) -> usize {
        self.plane.bands().div_ceil(self.bands)
    }
}

/// True iff there is less to do than over windows, in cycles: measured on an EPYC with AVX-512.
fn pays(rows: usize, plane: &Plane) -> bool {
    let (c, o, tiles) = (plane.channels() as f64, rows as f64, (plane.bands() * plane.across()) as f64);
    let windows = 9.0 * c * o * plane.points() as f64 / 16.0 * 1.15;
    let (products, images, sums, filters) = (c * o * tiles, 6.0 * c * tiles, 8.0 * o * tiles, 5.0 * c * o);
    products + images + sums + filters < windows
}

/// How many bands make a block: as many as there is room for, of those the number that leaves the fewest lanes idle.
fn bands(rows: usize, plane: &Plane) -> usize {
    let room = ROOM / (PLACES * (rows + plane.channels()));
    let shared = (plane.bands() * plane.across()).div_ceil(BLOCKS);
    let tiles = room.min(shared).clamp(TILES[0], TILES[1]);
    let most = (tiles / plane.across()).clamp(1, plane.bands());
    let used = |bands: usize| {
        let tiles = bands * plane.across();
        tiles as f64 / tiles.next_multiple_of(LANES) as f64
    };
    (most.div_ceil(2)..=most).max_by(|&a, &b| used(a).total_cmp(&used(b))).unwrap_or(1)
}
