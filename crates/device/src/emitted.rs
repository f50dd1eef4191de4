//! What emission said of kernels: a planner asks whether one can run, often and of many alike, and later has it compiled.

use std::collections::HashMap;
use std::sync::Mutex;

use kiln_ir::Reject;

use crate::emit::Shader;
use crate::gpu::lock;

/// Answers that are kept: several times what one plan asks for. A text has some 10 KiB.
const MAX_KEPT: usize = 512;

/// Answers by the kernel's key.
#[derive(Default)]
pub(crate) struct Emitted(Mutex<HashMap<u128, Result<Shader, Reject>>>);

impl Emitted {
    /// What `look` makes of the answer for this key, which `emit` gives if it is not known.
    pub(crate) fn ask<T>(
        &self,
        key: u128,
        emit: impl FnOnce() -> Result<Shader, Reject>,
        look: impl FnOnce(&Result<Shader, Reject>) -> T,
    ) -> T {
        if let Some(known) = lock(&self.0).get(&key) {
            return look(known);
        }
        let answer = emit();
        let mut known = lock(&self.0);
        if known.len() >= MAX_KEPT {
            known.clear();
        }
        look(known.entry(key).or_insert(answer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shader(n: u32) -> Shader {
        Shader {
            name: String::new(),
            wgsl: String::new(),
            workgroups: n,
            args: Vec::new(),
            bindings: Vec::new(),
            scalars: 0,
        }
    }

    #[test]
    fn a_kernel_is_emitted_once_and_few_are_kept() {
        let (emitted, mut n_emitted) = (Emitted::default(), 0);
        let mut ask = |key: u32| {
            let emit = || {
                n_emitted += 1;
                if key == 7 { Err(Reject::Unsupported("seven")) } else { Ok(shader(key)) }
            };
            emitted.ask(key.into(), emit, |answer| answer.as_ref().map(|shader| shader.workgroups).ok())
        };
        assert_eq!([3, 3, 7, 7, 3].map(&mut ask), [Some(3), Some(3), None, None, Some(3)]);
        (0..10_000).for_each(|key| assert_eq!(ask(key), (key != 7).then_some(key)));
        assert_eq!(n_emitted, 10_000, "two were known");
        assert!(lock(&emitted.0).len() <= MAX_KEPT);
    }
}
