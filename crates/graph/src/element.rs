//! Rust types as tensor elements, and their bytes on a device.

use half::{bf16, f16};
use kiln_ir::{Caps, DType};

/// A Rust type that tensors can be made from and read into.
pub trait Element: Copy + Send + Sync + 'static {
    /// The dtype of such elements.
    const DTYPE: DType;

    /// The device's bytes for these elements.
    #[doc(hidden)]
    fn encode(data: &[Self], caps: &Caps) -> Vec<u8>;

    /// The elements behind a device's bytes.
    #[doc(hidden)]
    fn decode(bytes: &[u8], numel: usize, caps: &Caps) -> Vec<Self>;
}

macro_rules! plain {
    ($($t:ty => $dtype:ident)*) => { $(
        impl Element for $t {
            const DTYPE: DType = DType::$dtype;

            fn encode(data: &[$t], _: &Caps) -> Vec<u8> {
                bytemuck::cast_slice(data).to_vec()
            }

            fn decode(bytes: &[u8], numel: usize, _: &Caps) -> Vec<$t> {
                bytemuck::allocation::pod_collect_to_vec(&bytes[..numel * size_of::<$t>()])
            }
        }
    )* };
}

plain! { f32 => F32 f64 => F64 i32 => I32 u32 => U32 u8 => U8 f16 => F16 bf16 => BF16 }

impl Element for bool {
    const DTYPE: DType = DType::Bool;

    fn encode(data: &[bool], caps: &Caps) -> Vec<u8> {
        let wide = |b: &bool| -> Vec<u8> { (0..caps.bool_bytes).map(|i| u8::from(i == 0 && *b)).collect() };
        data.iter().flat_map(wide).collect()
    }

    fn decode(bytes: &[u8], numel: usize, caps: &Caps) -> Vec<bool> {
        bytes.chunks_exact(caps.bool_bytes).take(numel).map(|b| b.iter().any(|b| *b != 0)).collect()
    }
}

/// A device's bytes as `f64`, whatever their dtype.
pub(crate) fn to_f64(dtype: DType, bytes: &[u8], numel: usize, caps: &Caps) -> Vec<f64> {
    fn all<T: Element>(bytes: &[u8], numel: usize, caps: &Caps, f: fn(T) -> f64) -> Vec<f64> {
        T::decode(bytes, numel, caps).into_iter().map(f).collect()
    }
    match dtype {
        DType::F32 => all::<f32>(bytes, numel, caps, f64::from),
        DType::F64 => all::<f64>(bytes, numel, caps, |v| v),
        DType::F16 => all::<f16>(bytes, numel, caps, f64::from),
        DType::BF16 => all::<bf16>(bytes, numel, caps, f64::from),
        DType::I32 => all::<i32>(bytes, numel, caps, f64::from),
        DType::U32 => all::<u32>(bytes, numel, caps, f64::from),
        DType::U8 => all::<u8>(bytes, numel, caps, f64::from),
        DType::Bool => all::<bool>(bytes, numel, caps, |v| f64::from(u8::from(v))),
    }
}

/// `f64` values, rounded to a dtype, as a device's bytes.
pub(crate) fn from_f64(dtype: DType, data: &[f64], caps: &Caps) -> Vec<u8> {
    fn all<T: Element>(data: &[f64], caps: &Caps, f: fn(f64) -> T) -> Vec<u8> {
        T::encode(&data.iter().map(|&v| f(v)).collect::<Vec<T>>(), caps)
    }
    match dtype {
        DType::F32 => all::<f32>(data, caps, |v| v as f32),
        DType::F64 => all::<f64>(data, caps, |v| v),
        DType::F16 => all::<f16>(data, caps, |v| f16::from_f32(v as f32)),
        DType::BF16 => all::<bf16>(data, caps, |v| bf16::from_f32(v as f32)),
        DType::I32 => all::<i32>(data, caps, |v| v as i32),
        DType::U32 => all::<u32>(data, caps, |v| v as u32),
        DType::U8 => all::<u8>(data, caps, |v| v as u8),
        DType::Bool => all::<bool>(data, caps, |v| v != 0.0),
    }
}
