//! Data sets and the batches made from them; nothing here knows a backend.
//!
//! A data set is an [`Images`]: bytes and labels, checked once when it is made. [`digits()`] comes with the
//! crate, [`mnist`] reads files the user brings, and [`Images::batches`] turns either into normalised
//! `f32` batches, built on another thread while the last one trains; [`Epoch::on`] makes them tensors.
//!
//! Reading order: [`Images`], [`mod@digits`], [`idx`], [`Batches`], and [`permutation`] behind the shuffles.
//!
//! ```
//! let (train, test) = kiln_data::digits(0);
//! let (mean, std) = train.mean_std();
//! let mut samples = 0;
//! for batch in train.batches(64).shuffled(7).normalised(mean, std).epoch(0) {
//!     assert_eq!(batch.x.len(), batch.n * 64);
//!     samples += batch.n;
//! }
//! assert_eq!((samples, test.len()), (1437, 360));
//! ```

#![forbid(unsafe_code)]

pub mod digits;
pub mod idx;
mod images;
mod loader;
mod on_device;
mod prefetch;
mod shuffle;

pub use digits::digits;
pub use idx::mnist;
pub use images::Images;
pub use loader::{Batch, Batches, Epoch};
pub use on_device::{DeviceBatch, OnDevice};
pub use shuffle::permutation;
