//! Gradients: a walk over the recorded graph that records more graph.
//!
//! Nothing is computed here and no backend is known. Each op's rule turns the cotangent of its result
//! into those of its operands, in terms of ordinary tensor methods, so gradients have gradients.

use std::panic::Location;
use std::sync::{Arc, LazyLock};

use kiln_ir::expr::E;
use kiln_ir::{Expr, NodeId, Op};
use rustc_hash::{FxHashMap as HashMap, FxHashSet as HashSet};

use crate::Tensor;
use crate::behind::in_order;
use crate::checkpoint::Copies;
use crate::node::{Adjoint, Node, Source};
use crate::vjp::{goes_on, left, vjp};

impl Tensor {
    /// The gradient of this scalar with respect to each tensor; `None` where it does not depend on it.
    ///
    /// # Panics
    /// If this is not one float, or its history was cut because it was computed by `eval` or a step.
    #[track_caller]
    pub fn grad(&self, wrt: &[&Tensor]) -> Vec<Option<Tensor>> {
        let _turn = self.device().turn();
        self.grad_in_turn(wrt)
    }

    /// As [`Tensor::grad`], for whoever has a turn: what the gradients read is then not about to be overwritten.
    #[track_caller]
    pub(crate) fn grad_in_turn(&self, wrt: &[&Tensor]) -> Vec<Option<Tensor>> {
        assert_scalar(self);
        let one = Tensor::full(self.dims(), 1.0, self.dtype(), self.device());
        self.vjp_in_turn(&one, wrt)
    }

    /// The product of a cotangent with the Jacobian of this tensor, for each tensor it may depend on.
    ///
    /// # Panics
    /// If the cotangent differs in shape or dtype, this is not a float, or its history was cut.
    #[track_caller]
    pub fn vjp(&self, cotangent: &Tensor, wrt: &[&Tensor]) -> Vec<Option<Tensor>> {
        let _turn = self.device().turn();
        self.vjp_in_turn(cotangent, wrt)
    }

    /// As [`Tensor::vjp`], for whoever has a turn.
    #[track_caller]
    pub(crate) fn vjp_in_turn(&self, cotangent: &Tensor, wrt: &[&Tensor]) -> Vec<Option<Tensor>> {
        let show = |t: &Tensor| format!("{}{}", t.dtype(), t.shape());
        assert!(self.dtype().is_float(), "vjp: of {}, which is not a float", show(self));
        assert!(
            self.shape() == cotangent.shape() && self.dtype() == cotangent.dtype(),
            "vjp: value {}, cotangent {}",
            show(self),
            show(cotangent)
        );
        let targets: HashSet<u64> = wrt.iter().map(|t| t.node().id).collect();
        assert_history(self, &|id| targets.contains(&id));
        let mut copies = Copies::default();
        let between = Between::new(self.node(), &targets);
        let mut cotangents: Vec<Option<Tensor>> = vec![None; between.nodes.len()];
        if let Some(last) = between.place(self.node().id) {
            cotangents[last] = Some(cotangent.clone());
        }
        for (n, node) in between.nodes.iter().enumerate().rev() {
            // What is asked for keeps its cotangent; everything else passes it on.
            let Some(g) = (match targets.contains(&node.id) {
                true => cotangents[n].clone(),
                false => cotangents[n].take(),
            }) else {
                continue;
            };
            for (input, d) in pull_back(node, &g, &between, &mut copies) {
                let Some(place) = between.place(input) else { continue };
                cotangents[place] = Some(match cotangents[place].take() {
                    Some(before) => before + d,
                    None => d,
                });
            }
        }
        wrt.iter().map(|t| cotangents[between.place(t.node().id)?].clone()).collect()
    }

    /// The same value, through which no gradient flows.
    #[track_caller]
    pub fn detach(&self) -> Tensor {
        static SAME: LazyLock<Arc<Expr>> = LazyLock::new(|| E::input(0).build().into());
        Tensor::map(&[self], &SAME)
    }
}

/// Panics unless a tensor has gradients with respect to others with these ids, or does not depend on them.
#[track_caller]
pub(crate) fn check(of: &Tensor, targets: &[u64]) {
    assert_scalar(of);
    assert!(of.dtype().is_float(), "grad: of {}{}, which is not a float", of.dtype(), of.shape());
    assert_history(of, &|id| targets.contains(&id));
}

#[track_caller]
fn assert_scalar(of: &Tensor) {
    assert!(of.numel() == 1, "grad: of {}{}, which is not a scalar", of.dtype(), of.shape());
}

#[track_caller]
fn assert_history(of: &Tensor, is_target: &dyn Fn(u64) -> bool) {
    if let Some((recorded, cut)) = cut(of.node(), is_target) {
        panic!("backward: the value recorded at {recorded} lost its history when it was computed at {cut}");
    }
}

/// True iff gradients of a value go on to one of those with these ids, as far as the ops between them tell.
pub(crate) fn reaches(root: &Arc<Node>, targets: &[u64]) -> bool {
    let mut programs = root.device.programs();
    let walk = programs.next_walk();
    let mut stack = vec![root.clone()];
    while let Some(node) = stack.pop() {
        if targets.contains(&node.id) {
            return true;
        }
        let Source::Op(op) = &node.source else { continue };
        for (n, input) in node.books().inputs.iter().enumerate() {
            if input.dtype.is_float() && input.mark().0 != walk && goes_on(op, n) {
                input.set_mark(walk, 0);
                stack.push(input.clone());
            }
        }
    }
    false
}

/// Where the value behind `root` was recorded and lost its history, if it did; targets need none.
fn cut(
    root: &Arc<Node>,
    is_target: &dyn Fn(u64) -> bool,
) -> Option<(&'static Location<'static>, &'static Location<'static>)> {
    let mut node = root.clone();
    loop {
        let books = node.books();
        if is_target(node.id) {
            return None;
        }
        if let Some(cut) = books.cut {
            return Some((node.location, cut));
        }
        let is_view = matches!(&node.source, Source::Op(Op::View(_)));
        let inner = books.inputs.first().filter(|_| is_view)?.clone();
        drop(books);
        node = inner;
    }
}

/// The nodes that a root is computed from and that depend on a target, in recorded order.
struct Between {
    nodes: Vec<Arc<Node>>,
    places: HashMap<u64, usize>,
}

impl Between {
    fn new(root: &Arc<Node>, targets: &HashSet<u64>) -> Between {
        // Marks on nodes tell what was met, and then whether it depends on a target.
        const NO: NodeId = 0;
        const YES: NodeId = 1;
        let mut programs = root.device.programs();
        let walk = programs.next_walk();
        let met = |node: &&Arc<Node>| {
            let first = node.mark().0 != walk;
            if first {
                node.set_mark(walk, NO);
            }
            first
        };
        root.set_mark(walk, NO);
        let mut stack = vec![root.clone()];
        let mut found = Vec::with_capacity(64);
        while let Some(node) = stack.pop() {
            for input in node.books().inputs.iter().filter(|i| i.dtype.is_float()).filter(met) {
                stack.push(input.clone());
            }
            found.push(node);
        }
        let mut nodes = Vec::with_capacity(found.len());
        let ids: Vec<u64> = found.iter().map(|node| node.id).collect();
        let mut found: Vec<Option<Arc<Node>>> = found.into_iter().map(Some).collect();
        for node in in_order(&ids).into_iter().filter_map(|number| found[number as usize].take()) {
            let reads = |i: &Arc<Node>| i.mark() == (walk, YES);
            if targets.contains(&node.id) || node.books().inputs.iter().any(reads) {
                node.set_mark(walk, YES);
                nodes.push(node);
            }
        }
        let places = nodes.iter().zip(0..).map(|(node, place)| (node.id, place)).collect();
        Between { nodes, places }
    }

    /// Where a node stands, if it is one of these.
    fn place(&self, id: u64) -> Option<usize> {
        self.places.get(&id).copied()
    }
}

/// The cotangents of a node's operands, each with the operand's id.
#[track_caller]
fn pull_back(node: &Arc<Node>, g: &Tensor, between: &Between, copies: &mut Copies) -> Vec<(u64, Tensor)> {
    let Source::Op(op) = &node.source else { return Vec::new() };
    let value = copies.of(node, node.region);
    let (inputs, adjoint): (Vec<Tensor>, _) = {
        let books = value.books();
        (books.inputs.iter().cloned().map(Tensor::from_node).collect(), books.adjoint.clone())
    };
    if inputs.is_empty() {
        return Vec::new();
    }
    let wanted = |t: &Tensor| between.place(copies.original(t.node().id)).is_some();
    let found: Vec<(u64, Tensor)> = match (op, adjoint.map(|a| *a)) {
        (Op::Dot(c), Some(Adjoint::Conv { image, weight, options })) => {
            let [image, weight] = [image, weight].map(Tensor::from_node);
            let left = wanted(&inputs[0]).then(|| left(*c, &inputs[0], &inputs[1], g));
            let back = || (image.node().id, image.conv2d_input_grad(&weight, g, options));
            left.into_iter().chain(wanted(&image).then(back)).collect()
        }
        (Op::Map(_), Some(Adjoint::Normalize { input, axes })) => {
            vec![(input.id, Tensor::from_node(value).normalize_grad(axes, &inputs[1], g))]
        }
        _ => vjp(op, &inputs, &Tensor::from_node(value), g, &wanted),
    };
    found.into_iter().map(|(id, d)| (copies.original(id), d)).collect()
}
