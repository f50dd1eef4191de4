//! Arguments that are larger than one binding: bound as several, each a *window* on the next part of the buffer.
//!
//! Text is written as if every argument were one array, `a3[at]`. The hard idea is that an access is the only thing
//! that a window changes: where an argument has several, `a3[at]` becomes `load_a3(at)` and `a3[at] = x` becomes
//! `store_a3(at, x)`, two functions that choose. So no schedule knows of windows, and with one of them the text is as
//! it was. Windows are powers of two, so that choosing is a shift, and no strip lies in two.

use std::ops::Range;

use kiln_ir::kernel::{Access, Arg};
use kiln_ir::{DType, n_bindings, window_bytes};

/// A storage buffer as a shader sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Binding {
    /// Which argument it is of.
    pub arg: usize,
    /// The bytes of the argument that it spans.
    pub bytes: Range<u64>,
}

/// Bytes of an argument's buffer.
pub(crate) fn bytes(arg: &Arg) -> u64 {
    let one = if arg.dtype == DType::Bool { 4 } else { arg.dtype.size_bytes() };
    ((arg.numel * one) as u64).next_multiple_of(4).max(4)
}

/// How many bindings the argument takes.
pub(crate) fn count(arg: &Arg, max_binding_bytes: u64) -> usize {
    n_bindings(bytes(arg), max_binding_bytes)
}

/// The bindings of the arguments, in order.
pub(crate) fn bindings(args: &[Arg], max_binding_bytes: u64) -> Vec<Binding> {
    let of = |(n, arg): (usize, &Arg)| {
        let (all, windows) = (bytes(arg), count(arg, max_binding_bytes));
        let size = if windows == 1 { all } else { window_bytes(max_binding_bytes) };
        (0..windows as u64).map(move |w| Binding { arg: n, bytes: w * size..all.min((w + 1) * size) })
    };
    args.iter().enumerate().flat_map(of).collect()
}

/// The declarations of the arguments as arrays of these types; and the code as it accesses them, with the functions
/// that it calls before it.
pub(crate) fn declare(args: &[Arg], types: &[String], max_binding_bytes: u64, code: &str) -> (String, String) {
    let (mut text, mut functions, mut code) = (String::new(), String::new(), code.to_owned());
    let mut binding = 0;
    for (n, (arg, element)) in args.iter().zip(types).enumerate() {
        let access = if arg.access == Access::Read { "read" } else { "read_write" };
        let windows = count(arg, max_binding_bytes);
        for w in 0..windows {
            let (name, note) = match windows {
                1 => (format!("a{n}"), format!("{}[{}]", arg.dtype, arg.numel)),
                _ => (format!("a{n}_{w}"), format!("{}[{}], window {w} of {windows}", arg.dtype, arg.numel)),
            };
            text +=
                &format!("@group(0) @binding({binding}) var<storage, {access}> {name}: array<{element}>; // {note}\n");
            binding += 1;
        }
        if windows > 1 {
            let accesses;
            (code, accesses) = by_functions(&code, n);
            let shift = (window_bytes(max_binding_bytes) / element_bytes(element)).ilog2();
            functions += &choosing(n, element, windows, shift, &accesses);
        }
    }
    (text, functions + &code)
}

/// Bytes of an element as which an argument is declared: of a word, or of several.
fn element_bytes(element: &str) -> u64 {
    let (lanes, word) = match element.strip_prefix("vec").and_then(|rest| rest.split_once('<')) {
        Some((lanes, word)) => (lanes.parse().expect("a vector says its width"), word),
        None => (1, element),
    };
    lanes * if word.starts_with("f16") { 2 } else { 4 }
}

/// Which accesses there are.
#[derive(Default)]
struct Accesses {
    loads: bool,
    stores: bool,
}

/// The code with calls in the place of accesses to an argument.
fn by_functions(code: &str, n: usize) -> (String, Accesses) {
    let array = format!("a{n}[");
    let (mut out, mut rest, mut found) = (String::new(), code, Accesses::default());
    while let Some(at) = rest.find(&array) {
        let (before, access) = rest.split_at(at);
        out += before;
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if before.ends_with(is_part) {
            out += &array;
            rest = &access[array.len()..];
            continue;
        }
        assert!(!before.ends_with('&'), "no pointer reaches into windows: {access:.60}");
        let (index, after) = until_closed(&access[array.len()..]);
        let (index, of_index) = by_functions(index, n);
        found.loads |= of_index.loads;
        match after.strip_prefix(" = ") {
            Some(stored) => {
                let (value, after) = stored.split_once(';').expect("a statement ends");
                let (value, of_value) = by_functions(value, n);
                found.loads |= of_value.loads;
                found.stores = true;
                out += &format!("store_a{n}({index}, {value});");
                rest = after;
            }
            None => {
                found.loads = true;
                out += &format!("load_a{n}({index})");
                rest = after;
            }
        }
    }
    (out + rest, found)
}

/// What stands before the bracket that closes one opened just before, and what behind it.
fn until_closed(text: &str) -> (&str, &str) {
    let mut depth = 1;
    let closes = |c: char| {
        depth += (c == '[') as i32 - (c == ']') as i32;
        depth == 0
    };
    let at = text.find(closes).expect("a bracket closes");
    (&text[..at], &text[at + 1..])
}

/// The functions that choose the window of an element.
fn choosing(n: usize, element: &str, windows: usize, shift: u32, accesses: &Accesses) -> String {
    let within = format!("    let within = at & {}u;\n", (1u64 << shift) - 1);
    let cases = |case: &dyn Fn(usize) -> String| {
        let label = |w| if w + 1 == windows { "default".to_owned() } else { format!("case {w}u") };
        let lines: String = (0..windows).map(|w| format!("        {}: {{ {} }}\n", label(w), case(w))).collect();
        format!("    switch (at >> {shift}u) {{\n{lines}    }}\n")
    };
    let mut text = format!("// a{n} is bound in {windows} windows of {} elements.\n", 1u64 << shift);
    if accesses.loads {
        let chosen = cases(&|w| format!("x = a{n}_{w}[within];"));
        text += &format!(
            "fn load_a{n}(at: u32) -> {element} {{\n{within}    var x: {element};\n{chosen}    return x;\n}}\n\n"
        );
    }
    if accesses.stores {
        let chosen = cases(&|w| format!("a{n}_{w}[within] = x;"));
        text += &format!("fn store_a{n}(at: u32, x: {element}) {{\n{within}{chosen}}}\n\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arg(dtype: DType, numel: usize, access: Access) -> Arg {
        Arg { dtype, numel, access }
    }

    #[test]
    fn bindings_cover_every_argument_once() {
        let args = [
            arg(DType::F32, 1000, Access::Read),
            arg(DType::U8, 1001, Access::Write),
            arg(DType::F16, 3, Access::Read),
        ];
        let spans = |max| bindings(&args, max).into_iter().map(|b| (b.arg, b.bytes)).collect::<Vec<_>>();
        assert_eq!(spans(4000), [(0, 0..4000), (1, 0..1004), (2, 0..8)]);
        let windows = [(0, 0..2048), (0, 2048..4000), (1, 0..1004), (2, 0..8)];
        assert_eq!(spans(3999), windows);
        assert_eq!(spans(2048), windows);
        for max in [256, 300, 1000, 1024, 2047] {
            for (n, arg) in args.iter().enumerate() {
                let of: Vec<Range<u64>> = spans(max).into_iter().filter(|b| b.0 == n).map(|b| b.1).collect();
                assert_eq!(of.len(), count(arg, max));
                assert!(of.iter().all(|b| b.start % 256 == 0 && !b.is_empty() && b.end - b.start <= max));
                assert!(of.windows(2).all(|pair| pair[0].end == pair[1].start));
                assert_eq!((of[0].start, of.last().unwrap().end), (0, bytes(arg)));
            }
        }
    }

    #[test]
    fn only_accesses_of_the_argument_become_calls() {
        let code = "a1[a1[i] + a2[j]] = k(a1[0u], a11[2u]);\nlet t = aa1[3u] + a1[t[4u]].x; // a1\na1[i] = u[0];\n";
        let (text, found) = by_functions(code, 1);
        let expected = "store_a1(load_a1(i) + a2[j], k(load_a1(0u), a11[2u]));\n\
            let t = aa1[3u] + load_a1(t[4u]).x; // a1\nstore_a1(i, u[0]);\n";
        assert_eq!(text, expected);
        assert!(found.loads && found.stores);
        assert_eq!(by_functions(code, 3).0, code);
        let (_, found) = by_functions("if (a2[i] == 3u) { a1[i] = 0u; }", 2);
        assert!(found.loads && !found.stores);
    }

    #[test]
    #[should_panic(expected = "no pointer reaches into windows")]
    fn a_pointer_into_windows_is_our_mistake() {
        by_functions("coopStoreT(acc, &a0[to], pitch);", 0);
    }

    #[test]
    fn windows_count_elements_as_they_are_declared() {
        for (element, bytes) in [("f32", 4), ("u32", 4), ("vec2<u32>", 8), ("vec4<f32>", 16), ("vec4<f16>", 8)] {
            assert_eq!(element_bytes(element), bytes, "{element}");
        }
        let args = [arg(DType::F32, 1 << 10, Access::Read), arg(DType::F32, 1 << 10, Access::Write)];
        let types = ["vec4<f32>".to_owned(), "f32".to_owned()];
        let (text, code) = declare(&args, &types, 2048, "a1[at] = a0[at / 4u].x;\n");
        assert_eq!(text.lines().count(), 4);
        assert!(text.contains("@binding(2) var<storage, read_write> a1_0: array<f32>; // f32[1024], window 0 of 2"));
        assert!(code.contains("at >> 7u") && code.contains("at & 127u"), "{code}");
        assert!(code.contains("at >> 9u") && code.contains("at & 511u"), "{code}");
        assert!(code.ends_with("store_a1(at, load_a0(at / 4u).x);\n"), "{code}");
    }
}
