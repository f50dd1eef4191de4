//! Emission: a node at a point of a kernel's index space becomes straight-line code.
//!
//! The hard idea: a view is never computed. Asking for a view's value at a point asks for its
//! operand's value at another point, and the chain of such questions ends at a load whose address is
//! the composed index map.

use kiln_ir::index::{Index, IndexMap};
use kiln_ir::kernel::{Body, Instr, Value};
use kiln_ir::{DType, ExprNode, Graph, Movement, NodeId, Op, PointOp, ReduceOp};
use rustc_hash::{FxHashMap as HashMap, FxHashSet as HashSet};

use super::roots::base;

/// What all bodies of one kernel share.
#[derive(Default)]
pub(crate) struct Shared {
    /// The node behind each argument.
    pub(crate) args: Vec<NodeId>,
    /// The slot of the program behind each scalar of the kernel.
    pub(crate) scalars: Vec<u32>,
    /// Where loads read, without those through a gather.
    pub(crate) reads: Vec<(NodeId, IndexMap)>,
    /// Nodes that some load reads at computed places.
    pub(crate) gathered: Vec<NodeId>,
}

impl Shared {
    /// The argument that binds a node.
    pub(crate) fn arg(&mut self, node: NodeId) -> u32 {
        position(&mut self.args, node)
    }
}

fn position<T: PartialEq>(list: &mut Vec<T>, item: T) -> u32 {
    let found = list.iter().position(|x| *x == item);
    found.unwrap_or_else(|| {
        list.push(item);
        list.len() - 1
    }) as u32
}

/// Why a node cannot be computed inside a kernel.
pub(crate) type Cut = String;

/// Emits one body.
pub(crate) struct Emitter<'a> {
    pub(crate) graph: &'a Graph,
    pub(crate) roots: &'a [bool],
    /// Roots that are computed in this kernel, and where on its space.
    pub(crate) members: &'a HashMap<NodeId, IndexMap>,
    /// Roots of other kernels that this one computes for itself.
    pub(crate) inlined: &'a HashSet<NodeId>,
    /// Dims of the space: rows, then the axes within a row.
    pub(crate) dims: &'a [usize],
    /// How many of them are of rows.
    pub(crate) outer: usize,
    pub(crate) shared: &'a mut Shared,
    pub(crate) body: Body,
    pub(crate) memo: HashMap<(NodeId, IndexMap), Value>,
}

impl Emitter<'_> {
    /// The value of a node at the point that `map` takes this space's points to.
    pub(crate) fn value(&mut self, id: NodeId, map: &IndexMap) -> Result<Value, Cut> {
        let key = (id, map.clone());
        if let Some(&v) = self.memo.get(&key) {
            return Ok(v);
        }
        let value = match self.members.get(&id) {
            Some(own) if own.coords == map.coords && map.valid.is_empty() => self.compute(id, map)?,
            Some(_) => return Err(format!("%{id} is needed at other points than it is computed at")),
            None if self.stored(id) => self.load(id, map, None),
            None => self.compute(id, map)?,
        };
        self.memo.insert(key, value);
        Ok(value)
    }

    /// True iff the node is in memory when the kernel runs.
    fn stored(&self, id: NodeId) -> bool {
        (self.roots[id as usize] || matches!(self.graph.nodes[id as usize].op, Op::Leaf(_)))
            && !self.members.contains_key(&id)
            && !self.inlined.contains(&id)
    }

    fn load(&mut self, id: NodeId, map: &IndexMap, gather: Option<(Value, usize)>) -> Value {
        let node = &self.graph.nodes[id as usize];
        match gather {
            None => drop(position(&mut self.shared.reads, (id, map.clone()))),
            Some(_) => drop(position(&mut self.shared.gathered, id)),
        }
        let (arg, index) = (self.shared.arg(id), map.flatten(&node.shape));
        self.body.push(Instr::Load { arg, index, valid: map.valid.clone(), gather }, node.dtype.compute())
    }

    fn compute(&mut self, id: NodeId, map: &IndexMap) -> Result<Value, Cut> {
        let node = &self.graph.nodes[id as usize];
        let dtype = node.dtype;
        Ok(match &node.op {
            Op::Leaf(_) => self.load(id, map, None),
            Op::Const(v) => self.constant(dtype, *v),
            Op::Scalar(slot) => {
                let n = position(&mut self.shared.scalars, *slot);
                self.body.push(Instr::Scalar(dtype, n), dtype.compute())
            }
            Op::Offset(slot) => {
                let n = position(&mut self.shared.scalars, *slot);
                let start = self.body.push(Instr::Scalar(DType::U32, n), DType::U32);
                let (leaf, numel) = (node.inputs[0], node.shape.numel());
                let (arg, begin) = (self.shared.arg(leaf), Index::var(self.dims.len()));
                let index = map.flatten(&node.shape).add(&begin, &[self.dims, &[numel]].concat());
                position(&mut self.shared.gathered, leaf);
                let (valid, gather) = (map.valid.clone(), Some((start, numel)));
                self.body.push(Instr::Load { arg, index, valid, gather }, dtype.compute())
            }
            Op::Iota(axis) => {
                let coord = self.body.push(Instr::Coord(map.coords[*axis].clone()), DType::I32);
                self.cast(DType::I32, dtype, coord)
            }
            Op::Map(_) => self.map(id, map)?,
            Op::View(movement) => {
                let (x, place) = self.behind_views(node.inputs[0], movement);
                let inner = map.then(&place);
                let value = self.value(x, &inner)?;
                match &self.body.instrs[value as usize] {
                    _ if inner.valid == map.valid || self.stored(base(self.graph, x)) => value,
                    // A constant truth, padded once, and again.
                    Instr::Const(DType::Bool, 1.0) => self.body.push(Instr::Inside(inner.valid), DType::Bool),
                    Instr::Inside(bounds) if inner.valid.iter().all(|bound| bounds.contains(bound)) => value,
                    _ => {
                        let inside = self.body.push(Instr::Inside(inner.valid), DType::Bool);
                        let zero = self.constant(dtype, 0.0);
                        self.body.push(Instr::Op(PointOp::Select, [inside, value, zero]), dtype.compute())
                    }
                }
            }
            Op::Gather(axis) => self.gather(id, *axis, map)?,
            // Nothing is loaded of an empty row, not even what all of its points would share.
            Op::Reduce(op, axes) if axes.iter().any(|&a| self.graph.nodes[node.inputs[0] as usize].shape[a] == 0) => {
                let none = if *op == ReduceOp::ArgMax { 0.0 } else { op.identity(dtype) };
                self.constant(dtype, none)
            }
            Op::Reduce(..) if self.by_column(map) => {
                return Err(format!("%{id} is known after the last row"));
            }
            Op::Reduce(op, axes) => {
                let x = self.value(node.inputs[0], &self.reduced(map, axes, self.outer))?;
                match axes.is_empty() {
                    true => x,
                    false => {
                        let sum = self.body.push(Instr::Reduce(*op, x), dtype.compute());
                        self.narrow(dtype, sum)
                    }
                }
            }
            Op::Dot(_) => {
                let acc = self.body.push(Instr::Acc, dtype.compute());
                self.narrow(dtype, acc)
            }
            Op::Scatter { .. } | Op::Linear | Op::Attention(_) | Op::Scan(_) | Op::Sort(_) => {
                return Err(format!("%{id} is {}", node.op.name()));
            }
        })
    }

    /// What lies behind a view and those behind it that have no bounds, and where in it. Together they are often less than
    /// one by one: a reshape and its inverse are nothing, but not at places that are only meant where bounds let them be.
    fn behind_views(&self, mut x: NodeId, first: &Movement) -> (NodeId, IndexMap) {
        let shape = |id: NodeId| &self.graph.nodes[id as usize].shape;
        let mut place = first.map(shape(x));
        while place.valid.is_empty()
            && !self.stored(x)
            && let Op::View(movement) = &self.graph.nodes[x as usize].op
        {
            let of = self.graph.nodes[x as usize].inputs[0];
            let next = movement.map(shape(of));
            if !next.valid.is_empty() {
                break;
            }
            (x, place) = (of, place.then(&next));
        }
        (x, place)
    }

    /// The reduction of a node over all rows, at each point of a row.
    pub(crate) fn column(&mut self, id: NodeId, map: &IndexMap) -> Result<Value, Cut> {
        let node = &self.graph.nodes[id as usize];
        let Op::Reduce(op, axes) = &node.op else { unreachable!("only reductions go over rows") };
        let x = self.value(node.inputs[0], &self.reduced(map, axes, 0))?;
        Ok(self.body.push(Instr::ColumnReduce(*op, x), node.dtype))
    }

    /// True iff a place differs within a row: a reduction there goes over all rows.
    pub(crate) fn by_column(&self, map: &IndexMap) -> bool {
        map.coords.iter().any(|c| c.uses(&|axis| (self.outer..self.dims.len()).contains(&axis)))
    }

    /// Where a reduction's operand is read: along its axes as along those of the space from `first` on.
    fn reduced(&self, map: &IndexMap, axes: &[usize], first: usize) -> IndexMap {
        let mut inner = map.clone();
        for (var, &axis) in (first..).zip(axes) {
            inner.coords[axis] = if self.dims[var] <= 1 { Index::constant(0) } else { Index::var(var) };
        }
        inner
    }

    fn map(&mut self, id: NodeId, map: &IndexMap) -> Result<Value, Cut> {
        let node = &self.graph.nodes[id as usize];
        let Op::Map(expr) = &node.op else { unreachable!("asked of a map") };
        let dtypes: Vec<DType> = node.inputs.iter().map(|&i| self.graph.nodes[i as usize].dtype).collect();
        let types = expr.types(&dtypes).expect("the graph verifies");
        let mut inputs = Vec::with_capacity(dtypes.len());
        for &i in &node.inputs {
            inputs.push(self.value(i, &broadcast(map, &self.graph.nodes[i as usize].shape))?);
        }
        let mut values: Vec<Value> = Vec::with_capacity(types.len());
        for (step, &dtype) in expr.nodes.iter().zip(&types) {
            let value = match step {
                ExprNode::Input(i) => inputs[*i as usize],
                ExprNode::Const(c) => self.constant(dtype, *c),
                ExprNode::Cast(to, a) => self.cast(types[*a as usize], *to, values[*a as usize]),
                ExprNode::Op(op, args) => {
                    let last = op.row().arity - 1;
                    let args = [0, 1, 2].map(|i| values[args[i.min(last)] as usize]);
                    match (op, &self.body.instrs[args[0] as usize]) {
                        // Of tensors side by side, a gradient sees one only.
                        (PointOp::Select, &Instr::Const(_, truth)) => args[if truth != 0.0 { 1 } else { 2 }],
                        _ => {
                            let v = self.body.push(Instr::Op(*op, args), dtype.compute());
                            self.narrow(dtype, v)
                        }
                    }
                }
            };
            values.push(value);
        }
        Ok(*values.last().expect("a formula has at least one node"))
    }

    fn gather(&mut self, id: NodeId, axis: usize, map: &IndexMap) -> Result<Value, Cut> {
        let node = &self.graph.nodes[id as usize];
        let [mut table, index] = [node.inputs[0], node.inputs[1]];
        let (size, rank) =
            (self.graph.nodes[table as usize].shape[axis], self.graph.nodes[index as usize].shape.rank());
        let at = IndexMap { coords: map.coords[axis..axis + rank].to_vec(), ..map.clone() };
        let picked = self.value(index, &at)?;
        // The table's space has one more axis than the kernel's: the coordinate that was looked up.
        let dims = [self.dims, &[size]].concat();
        let looked_up = if size == 1 { Index::constant(0) } else { Index::var(self.dims.len()) };
        let coords = [&map.coords[..axis], &[looked_up], &map.coords[axis + rank..]].concat();
        let mut inner = IndexMap { dims, coords, valid: map.valid.clone() };
        while let Op::View(movement) = &self.graph.nodes[table as usize].op
            && !self.stored(table)
        {
            table = self.graph.nodes[table as usize].inputs[0];
            inner = inner.then(&movement.map(&self.graph.nodes[table as usize].shape));
        }
        match self.stored(table) {
            true => Ok(self.load(table, &inner, Some((picked, size)))),
            false => Err(format!("%{table} is looked up and must be in memory")),
        }
    }

    fn constant(&mut self, dtype: DType, v: f64) -> Value {
        self.body.push(Instr::Const(dtype.compute(), dtype.round(v)), dtype.compute())
    }

    /// Conversion, without a step where every value of `from` is one of `to` in the same register.
    fn cast(&mut self, from: DType, to: DType, v: Value) -> Value {
        let widens = from == to || to == from.compute();
        if widens { v } else { self.body.push(Instr::Cast(to, v), to.compute()) }
    }

    /// Rounds the result of an op to a dtype that is narrower than its register.
    fn narrow(&mut self, dtype: DType, v: Value) -> Value {
        self.cast(dtype.compute(), dtype, v)
    }
}

/// Where an operand is read that broadcasts to the space that `map` reaches.
fn broadcast(map: &IndexMap, shape: &[usize]) -> IndexMap {
    let skip = map.coords.len() - shape.len();
    let coord = |(c, &d): (&Index, &usize)| if d == 1 { Index::constant(0) } else { c.clone() };
    IndexMap {
        dims: map.dims.clone(),
        coords: map.coords[skip..].iter().zip(shape).map(coord).collect(),
        valid: map.valid.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::caps;
    use super::super::{PlanOptions, plan};
    use kiln_ir::{Expr, Graph, Kernel, Movement, Op, PointOp, Shape};
    use std::sync::Arc;

    /// Where a bound does not hold a place may be anything, and then a remainder of it is not the place itself.
    #[test]
    fn views_behind_bounds_are_put_together_first() {
        let mut g = Graph::default();
        let mut x = g.source(Op::Leaf(0), Shape::new(&[2, 4, 4]), kiln_ir::DType::F32);
        let reshape = |dims: &[usize]| Movement::Reshape(Shape::new(dims));
        let pad = |axis| Movement::Pad { axis, lo: 1, hi: 1, interior: 0 };
        for movement in [reshape(&[32]), reshape(&[2, 4, 4]), pad(1), pad(2)] {
            x = g.apply(Op::View(movement), &[x]);
        }
        g.outputs = vec![g.apply(Op::Map(Arc::new(Expr::of(PointOp::Exp))), &[x])];
        let plan = plan(&g, &[false], &caps(), &|_| Ok(()), PlanOptions::default()).unwrap();
        let [Kernel::Loop(kernel)] = &plan.steps.iter().map(|step| step.kernel.clone()).collect::<Vec<_>>()[..] else {
            panic!("{plan:?}")
        };
        assert!(kernel.body.indices().all(|index| index.affine(3).is_some()), "{:?}", kernel.body);
    }
}
