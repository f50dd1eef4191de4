//! The README's program, compiled and run as a test; the examples themselves stand in `examples/`.

#![forbid(unsafe_code)]

#[doc = include_str!("../../README.md")]
#[cfg(doctest)]
struct Readme;
