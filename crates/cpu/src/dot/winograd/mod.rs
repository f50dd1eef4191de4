//! Convolutions by windows of 3 × 3, in less than half the products: F(2×2, 3×3).
//!
//! A tile of 2 × 2 outputs sees 4 × 4 elements of each channel. Transformed, `V = Bᵀ d B` of these elements and
//! `U = G g Gᵀ` of the window, the tile's sums are `Aᵀ [Σ U ⊙ V] A`: 16 products for 4 outputs where sums over windows
//! take 36. For each of the 16 places the sum over channels is a product of matrices, so `tile` does the work:
//! `[rows, channels] · [channels, tiles]`, whose operands are written as strips right away.
//! Lavin and Gray 2015, "Fast Algorithms for Convolutional Neural Networks", <https://arxiv.org/abs/1509.09308>.
//!
//! The same numbers, transposed, are the sums over outputs for each of a window's taps, as the gradient by weights has
//! them: `Gᵀ [Σ (A y Aᵀ) ⊙ V] G` over all tiles, `[rows, tiles] · [tiles, channels]` at each place.
//!
//! Reading order: `plane` (which operands are windows of this kind, and their tiles); for sums over channels `outputs`
//! (blocks of tiles) with `filter` (`U`), `image` (`V`) and `sums`; for sums over tiles `taps` with `groups` and `rows`
//! (how they run), `steps` (both operands) and `windows` (what becomes of the products). `products` and `vector` are under
//! all of them.
//!
//! A sum's error is relative to the largest elements of its tile in each channel, not to those that it sees. Infinities
//! and NaN would reach the whole tile; so a block with such a sum is computed once more, over windows.

mod filter;
mod groups;
mod image;
mod outputs;
mod plane;
mod products;
mod rows;
mod steps;
mod sums;
mod taps;
mod vector;
mod windows;

use self::outputs::Outputs;
use self::plane::Plane;
use self::taps::Taps;
use super::lie::{COLUMNS, columns};
use super::operand::Operand;
use super::run::Run;

/// Places of a transformed tile.
const PLACES: usize = 16;

/// Tiles that are transformed at once: a vector of AVX-512.
const LANES: usize = 16;

/// Tasks that keep all threads busy.
const TASKS: usize = 16;

/// Lines of a strip of transformed images: what products read fastest, where that holds what is transformed at once.
fn width() -> usize {
    match columns::<f32>() {
        width @ LANES.. => width,
        _ => COLUMNS,
    }
}

/// A contraction whose right operand is an image's windows.
pub(super) enum Winograd {
    /// Its lines are outputs.
    Outputs(Outputs),
    /// Its lines are taps of the window, and its steps outputs.
    Taps(Taps),
}

impl Winograd {
    /// For `rows` rows times an operand, if that pays.
    pub(super) fn new(batch: usize, rows: usize, operand: &Operand) -> Option<Winograd> {
        let window = operand.window()?;
        let [_, lines, steps] = &window.axes;
        if let Some(plane) = Plane::new(lines, steps) {
            return Outputs::new(batch, rows, plane).map(Winograd::Outputs);
        }
        Taps::new(batch, rows, window, Plane::new(steps, lines)?).map(Winograd::Taps)
    }

    /// Elements of memory that tasks share.
    pub(super) fn scratch(&self) -> usize {
        match self {
            Winograd::Outputs(outputs) => outputs.scratch(),
            Winograd::Taps(taps) => taps.scratch(),
        }
    }

    /// True iff sums are written where they are wanted, rather than added up first.
    pub(super) fn is_direct(&self) -> bool {
        match self {
            Winograd::Outputs(_) => true,
            Winograd::Taps(taps) => taps.is_direct(),
        }
    }

    pub(super) fn run(&self, run: &Run) {
        match self {
            Winograd::Outputs(outputs) => outputs.run(run),
            Winograd::Taps(taps) => taps.run(run),
        }
    }
}
