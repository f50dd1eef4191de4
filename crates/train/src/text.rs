//! How a number or a name reads in one line of text.
//!
//! A name may come from anywhere; a control character in it would break a terminal's line or an SVG's XML.

/// `value` with about five digits, in scientific form iff it is very small or very large.
pub(crate) fn number(value: f64) -> String {
    let size = value.abs();
    if value == 0.0 || !value.is_finite() {
        format!("{value}")
    } else if !(1e-3..1e6).contains(&size) {
        format!("{value:.2e}")
    } else {
        let decimals = (4.0 - size.log10().floor()).clamp(0.0, 4.0) as usize;
        format!("{value:.decimals$}")
    }
}

/// `text` with a space for each control character.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_about_five_digits() {
        let cases = [
            (0.0, "0"),
            (1.234567, "1.2346"),
            (0.97123, "0.9712"),
            (0.001, "0.0010"),
            (-23.02585, "-23.026"),
            (12345.6, "12346"),
            (3e-4, "3.00e-4"),
            (2.5e6, "2.50e6"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-inf"),
        ];
        for (value, text) in cases {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn control_characters_become_spaces() {
        assert_eq!(plain("a\nb\x1b[31mμ\u{9b}"), "a b [31mμ ");
    }
}
