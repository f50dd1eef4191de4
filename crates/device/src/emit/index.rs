//! Index expressions and bounds as WGSL text in `u32`.
//!
//! The hard idea is that sums may wrap: an address that ends in range is right even where a partial
//! sum was negative. Only quotients, remainders and comparisons see the sign, so only they ask for
//! the range of what they are applied to.

use kiln_ir::{Atom, Bound, Index};

/// An index space in text: its dims, and what each coordinate is called.
pub(crate) struct Axes {
    /// The extents.
    pub(crate) dims: Vec<usize>,
    /// The names.
    pub(crate) names: Vec<String>,
}

impl Axes {
    /// Coordinates `i0`, `i1`, … over these dims.
    pub(crate) fn numbered(dims: &[usize]) -> Axes {
        Axes { dims: dims.to_vec(), names: (0..dims.len()).map(|axis| format!("i{axis}")).collect() }
    }

    /// The space with one more coordinate.
    pub(crate) fn with(&self, name: String, dim: usize) -> Axes {
        let (mut dims, mut names) = (self.dims.clone(), self.names.clone());
        dims.push(dim);
        names.push(name);
        Axes { dims, names }
    }

    /// The value of an index expression.
    pub(crate) fn index(&self, e: &Index) -> String {
        let term = |(c, atom): &(i64, Atom)| match c.unsigned_abs() {
            1 => self.atom(atom),
            n => format!("{} * {n}u", self.atom(atom)),
        };
        let mut parts: Vec<String> = e.terms.iter().filter(|t| t.0 > 0).map(&term).collect();
        if e.constant > 0 || (parts.is_empty() && e.constant == 0) {
            parts.push(format!("{}u", e.constant));
        }
        let mut text = if parts.is_empty() { "0u".into() } else { parts.join(" + ") };
        for negative in e.terms.iter().filter(|t| t.0 < 0) {
            text += &format!(" - {}", term(negative));
        }
        if e.constant < 0 {
            text += &format!(" - {}u", -e.constant);
        }
        text
    }

    /// The value as an operand: in parentheses unless it is one word.
    fn operand(&self, e: &Index) -> String {
        let text = self.index(e);
        if text.contains(' ') && !(text.starts_with('(') && closes_at_end(&text)) { format!("({text})") } else { text }
    }

    fn atom(&self, atom: &Atom) -> String {
        let by = |e: &Index, n: &i64, sign: char, name: &str| match e.range(&self.dims).0 {
            0.. => format!("({} {sign} {n}u)", self.operand(e)),
            _ => format!("u32({name}(i32({}), {n}i))", self.index(e)),
        };
        match atom {
            Atom::Var(axis) => self.names[*axis].clone(),
            Atom::Div(e, n) => by(e, n, '/', "k_floor_div"),
            Atom::Mod(e, n) => by(e, n, '%', "k_floor_mod"),
        }
    }

    /// The condition that all bounds hold; `None` where they always do.
    pub(crate) fn bounds(&self, bounds: &[Bound]) -> Option<String> {
        let conditions: Vec<String> = bounds.iter().filter_map(|b| self.bound(b)).collect();
        (!conditions.is_empty()).then(|| conditions.join(" && "))
    }

    fn bound(&self, b: &Bound) -> Option<String> {
        let (least, greatest) = b.index.range(&self.dims);
        let (lo, hi) = (b.lo.max(least), b.hi.min(greatest + 1));
        let index = || self.index(&b.index);
        match (lo == least, hi == greatest + 1) {
            (true, true) => None,
            _ if lo >= hi => Some("false".into()),
            _ if lo >= 0 && hi == lo + 1 => Some(format!("{} == {lo}u", index())),
            (_, true) if least >= 0 => Some(format!("{} >= {lo}u", index())),
            // Below `lo` the difference wraps around to more than any extent.
            _ => Some(format!("{} < {}u", self.index(&b.index.clone().offset(-lo)), hi - lo)),
        }
    }
}

/// True iff the parenthesis that the text begins with closes at its end.
fn closes_at_end(text: &str) -> bool {
    let mut depth = 0;
    for (at, c) in text.char_indices() {
        depth += (c == '(') as i32 - (c == ')') as i32;
        if depth == 0 {
            return at + 1 == text.len();
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn var(axis: usize) -> Index {
        Index::var(axis)
    }

    #[test]
    fn indices_read_as_a_person_would_write_them() {
        let axes = Axes::numbered(&[4, 6, 5]);
        let dims = &[4, 6, 5];
        let sum = var(0).scale(30).add(&var(1).scale(5), dims).add(&var(2), dims);
        assert_eq!(axes.index(&sum), "i0 * 30u + i1 * 5u + i2");
        assert_eq!(axes.index(&var(1).scale(-1).offset(5)), "5u - i1");
        assert_eq!(axes.index(&var(1).offset(-1)), "i1 - 1u");
        assert_eq!(axes.index(&var(1).add(&var(2), dims).div(3, dims)), "((i1 + i2) / 3u)");
        assert_eq!(axes.index(&Index::default()), "0u");
    }

    #[test]
    fn bounds_that_always_hold_vanish() {
        let axes = Axes::numbered(&[4, 6]);
        let bound = |index: Index, lo, hi| axes.bounds(&[Bound { index, lo, hi }]);
        assert_eq!(bound(var(0), 0, 4), None);
        assert_eq!(bound(var(0), -3, 3).as_deref(), Some("i0 < 3u"));
        assert_eq!(bound(var(0), 2, 9).as_deref(), Some("i0 >= 2u"));
        assert_eq!(bound(var(0).offset(-1), 0, 9).as_deref(), Some("i0 - 1u < 3u"));
        assert_eq!(bound(var(0), 2, 3).as_deref(), Some("i0 == 2u"));
        assert_eq!(bound(var(0), 7, 9).as_deref(), Some("false"));
    }
}
