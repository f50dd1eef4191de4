//! Conversions: between compute dtypes, and between memory's narrow dtypes and their lanes.

use bytemuck::{Pod, Zeroable};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use kiln_ir::DType;

use crate::memory::View;
use crate::simd::{Operand, Out, multiversion};

/// Converts the first `n` lanes as [`DType::round`] says; `to` may be narrow, `from` computes.
pub(crate) fn cast(from: DType, to: DType, n: usize, dst: &mut Out, src: Operand) {
    let n = n.next_multiple_of(16);
    match (to, from) {
        (DType::F16 | DType::BF16, _) => {
            cast_wide(from, DType::F32, n, dst, src);
            let lanes = &mut dst.lanes_mut::<f32>()[..n];
            if to == DType::F16 { round_f16(lanes) } else { round_bf16(lanes) }
        }
        _ => cast_wide(from, to, n, dst, src),
    }
}

#[inline(always)]
fn map<T: Pod, U: Pod>(n: usize, dst: &mut Out, src: Operand, f: impl Fn(T) -> U) {
    let out = &mut dst.lanes_mut()[..n];
    if src.one {
        return out.fill(f(src.lanes()[0]));
    }
    for (o, &x) in out.iter_mut().zip(&src.lanes()[..n]) {
        *o = f(x);
    }
}

multiversion! {
    fn cast_wide(from: DType, to: DType, n: usize, dst: &mut Out, src: Operand) {
        use DType::{Bool, F32, F64, I32, U8, U32};
        match (from, to) {
            (F32, F32) | (I32, I32) | (U32 | Bool, U32) | (Bool, I32 | U8 | Bool) => map(n, dst, src, |x: u32| x),
            (F64, F64) => map(n, dst, src, |x: u64| x),
            (F32, F64) => map(n, dst, src, |x: f32| x as f64),
            (F32, I32) => map(n, dst, src, |x: f32| x as i32),
            (F32, U32) => map(n, dst, src, |x: f32| x as u32),
            (F32, U8) => map(n, dst, src, |x: f32| x as u8 as u32),
            (F32, Bool) => map(n, dst, src, |x: f32| (x != 0.0) as u32),
            (F64, F32) => map(n, dst, src, |x: f64| x as f32),
            (F64, I32) => map(n, dst, src, |x: f64| x as i32),
            (F64, U32) => map(n, dst, src, |x: f64| x as u32),
            (F64, U8) => map(n, dst, src, |x: f64| x as u8 as u32),
            (F64, Bool) => map(n, dst, src, |x: f64| (x != 0.0) as u32),
            (I32, F32) => map(n, dst, src, |x: i32| x as f32),
            (I32, F64) => map(n, dst, src, |x: i32| x as f64),
            (I32, U32) => map(n, dst, src, |x: i32| x.max(0)),
            (I32, U8) => map(n, dst, src, |x: i32| x.clamp(0, 255)),
            (I32 | U32, Bool) => map(n, dst, src, |x: u32| (x != 0) as u32),
            (U32 | Bool, F32) => map(n, dst, src, |x: u32| x as f32),
            (U32 | Bool, F64) => map(n, dst, src, |x: u32| x as f64),
            (U32, I32) => map(n, dst, src, |x: u32| x.min(i32::MAX as u32)),
            (U32, U8) => map(n, dst, src, |x: u32| x.min(255)),
            (DType::F16 | DType::BF16 | U8, _) | (_, DType::F16 | DType::BF16) => {
                unreachable!("{from} to {to} is no conversion between compute dtypes")
            }
        }
    }
}

/// Elements that convert at once through a buffer on the stack.
const BATCH: usize = 128;

fn round_f16(lanes: &mut [f32]) {
    let mut narrow = [f16::ZERO; BATCH];
    for lanes in lanes.chunks_mut(BATCH) {
        let narrow = &mut narrow[..lanes.len()];
        narrow.convert_from_f32_slice(lanes);
        narrow.convert_to_f32_slice(lanes);
    }
}

multiversion! {
    fn round_bf16(lanes: &mut [f32]) {
        lanes.iter_mut().for_each(|x| *x = f32::from_bits((to_bf16(*x) as u32) << 16));
    }
}

/// The bits of the nearest `bf16`, ties to even; NaN stays NaN.
#[inline(always)]
fn to_bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7FFF + ((bits >> 16) & 1)) >> 16;
    (if x.is_nan() { (bits >> 16) | 0x40 } else { rounded }) as u16
}

multiversion! {
    /// [`Stored::collect`] of words, as vectors where the processor can.
    fn collect_words(src: View, at: &[i32], exists: &[u32], out: &mut [u32]) {
        let (mut most, mut any) = (0, 0);
        for (&at, &exists) in at.iter().zip(exists) {
            most = u32::max(most, if exists != 0 { at as u32 } else { 0 });
            any |= exists;
        }
        if any == 0 {
            return out.fill(0);
        }
        src.get::<u32>(most as usize);
        for (o, (&at, &exists)) in out.iter_mut().zip(at.iter().zip(exists)) {
            // SAFETY: of those that exist none is beyond the greatest, which was just read, and 0 is not either.
            let x = unsafe { src.get_unchecked::<u32>(if exists != 0 { at as usize } else { 0 }) };
            *o = if exists != 0 { x } else { 0 };
        }
    }
}

/// A dtype as it lies in memory, and the lanes it widens to.
pub(crate) trait Stored: Pod {
    /// The compute dtype's lane.
    type Lane: Pod;
    /// One element widened.
    fn widen(self) -> Self::Lane;
    /// One lane narrowed, rounding or saturating.
    fn narrow(lane: Self::Lane) -> Self;

    /// The elements at some places widened, and 0 where there are none.
    fn collect(src: View, at: &[i32], exists: &[u32], out: &mut [Self::Lane]) {
        for (o, (&at, &exists)) in out.iter_mut().zip(at.iter().zip(exists)) {
            *o = if exists != 0 { src.get::<Self>(at as usize).widen() } else { Self::Lane::zeroed() };
        }
    }

    /// A run of elements widened.
    #[inline(always)]
    fn widen_run(src: &[Self], dst: &mut [Self::Lane]) {
        for (o, &x) in dst.iter_mut().zip(src) {
            *o = x.widen();
        }
    }

    /// A run of lanes narrowed.
    #[inline(always)]
    fn narrow_run(src: &[Self::Lane], dst: &mut [Self]) {
        for (o, &x) in dst.iter_mut().zip(src) {
            *o = Self::narrow(x);
        }
    }
}

macro_rules! stored {
    ($($t:ty, $lane:ty, $widen:expr, $narrow:expr;)*) => { $(
        impl Stored for $t {
            type Lane = $lane;
            #[inline(always)]
            fn widen(self) -> $lane { $widen(self) }
            #[inline(always)]
            fn narrow(lane: $lane) -> $t { $narrow(lane) }
        }
    )* };
}

macro_rules! moved {
    ($($t:ty $({ $collect:item })?)*) => { $(
        impl Stored for $t {
            type Lane = $t;
            #[inline(always)]
            fn widen(self) -> $t { self }
            #[inline(always)]
            fn narrow(lane: $t) -> $t { lane }
            #[inline(always)]
            fn widen_run(src: &[$t], dst: &mut [$t]) { dst.copy_from_slice(src) }
            #[inline(always)]
            fn narrow_run(src: &[$t], dst: &mut [$t]) { dst.copy_from_slice(src) }
            $($collect)?
        }
    )* };
}

// `f32`, `i32` and `u32` all move as bits, and so does `f64`.
moved! {
    u32 {
        fn collect(src: View, at: &[i32], exists: &[u32], out: &mut [u32]) {
            collect_words(src, at, exists, out);
        }
    }
    u64
}

stored! {
    u8, u32, |x| x as u32, |x: u32| x.min(255) as u8;
    bf16, f32, |x: bf16| f32::from_bits((x.to_bits() as u32) << 16), |x| bf16::from_bits(to_bf16(x));
}

impl Stored for f16 {
    type Lane = f32;

    #[inline(always)]
    fn widen(self) -> f32 {
        self.to_f32()
    }

    #[inline(always)]
    fn narrow(lane: f32) -> f16 {
        f16::from_f32(lane)
    }

    fn widen_run(src: &[f16], dst: &mut [f32]) {
        src.convert_to_f32_slice(&mut dst[..src.len()]);
    }

    fn narrow_run(src: &[f32], dst: &mut [f16]) {
        dst.convert_from_f32_slice(&src[..dst.len()]);
    }
}

/// Calls a generic function with the [`Stored`] type of a dtype.
macro_rules! with_stored {
    ($dtype:expr, $f:ident::<_ $(, $more:ty)*>($($arg:expr),* $(,)?)) => {
        match $dtype {
            kiln_ir::DType::F32 | kiln_ir::DType::I32 | kiln_ir::DType::U32 => $f::<u32 $(, $more)*>($($arg),*),
            kiln_ir::DType::F64 => $f::<u64 $(, $more)*>($($arg),*),
            kiln_ir::DType::F16 => $f::<half::f16 $(, $more)*>($($arg),*),
            kiln_ir::DType::BF16 => $f::<half::bf16 $(, $more)*>($($arg),*),
            kiln_ir::DType::U8 | kiln_ir::DType::Bool => $f::<u8 $(, $more)*>($($arg),*),
        }
    };
}
pub(crate) use with_stored;
