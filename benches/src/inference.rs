//! Forward passes without a gradient.

use kiln::Result;
use kiln::prelude::*;

use crate::models::{MiniLm, Mlp};
use crate::row::{Case, Mode, normals};

/// Eight sentences of 128 tokens through MiniLM.
///
/// # Errors
/// If the device fails.
pub fn bert_minilm(mode: Mode, device: &Device) -> Result<Case> {
    let mut model = MiniLm::new(device);
    let [x] = normals([&[8, 128, 384]], device)?;
    if mode == Mode::Implicit {
        return Ok(Case::computing(device, 8.0, "samples/s", move || model.forward(&x)));
    }
    let mut forward = jit(|model: &mut MiniLm, x: Tensor| Ok(model.forward(&x)));
    Ok(Case::new(8.0, "samples/s", move || forward.call(&mut model, x.clone()).map(drop)))
}

/// One sample through a small MLP, and its sum read: a row of latency, so compare `p99_ms` with `median_ms`.
///
/// # Errors
/// If the device fails.
pub fn tiny_mlp(mode: Mode, device: &Device) -> Result<Case> {
    let mut model = Mlp::new(&[32, 64, 64, 8], device);
    let [x] = normals([&[1, 32]], device)?;
    let forward = |model: &mut Mlp, x: Tensor| Ok(model.forward(&x).sum_all());
    let mut jitted = jit(forward);
    Ok(Case::new(1.0, "steps/s", move || {
        let sum = match mode {
            Mode::Implicit => forward(&mut model, x.clone())?,
            Mode::Jit => jitted.call(&mut model, x.clone())?,
        };
        sum.item().map(drop)
    }))
}
