//! A machine where something else runs: one thread that is never done.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

/// A busy thread of normal priority. It ends when this is dropped.
pub(super) struct Load {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    /// Begins to load the machine.
    pub(super) fn start() -> Load {
        let over = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&over);
        Load { over, thread: Some(thread::spawn(move || spin(&seen))) }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("spinning does not panic");
        }
    }
}

/// Multiplies, and never tells the processor or the system that it could do without.
fn spin(over: &AtomicBool) {
    let mut x = 1u64;
    while !over.load(Ordering::Relaxed) {
        x = black_box(x.wrapping_mul(3));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_ends_when_it_is_dropped() {
        let load = Load::start();
        let over = Arc::clone(&load.over);
        assert!(!over.load(Ordering::Relaxed));
        drop(load);
        // The thread had its own handle; it is gone.
        assert_eq!((over.load(Ordering::Relaxed), Arc::strong_count(&over)), (true, 1));
    }
}
