//! Loops over the lanes of a formula's operands, piece by piece: meanwhile, memory is asked for.

use bytemuck::Pod;

use crate::ahead::Ahead;
use crate::simd::{Operand, Out};

/// Which operands are single values, as bits.
#[inline(always)]
pub(crate) fn ones<const N: usize>(args: &[Operand; N]) -> u8 {
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

/// Lanes that are computed at once.
pub(crate) const PIECE: usize = 64;

/// No operand is what is overwritten.
pub(crate) const NO_OWN: usize = usize::MAX;

/// A loop over lanes where `ONES` are single values and operand `OWN` is what is overwritten, if there is such a one.
#[inline(always)]
pub(crate) fn lanes<T: Pod, U: Pod, const N: usize, const ONES: u8, const OWN: usize>(
    n: usize,
    dst: &mut Out,
    args: &[Operand; N],
    mut ahead: Ahead,
    f: impl Fn([T; N]) -> U,
) {
    let out = &mut dst.lanes_mut::<U>()[..n];
    let (x, many) = split::<T, N, ONES, OWN>(n, args);
    let (whole, rest) = out.as_chunks_mut::<PIECE>();
    let mut at = 0;
    for out in whole {
        ahead.ask();
        piece::<_, _, _, ONES, OWN, _>(out, at, &many, x, &f);
        at += PIECE;
    }
    for out in rest.as_chunks_mut::<16>().0 {
        piece::<_, _, _, ONES, OWN, _>(out, at, &many, x, &f);
        at += 16;
    }
}

/// A few lanes, of operands from `at` on.
#[inline(always)]
fn piece<T: Pod, U: Pod, const N: usize, const ONES: u8, const OWN: usize, const LANES: usize>(
    out: &mut [U; LANES],
    at: usize,
    many: &[&[T]; N],
    mut x: [T; N],
    f: &impl Fn([T; N]) -> U,
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
                x[k] = bytemuck::cast(out[i]);
            } else if ONES >> k & 1 == 0 {
                x[k] = from[k][i];
            }
        }
        out[i] = f(x);
    }
}

/// As [`lanes`], for operands of any kind; single values and what is overwritten are spread over a piece.
#[inline(always)]
pub(crate) fn pieces<T: Pod, const N: usize>(
    n: usize,
    dst: &mut Out,
    args: &[Operand; N],
    mut ahead: Ahead,
    f: impl Fn([T; N]) -> T,
) {
    let mut spread = [[T::zeroed(); PIECE]; N];
    for (spread, x) in spread.iter_mut().zip(args).filter(|(_, x)| x.one) {
        spread.fill(x.lanes()[0]);
    }
    let (whole, rest) = dst.lanes_mut()[..n].as_chunks_mut::<PIECE>();
    let mut at = 0;
    for out in whole {
        ahead.ask();
        piece_of_any(out, at, args, &mut spread, &f);
        at += PIECE;
    }
    for out in rest.as_chunks_mut::<16>().0 {
        piece_of_any(out, at, args, &mut spread, &f);
        at += 16;
    }
}

/// As [`piece`]. How many lanes there are is known to the compiler: it would compute some of any number one by one.
#[inline(always)]
fn piece_of_any<T: Pod, const N: usize, const LANES: usize>(
    out: &mut [T; LANES],
    at: usize,
    args: &[Operand; N],
    spread: &mut [[T; PIECE]; N],
    f: &impl Fn([T; N]) -> T,
) {
    for (spread, _) in spread.iter_mut().zip(args).filter(|(_, x)| x.own) {
        spread[..LANES].copy_from_slice(out);
    }
    let mut many: [&[T]; N] = [&[]; N];
    for k in 0..N {
        let x = args[k];
        many[k] = if x.one || x.own { &spread[k][..LANES] } else { &x.lanes()[at..at + LANES] };
    }
    let mut x = [T::zeroed(); N];
    for i in 0..LANES {
        for k in 0..N {
            x[k] = many[k][i];
        }
        out[i] = f(x);
    }
}
