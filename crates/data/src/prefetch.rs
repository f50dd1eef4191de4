//! An iterator run on another thread, a bounded number of items ahead.
//!
//! The one hard idea is the end: the receiver is dropped before the thread is joined, so a producer blocked
//! on a full channel wakes with an error and returns. A panic over there goes on here.

use std::panic::resume_unwind;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::{self, JoinHandle};

pub(crate) struct Prefetch<T> {
    /// `None` once the items are exhausted.
    receiver: Option<Receiver<T>>,
    /// `None` once joined.
    producer: Option<JoinHandle<()>>,
}

impl<T: Send + 'static> Prefetch<T> {
    /// Starts the thread, which keeps up to `depth` finished items waiting and one in the making.
    pub(crate) fn new(depth: usize, items: impl Iterator<Item = T> + Send + 'static) -> Self {
        let (sender, receiver) = sync_channel(depth);
        let producer = thread::spawn(move || {
            for item in items {
                if sender.send(item).is_err() {
                    return; // the consumer has gone
                }
            }
        });
        Prefetch { receiver: Some(receiver), producer: Some(producer) }
    }
}

impl<T> Prefetch<T> {
    /// Waits for the thread; its panic, if any, continues on this one.
    fn join(&mut self) {
        self.receiver = None;
        if let Some(Err(panic)) = self.producer.take().map(JoinHandle::join)
            && !thread::panicking()
        {
            resume_unwind(panic);
        }
    }
}

impl<T> Iterator for Prefetch<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        let item = self.receiver.as_ref()?.recv().ok();
        if item.is_none() {
            self.join();
        }
        item
    }
}

impl<T> Drop for Prefetch<T> {
    fn drop(&mut self) {
        self.join();
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn items_arrive_in_order_and_the_end_is_final() {
        let mut items = Prefetch::new(2, 0..100);
        assert_eq!(items.by_ref().collect::<Vec<_>>(), (0..100).collect::<Vec<_>>());
        assert_eq!((items.next(), items.next()), (None, None));
    }

    #[test]
    fn an_early_drop_ends_an_endless_producer() {
        let made = Arc::new(AtomicUsize::new(0));
        let counter = made.clone();
        let mut items = Prefetch::new(
            2,
            (0..).inspect(move |_| {
                counter.fetch_add(1, Ordering::Relaxed);
            }),
        );
        assert_eq!(items.next(), Some(0));
        drop(items); // joins, so a hang would show here
        let n = made.load(Ordering::Relaxed);
        assert!((1..=4).contains(&n), "one taken, two waiting, one in the making: {n}");
        assert_eq!(Arc::strong_count(&made), 1, "the thread has let go of its closure");
    }

    #[test]
    fn a_panic_on_the_thread_reaches_the_consumer() {
        let items = Prefetch::new(2, (0..5).map(|i| if i == 3 { panic!("item {i}") } else { i }));
        let mut seen = Vec::new();
        let result = catch_unwind(AssertUnwindSafe(|| items.for_each(|i| seen.push(i))));
        assert_eq!(result.unwrap_err().downcast_ref::<String>().unwrap(), "item 3");
        assert_eq!(seen, [0, 1, 2], "finished items come first");
    }

    #[test]
    fn a_panic_reaches_a_consumer_that_only_drops() {
        let items = Prefetch::new(0, (0..1).map(|_| -> i32 { panic!("early") }));
        let result = catch_unwind(AssertUnwindSafe(|| drop(items)));
        assert_eq!(result.unwrap_err().downcast_ref::<&str>(), Some(&"early"));
    }
}
