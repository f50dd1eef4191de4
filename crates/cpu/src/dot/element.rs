//! Numbers that are multiplied, as vectors of any length.

#[cfg(target_arch = "x86_64")]
use std::any::TypeId;
use std::ops::{Add, AddAssign, Mul};

use bytemuck::Pod;
use pulp::Simd;

#[cfg(target_arch = "x86_64")]
use super::by_hand;

/// What is multiplied.
pub(super) trait Element: Pod + AddAssign + Add<Output = Self> + Mul<Output = Self> + Send + Sync {
    type Vector<S: Simd>: Pod;
    fn splat<S: Simd>(simd: S, x: Self) -> Self::Vector<S>;
    /// The sum of a vector's elements.
    fn across<S: Simd>(simd: S, x: Self::Vector<S>) -> Self;
    fn sum<S: Simd>(simd: S, x: Self::Vector<S>, y: Self::Vector<S>) -> Self::Vector<S>;
    fn mul_add<S: Simd>(simd: S, x: Self::Vector<S>, by: Self::Vector<S>, to: Self::Vector<S>) -> Self::Vector<S>;

    /// True iff there is code for a tile of `M` rows of `N` vectors that compilers do not write.
    fn is_by_hand<S: Simd, const M: usize, const N: usize>() -> bool;

    /// Adds up such a tile.
    ///
    /// # Safety
    ///
    /// All rows and columns are there for each step, of which there is one, and so are those of the result, which nothing
    /// else uses. Vectors are those of this processor.
    unsafe fn by_hand(walk: Walk<Self>, out: Destination<Self>);
}

/// What a tile multiplies, step by step along `k`.
#[derive(Clone, Copy)]
pub(crate) struct Walk<T> {
    /// The first row's number.
    pub(crate) lhs: *const T,
    /// From a row to the next, and from a step to the next.
    pub(crate) strides: [usize; 2],
    /// The columns of the first step, and from a step to the next.
    pub(crate) rhs: *const T,
    pub(crate) pitch: usize,
    pub(crate) steps: usize,
}

/// Where the sums of a tile go, rows of whole vectors.
#[derive(Clone, Copy)]
pub(crate) struct Destination<T> {
    pub(crate) at: *mut T,
    /// From a row to the next.
    pub(crate) apart: usize,
    /// True iff they are added to what is there.
    pub(crate) more: bool,
}

macro_rules! element {
    ($t:ty, $vector:ident, $splat:ident, $across:ident, $add:ident, $mul_add:ident) => {
        impl Element for $t {
            type Vector<S: Simd> = S::$vector;
            #[inline(always)]
            fn splat<S: Simd>(simd: S, x: $t) -> S::$vector {
                simd.$splat(x)
            }
            #[inline(always)]
            fn across<S: Simd>(simd: S, x: S::$vector) -> $t {
                simd.$across(x)
            }
            #[inline(always)]
            fn sum<S: Simd>(simd: S, x: S::$vector, y: S::$vector) -> S::$vector {
                simd.$add(x, y)
            }
            #[inline(always)]
            fn mul_add<S: Simd>(simd: S, x: S::$vector, by: S::$vector, to: S::$vector) -> S::$vector {
                simd.$mul_add(x, by, to)
            }
            #[inline(always)]
            fn is_by_hand<S: Simd, const M: usize, const N: usize>() -> bool {
                #[cfg(target_arch = "x86_64")]
                return [M, N] == by_hand::TILE && TypeId::of::<S>() == TypeId::of::<pulp::x86::V3>();
                #[cfg(not(target_arch = "x86_64"))]
                return false;
            }
            #[inline(always)]
            #[cfg_attr(not(target_arch = "x86_64"), expect(unused_variables, reason = "there is none"))]
            unsafe fn by_hand(walk: Walk<$t>, out: Destination<$t>) {
                #[cfg(target_arch = "x86_64")]
                // SAFETY: the caller's.
                unsafe {
                    by_hand::$vector(walk, out)
                };
                #[cfg(not(target_arch = "x86_64"))]
                unreachable!("there is no such code");
            }
        }
    };
}

element!(f32, f32s, splat_f32s, reduce_sum_f32s, add_f32s, mul_add_e_f32s);
element!(f64, f64s, splat_f64s, reduce_sum_f64s, add_f64s, mul_add_e_f64s);

/// Elements of a vector.
pub(super) const fn lanes<T: Element, S: Simd>() -> usize {
    size_of::<T::Vector<S>>() / size_of::<T>()
}
