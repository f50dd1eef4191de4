//! Recurrent networks: a cell that is asked once for each time, so that a step has many small kernels.

use kiln::Result;
use kiln::prelude::*;

use super::shared::parts;
use crate::row::{Case, Mode, integers};
use crate::training::{classified, classify};

/// What an embedded sequence holds at one time, `[b, t, c]` → `[b, c]`.
fn at(x: &Tensor, time: usize) -> Tensor {
    x.slice(1, time..time + 1).squeeze(1)
}

/// A long short-term memory, and a class for its last output.
///
/// Hochreiter and Schmidhuber 1997, with Gers et al.'s forget gate, <https://doi.org/10.1162/089976600300015015>.
#[derive(Module)]
struct Lstm {
    input: Linear,
    hidden: Linear,
    head: Linear,
}

impl Lstm {
    fn new(n_in: usize, dim: usize, device: &Device) -> Lstm {
        Lstm {
            input: Linear::new(n_in, 4 * dim, device),
            hidden: Linear::new(dim, 4 * dim, device),
            head: Linear::new(dim, 10, device),
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let inputs = self.input.forward(x); // [b, t, 4 · dim]
        let mut hidden = Tensor::zeros(&[x.dims()[0], self.head.weight.dims()[1]], x.device());
        let mut cell = hidden.clone();
        for time in 0..x.dims()[1] {
            let [input, forget, new, output] = parts(&(at(&inputs, time) + self.hidden.forward(&hidden)));
            cell = forget.sigmoid() * cell + input.sigmoid() * new.tanh();
            hidden = output.sigmoid() * cell.tanh();
        }
        self.head.forward(&hidden)
    }
}

/// 64 times of 64 numbers.
pub(super) fn lstm(mode: Mode, device: &Device) -> Result<Case> {
    let batch = || classified(&[32, 64, 64], 10, device);
    classify(Lstm::new(64, 128, device), Lstm::forward, batch, (32, "samples/s"), mode)
}

/// A gated recurrent unit over characters.
///
/// Cho et al. 2014, <https://arxiv.org/abs/1406.1078>, eq. 5 to 8; the reset gate weights the product, as PyTorch has it.
#[derive(Module)]
struct Gru {
    characters: Embedding,
    input: Linear,
    hidden: Linear,
    head: Linear,
}

impl Gru {
    fn new(vocab: usize, n_in: usize, dim: usize, device: &Device) -> Gru {
        Gru {
            characters: Embedding::new(vocab, n_in, device),
            input: Linear::new(n_in, 3 * dim, device),
            hidden: Linear::new(dim, 3 * dim, device),
            head: Linear::new(dim, vocab, device),
        }
    }

    fn forward(&self, characters: &Tensor) -> Tensor {
        let &[b, t] = characters.dims() else { panic!("gru: takes rank 2, got {}", characters.shape()) };
        let inputs = self.input.forward(&self.characters.forward(characters)); // [b, t, 3 · dim]
        let mut hidden = Tensor::zeros(&[b, self.head.weight.dims()[1]], characters.device());
        let mut all = Vec::with_capacity(t);
        for time in 0..t {
            let [reset_in, update_in, new_in] = parts(&at(&inputs, time));
            let [reset, update, new] = parts(&self.hidden.forward(&hidden));
            let update = (update_in + update).sigmoid();
            let new = (new_in + (reset_in + reset).sigmoid() * new).tanh();
            hidden = (1.0 - &update) * new + update * hidden;
            all.push(hidden.clone());
        }
        let all = Tensor::stack(&all.iter().collect::<Vec<_>>()); // [t, b, dim]
        self.head.forward(&all.transpose(0, 1))
    }
}

/// 50 characters.
pub(super) fn gru(mode: Mode, device: &Device) -> Result<Case> {
    let (vocab, b, t) = (80, 32, 50);
    let characters = || integers(&[b, t], vocab, device);
    let model = Gru::new(vocab, 64, 256, device);
    classify(model, Gru::forward, || (characters(), characters()), (b * t, "tokens/s"), mode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recurrent_networks_answer_once_or_each_time() {
        let device = Device::cpu();
        let x = Tensor::randn(&[2, 3, 4], &device);
        assert_eq!(Lstm::new(4, 8, &device).forward(&x).dims(), [2, 10]);
        assert_eq!(Gru::new(6, 4, 8, &device).forward(&integers(&[2, 3], 6, &device)).dims(), [2, 3, 6]);
    }
}
