//! A wgpu device with its queue: submission, waiting, and errors that come from elsewhere.
//!
//! The hard idea is that wgpu reports most failures later and to somebody else: to a handler, to a
//! callback, in another thread. They are kept here, and the next fallible call returns them.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kiln_ir::{Error, ErrorKind, Result};

/// A device, its queue, and what went wrong with them.
pub(crate) struct Gpu {
    pub(crate) device: wgpu::Device,
    pub(crate) queue: wgpu::Queue,
    faults: Arc<Faults>,
    /// How long a submission is watched before the thread sleeps until it is over.
    watched: Duration,
    in_flight: Mutex<VecDeque<Submission>>,
    /// Bytes written since the last submission, which is when wgpu frees what it staged them in.
    staged: AtomicU64,
    made: Mutex<Made>,
}

/// How many objects of wgpu's a device has made so far: constant once a training loop is warm.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Made {
    /// Buffers, for values as for what is read back.
    pub buffers: u64,
    /// Bind groups.
    pub bind_groups: u64,
    /// Compute pipelines.
    pub pipelines: u64,
}

#[derive(Default)]
struct Faults {
    /// Permanent.
    lost: Mutex<Option<Error>>,
    /// The first one that nobody has been told of.
    first: Mutex<Option<Error>>,
}

/// A submission, and when it was made.
struct Submission {
    index: wgpu::SubmissionIndex,
    at: Instant,
}

/// Submissions that may be under way however long they take: one runs, one waits for it.
const LONG_IN_FLIGHT: usize = 2;

/// Those that may be while they are short. Waking up when one is over takes as long as one of these does, so with two
/// the device would idle half of the time.
const SHORT_IN_FLIGHT: usize = 8;

/// How long ago the oldest of short submissions was made at most.
const SHORT: Duration = Duration::from_millis(1);

/// A thread that sleeps is woken some 25 µs late, as long as a small step takes.
const WATCHED: Duration = Duration::from_micros(200);

/// Staged bytes after which a write submits what is there.
const MAX_STAGED: u64 = 64 << 20;

/// Locks a mutex whose content stays consistent even if a holder panicked.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Gpu {
    pub(crate) fn new(device: wgpu::Device, queue: wgpu::Queue) -> Gpu {
        // A software adapter computes on the processor that would watch it.
        let software = device.adapter_info().device_type == wgpu::DeviceType::Cpu;
        let watched = if software { Duration::ZERO } else { WATCHED };
        let faults = Arc::new(Faults::default());
        let handler = faults.clone();
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            lock(&handler.first).get_or_insert(error_of(error));
        }));
        let callback = faults.clone();
        device.set_device_lost_callback(move |reason, message| {
            let message = format!("device lost: {reason:?}: {message}");
            lock(&callback.lost).get_or_insert(Error::new(ErrorKind::DeviceLost, message));
        });
        Gpu {
            device,
            queue,
            faults,
            watched,
            in_flight: Mutex::default(),
            staged: AtomicU64::new(0),
            made: Mutex::default(),
        }
    }

    /// What was made so far.
    pub(crate) fn made(&self) -> MutexGuard<'_, Made> {
        lock(&self.made)
    }

    /// The first error since the last check; a lost device stays lost.
    pub(crate) fn check(&self) -> Result<()> {
        if let Some(lost) = &*lock(&self.faults.lost) {
            return Err(lost.clone());
        }
        lock(&self.faults.first).take().map_or(Ok(()), Err)
    }

    /// Runs `f`; an error of the device in this thread meanwhile becomes the result.
    pub(crate) fn scoped<T>(&self, f: impl FnOnce() -> T) -> Result<T> {
        let filters = [wgpu::ErrorFilter::Internal, wgpu::ErrorFilter::OutOfMemory, wgpu::ErrorFilter::Validation];
        let scopes = filters.map(|filter| self.device.push_error_scope(filter));
        let value = f();
        let errors = scopes.into_iter().rev().map(|scope| pollster::block_on(scope.pop()));
        match errors.collect::<Vec<_>>().into_iter().flatten().next() {
            Some(error) => Err(error_of(error)),
            None => Ok(value),
        }
    }

    /// Copies bytes to a buffer before the next submission.
    pub(crate) fn write(&self, buffer: &wgpu::Buffer, at: u64, data: &[u8]) {
        self.queue.write_buffer(buffer, at, data);
        let staged = self.staged.fetch_add(data.len() as u64, Ordering::Relaxed) + data.len() as u64;
        if staged > MAX_STAGED {
            self.submit(None);
        }
    }

    /// Submits commands, after waiting until few enough submissions are under way.
    pub(crate) fn submit(&self, commands: Option<wgpu::CommandBuffer>) -> wgpu::SubmissionIndex {
        self.make_room();
        let index = self.queue.submit(commands);
        lock(&self.in_flight).push_back(Submission { index: index.clone(), at: Instant::now() });
        index
    }

    /// Submits the first of some commands, of which others follow.
    pub(crate) fn begin(&self, commands: wgpu::CommandBuffer) {
        self.make_room();
        self.queue.submit([commands]);
    }

    fn make_room(&self) {
        self.staged.store(0, Ordering::Relaxed);
        let mut in_flight = lock(&self.in_flight);
        let many = |queue: &VecDeque<Submission>| match queue.front() {
            Some(oldest) if oldest.at.elapsed() < SHORT => queue.len() >= SHORT_IN_FLIGHT,
            _ => queue.len() >= LONG_IN_FLIGHT,
        };
        while many(&in_flight) {
            let oldest = in_flight.pop_front().expect("the queue is not empty");
            // A failure to wait is a lost device, which the next check reports.
            let _ = self.poll(oldest.index);
        }
    }

    /// Waits until a submission is over.
    pub(crate) fn wait(&self, index: wgpu::SubmissionIndex) -> Result<()> {
        let polled = self.poll(index);
        self.check()?;
        polled
    }

    fn poll(&self, index: wgpu::SubmissionIndex) -> Result<()> {
        let begun = Instant::now();
        let at_once = || wgpu::PollType::Wait { submission_index: Some(index.clone()), timeout: Some(Duration::ZERO) };
        while begun.elapsed() < self.watched {
            if self.device.poll(at_once()).is_ok() {
                return Ok(());
            }
            std::hint::spin_loop();
        }
        let wait = wgpu::PollType::Wait { submission_index: Some(index), timeout: None };
        let lost = |e| Error::caused_by(ErrorKind::DeviceLost, "waiting for the device failed", e);
        self.device.poll(wait).map(|_| ()).map_err(lost)
    }
}

/// wgpu's error as ours.
fn error_of(error: wgpu::Error) -> Error {
    let kind = match &error {
        wgpu::Error::OutOfMemory { .. } => ErrorKind::OutOfMemory,
        wgpu::Error::Validation { .. } => ErrorKind::Kernel,
        wgpu::Error::Internal { .. } => ErrorKind::DeviceLost,
    };
    let message = match kind {
        ErrorKind::OutOfMemory => "device memory is exhausted".to_string(),
        _ => format!("wgpu: {error}"),
    };
    Error::new(kind, message)
}
