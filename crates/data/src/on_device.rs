//! Batches as tensors: the last step, on the thread that trains.
//!
//! Pixels are uploaded as bytes. What widens and normalises them is recorded, so that it becomes part of the kernel that
//! reads them first.

use kiln_graph::{Device, Tensor};
use kiln_ir::{DType, Result};

use crate::Epoch;
use crate::loader::{Bytes, Normal};

/// A batch on a device.
#[derive(Clone, Debug)]
pub struct DeviceBatch {
    /// Normalised pixels, `f32[n, c, h, w]`.
    pub x: Tensor,
    /// Labels, `i32[n]`.
    pub y: Tensor,
    /// The number of samples.
    pub n: usize,
}

/// The batches of an epoch, uploaded as they come; made by [`Epoch::on`].
pub struct OnDevice {
    epoch: Epoch,
    device: Device,
}

impl Epoch {
    /// The same batches as tensors on a device.
    ///
    /// ```
    /// # let device = kiln_graph::Device::new(kiln_cpu::CpuBackend::new());
    /// let (train, _) = kiln_data::digits(0);
    /// let batch = train.batches(32).epoch(0).on(&device).next().unwrap()?;
    /// assert_eq!((batch.x.dims(), batch.y.dims()), (&[32, 1, 8, 8][..], &[32][..]));
    /// # Ok::<(), kiln_ir::Error>(())
    /// ```
    pub fn on(self, device: &Device) -> OnDevice {
        OnDevice { epoch: self, device: device.clone() }
    }
}

impl Iterator for OnDevice {
    /// An error if the device has no memory for the batch, or has failed.
    type Item = Result<DeviceBatch>;

    fn next(&mut self) -> Option<Result<DeviceBatch>> {
        let (dims, normal) = (self.epoch.image_dims(), self.epoch.normal());
        self.epoch.next_bytes().map(|batch| upload(&batch, dims, normal, &self.device))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.epoch.size_hint()
    }
}

impl ExactSizeIterator for OnDevice {}

fn upload(batch: &Bytes, [c, h, w]: [usize; 3], normal: Normal, device: &Device) -> Result<DeviceBatch> {
    let pixels = Tensor::new(&batch.pixels, &[batch.n, c, h, w], device)?.cast(DType::F32);
    let [max, mean, std] = [normal.max, normal.mean, normal.std].map(f64::from);
    let y = Tensor::new(&batch.labels, &[batch.n], device)?;
    Ok(DeviceBatch { x: (pixels / max - mean) / std, y, n: batch.n })
}

#[cfg(test)]
mod tests {
    use std::ops::Range;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use kiln_cpu::CpuBackend;
    use kiln_graph::plan::PlanOptions;
    use kiln_ir::{Backend, Buffer, Caps, Executable, Fence, Kernel, Readback, Reject, Step, Tape};

    use super::*;

    /// The CPU's backend, which counts what is written to it.
    struct Counting(CpuBackend, Arc<AtomicUsize>);

    impl Backend for Counting {
        fn caps(&self) -> &Caps {
            self.0.caps()
        }

        fn supports(&self, kernel: &Kernel) -> Result<(), Reject> {
            self.0.supports(kernel)
        }

        fn alloc(&self, bytes: u64) -> Result<Buffer> {
            self.0.alloc(bytes)
        }

        fn write(&self, dst: &Buffer, at: u64, data: &[u8]) -> Result<()> {
            self.1.fetch_add(data.len(), Ordering::Relaxed);
            self.0.write(dst, at, data)
        }

        fn read(&self, src: &Buffer, range: Range<u64>) -> Readback {
            self.0.read(src, range)
        }

        fn compile(&self, kernels: &[Kernel]) -> Vec<Result<Executable>> {
            self.0.compile(kernels)
        }

        fn record(&self, steps: &[Step], temps: &[u64]) -> Result<Tape> {
            self.0.record(steps, temps)
        }

        fn replay(&self, tape: &Tape, args: &[Buffer], scalars: &[u32]) -> Result<Fence> {
            self.0.replay(tape, args, scalars)
        }
    }

    #[test]
    fn a_pixel_is_uploaded_as_a_byte_and_widened_there() {
        let written = Arc::new(AtomicUsize::new(0));
        let device =
            Device::with_options(Arc::new(Counting(CpuBackend::new(), written.clone())), PlanOptions::default());
        let (train, _) = crate::digits(0);
        let (mean, std) = train.mean_std();
        let batches = train.batches(33).normalised(mean, std).shuffled(1);
        let batch = batches.epoch(2).on(&device).next().unwrap().unwrap();
        assert_eq!(written.load(Ordering::Relaxed), 33 * 64 + 33 * 4);
        let expected = batches.epoch(2).next().unwrap();
        assert_eq!(batch.y.to_vec::<i32>().unwrap(), expected.y);
        assert_eq!(batch.x.to_vec::<f32>().unwrap(), expected.x);
    }
}
