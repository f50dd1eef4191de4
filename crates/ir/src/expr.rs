//! Pointwise formulas: small acyclic expressions over the inputs of one [`Op::Map`](crate::Op::Map).
//!
//! Nodes come in evaluation order and are shared, so a formula is a flat list. Literals are *weak*:
//! they take the dtype of what they meet, so one formula serves `f32` and `f64`.

use std::ops::{Add, Div, Mul, Neg, Sub};
use std::rc::Rc;

use crate::ops::Typing;
use crate::{DType, PointOp};

/// One step of a formula; operands are positions of earlier steps.
#[derive(Clone, PartialEq, Debug)]
pub enum ExprNode {
    /// The n-th input of the map.
    Input(u8),
    /// A literal without a dtype of its own.
    Const(f64),
    /// A row of `OPS` applied to as many operands as it has.
    Op(PointOp, [u16; 3]),
    /// Conversion; to a float it rounds, to an integer it truncates and saturates.
    Cast(DType, u16),
}

/// A formula. The last node is its value.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Expr {
    /// Steps in evaluation order.
    pub nodes: Vec<ExprNode>,
}

impl Expr {
    /// The formula that applies `op` to inputs `0..arity`.
    pub fn of(op: PointOp) -> Expr {
        let arity = op.row().arity;
        let mut nodes: Vec<ExprNode> = (0..arity as u8).map(ExprNode::Input).collect();
        let at = |i: usize| if i < arity { i as u16 } else { 0 };
        nodes.push(ExprNode::Op(op, [at(0), at(1), at(2)]));
        Expr { nodes }
    }

    /// The op whose row this is, as [`Expr::of`] makes it; `None` for any other formula.
    pub fn row(&self) -> Option<PointOp> {
        let (ExprNode::Op(op, args), inputs) = self.nodes.split_last()? else { return None };
        let in_order = |n: usize| inputs[n] == ExprNode::Input(n as u8) && args[n] as usize == n;
        (inputs.len() == op.row().arity && (0..inputs.len()).all(in_order)).then_some(*op)
    }

    /// The formula that converts its input.
    pub fn cast(to: DType) -> Expr {
        Expr { nodes: vec![ExprNode::Input(0), ExprNode::Cast(to, 0)] }
    }

    /// The dtype of every node for these input dtypes; weak literals have taken theirs.
    ///
    /// # Errors
    /// The rule that the first ill-typed op's operands break; a formula of several names the op.
    pub fn types(&self, inputs: &[DType]) -> Result<Vec<DType>, String> {
        let mut types = vec![None; self.nodes.len()];
        self.fill_types(inputs, &mut types)?;
        Ok(types.into_iter().map(|t| t.unwrap_or(DType::F32)).collect())
    }

    /// The dtype of the value.
    ///
    /// # Errors
    /// As [`Expr::types`].
    pub fn dtype(&self, inputs: &[DType]) -> Result<DType, String> {
        if let Some(dtype) = self.plain_dtype(inputs) {
            return Ok(dtype);
        }
        // Asked at each recording: short formulas need no memory for it.
        const SHORT: usize = 32;
        let (mut short, mut long) = ([None; SHORT], Vec::new());
        let types = match self.nodes.len() {
            n if n <= SHORT => &mut short[..n],
            n => {
                long.resize(n, None);
                &mut long[..]
            }
        };
        self.fill_types(inputs, types)?;
        Ok(types.last().expect("a formula has at least one node").unwrap_or(DType::F32))
    }

    /// The dtype of the value, if that is one float dtype throughout: arithmetic on inputs, and literals beside them.
    fn plain_dtype(&self, inputs: &[DType]) -> Option<DType> {
        let (&first, rest) = inputs.split_first()?;
        let is_literal = |node: &ExprNode| matches!(node, ExprNode::Const(_));
        let plain = |node: &ExprNode| match node {
            ExprNode::Input(_) | ExprNode::Const(_) => true,
            ExprNode::Op(op, args) => {
                let row = op.row();
                matches!(row.typing, Typing::Float | Typing::Number)
                    && args[..row.arity].iter().any(|&a| !is_literal(&self.nodes[a as usize]))
            }
            ExprNode::Cast(..) => false,
        };
        let is_one = first.is_float() && rest.iter().all(|&other| other == first);
        (is_one && self.nodes.iter().all(plain) && !self.nodes.last().is_some_and(is_literal)).then_some(first)
    }

    /// The dtype of each node, `None` for a literal that has taken none.
    fn fill_types(&self, inputs: &[DType], types: &mut [Option<DType>]) -> Result<(), String> {
        for (n, node) in self.nodes.iter().enumerate() {
            types[n] = match node {
                ExprNode::Input(i) => Some(inputs[*i as usize]),
                ExprNode::Const(_) => None,
                ExprNode::Cast(to, _) => Some(*to),
                ExprNode::Op(op, args) => {
                    let args = &args[..op.row().arity];
                    let strong = args.iter().filter_map(|&a| types[a as usize]).rfind(|t| *t != DType::Bool);
                    let fallback = strong.or(args.iter().find_map(|&a| types[a as usize])).unwrap_or(DType::F32);
                    let mut operands = [fallback; 3];
                    for (operand, &a) in operands.iter_mut().zip(args) {
                        *operand = *types[a as usize].get_or_insert(fallback);
                    }
                    let named = |rule: String| {
                        let several = self.nodes.iter().filter(|n| matches!(n, ExprNode::Op(..))).count() > 1;
                        if several { format!("{} in it {rule}", op.row().name) } else { rule }
                    };
                    Some(op.result(&operands[..args.len()]).map_err(named)?)
                }
            };
        }
        Ok(())
    }

    /// The number of inputs: one more than the greatest that is named.
    pub fn n_inputs(&self) -> usize {
        let input = |n: &ExprNode| if let ExprNode::Input(i) = n { *i as usize + 1 } else { 0 };
        self.nodes.iter().map(input).max().unwrap_or(0)
    }

    /// The value in `f64` for one element, rounded after each step as the dtypes demand.
    pub fn eval(&self, types: &[DType], inputs: &[f64], exact: bool) -> f64 {
        let mut values: Vec<f64> = Vec::with_capacity(self.nodes.len());
        for (node, &dtype) in self.nodes.iter().zip(types) {
            let v = match node {
                ExprNode::Input(i) => inputs[*i as usize],
                ExprNode::Const(c) => *c,
                ExprNode::Cast(to, a) => to.round(values[*a as usize]),
                ExprNode::Op(op, args) => {
                    let operand = types[args[op.row().arity - 1] as usize];
                    (op.row().reference)(operand, args.map(|a| values[a as usize]))
                }
            };
            let keep = exact && matches!(dtype, DType::F32 | DType::F64);
            values.push(if keep { v } else { dtype.round(v) });
        }
        *values.last().expect("a formula has at least one node")
    }
}

/// A formula under construction, written with operators: gradients in `OPS` are written in it.
#[derive(Clone)]
pub struct E(Rc<Term>);

enum Term {
    Input(u8),
    Const(f64),
    Op(PointOp, Vec<E>),
}

impl E {
    /// The n-th input.
    pub fn input(n: u8) -> E {
        E(Rc::new(Term::Input(n)))
    }

    /// A literal.
    pub fn lit(v: f64) -> E {
        E(Rc::new(Term::Const(v)))
    }

    /// A row of `OPS` applied to operands.
    pub fn op(op: PointOp, args: &[&E]) -> E {
        E(Rc::new(Term::Op(op, args.iter().map(|&e| e.clone()).collect())))
    }

    /// A unary row applied to this formula.
    pub fn map(&self, op: PointOp) -> E {
        E::op(op, &[self])
    }

    /// `self` where the truth value `mask` holds, else `other`.
    pub fn when(&self, mask: &E, other: &E) -> E {
        E::op(PointOp::Select, &[mask, self, other])
    }

    /// The flat formula; equal subterms that were built once are evaluated once.
    pub fn build(&self) -> Expr {
        fn visit(e: &E, nodes: &mut Vec<ExprNode>, seen: &mut Vec<(*const Term, u16)>) -> u16 {
            let key = Rc::as_ptr(&e.0);
            if let Some(found) = seen.iter().find(|s| s.0 == key) {
                return found.1;
            }
            let node = match &*e.0 {
                Term::Input(i) => ExprNode::Input(*i),
                Term::Const(c) => ExprNode::Const(*c),
                Term::Op(op, args) => {
                    let mut at = [0; 3];
                    for (slot, a) in at.iter_mut().zip(args) {
                        *slot = visit(a, nodes, seen);
                    }
                    ExprNode::Op(*op, at)
                }
            };
            let shared = matches!(node, ExprNode::Input(_)).then(|| nodes.iter().position(|n| *n == node)).flatten();
            let at = shared.unwrap_or_else(|| {
                nodes.push(node);
                nodes.len() - 1
            }) as u16;
            seen.push((key, at));
            at
        }
        let (mut nodes, mut seen) = (Vec::new(), Vec::new());
        let root = visit(self, &mut nodes, &mut seen);
        // A bare input may have been met before the last node.
        if root as usize + 1 != nodes.len() {
            nodes.push(nodes[root as usize].clone());
        }
        Expr { nodes }
    }
}

macro_rules! operators {
    ($($trait:ident $method:ident)*) => { $(
        impl $trait<&E> for &E {
            type Output = E;
            fn $method(self, rhs: &E) -> E { E::op(PointOp::$trait, &[self, rhs]) }
        }
        impl $trait<&E> for E {
            type Output = E;
            fn $method(self, rhs: &E) -> E { E::op(PointOp::$trait, &[&self, rhs]) }
        }
        impl $trait<E> for &E {
            type Output = E;
            fn $method(self, rhs: E) -> E { E::op(PointOp::$trait, &[self, &rhs]) }
        }
        impl $trait<E> for E {
            type Output = E;
            fn $method(self, rhs: E) -> E { E::op(PointOp::$trait, &[&self, &rhs]) }
        }
        impl $trait<f64> for &E {
            type Output = E;
            fn $method(self, rhs: f64) -> E { E::op(PointOp::$trait, &[self, &E::lit(rhs)]) }
        }
        impl $trait<f64> for E {
            type Output = E;
            fn $method(self, rhs: f64) -> E { E::op(PointOp::$trait, &[&self, &E::lit(rhs)]) }
        }
        impl $trait<&E> for f64 {
            type Output = E;
            fn $method(self, rhs: &E) -> E { E::op(PointOp::$trait, &[&E::lit(self), rhs]) }
        }
        impl $trait<E> for f64 {
            type Output = E;
            fn $method(self, rhs: E) -> E { E::op(PointOp::$trait, &[&E::lit(self), &rhs]) }
        }
    )* };
}

operators! { Add add Sub sub Mul mul Div div }

impl Neg for &E {
    type Output = E;
    fn neg(self) -> E {
        self.map(PointOp::Neg)
    }
}

impl Neg for E {
    type Output = E;
    fn neg(self) -> E {
        self.map(PointOp::Neg)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::OPS;

    /// What is seen at a glance is what types each step.
    #[test]
    fn plain_formulas_have_the_dtype_of_their_steps() {
        let x = E::input(0);
        let mut formulas: Vec<Expr> = OPS.iter().map(|row| Expr::of(row.op)).collect();
        formulas.extend([x.build(), (&x + 1.0).build(), (E::lit(2.0) * 3.0 * &x).build(), E::lit(1.0).build()]);
        formulas.extend([Expr::cast(DType::I32), (&x * &x / (E::input(1) + 0.5)).map(PointOp::Sqrt).build()]);
        let mut n_plain = 0;
        for formula in &formulas {
            for dtype in DType::ALL {
                let inputs = vec![dtype; formula.n_inputs().max(1)];
                let found = formula.types(&inputs).map(|types| types[types.len() - 1]);
                assert_eq!(formula.dtype(&inputs), found, "{formula:?} of {dtype}");
                n_plain += usize::from(formula.plain_dtype(&inputs).is_some());
            }
        }
        assert!(n_plain > 50, "{n_plain}");
    }
}
