//! A body's steps as flat lines, one `let tN` each, so that a reader can follow a dump of the kernel.
//!
//! The hard idea is that narrow elements never have an address: a load takes the word and cuts out
//! its part, and a store is left to the loop around it, which owns whole words.

use kiln_ir::kernel::{Arg, Body, Instr, Store, Value};
use kiln_ir::{DType, Index};

use super::code::{Code, literal, op, value_type};
use super::index::Axes;
use super::rows::{decompose, reached};

/// A body in its space.
pub(crate) struct Scope<'a> {
    /// The steps.
    pub(crate) body: &'a Body,
    /// The buffers they name.
    pub(crate) args: &'a [Arg],
    /// The coordinates they name.
    pub(crate) axes: Axes,
}

impl Scope<'_> {
    /// Appends coordinates from the linear number of each group of axes, of which it has so many, then the steps
    /// that these values come from; `acc` is the accumulator.
    pub(crate) fn steps(&self, code: &mut Code, groups: &[(&str, usize)], values: &[Value], acc: &str) {
        let wanted = reached(values.iter().copied(), &self.body.instrs);
        let used = |axis: usize| {
            let is = |a: usize| a == axis;
            let stored = self.body.stores.iter().any(|s| s.index.uses(&is));
            let instrs = self.body.instrs.iter().zip(&wanted).filter(|i| *i.1);
            stored || instrs.into_iter().any(|(i, _)| i.indices().iter().any(|e| e.uses(&is)))
        };
        let mut start = 0;
        for &(linear, n) in groups {
            decompose(code, &self.axes, start..start + n, linear, &used);
            start += n;
        }
        for v in (0..wanted.len()).filter(|&v| wanted[v]) {
            match self.body.instrs[v] {
                Instr::Acc => code.line(format!("let t{v} = {acc};")),
                _ => self.step(code, v as Value),
            }
        }
    }

    /// Appends the step that makes value `v`. A reduction and the accumulator are the caller's.
    pub(crate) fn step(&self, code: &mut Code, v: Value) {
        let dtype = self.body.types[v as usize];
        let value = match &self.body.instrs[v as usize] {
            Instr::Load { arg, index, valid, gather } => {
                let axes = match gather {
                    Some((at, n)) => {
                        code.line(format!("let g{v} = {};", self.clamped(*at, *n)));
                        self.axes.with(format!("g{v}"), *n)
                    }
                    None => self.axes.with(String::new(), 1),
                };
                let load = self.load(*arg, &axes, index);
                let Some(condition) = axes.bounds(valid) else { return code.line(format!("let t{v} = {load};")) };
                code.line(format!("var t{v} = {};", literal(dtype, 0.0)));
                code.open(format!("if ({condition})"));
                code.line(format!("t{v} = {load};"));
                return code.close();
            }
            Instr::Const(_, c) => literal(dtype, *c),
            Instr::Scalar(t, n) if t.compute() == DType::Bool => format!("scalars.s{n} != 0u"),
            Instr::Scalar(t, n) => format!("bitcast<{}>(scalars.s{n})", value_type(*t)),
            Instr::Coord(index) => format!("i32({})", self.axes.index(index)),
            Instr::Inside(bounds) => self.axes.bounds(bounds).unwrap_or_else(|| "true".into()),
            Instr::Op(point, args) => {
                let names = args.map(|a| format!("t{a}"));
                let last = self.body.types[args[point.row().arity - 1] as usize];
                op(*point, last, [&names[0], &names[1], &names[2]])
            }
            Instr::Cast(to, a) => cast(*to, self.body.types[*a as usize], &format!("t{a}")),
            Instr::Reduce(..) | Instr::ColumnReduce(..) | Instr::Acc => return,
        };
        code.line(format!("let t{v} = {value};"));
    }

    /// A gathered coordinate, inside `0..n` whatever the index says.
    pub(crate) fn clamped(&self, v: Value, n: usize) -> String {
        let last = n.max(1) - 1;
        match self.body.types[v as usize].compute() {
            DType::U32 => format!("min(t{v}, {last}u)"),
            DType::I32 => format!("u32(clamp(t{v}, 0i, {last}i))"),
            _ => format!("min(k_to_u32(t{v}), {last}u)"),
        }
    }

    fn load(&self, arg: u32, axes: &Axes, index: &Index) -> String {
        element(arg, self.args[arg as usize].dtype, &axes.index(index))
    }

    /// What a store writes: a value in the form of its argument, packed ones in the low bits.
    pub(crate) fn stored(&self, store: &Store) -> String {
        stored(self.args[store.arg as usize].dtype, &format!("t{}", store.value))
    }
}

/// The element of an argument at an index, widened.
pub(crate) fn element(arg: u32, dtype: DType, at: &str) -> String {
    match dtype {
        DType::F16 => format!("k_from_f16(k_half(a{arg}[({at}) / 2u], {at}))"),
        DType::BF16 => format!("k_from_bf16(k_half(a{arg}[({at}) / 2u], {at}))"),
        DType::U8 => format!("k_byte(a{arg}[({at}) / 4u], {at})"),
        DType::Bool => format!("a{arg}[{at}] != 0u"),
        _ => format!("a{arg}[{at}]"),
    }
}

/// A value in the form in which this dtype is stored.
pub(crate) fn stored(dtype: DType, value: &str) -> String {
    match dtype {
        DType::F16 => format!("k_to_f16({value})"),
        DType::BF16 => format!("k_to_bf16({value})"),
        DType::U8 => format!("{value} & 0xffu"),
        DType::Bool => format!("select(0u, 1u, {value})"),
        _ => value.into(),
    }
}

/// Conversion as [`DType::round`] says, between compute dtypes.
fn cast(to: DType, from: DType, x: &str) -> String {
    let from = from.compute();
    let float = match from {
        DType::F32 => x.to_string(),
        _ => format!("f32({x})"),
    };
    match (to, from) {
        (DType::F16, _) => format!("k_from_f16(k_to_f16({float}))"),
        (DType::BF16, _) => format!("k_from_bf16(k_to_bf16({float}))"),
        (DType::F32 | DType::F64, _) => float,
        (DType::I32, DType::F32) => format!("k_to_i32({x})"),
        (DType::I32, DType::U32) => format!("i32(min({x}, 2147483647u))"),
        (DType::I32, _) => format!("i32({x})"),
        (DType::U32, DType::F32) => format!("k_to_u32({x})"),
        (DType::U32, DType::I32) => format!("u32(max({x}, 0i))"),
        (DType::U32, _) => format!("u32({x})"),
        (DType::U8, DType::F32) => format!("min(k_to_u32({x}), 255u)"),
        (DType::U8, DType::I32) => format!("u32(clamp({x}, 0i, 255i))"),
        (DType::U8, DType::U32) => format!("min({x}, 255u)"),
        (DType::U8, _) => format!("u32({x})"),
        (DType::Bool, DType::F32) => format!("k_to_bool({x})"),
        (DType::Bool, DType::I32) => format!("{x} != 0i"),
        (DType::Bool, DType::U32) => format!("{x} != 0u"),
        (DType::Bool, _) => x.into(),
    }
}
