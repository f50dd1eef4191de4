//! A whole WGSL module: header comment, bindings, the prelude's functions that are named, the rest.

use std::collections::BTreeSet;

use kiln_ir::kernel::{Arg, Body, Instr};

use super::code::storage_type;
use super::strip::vector_type;
use super::{Shader, Target, windows};

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

/// The types as which arguments are declared, some in strips.
pub(crate) fn types(args: &[Arg], wide: &[bool]) -> Vec<String> {
    let kind = |(arg, wide): (&Arg, &bool)| if *wide { vector_type(arg.dtype) } else { storage_type(arg.dtype).into() };
    args.iter().zip(wide).map(kind).collect()
}

/// What a module is made of.
pub(crate) struct Module<'a> {
    /// Comment lines; the first is the kernel's name.
    pub(crate) header: [String; 2],
    /// Lines that enable extensions.
    pub(crate) enables: &'a [&'a str],
    /// The arguments, and the types as which they are declared.
    pub(crate) args: &'a [Arg],
    pub(crate) types: Vec<String>,
    /// Words of scalars.
    pub(crate) scalars: usize,
    /// Everything from the kernel's own functions to its entry point.
    pub(crate) code: String,
    /// Workgroups of the dispatch.
    pub(crate) workgroups: u32,
}

impl<'a> Module<'a> {
    /// Without extensions or scalars, and with elements as they are stored.
    pub(crate) fn new(header: [String; 2], args: &'a [Arg], code: String, workgroups: u32) -> Module<'a> {
        let types = types(args, &vec![false; args.len()]);
        Module { header, enables: &[], args, types, scalars: 0, code, workgroups }
    }

    /// With arguments in strips, and with scalars.
    pub(crate) fn with(self, wide: &[bool], scalars: usize) -> Module<'a> {
        Module { types: types(self.args, wide), scalars, ..self }
    }

    /// The module as text: header, bindings, functions of the prelude, the code.
    pub(crate) fn shader(self, target: &Target) -> Shader {
        let Module { header, args, scalars, .. } = self;
        let mut text = header.iter().map(|line| format!("// {line}\n")).collect::<String>() + "\n";
        for line in self.enables {
            text += &format!("{line}\n");
        }
        if !self.enables.is_empty() {
            text += "\n";
        }
        let bindings = windows::bindings(args, target.max_binding_bytes);
        let (declarations, code) = windows::declare(args, &self.types, target.max_binding_bytes, &self.code);
        text += &declarations;
        if scalars > 0 {
            let fields: Vec<String> = (0..scalars).map(|n| format!("s{n}: u32")).collect();
            text += &format!("@group(0) @binding({}) var<uniform> scalars: Scalars;\n\n", bindings.len());
            text += &format!("struct Scalars {{ {} }}\n", fields.join(", "));
        }
        text += "\n";
        for function in named_functions(&code) {
            text += &format!("{function}\n\n");
        }
        let [name, _] = header;
        let workgroups = self.workgroups;
        Shader { name, wgsl: text + &code, workgroups, args: args.to_vec(), bindings, scalars }
    }
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
