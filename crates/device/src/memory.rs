//! Device memory: buffers in bins of similar size, kept for reuse when their last handle drops.
//!
//! wgpu clears every new buffer and maps new staging memory page by page, so a buffer that is used
//! again is many times cheaper. Reuse is safe without waiting: the queue runs in order.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use kiln_ir::{Error, ErrorKind, Readback, Result};

use crate::gpu::{Gpu, lock};

const STORAGE: wgpu::BufferUsages =
    wgpu::BufferUsages::STORAGE.union(wgpu::BufferUsages::COPY_SRC).union(wgpu::BufferUsages::COPY_DST);
const STAGING: wgpu::BufferUsages = wgpu::BufferUsages::MAP_READ.union(wgpu::BufferUsages::COPY_DST);

/// A buffer and its serial number.
type Numbered = (u64, wgpu::Buffer);

/// The buffers of a device that nobody uses.
pub(crate) struct Pool {
    pub(crate) gpu: Arc<Gpu>,
    free: Mutex<HashMap<(wgpu::BufferUsages, u64), Vec<Numbered>>>,
    /// Rises whenever unused buffers are given up; who holds on to some lets go then.
    generation: AtomicU64,
    created: AtomicU64,
}

/// A buffer that returns to its pool.
pub(crate) struct Memory {
    pub(crate) buffer: wgpu::Buffer,
    /// A number that no other buffer of this pool has; it survives reuse.
    pub(crate) serial: u64,
    usage: wgpu::BufferUsages,
    /// False while the host may have it mapped: then it must not be used again.
    reusable: bool,
    pool: Arc<Pool>,
}

impl Memory {
    /// Returns memory that the host is done with.
    fn reuse(mut self) {
        self.reusable = true;
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if !self.reusable {
            return;
        }
        let mut free = lock(&self.pool.free);
        free.entry((self.usage, self.buffer.size())).or_default().push((self.serial, self.buffer.clone()));
    }
}

/// The size of the buffer that serves so many bytes: at most an eighth more, at least 256.
pub(crate) fn bin(bytes: u64) -> u64 {
    let step = (bytes.max(1).next_power_of_two() / 16).max(256);
    bytes.max(1).next_multiple_of(step)
}

impl Pool {
    pub(crate) fn new(gpu: Arc<Gpu>) -> Pool {
        Pool { gpu, free: Mutex::default(), generation: AtomicU64::new(0), created: AtomicU64::new(0) }
    }

    /// A storage buffer of at least this size.
    pub(crate) fn storage(self: &Arc<Pool>, bytes: u64) -> Result<Memory> {
        self.take(STORAGE, bytes)
    }

    /// How often unused buffers have been given up.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    fn take(self: &Arc<Pool>, usage: wgpu::BufferUsages, bytes: u64) -> Result<Memory> {
        let limit = self.gpu.device.limits().max_buffer_size;
        if bytes > limit {
            let message = format!("a buffer of {bytes} bytes exceeds this device's {limit}");
            return Err(Error::new(ErrorKind::OutOfMemory, message));
        }
        let size = bin(bytes).min(limit);
        let found = lock(&self.free).get_mut(&(usage, size)).and_then(Vec::pop);
        let (serial, buffer) = match found {
            Some(found) => found,
            None => self.create(usage, size).or_else(|_| {
                self.trim()?;
                self.create(usage, size)
            })?,
        };
        Ok(Memory { buffer, serial, usage, reusable: true, pool: self.clone() })
    }

    fn create(&self, usage: wgpu::BufferUsages, size: u64) -> Result<Numbered> {
        self.gpu.check()?;
        let label = if usage == STORAGE { "storage" } else { "staging" };
        let descriptor = wgpu::BufferDescriptor { label: Some(label), size, usage, mapped_at_creation: false };
        let buffer = self.gpu.scoped(|| self.gpu.device.create_buffer(&descriptor))?;
        self.gpu.made().buffers += 1;
        Ok((self.created.fetch_add(1, Ordering::Relaxed), buffer))
    }

    /// Gives up what is unused, once the device is done with it.
    fn trim(&self) -> Result<()> {
        self.generation.fetch_add(1, Ordering::Relaxed);
        lock(&self.free).clear();
        let ticket = self.gpu.line.submit(None);
        self.gpu.wait(ticket)
    }

    /// Starts copying bytes back; the range may begin and end anywhere.
    pub(crate) fn read(self: &Arc<Pool>, src: &wgpu::Buffer, range: Range<u64>) -> Readback {
        if range.is_empty() {
            return Readback::new(|| Ok(Vec::new()));
        }
        match self.start_read(src, range) {
            Ok(readback) => readback,
            Err(error) => Readback::new(|| Err(error)),
        }
    }

    fn start_read(self: &Arc<Pool>, src: &wgpu::Buffer, range: Range<u64>) -> Result<Readback> {
        let start = range.start - range.start % 4;
        let len = (range.end - start).next_multiple_of(4);
        let mut staging = self.take(STAGING, len)?;
        staging.reusable = false;
        let gpu = self.gpu.clone();
        let mut encoder = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("read") });
        encoder.copy_buffer_to_buffer(src, start, &staging.buffer, 0, len);
        let ticket = gpu.line.submit(Some(encoder.finish()));
        gpu.check()?;
        let (sender, receiver) = mpsc::channel();
        staging.buffer.map_async(wgpu::MapMode::Read, 0..len, move |mapped| {
            // The receiver is gone if nobody waits for the bytes any more.
            let _ = sender.send(mapped);
        });
        let skip = (range.start - start) as usize;
        let wanted = skip..skip + (range.end - range.start) as usize;
        Ok(Readback::new(move || {
            gpu.wait(ticket)?;
            gpu.await_mapping(&receiver)?;
            let failed = |e| gpu.cause(Error::caused_by(ErrorKind::DeviceLost, READING_FAILED, e));
            let view = staging.buffer.get_mapped_range(0..len).map_err(failed)?;
            let bytes = view[wanted].to_vec();
            drop(view);
            staging.buffer.unmap();
            staging.reuse();
            Ok(bytes)
        }))
    }
}

const READING_FAILED: &str = "reading back failed";

/// How long a callback is waited for before wgpu is asked again.
const PATIENCE: Duration = Duration::from_millis(1);

impl Gpu {
    /// Waits until a buffer is mapped, which happens only while somebody polls: another thread may have seen the end of
    /// the submission before the mapping was asked for.
    fn await_mapping(&self, mapped: &mpsc::Receiver<Result<(), wgpu::BufferAsyncError>>) -> Result<()> {
        let failed = |e| self.cause(Error::caused_by(ErrorKind::DeviceLost, READING_FAILED, e));
        let mut patience = Duration::ZERO;
        loop {
            match mapped.recv_timeout(patience) {
                Ok(result) => return result.map_err(failed),
                Err(mpsc::RecvTimeoutError::Timeout) => self.ask()?,
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    return Err(self.cause(Error::new(ErrorKind::DeviceLost, READING_FAILED)));
                }
            }
            patience = PATIENCE;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nobody polls here but who waits for the mapping.
    #[test]
    fn a_mapping_that_nobody_else_polls_for_comes() {
        if crate::adapters().is_empty() {
            assert!(std::env::var_os("KILN_REQUIRE_GPU").is_none(), "KILN_REQUIRE_GPU is set and there is no adapter");
            return println!("skipped: no adapter");
        }
        let backend = crate::WgpuBackend::gpu(0, crate::Options::default()).unwrap();
        let gpu = backend.device();
        let descriptor = wgpu::BufferDescriptor { label: None, size: 256, usage: STAGING, mapped_at_creation: false };
        let buffer = gpu.device.create_buffer(&descriptor);
        let (sender, receiver) = mpsc::channel();
        buffer.map_async(wgpu::MapMode::Read, .., move |mapped| sender.send(mapped).unwrap());
        gpu.await_mapping(&receiver).unwrap();
        // A callback that was dropped unheard is an error.
        let (sender, receiver) = mpsc::channel();
        drop(sender);
        assert!(gpu.await_mapping(&receiver).unwrap_err().is_device_lost());
    }

    #[test]
    fn bins_waste_at_most_an_eighth() {
        for bytes in [1, 256, 257, 4095, 4097, 100_000, 1 << 20, (1 << 20) + 4, 123_456_789] {
            let size = bin(bytes);
            assert!(
                size >= bytes && size.is_multiple_of(256) && size <= (bytes + bytes / 8).max(bytes + 256),
                "{bytes} in {size}"
            );
        }
    }
}
