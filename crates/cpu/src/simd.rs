//! Vector registers in memory, and compiling one body for several instruction sets.
//!
//! A [`Reg`] is a few hundred to a few thousand lanes that stay in the nearest cache. Kernels over
//! it are plain loops; [`multiversion!`] compiles each loop for every instruction set that is worth
//! it, and the choice is made once, when the program starts.

use std::sync::OnceLock;

use bytemuck::{Pod, Zeroable};

/// Instruction sets that kernels are compiled for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Isa {
    /// What every processor of the target has.
    Base,
    /// 256-bit vectors with fused multiply-add.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// 512-bit vectors.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

/// The best instruction set of this processor.
#[inline]
pub(crate) fn isa() -> Isa {
    static ISA: OnceLock<Isa> = OnceLock::new();
    #[cfg(test)]
    if let Some(isa) = CHOSEN.get() {
        return isa;
    }
    *ISA.get_or_init(detect)
}

#[cfg(test)]
thread_local! {
    static CHOSEN: std::cell::Cell<Option<Isa>> = const { std::cell::Cell::new(None) };
}

/// Runs something as a processor would that has this instruction set at best.
#[cfg(test)]
pub(crate) fn with_isa<T>(isa: Isa, body: impl FnOnce() -> T) -> T {
    assert!(Isa::available().contains(&isa), "{isa:?} is not to be had here");
    let before = CHOSEN.replace(Some(isa));
    let result = body();
    CHOSEN.set(before);
    result
}

#[cfg(test)]
impl Isa {
    /// All that this processor has.
    pub(crate) fn available() -> Vec<Isa> {
        match detect() {
            Isa::Base => vec![Isa::Base],
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => vec![Isa::Base, Isa::Avx2],
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => vec![Isa::Base, Isa::Avx2, Isa::Avx512],
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn detect() -> Isa {
    let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
    let avx512 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    match (avx2, avx512) {
        (true, true) => Isa::Avx512,
        (true, false) => Isa::Avx2,
        _ => Isa::Base,
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn detect() -> Isa {
    Isa::Base
}

/// True iff [`Isa::Base`] fuses multiply and add in hardware; elsewhere the library's is slow.
pub(crate) const BASE_FMA: bool = cfg!(target_arch = "aarch64");

/// Defines a function whose body is compiled for every instruction set; `FMA` tells the body whether
/// a fused multiply-add is one instruction. A `narrow fn` has vectors of 256 bits at most: what memory gives is read faster in
/// halves of its lines.
macro_rules! multiversion {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $body:block) => {
        multiversion! {
            @ "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c" $(#[$meta])* $vis fn $name($($arg: $ty),*) $body
        }
    };
    ($(#[$meta:meta])* $vis:vis narrow fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $body:block) => {
        multiversion! { @ "avx2,fma,f16c" $(#[$meta])* $vis fn $name($($arg: $ty),*) $body }
    };
    (@ $widest:literal $(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),*) $body:block) => {
        $(#[$meta])*
        $vis fn $name($($arg: $ty),*) {
            #[inline(always)]
            #[allow(clippy::extra_unused_type_parameters, reason = "not every body multiplies and adds")]
            fn body<const FMA: bool>($($arg: $ty),*) $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c")]
            fn avx2($($arg: $ty),*) {
                body::<true>($($arg),*);
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = $widest)]
            fn avx512($($arg: $ty),*) {
                body::<true>($($arg),*);
            }

            match crate::simd::isa() {
                crate::simd::Isa::Base => body::<{ crate::simd::BASE_FMA }>($($arg),*),
                #[cfg(target_arch = "x86_64")]
                // SAFETY: `isa` found these features on this processor.
                crate::simd::Isa::Avx2 => unsafe { avx2($($arg),*) },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: `isa` found these features on this processor.
                crate::simd::Isa::Avx512 => unsafe { avx512($($arg),*) },
            }
        }
    };
}
pub(crate) use multiversion;

macro_rules! hint {
    ($(#[$doc:meta])* $name:ident, $hint:ident) => {
        $(#[$doc])*
        /// A hint: the address may be any.
        #[inline(always)]
        pub(crate) fn $name<T>(at: *const T) {
            #[cfg(target_arch = "x86_64")]
            {
                use std::arch::x86_64::{$hint, _mm_prefetch};
                // SAFETY: touches nothing, wherever it points.
                unsafe { _mm_prefetch::<$hint>(at.cast()) };
            }
            #[cfg(not(target_arch = "x86_64"))]
            let _ = at;
        }
    };
}

hint! {
    /// Asks for a cache line that will be needed soon: into the second-level cache, since the first one is full of
    /// registers.
    prefetch, _MM_HINT_T1
}
hint! {
    /// As above, into the first-level cache: for what is needed within some tens of nanoseconds.
    prefetch_now, _MM_HINT_T0
}
hint! {
    /// As above, for a line that will be written.
    prefetch_mut, _MM_HINT_ET0
}

/// Copies past the caches, as far as whole cache lines go. Other threads see it after a [`fence`].
pub(crate) fn stream(src: &[u8], dst: &mut [u8]) {
    assert_eq!(src.len(), dst.len());
    #[cfg(target_arch = "x86_64")]
    {
        let before = dst.as_ptr().align_offset(LINE).min(dst.len());
        let (head, dst) = dst.split_at_mut(before);
        head.copy_from_slice(&src[..before]);
        let ((src, rest), (dst, tail)) = (src[before..].as_chunks(), dst.as_chunks_mut());
        match isa() {
            // SAFETY: `isa` found this feature on this processor.
            Isa::Avx512 => unsafe { stream_wide(src, dst) },
            _ => stream_narrow(src, dst),
        }
        tail.copy_from_slice(rest);
    }
    #[cfg(not(target_arch = "x86_64"))]
    dst.copy_from_slice(src);
}

/// Copies a cache line past the caches, if it goes to where one begins. Other threads see it after a [`fence`].
#[inline(always)]
pub(crate) fn stream_line(src: &[u32; WORDS], dst: &mut [u32; WORDS]) {
    #[cfg(target_arch = "x86_64")]
    if dst.as_ptr().addr().is_multiple_of(LINE) {
        let (src, dst) = (bytemuck::cast_ref(src), bytemuck::cast_mut(dst));
        return stream_narrow(std::slice::from_ref(src), std::slice::from_mut(dst));
    }
    *dst = *src;
}

/// Words of a cache line.
pub(crate) const WORDS: usize = LINE / size_of::<u32>();

/// Bytes of a cache line.
pub(crate) const LINE: usize = 64;

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn stream_wide(src: &[[u8; LINE]], dst: &mut [[u8; LINE]]) {
    use std::arch::x86_64::{_mm512_loadu_si512, _mm512_stream_si512};
    for (src, dst) in src.iter().zip(dst) {
        // SAFETY: a whole line each, and the caller's lines are aligned.
        unsafe { _mm512_stream_si512(dst.as_mut_ptr().cast(), _mm512_loadu_si512(src.as_ptr().cast())) };
    }
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn stream_narrow(src: &[[u8; LINE]], dst: &mut [[u8; LINE]]) {
    use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_stream_si128};
    for (src, dst) in src.iter().zip(dst) {
        let (src, dst): (*const __m128i, *mut __m128i) = (src.as_ptr().cast(), dst.as_mut_ptr().cast());
        for k in 0..LINE / 16 {
            // SAFETY: a quarter of a line that is aligned; every x86-64 processor has these moves.
            unsafe { _mm_stream_si128(dst.add(k), _mm_loadu_si128(src.add(k))) };
        }
    }
}

/// Sets memory to zero past the caches, as far as whole cache lines go. Other threads see it after a [`fence`].
pub(crate) fn zero(dst: &mut [u8]) {
    const ZEROS: [u8; 4096] = [0; 4096];
    dst.chunks_mut(ZEROS.len()).for_each(|dst| stream(&ZEROS[..dst.len()], dst));
}

/// Lets other threads see what was copied past the caches, once they see what this thread does next.
pub(crate) fn fence() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: orders stores, and every x86-64 processor has it.
    unsafe {
        std::arch::x86_64::_mm_sfence()
    };
}

/// The first words of pairs. Cut off like this they are a few vector moves; one by one compilers move each.
#[inline(always)]
pub(crate) fn firsts<const N: usize>(pairs: [u64; N]) -> [u32; N] {
    let mut firsts = [0; N];
    for (first, pair) in firsts.iter_mut().zip(pairs) {
        *first = if cfg!(target_endian = "little") { pair as u32 } else { (pair >> 32) as u32 };
    }
    firsts
}

/// A cache line of lanes.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
pub(crate) struct Line([u64; 8]);

/// Lanes of one compute dtype: `f32`, `i32`, `u32` (also for `bool`, as 0 or 1), or `f64`.
#[derive(Clone, Default)]
pub(crate) struct Reg(Vec<Line>);

impl Reg {
    /// A register of at least this many bytes.
    pub(crate) fn with_bytes(bytes: usize) -> Reg {
        Reg(vec![Line([0; 8]); bytes.div_ceil(size_of::<Line>())])
    }

    /// Makes room for this many bytes; the content is then undefined.
    pub(crate) fn reserve_bytes(&mut self, bytes: usize) {
        let lines = bytes.div_ceil(size_of::<Line>());
        if self.0.len() < lines {
            self.0.resize(lines, Line([0; 8]));
        }
    }

    /// The lanes.
    #[inline(always)]
    pub(crate) fn lanes<T: Pod>(&self) -> &[T] {
        bytemuck::cast_slice(&self.0)
    }

    /// The lanes, for writing.
    #[inline(always)]
    pub(crate) fn lanes_mut<T: Pod>(&mut self) -> &mut [T] {
        bytemuck::cast_slice_mut(&mut self.0)
    }

    /// The first lanes.
    #[inline(always)]
    pub(crate) fn first_line(&self) -> Line {
        self.0[0]
    }

    /// Overwrites the first lanes.
    #[inline(always)]
    pub(crate) fn set_first_line(&mut self, line: Line) {
        self.0[0] = line;
    }

    /// Overwrites the first bytes with those of another register.
    #[inline(always)]
    pub(crate) fn copy_from(&mut self, src: &Reg, bytes: usize) {
        // What one row gives needs no call.
        if bytes <= LINE {
            return self.set_first_line(src.first_line());
        }
        self.lanes_mut::<u8>()[..bytes].copy_from_slice(&src.lanes()[..bytes]);
    }

    /// The register as a kernel reads it.
    #[inline(always)]
    pub(crate) fn operand(&self) -> Operand<'_> {
        Operand { bytes: bytemuck::cast_slice(&self.0), one: false, own: false }
    }

    /// The register as a kernel writes it.
    #[inline(always)]
    pub(crate) fn out(&mut self) -> Out<'_> {
        Out(bytemuck::cast_slice_mut(&mut self.0))
    }
}

/// Lanes that a kernel reads: a register's, or an argument's own memory.
#[derive(Clone, Copy)]
pub(crate) struct Operand<'a> {
    bytes: &'a [u8],
    /// True iff all lanes are equal; only the first cache line need then be there.
    pub(crate) one: bool,
    /// True iff the lanes are those that are about to be overwritten: there are none here.
    pub(crate) own: bool,
}

impl<'a> Operand<'a> {
    /// Lanes in an argument's memory.
    pub(crate) fn lent(bytes: &'a [u8]) -> Operand<'a> {
        Operand { bytes, one: false, own: false }
    }

    /// What the result's memory holds before.
    pub(crate) fn own() -> Operand<'a> {
        // Empty, and as aligned as any lanes.
        Operand { bytes: bytemuck::cast_slice::<u64, u8>(&[]), one: false, own: true }
    }

    /// The same, of which all lanes are equal.
    pub(crate) fn repeated(self) -> Operand<'a> {
        Operand { one: true, ..self }
    }

    /// The lanes.
    #[inline(always)]
    pub(crate) fn lanes<T: Pod>(self) -> &'a [T] {
        bytemuck::cast_slice(self.bytes)
    }
}

/// Lanes that a kernel writes: a register's, or an argument's own memory.
pub(crate) struct Out<'a>(&'a mut [u8]);

impl<'a> Out<'a> {
    /// Lanes in an argument's memory.
    pub(crate) fn lent(bytes: &'a mut [u8]) -> Out<'a> {
        Out(bytes)
    }

    /// The lanes.
    #[inline(always)]
    pub(crate) fn lanes_mut<T: Pod>(&mut self) -> &mut [T] {
        bytemuck::cast_slice_mut(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_past_the_caches_begin_and_end_anywhere() {
        let src: Vec<u8> = (0..400).map(|i| (i % 251) as u8).collect();
        for isa in Isa::available() {
            for (from, len) in [(0, 0), (0, 64), (1, 62), (1, 63), (1, 64), (7, 300), (63, 129), (64, 128), (5, 390)] {
                let mut reg = Reg::with_bytes(512);
                with_isa(isa, || stream(&src[..len], &mut reg.lanes_mut()[from..from + len]));
                fence();
                let got: &[u8] = reg.lanes();
                assert_eq!(got[from..from + len], src[..len], "{len} bytes from {from} on, {isa:?}");
                assert!(got[..from].iter().chain(&got[from + len..]).all(|&x| x == 0), "around {len} bytes, {isa:?}");
            }
        }
    }
}
