//! WGSL that people wrote: what generated kernels call.
//!
//! The hard idea is that a function is its own section: a kernel takes the functions that it names,
//! and those take what they name, so nothing has to be listed twice.

#![forbid(unsafe_code)]

/// Functions for one element: exact integer division, NaN-aware extrema, packed floats, random bits.
pub const PRELUDE: &str = include_str!("../prelude.wgsl");

/// The functions of [`PRELUDE`] as `(name, text)`, in file order; the text begins with its comment.
pub fn functions() -> Vec<(&'static str, &'static str)> {
    let sections = PRELUDE.split("\n\n").filter(|section| section.contains("fn k_"));
    sections.map(|section| (name_of(section), section.trim())).collect()
}

fn name_of(section: &str) -> &str {
    let start = section.find("fn k_").expect("sections without a function were left out") + "fn ".len();
    let rest = &section[start..];
    &rest[..rest.find('(').expect("a function has parameters")]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_function_is_a_section_of_its_own() {
        let functions = functions();
        assert_eq!(functions.len(), PRELUDE.matches("\nfn ").count());
        for (name, text) in functions {
            assert!(name.starts_with("k_") && text.ends_with('}'), "{name}");
            assert_eq!(text.matches("\nfn ").count() + text.starts_with("fn ") as usize, 1, "{name}");
        }
    }
}
