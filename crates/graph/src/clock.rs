//! Clocks: counters of the host from which numbers of a program follow, so that a recorded step can be run again
//! with the numbers of its time.
//!
//! A learning rate, a bias correction, the seed of a mask: each is a scalar slot. When it is recorded for a [`Trace`],
//! it remembers its origin beside its value, and a replay asks the origin instead of the program that recorded it.
//!
//! [`Trace`]: crate::trace::Trace

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kiln_ir::DType;

use crate::node::Source;
use crate::tensor::scalar_word;
use crate::{Device, Tensor, trace};

/// A counter that many may read and one advances, an optimizer's count of steps say. Clones are the same clock.
///
/// ```
/// use kiln_graph::Clock;
/// let clock = Clock::new(0);
/// assert_eq!((clock.tick(), clock.tick(), clock.now()), (1, 2, 2));
/// ```
#[derive(Clone, Debug)]
pub struct Clock(Arc<AtomicU64>);

/// Numbers as a function of a clock's count.
pub(crate) type Numbers = Arc<dyn Fn(u64) -> Vec<f64> + Send + Sync>;

/// Where the word of a scalar slot comes from when a step is run again.
#[derive(Clone)]
pub(crate) enum Origin {
    /// The seed of the thread's generator.
    Seed,
    /// The number of a draw.
    Draw(u32),
    /// One of the numbers of a clock, which stood at `at`.
    Clock { clock: Clock, at: u64, numbers: Numbers, index: usize, slot: DType },
}

impl std::fmt::Debug for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Origin::Seed => f.write_str("Seed"),
            Origin::Draw(n) => write!(f, "Draw({n})"),
            Origin::Clock { at, index, .. } => write!(f, "Clock({at}, {index})"),
        }
    }
}

impl Clock {
    /// A clock that stands at this count.
    pub fn new(count: u64) -> Clock {
        Clock(Arc::new(AtomicU64::new(count)))
    }

    /// The count.
    pub fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Sets the count.
    pub fn set(&self, count: u64) {
        self.0.store(count, Ordering::Relaxed);
    }

    /// Advances by one, and gives the new count.
    pub fn tick(&self) -> u64 {
        trace::note(self);
        self.0.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// `numbers(now)` as scalars of this dtype, as [`Tensor::scalar`] makes them. In a recorded step they are those
    /// of the count at each run.
    ///
    /// # Panics
    /// As [`Tensor::scalar`].
    #[track_caller]
    pub fn scalars(
        &self,
        numbers: impl Fn(u64) -> Vec<f64> + Send + Sync + 'static,
        dtype: DType,
        device: &Device,
    ) -> Vec<Tensor> {
        let at = self.now();
        let values = numbers(at);
        let numbers: Option<Numbers> = trace::is_recording().then(|| Arc::new(numbers) as Numbers);
        let mut scalars = Vec::with_capacity(values.len());
        for (index, value) in values.into_iter().enumerate() {
            let (slot, word) = scalar_word(value, dtype);
            let origin = numbers.as_ref().map(|numbers| {
                Arc::new(Origin::Clock { clock: self.clone(), at, numbers: numbers.clone(), index, slot })
            });
            scalars.push(Tensor::of_word(Source::Scalar { word, origin }, slot, dtype, device));
        }
        scalars
    }

    pub(crate) fn is(&self, other: &Clock) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}
