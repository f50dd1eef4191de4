//! Element types: which exist, how wide they are in memory, and in which type arithmetic happens.
//!
//! The one idea: *storage* and *compute* differ. `f16`, `bf16` and `u8` are stored narrow and
//! widened on load; a backend computes only in the five types that [`DType::compute`] returns.

use std::fmt;

/// The type of a tensor's elements.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum DType {
    /// IEEE single precision, the default.
    F32,
    /// IEEE half precision; stored, computed as `f32` and rounded after each op.
    F16,
    /// Truncated single precision; stored, computed as `f32` and rounded after each op.
    BF16,
    /// IEEE double precision; CPU and reference only.
    F64,
    /// Signed 32-bit integer, wrapping.
    I32,
    /// Unsigned 32-bit integer, wrapping.
    U32,
    /// Unsigned byte; stored, computed as `u32`.
    U8,
    /// Truth value. One byte on the CPU, one word on wgpu.
    Bool,
}

impl DType {
    /// Every dtype, in declaration order.
    pub const ALL: [DType; 8] =
        [DType::F32, DType::F16, DType::BF16, DType::F64, DType::I32, DType::U32, DType::U8, DType::Bool];

    /// The name as Rust and PyTorch write it: `f32`, `bool`.
    pub const fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::F16 => "f16",
            DType::BF16 => "bf16",
            DType::F64 => "f64",
            DType::I32 => "i32",
            DType::U32 => "u32",
            DType::U8 => "u8",
            DType::Bool => "bool",
        }
    }

    /// Bytes of one element in host memory. Backends may store `bool` wider: see `Caps::bool_bytes`.
    pub const fn size_bytes(self) -> usize {
        match self {
            DType::F64 => 8,
            DType::F32 | DType::I32 | DType::U32 => 4,
            DType::F16 | DType::BF16 => 2,
            DType::U8 | DType::Bool => 1,
        }
    }

    /// The type in which arithmetic on this dtype happens: `f32`, `f64`, `i32`, `u32` or `bool`.
    pub const fn compute(self) -> DType {
        match self {
            DType::F16 | DType::BF16 | DType::F32 => DType::F32,
            DType::U8 | DType::U32 => DType::U32,
            DType::F64 => DType::F64,
            DType::I32 => DType::I32,
            DType::Bool => DType::Bool,
        }
    }

    /// True iff values are floating point, and so may carry gradients.
    pub const fn is_float(self) -> bool {
        matches!(self, DType::F32 | DType::F16 | DType::BF16 | DType::F64)
    }

    /// True iff values are integers (`bool` is not).
    pub const fn is_int(self) -> bool {
        matches!(self, DType::I32 | DType::U32 | DType::U8)
    }

    /// Rounds `v`, computed in `f64`, to the nearest value that this dtype can hold.
    ///
    /// Integers truncate towards zero and saturate, as Rust's `as` does; `bool` is `v ≠ 0`.
    pub fn round(self, v: f64) -> f64 {
        match self {
            DType::F64 => v,
            DType::F32 => v as f32 as f64,
            DType::F16 => half::f16::from_f32(v as f32).to_f64(),
            DType::BF16 => half::bf16::from_f32(v as f32).to_f64(),
            DType::I32 => v as i32 as f64,
            DType::U32 => v as u32 as f64,
            DType::U8 => v as u8 as f64,
            DType::Bool => (v != 0.0) as u8 as f64,
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
