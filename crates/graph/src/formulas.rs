//! The gradients of formulas, as formulas, each made once a thread.
//!
//! Every step's row gives the cotangents of its operands; together they are one formula per input, over the
//! cotangent of the value, the inputs and the value itself.

use std::cell::RefCell;
use std::hash::{Hash, Hasher};
use std::rc::Rc;
use std::sync::Arc;

use kiln_ir::expr::E;
use kiln_ir::ops::Gradient;
use kiln_ir::{Expr, ExprNode, PointOp};
use rustc_hash::FxHashMap as HashMap;

use crate::cache::{hash_step, same_steps};

/// Formulas that a thread remembers; a program has some dozens.
const KNOWN_MAX: usize = 4096;

/// One cotangent.
pub(crate) struct Rule {
    /// Over those of the values that it names.
    pub(crate) expr: Arc<Expr>,
    /// Which values: 0 for the cotangent, `n` for input `n - 1`, then the value.
    pub(crate) named: Vec<u8>,
    /// What the formula is the negative of: a sum of it is negated once.
    pub(crate) positive: Option<Arc<Expr>>,
}

/// The cotangent of each input; `None` where there is none.
pub(crate) struct Rules {
    pub(crate) of_input: Vec<Option<Rule>>,
}

struct Key(Arc<Expr>);

impl Hash for Key {
    fn hash<H: Hasher>(&self, h: &mut H) {
        self.0.nodes.iter().for_each(|step| hash_step(step, h));
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Key) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || same_steps(&self.0, &other.0)
    }
}

impl Eq for Key {}

thread_local! {
    static KNOWN: RefCell<HashMap<Key, Rc<Rules>>> = RefCell::default();
}

/// The gradients of a formula that is neither an input nor a cast.
pub(crate) fn of(expr: &Arc<Expr>) -> Rc<Rules> {
    KNOWN.with_borrow_mut(|known| {
        if known.len() > KNOWN_MAX {
            known.clear();
        }
        known.entry(Key(expr.clone())).or_insert_with(|| Rc::new(rules(expr))).clone()
    })
}

fn rules(expr: &Expr) -> Rules {
    let (last, n_inputs) = (expr.nodes.len() - 1, expr.n_inputs());
    let mut terms: Vec<E> = Vec::with_capacity(expr.nodes.len());
    for (n, step) in expr.nodes.iter().enumerate() {
        terms.push(match step {
            _ if n == last => E::input(n_inputs as u8 + 1),
            ExprNode::Input(i) => E::input(i + 1),
            ExprNode::Const(c) => E::lit(*c),
            ExprNode::Op(op, args) => {
                E::op(*op, &args[..op.row().arity].iter().map(|&a| &terms[a as usize]).collect::<Vec<_>>())
            }
            ExprNode::Cast(..) => unreachable!("a cast is a formula by itself"),
        });
    }
    let mut cotangents: Vec<Option<E>> = vec![None; expr.nodes.len()];
    let mut of_input: Vec<Option<E>> = vec![None; n_inputs];
    let add = |sum: &mut Option<E>, d: E| *sum = Some(sum.take().map_or_else(|| d.clone(), |s| s + &d));
    cotangents[last] = Some(E::input(0));
    for (n, step) in expr.nodes.iter().enumerate().rev() {
        let Some(g) = cotangents[n].take() else { continue };
        match step {
            ExprNode::Input(i) => add(&mut of_input[*i as usize], g),
            ExprNode::Const(_) | ExprNode::Cast(..) => {}
            ExprNode::Op(PointOp::Mul, [x, y, _]) if x == y => {
                // `2g`, like `g`, may be one a row.
                add(&mut cotangents[*x as usize], (&g + &g) * &terms[*x as usize]);
            }
            ExprNode::Op(op, args) => {
                let Gradient::Formulas(rule) = op.row().gradient else { continue };
                let operands = args.map(|a| terms[a as usize].clone());
                for (&a, d) in args.iter().zip(rule(&g, &operands, &terms[n])) {
                    if let Some(d) = d {
                        add(&mut cotangents[a as usize], d);
                    }
                }
            }
        }
    }
    Rules { of_input: of_input.into_iter().map(|d| d.map(|d| rule(&d))).collect() }
}

/// A formula over no more values than it names.
fn rule(e: &E) -> Rule {
    let mut expr = e.build();
    let mut named: Vec<u8> = Vec::new();
    for step in &mut expr.nodes {
        if let ExprNode::Input(i) = step {
            let at = named.iter().position(|n| n == i).unwrap_or_else(|| {
                named.push(*i);
                named.len() - 1
            });
            *i = at as u8;
        }
    }
    let positive = match expr.nodes.as_slice() {
        [before @ .., ExprNode::Op(PointOp::Neg, [x, ..])] if *x as usize + 1 == before.len() => {
            Some(Arc::new(Expr { nodes: before.to_vec() }))
        }
        _ => None,
    };
    Rule { expr: Arc::new(expr), named, positive }
}
