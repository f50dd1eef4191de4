//! Few long rows of running reductions in chunks: each is reduced from its own beginning, then what came before it
//! joins its elements.
//!
//! As long sums are, they are views, and no kernel of its own: many scans of chunks at once, one of what each chunk
//! has in all, and a formula, which fuses into what follows. Merrill and Garland 2016,
//! <https://research.nvidia.com/publication/2016-03_single-pass-parallel-prefix-scan-decoupled-look-back>, reads less,
//! but has workgroups wait for each other, which nothing promises to end on every device.

use std::sync::Arc;

use kiln_ir::expr::E;
use kiln_ir::scan::Scan;
use kiln_ir::{Caps, DType, Graph, Movement, NodeId, Op, PointOp, ReduceOp, Shape};

/// Chunks of a row below this number are not worth two more kernels.
const CHUNKS_MIN: usize = 4;

/// Neighbouring rows from which on one invocation walks a row, and invocations that share it below.
const NEIGHBOURS: usize = 32;
const ROW_LANES: usize = 256;

/// Elements of a row that a chunk keeps at least, for one invocation and for those that share it.
const WALKED_MIN: usize = 128;
const SHARED_MIN: usize = 2048;

/// Appends a scan in chunks, if that keeps more of the device busy.
pub(crate) fn in_chunks(graph: &mut Graph, scan: Scan, x: NodeId, caps: &Caps) -> Option<NodeId> {
    let (shape, dtype) = (graph.nodes[x as usize].shape, graph.nodes[x as usize].dtype);
    let [outer, len, inner] = scan.extents(&shape);
    // What chunks have is stored, and must lose nothing by it: also a product that leaves the range of floats and
    // comes back would.
    let keeps = match dtype {
        DType::F32 => scan.op != ReduceOp::Prod,
        DType::I32 | DType::U32 => true,
        DType::F64 | DType::F16 | DType::BF16 | DType::U8 | DType::Bool => false,
    };
    if !keeps || shape.numel() == 0 {
        return None;
    }
    let (lanes, least) = if inner < NEIGHBOURS { (ROW_LANES, SHARED_MIN) } else { (1, WALKED_MIN) };
    let wanted = (caps.lanes / (outer * inner * lanes)).min(len / least);
    if wanted < CHUNKS_MIN {
        return None;
    }
    // Where no such number divides the row, it is copied and made longer.
    let n = (wanted / 2..=wanted).rev().find(|n| len.is_multiple_of(*n)).unwrap_or(wanted);
    let chunk = len.div_ceil(n);
    Some(Chunks { graph, scan, rows: [outer, len.div_ceil(chunk), chunk, inner] }.scan(x, shape, len))
}

struct Chunks<'a> {
    graph: &'a mut Graph,
    scan: Scan,
    /// Chunked rows: those before the axis, chunks, elements of a chunk, those after the axis.
    rows: [usize; 4],
}

impl Chunks<'_> {
    fn scan(&mut self, x: NodeId, shape: Shape, len: usize) -> NodeId {
        let (reverse, [outer, n, chunk, inner]) = (self.scan.reverse, self.rows);
        // Where the scan ends, so that nothing depends on it.
        let more = n * chunk - len;
        let (lo, hi) = if reverse { (more, 0) } else { (0, more) };
        let mut value = x;
        if more > 0 {
            value = self.reshape(value, &[outer, len, inner]);
            value = self.view(value, Movement::Pad { axis: 1, lo, hi, interior: 0 });
        }
        value = self.reshape(value, &[outer, n, chunk, inner]);
        let own = self.along(2, value);
        let before = self.before(own);
        let whole = self.joined(before, own);
        let mut value = self.reshape(whole, &[outer, n * chunk, inner]);
        if more > 0 {
            value = self.view(value, Movement::Slice { axis: 1, start: lo, len, step: 1 });
        }
        self.graph.apply(Op::View(Movement::Reshape(shape)), &[value])
    }

    /// What came before each chunk, repeated for its elements; anything for the first one.
    fn before(&mut self, own: NodeId) -> NodeId {
        let (reverse, [outer, n, chunk, inner]) = (self.scan.reverse, self.rows);
        let last = if reverse { 0 } else { chunk - 1 };
        let sums = self.view(own, Movement::Slice { axis: 2, start: last, len: 1, step: 1 });
        let sums = self.reshape(sums, &[outer, n, inner]);
        let sums = self.along(1, sums);
        let others = Movement::Slice { axis: 1, start: usize::from(reverse), len: n - 1, step: 1 };
        let others = self.view(sums, others);
        let (lo, hi) = if reverse { (0, 1) } else { (1, 0) };
        let before = self.view(others, Movement::Pad { axis: 1, lo, hi, interior: 0 });
        let before = self.reshape(before, &[outer, n, 1, inner]);
        self.view(before, Movement::Expand(Shape::new(&self.rows)))
    }

    /// The elements of chunks, with what came before.
    fn joined(&mut self, before: NodeId, own: NodeId) -> NodeId {
        let op = match self.scan.op {
            ReduceOp::Sum => PointOp::Add,
            ReduceOp::Prod => PointOp::Mul,
            ReduceOp::Max => PointOp::Max,
            ReduceOp::Min => PointOp::Min,
            ReduceOp::ArgMax => unreachable!("no scan has positions"),
        };
        let first = if self.scan.reverse { self.rows[1] - 1 } else { 0 };
        let number = self.graph.source(Op::Iota(1), Shape::new(&self.rows), DType::I32);
        let is_first = E::op(PointOp::Eq, &[&E::input(2), &E::lit(first as f64)]);
        let joined = E::input(1).when(&is_first, &E::op(op, &[&E::input(0), &E::input(1)]));
        self.graph.apply(Op::Map(Arc::new(joined.build())), &[before, own, number])
    }

    fn along(&mut self, axis: usize, x: NodeId) -> NodeId {
        self.graph.apply(Op::Scan(Scan { axis, ..self.scan }), &[x])
    }

    fn view(&mut self, x: NodeId, movement: Movement) -> NodeId {
        self.graph.apply(Op::View(movement), &[x])
    }

    fn reshape(&mut self, x: NodeId, dims: &[usize]) -> NodeId {
        self.view(x, Movement::Reshape(Shape::new(dims)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::caps;
    use super::super::split::split;
    use super::*;
    use kiln_ir::reference;

    fn chunked(op: ReduceOp, reverse: bool, dtype: DType, dims: &[usize], axis: usize) -> (Graph, Graph) {
        let mut g = Graph::default();
        let x = g.source(Op::Leaf(0), Shape::new(dims), dtype);
        let y = g.apply(Op::Scan(Scan { op, axis, reverse }), &[x]);
        g.outputs = vec![y];
        let parted = split(&g, &Caps { lanes: 1 << 17, ..caps() });
        kiln_ir::verify(&parted).unwrap();
        (g, parted)
    }

    #[test]
    fn chunks_scan_to_the_whole() {
        for (dims, axis) in [(&[8192][..], 0), (&[2, 10_007], 1), (&[3, 9000, 2], 1), (&[1000, 64], 0)] {
            for (op, reverse) in ReduceOp::ALL[..4].iter().flat_map(|&op| [(op, false), (op, true)]) {
                for dtype in [DType::F32, DType::I32] {
                    let (whole, parted) = chunked(op, reverse, dtype, dims, axis);
                    let name = format!("{op:?} {dtype} {dims:?}, reverse {reverse}\n{parted}");
                    let scans = parted.nodes.iter().filter(|n| matches!(n.op, Op::Scan(_))).count();
                    assert_eq!(scans, if (op, dtype) == (ReduceOp::Prod, DType::F32) { 1 } else { 2 }, "{name}");
                    let n: usize = dims.iter().product();
                    let mut values: Vec<f64> = (0..n).map(|i| (i * 7919 % 17) as f64 - 8.0).collect();
                    if dtype == DType::F32 {
                        values[n / 3] = f64::INFINITY;
                        values[n / 2] = f64::NAN;
                    }
                    let [found, expected] =
                        [&parted, &whole].map(|g| reference::eval(g, std::slice::from_ref(&values), &[]).remove(0));
                    let same = |(a, b): (&f64, &f64)| a == b || a.is_nan() && b.is_nan();
                    assert!(found.iter().zip(&expected).all(same), "{name}");
                }
            }
        }
    }

    #[test]
    fn rows_that_are_short_or_many_stay_whole() {
        for (dims, axis) in [(&[4096][..], 0), (&[600, 9000], 1), (&[256, 64], 0), (&[0, 9000], 1)] {
            let (whole, parted) = chunked(ReduceOp::Sum, false, DType::F32, dims, axis);
            assert_eq!(parted.nodes.len(), whole.nodes.len(), "{dims:?}");
        }
    }
}
