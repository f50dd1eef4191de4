//! WGSL under construction: indented lines, literals, types, and the row of an op with its operands.

use kiln_ir::{DType, PointOp};

/// Lines of WGSL at a depth of indentation.
#[derive(Default)]
pub(crate) struct Code {
    text: String,
    depth: usize,
}

impl Code {
    /// Appends a line.
    pub(crate) fn line(&mut self, line: impl AsRef<str>) {
        let line = line.as_ref();
        if !line.is_empty() {
            (0..self.depth).for_each(|_| self.text.push_str("    "));
        }
        self.text.push_str(line);
        self.text.push('\n');
    }

    /// Appends a line that opens a block, or a brace alone.
    pub(crate) fn open(&mut self, line: impl AsRef<str>) {
        self.line(format!("{} {{", line.as_ref()).trim_start());
        self.depth += 1;
    }

    /// Closes the block that was opened last.
    pub(crate) fn close(&mut self) {
        self.depth -= 1;
        self.line("}");
    }

    /// The lines.
    pub(crate) fn into_text(self) -> String {
        self.text
    }
}

/// The WGSL type of a value of this compute dtype.
pub(crate) fn value_type(dtype: DType) -> &'static str {
    match dtype.compute() {
        DType::I32 => "i32",
        DType::U32 => "u32",
        DType::Bool => "bool",
        _ => "f32",
    }
}

/// The WGSL type of a stored element, or of the words that several share.
pub(crate) fn storage_type(dtype: DType) -> &'static str {
    match dtype {
        DType::F32 => "f32",
        DType::I32 => "i32",
        _ => "u32",
    }
}

/// How many elements share a word.
pub(crate) fn per_word(dtype: DType) -> usize {
    match dtype {
        DType::F16 | DType::BF16 => 2,
        DType::U8 => 4,
        _ => 1,
    }
}

/// A literal of a compute dtype, exact for every value.
pub(crate) fn literal(dtype: DType, value: f64) -> String {
    match dtype.compute() {
        DType::I32 => match value as i32 {
            i32::MIN => "bitcast<i32>(0x80000000u)".into(),
            v => format!("{v}i"),
        },
        DType::U32 => format!("{}u", value as u32),
        DType::Bool => (value != 0.0).to_string(),
        _ => {
            let v = value as f32;
            let plain = (v.is_normal() || v.to_bits() == 0) && v.abs() < f32::MAX;
            if plain { format!("{v:?}f") } else { format!("k_f32({:#010x}u)", v.to_bits()) }
        }
    }
}

/// The expression of an op's row over these operands, whose last has this compute dtype.
pub(crate) fn op(op: PointOp, dtype: DType, args: [&str; 3]) -> String {
    let source = match (op, dtype.compute()) {
        (PointOp::Lt, DType::Bool) => "!x && y",
        // The built-in loses NaN on some drivers.
        (PointOp::Sign, _) => "k_sign(x)",
        _ => op.row().wgsl,
    };
    substitute(source, value_type(dtype), args)
}

/// Replaces the words `x`, `y`, `z`, and gives `k_…` calls the suffix of their type.
fn substitute(source: &str, suffix: &str, [x, y, z]: [&str; 3]) -> String {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut out = String::new();
    let mut rest = source;
    while !rest.is_empty() {
        let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        let (word, tail) = rest.split_at(end.max(1));
        match word {
            "x" => out += x,
            "y" => out += y,
            "z" => out += z,
            _ if word.starts_with("k_") => out += &format!("{word}_{suffix}"),
            _ => out += word,
        }
        rest = tail;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operands_replace_whole_words_only() {
        assert_eq!(op(PointOp::Exp, DType::F32, ["t1", "t1", "t1"]), "exp(t1)");
        assert_eq!(op(PointOp::Max, DType::I32, ["t1", "t2", "t2"]), "k_max_i32(t1, t2)");
        assert_eq!(op(PointOp::Select, DType::U8, ["t1", "t2", "t3"]), "select(t3, t2, t1)");
        assert_eq!(op(PointOp::Lt, DType::Bool, ["t1", "t2", "t2"]), "!t1 && t2");
    }

    #[test]
    fn literals_are_exact() {
        assert_eq!(literal(DType::F32, 0.5), "0.5f");
        assert_eq!(literal(DType::F32, 1e-7), "1e-7f");
        assert_eq!(literal(DType::F32, -0.0), "k_f32(0x80000000u)");
        assert_eq!(literal(DType::F32, f64::INFINITY), "k_f32(0x7f800000u)");
        assert_eq!(literal(DType::I32, i32::MIN as f64), "bitcast<i32>(0x80000000u)");
        assert_eq!(literal(DType::U8, 255.0), "255u");
    }
}
