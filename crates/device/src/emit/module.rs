//! A whole WGSL module: header comment, bindings, the prelude's functions that are named, the rest.

use std::collections::BTreeSet;

use kiln_ir::kernel::{Access, Arg, Body, Instr};

use super::code::storage_type;
use super::strip::vector_type;

/// How many scalar words the bodies name.
pub(crate) fn n_scalars(bodies: &[&Body]) -> usize {
    let scalar = |instr: &Instr| if let Instr::Scalar(_, n) = instr { *n as usize + 1 } else { 0 };
    bodies.iter().flat_map(|b| &b.instrs).map(scalar).max().unwrap_or(0)
}

/// Names of the ops in the bodies, each once, in order of first use.
pub(crate) fn op_names(bodies: &[&Body]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for instr in bodies.iter().flat_map(|b| &b.instrs) {
        let name = match instr {
            Instr::Op(op, _) => op.row().name,
            Instr::Reduce(op, _) => op.name(),
            Instr::Cast(to, _) => to.name(),
            _ => continue,
        };
        if !names.contains(&name) {
            names.push(name);
        }
    }
    if names.is_empty() { "copy".into() } else { names.join("+") }
}

/// The module: comment lines, bindings for the arguments and scalars, functions, and the code.
pub(crate) fn module(header: &[String], args: &[Arg], scalars: usize, code: &str) -> String {
    module_of(header, args, &vec![false; args.len()], scalars, code)
}

/// As [`module`], with some arguments in strips.
pub(crate) fn module_of(header: &[String], args: &[Arg], wide: &[bool], scalars: usize, code: &str) -> String {
    declared(&[], header, args, &types(args, wide), scalars, code)
}

/// The types as which arguments are declared, some in strips.
pub(crate) fn types(args: &[Arg], wide: &[bool]) -> Vec<String> {
    let kind = |(arg, wide): (&Arg, &bool)| if *wide { vector_type(arg.dtype) } else { storage_type(arg.dtype).into() };
    args.iter().zip(wide).map(kind).collect()
}

/// As [`module`], with lines that enable extensions, and with the types as which arguments are declared.
pub(crate) fn declared(
    enables: &[&str],
    header: &[String],
    args: &[Arg],
    types: &[String],
    scalars: usize,
    code: &str,
) -> String {
    let mut text = String::new();
    for line in header {
        text += &format!("// {line}\n");
    }
    text += "\n";
    for line in enables {
        text += &format!("{line}\n");
    }
    if !enables.is_empty() {
        text += "\n";
    }
    for (n, (arg, array)) in args.iter().zip(types).enumerate() {
        let access = if arg.access == Access::Read { "read" } else { "read_write" };
        let elements = format!("// {}[{}]", arg.dtype, arg.numel);
        text += &format!("@group(0) @binding({n}) var<storage, {access}> a{n}: array<{array}>; {elements}\n");
    }
    if scalars > 0 {
        let fields: Vec<String> = (0..scalars).map(|n| format!("s{n}: u32")).collect();
        text += &format!("@group(0) @binding({}) var<uniform> scalars: Scalars;\n\n", args.len());
        text += &format!("struct Scalars {{ {} }}\n", fields.join(", "));
    }
    text += "\n";
    for function in named_functions(code) {
        text += &format!("{function}\n\n");
    }
    text + code
}

/// The prelude's functions that the code calls, and those that these call, in the prelude's order.
fn named_functions(code: &str) -> Vec<&'static str> {
    let functions = kiln_shaders::functions();
    let mut wanted: BTreeSet<usize> = BTreeSet::new();
    let mut texts = vec![code];
    while let Some(text) = texts.pop() {
        for word in text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|w| w.starts_with("k_")) {
            let found = functions.iter().position(|(name, _)| *name == word);
            if let Some(at) = found
                && wanted.insert(at)
            {
                texts.push(functions[at].1);
            }
        }
    }
    wanted.into_iter().map(|at| functions[at].1).collect()
}
