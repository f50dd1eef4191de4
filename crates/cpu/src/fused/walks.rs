//! Loops over the lanes of a formula's operands.

use bytemuck::Pod;

use crate::ahead::Ahead;
use crate::simd::{Operand, Out};

/// Which operands are single values, as bits.
#[inline(always)]
pub(super) fn ones<const N: usize>(args: &[Operand; N]) -> u8 {
    args.iter().enumerate().fold(0, |bits, (k, x)| bits | (x.one as u8) << k)
}

/// The operands that are single values, and the lanes of the others.
#[inline(always)]
fn split<'a, T: Pod, const N: usize, const ONES: u8, const OWN: usize>(
    n: usize,
    args: &[Operand<'a>; N],
) -> ([T; N], [&'a [T]; N]) {
    let mut x = [T::zeroed(); N];
    let mut many: [&[T]; N] = [&[]; N];
    for k in 0..N {
        if ONES >> k & 1 == 1 {
            x[k] = args[k].lanes()[0];
        } else if k != OWN {
            many[k] = &args[k].lanes()[..n];
        }
    }
    (x, many)
}

/// A loop over lanes where `ONES` are single values and operand `OWN` is what is overwritten, if there is such a one.
#[inline(always)]
pub(super) fn lanes<T: Pod, const N: usize, const ONES: u8, const OWN: usize>(
    n: usize,
    dst: &mut Out,
    args: &[Operand; N],
    _: Ahead,
    f: impl Fn([T; N]) -> T,
) {
    let out = &mut dst.lanes_mut::<T>()[..n];
    let (mut x, many) = split::<T, N, ONES, OWN>(n, args);
    for i in 0..n {
        for k in 0..N {
            if k == OWN {
                x[k] = out[i];
            } else if ONES >> k & 1 == 0 {
                x[k] = many[k][i];
            }
        }
        out[i] = f(x);
    }
}

/// Lanes that are computed at once where any operand may be a single value.
pub(crate) const PIECE: usize = 64;

/// As [`lanes`], for operands of any kind; single values and what is overwritten are spread over a piece.
#[inline(always)]
pub(super) fn pieces<T: Pod, const N: usize>(n: usize, dst: &mut Out, args: &[Operand; N], f: impl Fn([T; N]) -> T) {
    let mut spread = [[T::zeroed(); PIECE]; N];
    for (spread, x) in spread.iter_mut().zip(args).filter(|(_, x)| x.one) {
        spread.fill(x.lanes()[0]);
    }
    for (i, out) in dst.lanes_mut()[..n].chunks_mut(PIECE).enumerate() {
        let len = out.len();
        for (spread, _) in spread.iter_mut().zip(args).filter(|(_, x)| x.own) {
            spread[..len].copy_from_slice(out);
        }
        let mut many: [&[T]; N] = [&[]; N];
        for k in 0..N {
            let x = args[k];
            many[k] = if x.one || x.own { &spread[k][..len] } else { &x.lanes()[i * PIECE..][..len] };
        }
        let mut x = [T::zeroed(); N];
        for (j, out) in out.iter_mut().enumerate() {
            for k in 0..N {
                x[k] = many[k][j];
            }
            *out = f(x);
        }
    }
}

/// As [`lanes`], for formulas that take long: meanwhile, memory is asked for.
#[inline(always)]
pub(super) fn slowly<T: Pod, const N: usize, const ONES: u8, const OWN: usize>(
    n: usize,
    dst: &mut Out,
    args: &[Operand; N],
    mut ahead: Ahead,
    f: impl Fn([T; N]) -> T,
) {
    let out = &mut dst.lanes_mut::<T>()[..n];
    let (x, many) = split::<T, N, ONES, OWN>(n, args);
    let (whole, rest) = out.as_chunks_mut::<PIECE>();
    let mut at = 0;
    for out in whole {
        ahead.ask();
        piece::<_, _, ONES, OWN, _>(out, at, &many, x, &f);
        at += PIECE;
    }
    for out in rest.as_chunks_mut::<16>().0 {
        piece::<_, _, ONES, OWN, _>(out, at, &many, x, &f);
        at += 16;
    }
}

/// A few lanes, of operands from `at` on.
#[inline(always)]
fn piece<T: Pod, const N: usize, const ONES: u8, const OWN: usize, const LANES: usize>(
    out: &mut [T; LANES],
    at: usize,
    many: &[&[T]; N],
    mut x: [T; N],
    f: &impl Fn([T; N]) -> T,
) {
    let mut from: [&[T]; N] = [&[]; N];
    for k in 0..N {
        if k != OWN && ONES >> k & 1 == 0 {
            from[k] = &many[k][at..at + LANES];
        }
    }
    for i in 0..LANES {
        for k in 0..N {
            if k == OWN {
                x[k] = out[i];
            } else if ONES >> k & 1 == 0 {
                x[k] = from[k][i];
            }
        }
        out[i] = f(x);
    }
}
