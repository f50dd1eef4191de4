//! Clusters: roots that share a kernel, and how a cluster becomes one.

use kiln_ir::attention::Extents;
use kiln_ir::index::{Index, IndexMap};
use kiln_ir::kernel::{Access, Arg, Attention, Body, Dot, Instr, Loop, Scan, Scatter, Sort, Store};
use kiln_ir::{Caps, Contraction, Graph, Kernel, NodeId, Op, ReduceOp, Reject};
use rustc_hash::{FxHashMap as HashMap, FxHashSet as HashSet};

use super::emit::{Cut, Emitter, Shared};
use super::roots::unshaped;

/// The index space of a cluster.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Space {
    /// Rows, and points within a row.
    Loop { outer: Vec<usize>, row: Vec<usize> },
    /// The result of a contraction.
    Dot(NodeId),
    /// A scatter, which fuses with nothing.
    Scatter(NodeId),
    /// A scan, which fuses with nothing.
    Scan(NodeId),
    /// Parts of one attention, which fuse with each other: its inputs, and whether it is causal and backward.
    Attention { inputs: Vec<NodeId>, causal: bool, backward: bool },
    /// Parts of one sort, which fuse with each other.
    Sort { input: NodeId, axis: usize, descending: bool, keep: usize },
}

/// Roots that one kernel computes.
#[derive(Clone, Debug)]
pub(crate) struct Cluster {
    pub(crate) space: Space,
    /// Each root, ascending, and where the points of the space lie in it.
    pub(crate) members: HashMap<NodeId, IndexMap>,
    /// Roots of other clusters that this one computes for itself, wherever it needs them.
    pub(crate) inlined: HashSet<NodeId>,
    /// The first and the last member.
    pub(crate) bounds: (NodeId, NodeId),
}

/// A cluster's kernel and what it binds.
#[derive(Clone, Debug)]
pub(crate) struct Lowered {
    pub(crate) kernel: Kernel,
    /// The node behind each argument.
    pub(crate) args: Vec<NodeId>,
    /// The slot of the program behind each scalar.
    pub(crate) scalars: Vec<u32>,
    /// Where it reads other roots and leaves.
    pub(crate) reads: Vec<(NodeId, IndexMap)>,
    /// What it reads at computed places.
    pub(crate) gathered: Vec<NodeId>,
    /// The roots that it stores.
    pub(crate) stores: Vec<NodeId>,
}

/// What lowering asks of its surroundings.
pub(crate) struct Scope<'a> {
    pub(crate) graph: &'a Graph,
    pub(crate) roots: &'a [bool],
    pub(crate) caps: &'a Caps,
    pub(crate) supports: &'a dyn Fn(&Kernel) -> Result<(), Reject>,
}

impl Scope<'_> {
    /// How many bindings the values of these nodes take.
    pub(crate) fn bindings<'a>(&self, ids: impl IntoIterator<Item = &'a NodeId>) -> usize {
        ids.into_iter().map(|&id| self.caps.bindings_of(&self.graph.nodes[id as usize])).sum()
    }
}

impl Cluster {
    /// A root by itself.
    pub(crate) fn of(graph: &Graph, id: NodeId) -> Cluster {
        let node = &graph.nodes[id as usize];
        let (space, map) = match &node.op {
            Op::Dot(_) => (Space::Dot(id), IndexMap::identity(&node.shape)),
            Op::Scatter { .. } => (Space::Scatter(id), IndexMap::identity(&node.shape)),
            Op::Sort(s) => {
                let space = Space::Sort { input: node.inputs[0], axis: s.axis, descending: s.descending, keep: s.keep };
                (space, IndexMap::identity(&node.shape))
            }
            Op::Scan(_) => (Space::Scan(id), IndexMap::identity(&node.shape)),
            Op::Attention(a) => {
                let (inputs, causal, backward) = (node.inputs.clone(), a.causal, a.part.is_backward());
                (Space::Attention { inputs, causal, backward }, IndexMap::identity(&node.shape))
            }
            Op::Reduce(_, axes) => {
                let x = &graph.nodes[node.inputs[0] as usize].shape;
                let kept: Vec<usize> = (0..x.rank()).filter(|a| !axes.contains(a)).collect();
                let outer: Vec<usize> = kept.iter().map(|&a| x[a]).collect();
                let row: Vec<usize> = axes.iter().map(|&a| x[a]).collect();
                let dims = [outer.as_slice(), row.as_slice()].concat();
                let mut coords = vec![Index::constant(0); x.rank()];
                for (var, &axis) in kept.iter().enumerate().filter(|(_, a)| x[**a] > 1) {
                    coords[axis] = Index::var(var);
                }
                (Space::Loop { outer, row }, IndexMap { dims, coords, valid: Vec::new() })
            }
            Op::Leaf(_)
            | Op::Const(_)
            | Op::Scalar(_)
            | Op::Iota(_)
            | Op::Offset(_)
            | Op::Map(_)
            | Op::View(_)
            | Op::Gather(_) => {
                (Space::Loop { outer: node.shape.to_vec(), row: Vec::new() }, IndexMap::identity(&node.shape))
            }
            Op::Linear => unreachable!("taken apart before"),
        };
        Cluster { space, members: HashMap::from_iter([(id, map)]), inlined: HashSet::default(), bounds: (id, id) }
    }

    /// Members in the order in which they were recorded.
    pub(crate) fn ids(&self) -> Vec<NodeId> {
        let mut ids: Vec<NodeId> = self.members.keys().copied().collect();
        ids.sort_unstable();
        ids
    }

    /// True iff every member is a formula of its point alone, which others may compute for themselves.
    pub(crate) fn is_pointwise(&self, graph: &Graph) -> bool {
        let formula = |id: &NodeId| matches!(graph.nodes[*id as usize].op, Op::Map(_) | Op::View(_) | Op::Gather(_));
        matches!(&self.space, Space::Loop { row, .. } if row.is_empty()) && self.members.keys().all(formula)
    }

    /// True iff every member is a reduction that nothing here follows, which others may do beside their rows.
    pub(crate) fn only_reduces(&self, graph: &Graph) -> bool {
        let reduction = |id: &NodeId| {
            let node = &graph.nodes[*id as usize];
            let extreme = matches!(node.op, Op::Reduce(ReduceOp::ArgMax, _));
            matches!(node.op, Op::Reduce(..)) && !extreme && node.dtype == node.dtype.compute()
        };
        self.members.keys().all(reduction)
    }

    /// The latest stage of its members.
    pub(crate) fn stage(&self, graph: &Graph) -> u32 {
        self.members.keys().map(|&id| graph.nodes[id as usize].stage).max().unwrap_or(0)
    }

    /// The member that was recorded first.
    pub(crate) fn first(&self) -> NodeId {
        self.bounds.0
    }

    /// The member that was recorded last.
    pub(crate) fn last(&self) -> NodeId {
        self.bounds.1
    }

    /// The kernel that computes the members and stores those that `wanted` names.
    ///
    /// # Errors
    /// Why no kernel can do that here.
    pub(crate) fn lower(&self, scope: &Scope, wanted: &dyn Fn(NodeId) -> bool) -> Result<Lowered, Cut> {
        let mut shared = Shared::default();
        let stores: Vec<NodeId> = self.ids().into_iter().filter(|&id| wanted(id)).collect();
        let kernel = match &self.space {
            Space::Loop { outer, row } => {
                let dims = [outer.as_slice(), row.as_slice()].concat();
                let body = self.epilogue(scope, &mut shared, &dims, outer.len(), &stores)?;
                let args = args(scope.graph, &shared, &stores);
                Kernel::Loop(Loop { outer: outer.clone(), row: row.clone(), args, body })
            }
            Space::Dot(id) => self.dot(scope, *id, &mut shared, &stores)?,
            Space::Scatter(id) => scatter(scope.graph, *id, &mut shared),
            Space::Scan(id) => scan(scope.graph, *id, &mut shared),
            Space::Sort { input, .. } => sort(scope.graph, *input, &mut shared, &stores),
            Space::Attention { inputs, causal, .. } => {
                self.attention(scope, (inputs.as_slice(), *causal), &mut shared, &stores)?
            }
        };
        let (needed, limit) = (scope.bindings(&shared.args), scope.caps.max_bindings);
        if needed > limit {
            return Err(format!("{needed} bindings, of which the device has {limit}"));
        }
        (scope.supports)(&kernel).map_err(|why| format!("the device refuses: {why:?}"))?;
        let Shared { args, scalars, reads, gathered } = shared;
        Ok(Lowered { kernel, args, scalars, reads, gathered, stores })
    }

    /// The body that computes and stores members.
    fn epilogue(
        &self,
        scope: &Scope,
        shared: &mut Shared,
        dims: &[usize],
        outer: usize,
        stores: &[NodeId],
    ) -> Result<Body, Cut> {
        let mut emitter = self.emitter(scope, &self.members, shared, dims, outer);
        let mut kept = Vec::with_capacity(stores.len());
        for &id in stores {
            let (map, shape) = (&self.members[&id], &scope.graph.nodes[id as usize].shape);
            // Nothing is computed of nothing, also where a row without points has values of its own.
            let value = match &scope.graph.nodes[id as usize].op {
                _ if shape.numel() == 0 => None,
                Op::Reduce(..) if emitter.by_column(map) => Some(emitter.column(id, map)?),
                _ => Some(emitter.value(id, map)?),
            };
            let arg = emitter.shared.arg(id);
            kept.extend(value.map(|value| Store { arg, index: map.flatten(shape), value }));
        }
        emitter.body.stores = kept;
        Ok(emitter.body)
    }

    fn emitter<'a>(
        &'a self,
        scope: &'a Scope,
        members: &'a HashMap<NodeId, IndexMap>,
        shared: &'a mut Shared,
        dims: &'a [usize],
        outer: usize,
    ) -> Emitter<'a> {
        let memo = HashMap::default();
        let (body, inlined) = (Body::default(), &self.inlined);
        Emitter { graph: scope.graph, roots: scope.roots, members, inlined, dims, outer, shared, body, memo }
    }

    fn dot(&self, scope: &Scope, id: NodeId, shared: &mut Shared, stores: &[NodeId]) -> Result<Kernel, Cut> {
        let node = &scope.graph.nodes[id as usize];
        let (c, [batch, m, n, k]) = dot_dims(scope.graph, id);
        let lhs = self.operand(scope, node.inputs[0], shared)?;
        let rhs = self.operand(scope, node.inputs[1], shared)?;
        let dims = node.shape.to_vec();
        debug_assert_eq!(dims.len(), c.batch + c.m + c.n);
        let epilogue = self.epilogue(scope, shared, &dims, dims.len(), stores)?;
        let args = args(scope.graph, shared, stores);
        Ok(Kernel::Dot(Dot { batch, m, n, k, args, lhs, rhs, epilogue }))
    }

    /// The body of an anchor's operand: its value is the last step.
    fn operand(&self, scope: &Scope, x: NodeId, shared: &mut Shared) -> Result<Body, Cut> {
        let dims = scope.graph.nodes[x as usize].shape.to_vec();
        let nothing = HashMap::default();
        let mut emitter = self.emitter(scope, &nothing, shared, &dims, dims.len());
        let value = emitter.value(x, &IndexMap::identity(&dims))?;
        if value as usize + 1 != emitter.body.instrs.len() {
            let (again, dtype) = (emitter.body.instrs[value as usize].clone(), emitter.body.types[value as usize]);
            emitter.body.instrs.push(again);
            emitter.body.types.push(dtype);
        }
        Ok(emitter.body)
    }

    fn attention(
        &self,
        scope: &Scope,
        (inputs, causal): (&[NodeId], bool),
        shared: &mut Shared,
        stores: &[NodeId],
    ) -> Result<Kernel, Cut> {
        let node = |id: NodeId| &scope.graph.nodes[id as usize];
        let operands = inputs.iter().map(|&x| self.operand(scope, x, shared)).collect::<Result<_, Cut>>()?;
        let [q, k, v] = [0, 1, 2].map(|n| &node(inputs[n]).shape);
        let part = |id: NodeId| match node(id).op {
            Op::Attention(attend) => attend.part,
            _ => unreachable!("an attention's cluster holds its parts"),
        };
        // Each gradient of one output records its log-sum anew, and a kernel stores a part once.
        let again = |&n: &usize| stores[..n].iter().any(|&id| part(id) == part(stores[n]));
        if let Some(n) = (1..stores.len()).find(again) {
            return Err(format!("%{} is a part that another one is already", stores[n]));
        }
        let kept = stores.iter().map(|&id| (part(id), shared.arg(id))).collect();
        let (extents, args) = (Extents::of(q, k, v), args(scope.graph, shared, stores));
        Ok(Kernel::Attention(Attention { extents, causal, args, operands, stores: kept }))
    }
}

/// The dims of a contraction by kind: batch, m, n, k.
pub(crate) fn dot_dims(graph: &Graph, id: NodeId) -> (Contraction, [Vec<usize>; 4]) {
    let node = &graph.nodes[id as usize];
    let Op::Dot(c) = node.op else { unreachable!("asked of a contraction") };
    let [lhs, rhs] = [0, 1].map(|i| &graph.nodes[node.inputs[i] as usize].shape);
    let (b, bm) = (c.batch, c.batch + c.m);
    (c, [lhs[..b].to_vec(), lhs[b..bm].to_vec(), rhs[b + c.k..].to_vec(), lhs[bm..].to_vec()])
}

/// The node that is bound for an operand that is read as it is.
fn bound(graph: &Graph, x: NodeId, shared: &mut Shared) -> NodeId {
    let x = unshaped(graph, x);
    shared.reads.push((x, IndexMap::identity(&graph.nodes[x as usize].shape)));
    x
}

fn scatter(graph: &Graph, id: NodeId, shared: &mut Shared) -> Kernel {
    let node = &graph.nodes[id as usize];
    let Op::Scatter { axis, size } = node.op else { unreachable!("asked of a scatter") };
    let [index, values] = [0, 1].map(|i| &graph.nodes[node.inputs[i] as usize]);
    // One tensor may be both; it is bound twice, which two reads may be.
    shared.args = vec![bound(graph, node.inputs[0], shared), bound(graph, node.inputs[1], shared), id];
    let arg = |node: &kiln_ir::Node, access| Arg { dtype: node.dtype, numel: node.shape.numel(), access };
    Kernel::Scatter(Scatter {
        outer: values.shape[..axis].to_vec(),
        index: index.shape.to_vec(),
        inner: values.shape[axis + index.shape.rank()..].to_vec(),
        size,
        args: [arg(index, Access::Read), arg(values, Access::Read), arg(node, Access::Write)],
    })
}

fn scan(graph: &Graph, id: NodeId, shared: &mut Shared) -> Kernel {
    let node = &graph.nodes[id as usize];
    let Op::Scan(scan) = node.op else { unreachable!("asked of a scan") };
    shared.args = vec![bound(graph, node.inputs[0], shared), id];
    let arg = |access| Arg { dtype: node.dtype, numel: node.shape.numel(), access };
    let [outer, len, inner] = scan.extents(&node.shape);
    let args = [arg(Access::Read), arg(Access::Write)];
    Kernel::Scan(Scan { op: scan.op, reverse: scan.reverse, outer, len, inner, args })
}

fn sort(graph: &Graph, input: NodeId, shared: &mut Shared, stores: &[NodeId]) -> Kernel {
    let sort = |id: NodeId| match graph.nodes[id as usize].op {
        Op::Sort(sort) => sort,
        _ => unreachable!("a sort's cluster holds its parts"),
    };
    let shape = &graph.nodes[input as usize].shape;
    shared.args = vec![bound(graph, input, shared)];
    let kept = stores.iter().map(|&id| (sort(id).part, shared.arg(id))).collect();
    let (first, args) = (sort(stores[0]), args(graph, shared, stores));
    let [outer, len, inner] = first.extents(shape);
    let (descending, keep) = (first.descending, first.keep);
    Kernel::Sort(Sort { descending, outer, len, inner, keep, args, stores: kept })
}

fn args(graph: &Graph, shared: &Shared, stores: &[NodeId]) -> Vec<Arg> {
    let arg = |id: &NodeId| {
        let node = &graph.nodes[*id as usize];
        let access = if stores.contains(id) { Access::Write } else { Access::Read };
        Arg { dtype: node.dtype, numel: node.shape.numel(), access }
    };
    shared.args.iter().map(arg).collect()
}

/// True iff the kernel's last body reduces or contracts, for names.
pub(crate) fn reduces(kernel: &Kernel) -> bool {
    matches!(kernel, Kernel::Loop(k) if k.body.instrs.iter().any(|i| matches!(i, Instr::Reduce(..))))
}
