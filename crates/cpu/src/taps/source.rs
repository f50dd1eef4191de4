//! What a value of a body is as a tap.

use kiln_ir::kernel::{Body, Instr, Value};
use kiln_ir::{Bound, DType, Index, PointOp};

/// What a tap is.
#[derive(Clone, Copy)]
pub(super) enum Form {
    /// An element of this argument.
    Element(usize),
    /// An element of the first, times one of the second that exists everywhere and is the same along a line.
    Product(usize, usize),
    /// An element where the other one is a certain number, else 0.
    Chosen { from: usize, at: usize },
}

/// An address and where it exists.
pub(super) type Access<'a> = (&'a Index, &'a [Bound]);

/// What a value of a body is as a tap.
pub(super) struct Source<'a> {
    pub(super) form: Form,
    /// As [`Element::places`].
    pub(super) accesses: Vec<Access<'a>>,
    pub(super) coordinate: Option<&'a Index>,
    /// True iff what does not exist is no product.
    pub(super) skips: bool,
    /// What an element is where it does not exist.
    pub(super) absent: f32,
    /// What each element is divided by or multiplied with before it is summed, and the sum after that just as well.
    pub(super) factor: Option<(PointOp, f64)>,
}

impl<'a> Source<'a> {
    /// Taps that are 0 where they do not exist.
    pub(super) fn new(form: Form, accesses: Vec<Access<'a>>) -> Source<'a> {
        Source { form, accesses, coordinate: None, skips: false, absent: 0.0, factor: None }
    }

    /// True iff taps are elements as they are, or 0.
    fn is_plain(&self) -> bool {
        matches!(self.form, Form::Element(_)) && self.factor.is_none() && self.absent == 0.0
    }
}

/// What a value is, if it is a tap.
pub(super) fn source<'a>(
    body: &'a Body,
    value: Value,
    line: usize,
    dtype: &dyn Fn(usize) -> DType,
) -> Option<Source<'a>> {
    let instr = |v: Value| &body.instrs[v as usize];
    let load = |v: Value| match instr(v) {
        Instr::Load { arg, index, valid, gather: None } => Some((*arg as usize, (index, &valid[..]))),
        _ => None,
    };
    let constant = |v: Value| if let Instr::Const(_, c) = instr(v) { Some(*c) } else { None };
    match instr(value) {
        Instr::Load { .. } => {
            let (arg, access) = load(value)?;
            Some(Source::new(Form::Element(arg), vec![access]))
        }
        Instr::Op(op @ (PointOp::Mul | PointOp::Div), [x, by, _]) if constant(*by).is_some_and(f64::is_normal) => {
            let source = source(body, *x, line, dtype)?;
            source.is_plain().then_some(Source { factor: constant(*by).map(|by| (*op, by)), ..source })
        }
        Instr::Op(PointOp::Mul, [a, b, _]) => {
            let (a, b) = (load(*a)?, load(*b)?);
            let even = |access: Access| !access.0.uses(&|axis| axis == line);
            let ((arg, access), (by, other)) = if even(b.1) { (a, b) } else { (b, a) };
            // Where neither exists there is no product.
            let skips = !other.1.is_empty();
            let bounded = !skips || (within(other.1, access.1) && within(access.1, other.1));
            let fit = even(other) && bounded && dtype(arg) == DType::F32 && dtype(by) == DType::F32;
            fit.then(|| Source { skips, ..Source::new(Form::Product(arg, by), vec![access, other]) })
        }
        // What is less than any number, where there is none.
        Instr::Op(PointOp::Add, [a, b, _]) => {
            let (x, access) = load(*a).or_else(|| load(*b))?;
            let around = if load(*a).is_some() { b } else { a };
            let Instr::Op(PointOp::Select, [here, zero, least]) = instr(*around) else { return None };
            let Instr::Inside(bounds) = instr(*here) else { return None };
            let least = constant(*zero) == Some(0.0) && constant(*least) == Some(f64::NEG_INFINITY);
            let fit = least && within(access.1, bounds) && within(bounds, access.1);
            fit.then(|| Source { absent: f32::NEG_INFINITY, ..Source::new(Form::Element(x), vec![access]) })
        }
        Instr::Op(PointOp::Select, [here, then, zero]) if constant(*zero) == Some(0.0) => match instr(*here) {
            // Where the value is 0 beyond these bounds already.
            Instr::Inside(bounds) => {
                let source = source(body, *then, line, dtype)?;
                if let Form::Product(..) = source.form {
                    let seen = source.accesses[0].1;
                    let skips = source.skips || within(seen, bounds);
                    return (skips && within(bounds, seen)).then_some(Source { skips, ..source });
                }
                let fit = source.absent == 0.0 && source.accesses.iter().all(|access| within(bounds, access.1));
                fit.then_some(source)
            }
            Instr::Op(PointOp::Eq, [a, b, _]) => {
                let (Instr::Coord(coordinate), found) = (instr(*a), load(*b)?) else { return None };
                let (from, at) = (load(*then)?, found);
                let fit = dtype(from.0) == DType::F32 && dtype(at.0) == DType::I32 && from.1.1 == at.1.1;
                let form = Form::Chosen { from: from.0, at: at.0 };
                let source = Source::new(form, vec![from.1, at.1]);
                fit.then_some(Source { coordinate: Some(coordinate), ..source })
            }
            _ => None,
        },
        _ => None,
    }
}

/// True iff all of some bounds are among others.
fn within(some: &[Bound], all: &[Bound]) -> bool {
    some.iter().all(|bound| all.contains(bound))
}
