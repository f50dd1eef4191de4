//! A crew: threads that help whoever has work to share out.
//!
//! The hard idea is one word that says all of a job: its number, how many may take part, whether it may still be begun,
//! and how many help. A helper enters by raising that count at the very moment at which it sees the job open; the owner
//! closes the job and goes on when the count is zero. So nobody touches a job that has ended, and the owner waits for
//! none that sleeps or does something else.
//!
//! Threads that sleep need 20 to 40 µs to begin, which a step of many short kernels would pay at each of them. Before
//! they sleep, they therefore wait for a while, and yield to whoever else wants the processor.

use std::any::Any;
use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

/// How long a thread that has nothing to do stays awake: longer than what is between two kernels, or two short replays.
const AWAKE: Duration = Duration::from_micros(200);

/// Looks at the word before the processor is offered to others: a few microseconds.
const LOOKS: usize = 64;

/// How many help: the lowest bits of the word. For how many threads the job is, and its number, come after the flags.
const HELPERS: u64 = (1 << 14) - 1;

/// Set while helpers may enter.
const OPEN: u64 = 1 << 14;

/// Set if the owner sleeps until the last helper has left.
const WAITS: u64 = 1 << 15;

/// What a job does, given the number of who does it.
type Work<'a> = &'a (dyn Fn(usize) + Sync);

/// Threads, and what they share with an owner.
pub(crate) struct Crew {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    /// Whoever has this gives the crew its work.
    turn: Mutex<()>,
}

struct Shared {
    word: AtomicU64,
    job: UnsafeCell<Option<Work<'static>>>,
    /// What a helper panicked with.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    /// Who is to be woken when the last helper has left.
    owner: Mutex<Option<Thread>>,
    seats: Vec<Seat>,
    ended: AtomicBool,
}

// SAFETY: all but the job is `Sync` by itself. The job is written by the crew's one owner while the word says that it is
// closed and that nobody helps, and read by those who have entered; the word orders both.
unsafe impl Sync for Shared {}

/// One helper: whether it sleeps, and how it is woken.
#[derive(Default)]
struct Seat {
    asleep: AtomicBool,
    thread: OnceLock<Thread>,
}

impl Crew {
    /// So many threads beside their owner.
    pub(crate) fn new(helpers: usize) -> Crew {
        let seats = (0..helpers).map(|_| Seat::default()).collect();
        let shared = Arc::new(Shared {
            word: AtomicU64::new(0),
            job: UnsafeCell::new(None),
            panic: Mutex::default(),
            owner: Mutex::default(),
            seats,
            ended: AtomicBool::new(false),
        });
        let start = |i: usize| {
            let shared = shared.clone();
            let builder = thread::Builder::new().name(format!("kiln-cpu-{i}"));
            builder.spawn(move || shared.help(i)).expect("the system lets a program start its threads")
        };
        let threads = (1..=helpers).map(start).collect();
        Crew { shared, threads, turn: Mutex::default() }
    }

    /// How many threads there are, the owner's own among them.
    pub(crate) fn len(&self) -> usize {
        self.threads.len() + 1
    }

    /// Calls `work` with 0 here, and with the numbers below `n` on such helpers as come in time, each with its own.
    /// Returns when all have. While the crew is at another's work, nobody helps.
    pub(crate) fn share(&self, n: usize, work: Work<'_>) {
        let _turn = match self.turn.try_lock() {
            Ok(turn) => turn,
            // A panic leaves nothing half done here.
            Err(TryLockError::Poisoned(turn)) => turn.into_inner(),
            Err(TryLockError::WouldBlock) => return work(0),
        };
        let shared = &*self.shared;
        // SAFETY: nobody calls it after `close`, which runs before this returns, whatever `work` does.
        let job = unsafe { std::mem::transmute::<Work<'_>, Work<'static>>(work) };
        // SAFETY: it is this call's turn: the last job is closed, and those who helped have left.
        unsafe { *shared.job.get() = Some(job) };
        shared.open(n.min(self.len()));
        let own = catch_unwind(AssertUnwindSafe(|| work(0)));
        shared.close();
        let other = lock(&shared.panic).take();
        if let Some(panic) = own.err().or(other) {
            resume_unwind(panic);
        }
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            thread.thread().unpark();
            thread.join().expect("helpers keep what they panic with for the owner");
        }
    }
}

/// What is behind a lock; a panic leaves nothing half done there.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many threads a job is for.
fn seats(word: u64) -> usize {
    (word >> 16 & 0xffff) as usize
}

/// True iff a job is open, another than the one last `seen`, and the thread of a number is to take part.
fn calls(word: u64, me: usize, seen: u64) -> bool {
    word & OPEN != 0 && word >> 32 != seen && me < seats(word)
}

/// Waits for a while until something is so; true iff it is.
fn wait(is: impl Fn() -> bool) -> bool {
    let since = Instant::now();
    loop {
        for _ in 0..LOOKS {
            if is() {
                return true;
            }
            std::hint::spin_loop();
        }
        if since.elapsed() > AWAKE {
            return false;
        }
        thread::yield_now();
    }
}

impl Shared {
    /// Opens the next job, for `n` threads with the owner.
    fn open(&self, n: usize) {
        let number = (self.word.load(Ordering::Relaxed) >> 32).wrapping_add(1);
        self.word.store(number << 32 | (n as u64) << 16 | OPEN, Ordering::SeqCst);
        self.wake(0, n);
    }

    /// Each wakes two others, so that many are awake soon.
    fn wake(&self, me: usize, n: usize) {
        for other in [2 * me + 1, 2 * me + 2] {
            // What is asleep has seen no word after it said so, and who says so later sees this one.
            if other < n && self.seats[other - 1].asleep.load(Ordering::SeqCst) {
                self.seats[other - 1].thread.get().inspect(|thread| thread.unpark());
            }
        }
    }

    /// Lets nobody enter any more, and waits for those who have.
    fn close(&self) {
        let word = self.word.fetch_and(!OPEN, Ordering::AcqRel);
        let is_left = || self.word.load(Ordering::Acquire) & HELPERS == 0;
        if word & HELPERS == 0 || wait(is_left) {
            return;
        }
        *lock(&self.owner) = Some(thread::current());
        self.word.fetch_or(WAITS, Ordering::AcqRel);
        while !is_left() {
            thread::park();
        }
    }

    /// The life of a helper.
    fn help(&self, me: usize) {
        let seat = &self.seats[me - 1];
        seat.thread.get_or_init(thread::current);
        let mut seen = 0;
        while !self.ended.load(Ordering::SeqCst) {
            let is_called = || calls(self.word.load(Ordering::SeqCst), me, seen);
            if wait(is_called) {
                seen = self.enter(me, seen).unwrap_or(seen);
                continue;
            }
            seat.asleep.store(true, Ordering::SeqCst);
            if !is_called() && !self.ended.load(Ordering::SeqCst) {
                thread::park();
            }
            seat.asleep.store(false, Ordering::Relaxed);
        }
    }

    /// Takes part in the job that is open, if it still is: its number.
    fn enter(&self, me: usize, seen: u64) -> Option<u64> {
        let one_more = |word| calls(word, me, seen).then_some(word + 1);
        let word = self.word.fetch_update(Ordering::AcqRel, Ordering::Relaxed, one_more).ok()?;
        self.wake(me, seats(word));
        // SAFETY: it was open when this thread entered, so the owner waits until it has left.
        let job = unsafe { *self.job.get() };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| job.inspect(|work| work(me)))) {
            *lock(&self.panic) = Some(panic);
        }
        let before = self.word.fetch_sub(1, Ordering::AcqRel);
        if before & WAITS != 0 && before & HELPERS == 1 {
            lock(&self.owner).take().inspect(Thread::unpark);
        }
        Some(word >> 32)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    /// How often each number of a job was called.
    fn called(crew: &Crew, n: usize, work: impl Fn(usize) + Sync) -> Vec<usize> {
        let seen: Vec<AtomicUsize> = (0..n).map(|_| AtomicUsize::new(0)).collect();
        crew.share(n, &|i| {
            seen[i].fetch_add(1, Ordering::Relaxed);
            work(i);
        });
        seen.into_iter().map(AtomicUsize::into_inner).collect()
    }

    #[test]
    fn the_owner_works_and_others_at_most_once() {
        let crew = Crew::new(3);
        for job in 0..20_000 {
            let seen = called(&crew, 1 + job % 6, |_| ());
            assert_eq!(seen[0], 1, "job {job}");
            assert!(seen.iter().all(|&n| n <= 1), "job {job}: {seen:?}");
        }
    }

    /// A job that ends only when all are there: those that sleep are woken, by each other.
    #[test]
    fn all_come_awake_or_asleep() {
        let crew = Crew::new(8);
        for job in 0..20 {
            if job % 2 == 0 {
                thread::sleep(AWAKE * 20);
            }
            let there = AtomicUsize::new(0);
            let begun = Instant::now();
            let seen = called(&crew, 9, |_| {
                there.fetch_add(1, Ordering::Relaxed);
                while there.load(Ordering::Relaxed) < 9 && begun.elapsed() < Duration::from_secs(10) {
                    thread::yield_now();
                }
            });
            assert_eq!(seen, [1; 9], "job {job}");
        }
    }

    /// An owner that is done first sleeps until the last helper has left, and sees what each did.
    #[test]
    fn the_owner_waits_for_those_who_have_entered() {
        let crew = Crew::new(2);
        for _ in 0..20 {
            let (entered, left) = (AtomicUsize::new(0), AtomicUsize::new(0));
            let begun = Instant::now();
            crew.share(3, &|i| match i {
                0 => {
                    while entered.load(Ordering::Relaxed) < 2 && begun.elapsed() < Duration::from_secs(10) {
                        thread::yield_now();
                    }
                }
                _ => {
                    entered.fetch_add(1, Ordering::Relaxed);
                    thread::sleep(AWAKE * (10 * i as u32));
                    left.fetch_add(1, Ordering::Relaxed);
                }
            });
            assert_eq!((entered.into_inner(), left.into_inner()), (2, 2));
        }
    }

    #[test]
    fn of_two_who_ask_at_once_each_gets_all_done() {
        let crew = Crew::new(2);
        let ask = || (0..2000).for_each(|job| assert_eq!(called(&crew, 3, |_| ())[0], 1, "job {job}"));
        thread::scope(|s| [s.spawn(ask), s.spawn(ask)].map(|asker| asker.join().expect("all was done")));
    }

    /// Nobody waits for a crew that waits for it.
    #[test]
    fn work_within_work_is_done_alone() {
        let crew = Crew::new(2);
        let inner = AtomicUsize::new(0);
        let outer = called(&crew, 3, |_| {
            inner.fetch_add(called(&crew, 3, |_| ())[0], Ordering::Relaxed);
        });
        assert_eq!(inner.into_inner(), outer.iter().sum::<usize>());
    }

    #[test]
    fn a_panic_reaches_the_owner_from_wherever_it_was() {
        let crew = Crew::new(2);
        for who in [0, 1, 2] {
            let there = AtomicUsize::new(0);
            let begun = Instant::now();
            let work = |i: usize| {
                there.fetch_add(1, Ordering::Relaxed);
                while there.load(Ordering::Relaxed) < 3 && begun.elapsed() < Duration::from_secs(10) {
                    thread::yield_now();
                }
                assert!(i != who, "it was {i}");
            };
            let panic = catch_unwind(AssertUnwindSafe(|| crew.share(3, &work))).expect_err("one of them panics");
            assert_eq!(panic.downcast_ref::<String>(), Some(&format!("it was {who}")));
            assert_eq!(called(&crew, 1, |_| ()), [1]);
        }
    }
}
