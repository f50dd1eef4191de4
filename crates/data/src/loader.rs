//! Batches of an [`Images`]: ordered, normalised, and built on another thread ahead of their use.
//!
//! The order is a pure function of seed and epoch, so a run resumed at epoch 7 sees what the first run saw.
//! A pixel stays the byte that it is until it is used: a device gets a quarter of what normalised values would take, and
//! the host looks them up in a table of 256.

use crate::prefetch::Prefetch;
use crate::{Images, permutation};

/// Finished batches that may wait for the consumer.
const DEPTH: usize = 2;

/// One batch, ready to become two tensors.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// Normalised pixels, `f32[n, c, h, w]`, row-major.
    pub x: Vec<f32>,
    /// Labels, `i32[n]`.
    pub y: Vec<i32>,
    /// The number of samples: the batch size, or less in a last batch that was kept.
    pub n: usize,
}

/// A batch as it lies in the set: bytes, row-major.
pub(crate) struct Bytes {
    pub(crate) pixels: Vec<u8>,
    pub(crate) labels: Vec<i32>,
    pub(crate) n: usize,
}

/// What becomes of a pixel: `x = (p / max - mean) / std`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Normal {
    pub(crate) max: f32,
    pub(crate) mean: f32,
    pub(crate) std: f32,
}

impl Normal {
    /// The normalised value of each byte.
    fn table(&self) -> [f32; 256] {
        std::array::from_fn(|p| (p as f32 / self.max - self.mean) / self.std)
    }
}

/// How to cut a set into batches; made by [`Images::batches`], started by [`Batches::epoch`].
///
/// Defaults: in the set's order, `x = p / max`, a short last batch is kept.
#[derive(Clone, Debug)]
#[must_use = "nothing is built before `epoch`"]
pub struct Batches {
    images: Images,
    size: usize,
    seed: Option<u64>,
    mean: f32,
    std: f32,
    drop_last: bool,
}

impl Images {
    /// Batches of `size` samples. The set is shared, not copied.
    ///
    /// # Panics
    /// If `size` is zero.
    ///
    /// # Examples
    /// ```
    /// let set = kiln_data::Images::new(vec![0, 16, 8], vec![0, 1, 2], [1, 1, 1], 3, 16).unwrap();
    /// let batches: Vec<_> = set.batches(2).normalised(0.5, 0.25).epoch(0).collect();
    /// assert_eq!((&batches[0].x, &batches[0].y), (&vec![-2.0, 2.0], &vec![0, 1]));
    /// assert_eq!((&batches[1].x, batches[1].n), (&vec![0.0], 1));
    /// ```
    #[track_caller]
    pub fn batches(&self, size: usize) -> Batches {
        assert!(size > 0, "batches: expected a batch size above zero");
        let images = self.clone();
        Batches { images, size, seed: None, mean: 0.0, std: 1.0, drop_last: false }
    }
}

impl Batches {
    /// A new order each epoch, a pure function of `seed` and the epoch's number.
    pub fn shuffled(self, seed: u64) -> Batches {
        Batches { seed: Some(seed), ..self }
    }

    /// `x = (p / max - mean) / std`, usually with [`Images::mean_std`] of the training set.
    ///
    /// # Panics
    /// If `std` is not above zero, or either is not finite.
    #[track_caller]
    pub fn normalised(self, mean: f32, std: f32) -> Batches {
        assert!(
            mean.is_finite() && std.is_finite() && std > 0.0,
            "normalised: expected a finite mean and a std above zero, found mean {mean}, std {std}"
        );
        Batches { mean, std, ..self }
    }

    /// Whether to leave out a last batch that is not full.
    pub fn drop_last(self, drop_last: bool) -> Batches {
        Batches { drop_last, ..self }
    }

    /// The number of batches in an epoch.
    ///
    /// ```
    /// let (train, _) = kiln_data::digits(0); // 1437 = 22 · 64 + 29
    /// assert_eq!(train.batches(64).len(), 23);
    /// assert_eq!(train.batches(64).drop_last(true).len(), 22);
    /// ```
    pub fn len(&self) -> usize {
        let (n, size) = (self.images.len(), self.size);
        if self.drop_last { n / size } else { n.div_ceil(size) }
    }

    /// True iff an epoch has no batch.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Starts epoch `epoch`: a thread builds up to two batches ahead of the iterator.
    ///
    /// Dropping the iterator early ends the thread.
    ///
    /// # Panics
    /// If the system cannot start a thread.
    pub fn epoch(&self, epoch: u64) -> Epoch {
        let left = self.len();
        let this = self.clone();
        let batches = std::iter::once(()).flat_map(move |()| {
            let order = this.order(epoch);
            let this = this.clone();
            (0..left).map(move |i| this.build(&order, i))
        });
        let [_, channels, height, width] = self.images.dims();
        let normal = Normal { max: f32::from(self.images.max()), mean: self.mean, std: self.std };
        let batches = Prefetch::new(DEPTH, batches);
        Epoch { batches, left, image_dims: [channels, height, width], normal, table: normal.table() }
    }

    fn order(&self, epoch: u64) -> Vec<usize> {
        let n = self.images.len();
        self.seed.map_or_else(|| (0..n).collect(), |seed| permutation(n, seed, epoch))
    }

    fn build(&self, order: &[usize], i: usize) -> Bytes {
        let samples = &order[i * self.size..order.len().min((i + 1) * self.size)];
        let mut pixels = Vec::with_capacity(samples.len() * self.images.image_numel());
        for &sample in samples {
            pixels.extend(self.images.image(sample));
        }
        let labels = samples.iter().map(|&s| i32::from(self.images.labels()[s])).collect();
        Bytes { pixels, labels, n: samples.len() }
    }
}

/// The batches of one epoch, as they become ready.
pub struct Epoch {
    batches: Prefetch<Bytes>,
    left: usize,
    image_dims: [usize; 3],
    normal: Normal,
    table: [f32; 256],
}

impl Epoch {
    /// Channels, height and width of an image.
    pub fn image_dims(&self) -> [usize; 3] {
        self.image_dims
    }

    pub(crate) fn normal(&self) -> Normal {
        self.normal
    }

    /// The next batch as it lies in the set.
    pub(crate) fn next_bytes(&mut self) -> Option<Bytes> {
        let batch = self.batches.next();
        self.left -= usize::from(batch.is_some());
        batch
    }
}

impl Iterator for Epoch {
    type Item = Batch;

    /// The next batch.
    ///
    /// # Panics
    /// With the panic of the building thread, should it have one.
    fn next(&mut self) -> Option<Batch> {
        let Bytes { pixels, labels, n } = self.next_bytes()?;
        Some(Batch { x: pixels.into_iter().map(|p| self.table[usize::from(p)]).collect(), y: labels, n })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Epoch {}

impl std::iter::FusedIterator for Epoch {}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(n: u8) -> Images {
        Images::new((0..n).collect(), (0..n).collect(), [1, 1, 1], 256, 255).unwrap()
    }

    fn labels(batches: &Batches, epoch: u64) -> Vec<i32> {
        batches.epoch(epoch).flat_map(|batch| batch.y).collect()
    }

    #[test]
    fn every_sample_comes_once_with_its_own_label() {
        for batches in [set(100).batches(7), set(100).batches(7).shuffled(3)] {
            let mut seen: Vec<i32> = labels(&batches, 5);
            seen.sort();
            assert_eq!(seen, (0..100).collect::<Vec<_>>());
            for batch in batches.epoch(5) {
                assert_eq!((batch.x.len(), batch.y.len()), (batch.n, batch.n));
                let labels: Vec<i32> = batch.x.iter().map(|x| (x * 255.0).round() as i32).collect();
                assert_eq!(labels, batch.y);
            }
        }
        assert_eq!(labels(&set(10).batches(3), 9), (0..10).collect::<Vec<_>>());
    }

    #[test]
    fn order_is_a_function_of_seed_and_epoch() {
        let batches = set(100).batches(8).shuffled(1);
        assert_eq!(labels(&batches, 0), labels(&batches, 0));
        assert_ne!(labels(&batches, 0), labels(&batches, 1));
        assert_ne!(labels(&batches, 0), labels(&set(100).batches(8).shuffled(2), 0));
        assert_eq!(labels(&batches, 4), labels(&set(100).batches(33).shuffled(1), 4));
    }

    #[test]
    fn the_last_batch_is_kept_or_dropped() {
        let sizes = |batches: Batches| batches.epoch(0).map(|b| b.n).collect::<Vec<_>>();
        assert_eq!(sizes(set(10).batches(4)), [4, 4, 2]);
        assert_eq!(sizes(set(10).batches(4).drop_last(true)), [4, 4]);
        assert_eq!(sizes(set(8).batches(4).drop_last(true)), [4, 4]);
        assert!(sizes(set(3).batches(4).drop_last(true)).is_empty());
        assert!(sizes(set(3).subset(&[]).batches(4)).is_empty());
    }

    #[test]
    fn a_normalised_set_has_mean_zero_and_std_one() {
        let (train, _) = crate::digits(0);
        let (mean, std) = train.mean_std();
        let x: Vec<f32> = train.batches(100).normalised(mean, std).epoch(0).flat_map(|b| b.x).collect();
        let n = x.len() as f64;
        let mean = x.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
        let variance = x.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / n - mean * mean;
        assert!(mean.abs() < 1e-5 && (variance - 1.0).abs() < 1e-5, "{mean} {variance}");
    }

    #[test]
    fn the_length_counts_down_and_an_early_drop_returns() {
        let mut epoch = set(100).batches(10).epoch(0);
        assert_eq!(epoch.len(), 10);
        epoch.next();
        assert_eq!(epoch.len(), 9);
        drop(epoch);
        drop(set(100).batches(1).epoch(0)); // not a single batch taken
    }

    #[test]
    #[should_panic(expected = "expected a batch size above zero")]
    fn an_empty_batch_panics() {
        let _ = set(1).batches(0);
    }

    #[test]
    #[should_panic(expected = "a std above zero, found mean 0, std 0")]
    fn a_zero_std_panics() {
        let _ = set(1).batches(1).normalised(0.0, 0.0);
    }
}
