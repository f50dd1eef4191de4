//! The list of all rows, in the peer's order. A new workload is one line here and one maker in its file.

use kiln::DType;

use crate::{Row, arithmetic, inference, limits, memory, training};

/// Every row of the table.
pub const ROWS: &[Row] = &[
    Row { name: "elementwise_chain_16m", make: memory::elementwise_chain },
    Row { name: "broadcast_bias_relu_8kx2k", make: memory::broadcast_bias_relu },
    Row { name: "reduce_sum_rows_8kx2k", make: memory::reduce_sum_rows },
    Row { name: "softmax_4kx4k", make: memory::softmax },
    Row { name: "layernorm_fwd_bwd_8kx1k", make: memory::layernorm },
    Row { name: "adamw_step_25m", make: memory::adamw_step },
    Row { name: "transpose_copy_4kx4k", make: memory::transpose_copy },
    Row { name: "embedding_gather_scatter", make: memory::embedding },
    Row { name: "matmul_f32_1024", make: |d| arithmetic::matmul([1024, 1024, 1024], DType::F32, d) },
    Row { name: "matmul_f32_4096", make: |d| arithmetic::matmul([4096, 4096, 4096], DType::F32, d) },
    Row { name: "matmul_f16_4096", make: |d| arithmetic::matmul([4096, 4096, 4096], DType::F16, d) },
    Row { name: "matmul_f32_skinny_16x4096x4096", make: |d| arithmetic::matmul([16, 4096, 4096], DType::F32, d) },
    Row { name: "matmul_f32_bias_gelu_2048", make: arithmetic::matmul_bias_gelu },
    Row { name: "conv2d_fwd_bwd_64x56x56", make: arithmetic::conv2d },
    Row { name: "attention_fwd_bwd_8x8x512x64", make: arithmetic::attention },
    Row { name: "train_tiny_mlp_b32", make: training::tiny_mlp },
    Row { name: "train_mnist_mlp_b128", make: training::mnist_mlp },
    Row { name: "train_mnist_cnn_b64", make: training::mnist_cnn },
    Row { name: "train_char_gpt_6x384_b8x256", make: training::char_gpt_6x384 },
    Row { name: "train_char_gpt_4x128_b12x64", make: training::char_gpt_4x128 },
    Row { name: "train_gpt2_124m_b4x512", make: training::gpt2_124m },
    Row { name: "train_resnet18_cifar_b32", make: training::resnet18_cifar },
    Row { name: "infer_bert_minilm_b8x128", make: inference::bert_minilm },
    Row { name: "infer_tiny_mlp_b1", make: inference::tiny_mlp },
];

/// What the machine's processor can do at most, without Kiln. Run only if asked for by name.
pub const LIMITS: &[Row] =
    &[Row { name: "limit_copy", make: limits::copy }, Row { name: "limit_fma", make: limits::fma }];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        let mut names: Vec<&str> = ROWS.iter().chain(LIMITS).map(|row| row.name).collect();
        let n_rows = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), n_rows);
    }
}
