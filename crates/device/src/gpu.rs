//! A wgpu device with its queue: submission, waiting, and errors that come from elsewhere.
//!
//! The hard idea is that wgpu reports most failures later and to somebody else: to a handler, to a
//! callback, in another thread. They are kept here, and the next fallible call returns them. A device
//! that is lost stays lost, whatever else goes wrong with it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kiln_ir::{Error, ErrorKind, Result};

use crate::line::{Line, Ticket};
#[cfg(doc)]
use crate::quirks::Quirk;

/// A device, its queue, and what went wrong with them.
pub(crate) struct Gpu {
    pub(crate) device: wgpu::Device,
    pub(crate) queue: wgpu::Queue,
    pub(crate) line: Line,
    faults: Arc<Faults>,
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

/// Locks a mutex whose content stays consistent even if a holder panicked.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Gpu {
    pub(crate) fn new(device: wgpu::Device, queue: wgpu::Queue) -> Gpu {
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
        Gpu { line: Line::new(device.clone(), queue.clone()), device, queue, faults, made: Mutex::default() }
    }

    /// What was made so far.
    pub(crate) fn made(&self) -> MutexGuard<'_, Made> {
        lock(&self.made)
    }

    /// The first error since the last check; a lost device stays lost.
    pub(crate) fn check(&self) -> Result<()> {
        if let Some(lost) = self.lost() {
            return Err(lost);
        }
        let first = lock(&self.faults.first).take();
        first.map_or(Ok(()), |error| Err(self.cause(error)))
    }

    /// As [`Gpu::check`], of what was called just now: see [`Quirk::DestructionIsSilent`]. While older work is under way
    /// a destruction may go unnoticed.
    pub(crate) fn ask(&self) -> Result<()> {
        // A failure to poll is a lost device, which the check reports.
        let _ = self.line.poll(wgpu::PollType::Poll);
        self.check()
    }

    fn lost(&self) -> Option<Error> {
        lock(&self.faults.lost).clone()
    }

    /// What is behind an error: a lost device has none but invalid objects, which wgpu reports as somebody's mistake.
    pub(crate) fn cause(&self, error: Error) -> Error {
        if error.kind() != ErrorKind::OutOfMemory {
            // What is under way ends first.
            let _ = self.line.poll(wgpu::PollType::wait_indefinitely());
        }
        self.lost().unwrap_or(error)
    }

    /// Runs `f`; an error of the device in this thread meanwhile becomes the result.
    pub(crate) fn scoped<T>(&self, f: impl FnOnce() -> T) -> Result<T> {
        let filters = [wgpu::ErrorFilter::Internal, wgpu::ErrorFilter::OutOfMemory, wgpu::ErrorFilter::Validation];
        let scopes = filters.map(|filter| self.device.push_error_scope(filter));
        let value = f();
        let errors = scopes.into_iter().rev().map(|scope| pollster::block_on(scope.pop()));
        match errors.collect::<Vec<_>>().into_iter().flatten().next() {
            Some(error) => Err(self.cause(error_of(error))),
            None => self.ask().map(|()| value),
        }
    }

    /// Waits until commands are over.
    pub(crate) fn wait(&self, ticket: Ticket) -> Result<()> {
        let waited = self.line.wait(ticket);
        self.check()?;
        waited
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
