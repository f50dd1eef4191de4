//! Forward passes without a gradient.

use kiln::Result;
use kiln::prelude::*;

use crate::models::{MiniLm, Mlp};
use crate::row::{Case, normals};

/// Eight sentences of 128 tokens through MiniLM.
///
/// # Errors
/// If the device fails.
pub fn bert_minilm(device: &Device) -> Result<Case> {
    let model = MiniLm::new(device);
    let [x] = normals([&[8, 128, 384]], device)?;
    Ok(Case::computing(device, 8.0, "samples/s", move || model.forward(&x)))
}

/// One sample through a small MLP, and its sum read: a row of latency, so compare `p99_ms` with `median_ms`.
///
/// # Errors
/// If the device fails.
pub fn tiny_mlp(device: &Device) -> Result<Case> {
    let model = Mlp::new(&[32, 64, 64, 8], device);
    let [x] = normals([&[1, 32]], device)?;
    Ok(Case::new(1.0, "steps/s", move || model.forward(&x).sum_all().item().map(drop)))
}
