//! The network: two convolutions, then two affine layers.

use kiln::prelude::*;

/// Digits.
pub(crate) const N_CLASSES: usize = 10;

/// `[n, 1, h, w]` → logits `[n, 10]`.
#[derive(Module)]
pub(crate) struct Cnn {
    conv1: Conv2d,
    conv2: Conv2d,
    fc1: Linear,
    dropout: Dropout,
    fc2: Linear,
}

impl Cnn {
    /// For images of this height and width.
    pub(crate) fn new([height, width]: [usize; 2], device: &Device) -> Cnn {
        // Each convolution keeps the size, each pool halves it.
        let n_features = 64 * (height / 4) * (width / 4);
        Cnn {
            conv1: Conv2d::new(1, 32, 3, device).padding(1),
            conv2: Conv2d::new(32, 64, 3, device).padding(1),
            fc1: Linear::new(n_features, 128, device),
            dropout: Dropout::new(0.25),
            fc2: Linear::new(128, N_CLASSES, device),
        }
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        let pool = MaxPool2d::new(2);
        let x = pool.forward(&self.conv1.forward(x).relu());
        let x = pool.forward(&self.conv2.forward(&x).relu());
        let x = self.fc1.forward(&x.flatten(1)).relu();
        self.fc2.forward(&self.dropout.forward(&x))
    }
}
