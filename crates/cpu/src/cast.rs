//! Conversions: between compute dtypes, and between memory's narrow dtypes and their lanes.

use bytemuck::{Pod, Zeroable};
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

multiversion! {
    fn round_f16(lanes: &mut [f32]) {
        lanes.iter_mut().for_each(|x| *x = of_f16(to_f16(*x)));
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

/// How far the exponent of an `f32` is from that of an `f16`, and the first one that an `f16` has.
const FARTHER: u32 = (127 - 15) << 23;
const FIRST: u32 = FARTHER + (1 << 23);

/// The number that an `f16` is. Only moves and sums of bits, so that loops over it are vectors everywhere.
#[inline(always)]
fn of_f16(bits: u16) -> f32 {
    let sign = (bits as u32 & 0x8000) << 16;
    let rest = (bits as u32 & 0x7FFF) << 13;
    // Below the first exponent the leading 1 is not there, so it is added and taken away; the last one is that of no number.
    let small = f32::from_bits(rest + FIRST) - f32::from_bits(FIRST);
    let usual = rest + if rest < 0x1F << 23 { FARTHER } else { 2 * FARTHER };
    f32::from_bits(sign | if rest < 1 << 23 { small.to_bits() } else { usual })
}

/// The bits of the nearest `f16`, ties to even; NaN stays NaN.
#[inline(always)]
fn to_f16(x: f32) -> u16 {
    /// One half, the last bit of which is that of the smallest `f16`: a sum with it is rounded there.
    const HALF: u32 = 126 << 23;
    let sign = x.to_bits() & 0x8000_0000;
    let bits = x.to_bits() ^ sign;
    let small = (f32::from_bits(bits) + f32::from_bits(HALF)).to_bits().wrapping_sub(HALF);
    let usual = bits.wrapping_sub(FARTHER).wrapping_add(0xFFF + ((bits >> 13) & 1)) >> 13;
    let large = if bits > 0x7F80_0000 { 0x7E00 } else { 0x7C00 };
    let magnitude = if bits < FIRST {
        small
    } else if bits < (127 + 16) << 23 {
        usual
    } else {
        large
    };
    (sign >> 16 | magnitude) as u16
}

multiversion! {
    fn widen_f16(src: &[f16], dst: &mut [f32]) {
        dst.iter_mut().zip(src).for_each(|(o, x)| *o = of_f16(x.to_bits()));
    }
}

multiversion! {
    fn narrow_bf16(src: &[f32], dst: &mut [bf16]) {
        dst.iter_mut().zip(src).for_each(|(o, x)| *o = bf16::from_bits(to_bf16(*x)));
    }
}

multiversion! {
    fn narrow_f16(src: &[f32], dst: &mut [f16]) {
        dst.iter_mut().zip(src).for_each(|(o, x)| *o = f16::from_bits(to_f16(*x)));
    }
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

impl Stored for u8 {
    type Lane = u32;

    #[inline(always)]
    fn widen(self) -> u32 {
        self.into()
    }

    #[inline(always)]
    fn narrow(lane: u32) -> u8 {
        lane.min(255) as u8
    }
}

impl Stored for bf16 {
    type Lane = f32;

    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits((self.to_bits() as u32) << 16)
    }

    #[inline(always)]
    fn narrow(lane: f32) -> bf16 {
        bf16::from_bits(to_bf16(lane))
    }

    fn narrow_run(src: &[f32], dst: &mut [bf16]) {
        narrow_bf16(src, dst);
    }
}

impl Stored for f16 {
    type Lane = f32;

    #[inline(always)]
    fn widen(self) -> f32 {
        of_f16(self.to_bits())
    }

    #[inline(always)]
    fn narrow(lane: f32) -> f16 {
        f16::from_bits(to_f16(lane))
    }

    fn widen_run(src: &[f16], dst: &mut [f32]) {
        widen_f16(src, dst);
    }

    fn narrow_run(src: &[f32], dst: &mut [f16]) {
        narrow_f16(src, dst);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{Isa, with_isa};

    /// All of an `f16`'s values, those between two of them and beside those, and what is no number.
    fn floats() -> Vec<f32> {
        let values = (0..=u16::MAX).map(|bits| f16::from_bits(bits).to_f32());
        let near = values.flat_map(|x| {
            let bits = x.to_bits();
            let half = (bits as u64 + (1 << 12)) as u32;
            [bits, bits.wrapping_sub(1), bits + 1, half, half - 1, half + 1].map(f32::from_bits)
        });
        let half_of_least = 2f32.powi(-25);
        near.chain([half_of_least, 1.5 * half_of_least, 65519.0, 65520.0, 65521.0, 65536.0, f32::MAX, 1e-40]).collect()
    }

    #[test]
    fn halves_convert_as_the_standard_says() {
        let halves: Vec<f16> = (0..=u16::MAX).map(f16::from_bits).collect();
        let floats = floats();
        for isa in Isa::available() {
            let (mut wide, mut narrow) = (vec![0.0; halves.len()], vec![f16::ZERO; floats.len()]);
            with_isa(isa, || widen_f16(&halves, &mut wide));
            with_isa(isa, || narrow_f16(&floats, &mut narrow));
            let mut rounded = floats.clone();
            with_isa(isa, || round_f16(&mut rounded));
            for (&x, &got) in halves.iter().zip(&wide) {
                let want = x.to_f32();
                assert!(got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan(), "{x:?}: {got}, {isa:?}");
            }
            for ((&x, &got), &back) in floats.iter().zip(&narrow).zip(&rounded) {
                let want = f16::from_f32(x);
                let same = got.to_bits() == want.to_bits() && back.to_bits() == want.to_f32().to_bits();
                assert!(same || got.is_nan() && back.is_nan() && want.is_nan(), "{x:e}: {got:?}, {back:e}, {isa:?}");
            }
        }
    }
}
