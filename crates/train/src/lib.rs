//! What surrounds a training loop: progress, history, plots and metrics; nothing here knows a tensor or a device.
//!
//! Numbers come in as `f64`, already read back, so the crate needs no backend and its tests need no device.
//! [`Progress`] shows an epoch while it runs, [`History`] keeps what should outlive it, [`Plot`] draws that as
//! SVG, [`ConfusionMatrix`] says which classes are mixed up, [`EarlyStopping`] says when to end.
//!
//! Reading order: [`Mean`], [`Progress`], [`History`], [`Plot`], [`ConfusionMatrix`], [`EarlyStopping`].
//!
//! ```
//! use kiln_train::{EarlyStopping, History, Progress};
//!
//! let (mut history, mut stopping) = (History::new(), EarlyStopping::new(2));
//! for epoch in 1..=10 {
//!     let mut progress = Progress::hidden(&format!("epoch {epoch}/10"), 2);
//!     progress.step(64, &[("loss", 1.0 / f64::from(epoch.min(3)))]);
//!     progress.step(32, &[("loss", 1.0 / f64::from(epoch.min(3)))]);
//!     let summary = progress.finish();
//!     let loss = summary.metric("loss").unwrap();
//!     history.push("train loss", f64::from(epoch), loss);
//!     stopping.improved(loss);
//!     if stopping.should_stop() {
//!         break;
//!     }
//! }
//! assert_eq!(history.series("train loss").len(), 5); // best at epoch 3, then two without improvement
//! ```

#![forbid(unsafe_code)]

mod mean;
mod progress;

mod history;
mod plot;

mod confusion;
mod stopping;

mod axis;
mod text;
mod thin;

pub use confusion::ConfusionMatrix;
pub use history::History;
pub use mean::Mean;
pub use plot::Plot;
pub use progress::{Progress, Summary};
pub use stopping::EarlyStopping;
