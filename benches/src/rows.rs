//! The list of all rows, in the peer's order. A new workload is one line here and one maker in its file.

use kiln::DType;

use crate::row::Mode;
use crate::{Row, arithmetic, inference, limits, memory, training};

/// A row whose maker takes the mode.
macro_rules! model {
    ($name:literal, $make:path) => {
        Row { name: $name, make: |d| $make(Mode::Implicit, d), jit: Some(|d| $make(Mode::Jit, d)) }
    };
}

pub(crate) use model;

/// Every row of the table.
pub const ROWS: &[Row] = &[
    Row::new("elementwise_chain_16m", memory::elementwise_chain),
    Row::new("broadcast_bias_relu_8kx2k", memory::broadcast_bias_relu),
    Row::new("reduce_sum_rows_8kx2k", memory::reduce_sum_rows),
    Row::new("softmax_4kx4k", memory::softmax),
    Row::new("layernorm_fwd_bwd_8kx1k", memory::layernorm),
    Row::new("adamw_step_25m", memory::adamw_step),
    Row::new("transpose_copy_4kx4k", memory::transpose_copy),
    Row::new("embedding_gather_scatter", memory::embedding),
    Row::new("matmul_f32_1024", |d| arithmetic::matmul([1024, 1024, 1024], DType::F32, d)),
    Row::new("matmul_f32_4096", |d| arithmetic::matmul([4096, 4096, 4096], DType::F32, d)),
    Row::new("matmul_f16_4096", |d| arithmetic::matmul([4096, 4096, 4096], DType::F16, d)),
    Row::new("matmul_f32_skinny_16x4096x4096", |d| arithmetic::matmul([16, 4096, 4096], DType::F32, d)),
    Row::new("matmul_f32_bias_gelu_2048", arithmetic::matmul_bias_gelu),
    Row::new("conv2d_fwd_bwd_64x56x56", arithmetic::conv2d),
    Row::new("attention_fwd_bwd_8x8x512x64", arithmetic::attention),
    model!("train_tiny_mlp_b32", training::tiny_mlp),
    model!("train_mnist_mlp_b128", training::mnist_mlp),
    model!("train_mnist_cnn_b64", training::mnist_cnn),
    model!("train_char_gpt_6x384_b8x256", training::char_gpt_6x384),
    model!("train_char_gpt_4x128_b12x64", training::char_gpt_4x128),
    model!("train_gpt2_124m_b4x512", training::gpt2_124m),
    model!("train_resnet18_cifar_b32", training::resnet18_cifar),
    model!("infer_bert_minilm_b8x128", inference::bert_minilm),
    model!("infer_tiny_mlp_b1", inference::tiny_mlp),
];

/// What the machine's processor can do at most, without Kiln. Run only if asked for by name.
pub const LIMITS: &[Row] = &[Row::new("limit_copy", limits::copy), Row::new("limit_fma", limits::fma)];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rungs::LADDER;
    use crate::zoo::MODELS;

    #[test]
    fn names_are_unique() {
        let mut names: Vec<&str> = ROWS.iter().chain(MODELS).chain(LIMITS).chain(LADDER).map(|row| row.name).collect();
        let n_rows = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), n_rows);
    }
}
