//! Batches as tensors: the last step, on the thread that trains.

use kiln_graph::{Device, Tensor};
use kiln_ir::Result;

use crate::{Batch, Epoch};

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
        let dims = self.epoch.image_dims();
        self.epoch.next().map(|batch| upload(&batch, dims, &self.device))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.epoch.size_hint()
    }
}

impl ExactSizeIterator for OnDevice {}

fn upload(batch: &Batch, [channels, height, width]: [usize; 3], device: &Device) -> Result<DeviceBatch> {
    let x = Tensor::new(&batch.x, &[batch.n, channels, height, width], device)?;
    let y = Tensor::new(&batch.y, &[batch.n], device)?;
    Ok(DeviceBatch { x, y, n: batch.n })
}
