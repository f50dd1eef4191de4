//! Fitting two clusters onto one index space.
//!
//! The hard idea is the inverse of a read. A consumer reads a root at `f(point)`. Where `f` is a
//! bijection it can be inverted, and the consumer computed on the producer's space instead; where it
//! ignores some axes and those are the axes that the producer reduced, the same inverse places the
//! consumer on the producer's rows. Softmax is one kernel for that reason alone.

use kiln_ir::index::{Index, IndexMap};
use kiln_ir::{Graph, NodeId, Shape};

use super::cluster::{Cluster, Space};

/// Rows longer than this are not joined by elementwise work when there are too few to share out.
const LONG_ROW: usize = 1 << 16;
/// Rows that keep a device busy.
const MANY_ROWS: usize = 64;

/// Every way to compute both clusters on one space, where `consumer` reads `root` of `producer` at `read`.
pub(crate) fn joined(
    graph: &Graph,
    producer: &Cluster,
    consumer: &Cluster,
    root: NodeId,
    read: &IndexMap,
) -> Vec<(Cluster, &'static str)> {
    let mut found = Vec::new();
    let shape = &graph.nodes[root as usize].shape;
    let own = &producer.members[&root];
    match (&producer.space, &consumer.space) {
        (Space::Loop { outer, row }, Space::Loop { outer: outer_c, row: row_c }) => {
            if producer.space == consumer.space {
                found.push((union(producer, consumer, &producer.space), "on one index space"));
            }
            if row_c.is_empty()
                && let Some(place) = invert(read, shape, own, outer.len(), row)
                && shares_out(outer, row, outer_c)
            {
                found.push((union(producer, &moved(consumer, &place), &producer.space), "on its index space"));
            }
            if row.is_empty()
                && *own == IndexMap::identity(&own.dims)
                && covers(read, shape, outer_c.len())
                && shares_out(outer_c, row_c, outer)
            {
                found.push((union(&moved(producer, read), consumer, &consumer.space), "where it is read"));
            }
            found
                .extend(beside(graph, producer, consumer).map(|(cluster, _)| (cluster, "as reductions over its rows")));
        }
        (Space::Dot(_), Space::Loop { row, .. }) if row.is_empty() => {
            if let Some(place) = invert(read, shape, own, own.dims.len(), &[]) {
                found.push((union(producer, &moved(consumer, &place), &producer.space), "as its epilogue"));
            }
        }
        _ => {}
    }
    found
}

/// Both clusters on the rows of the first, where the second reduces over all rows at each of their points; and where
/// that is in its own space.
pub(crate) fn beside(graph: &Graph, rows: &Cluster, columns: &Cluster) -> Option<(Cluster, IndexMap)> {
    let (Space::Loop { outer, row }, Space::Loop { outer: outer_c, row: row_c }) = (&rows.space, &columns.space) else {
        return None;
    };
    let real = |dims: &[usize]| dims.iter().product::<usize>() > 1;
    if outer != row_c || row != outer_c || !real(outer) || !real(row) || !columns.only_reduces(graph) {
        return None;
    }
    let dims = [outer.as_slice(), row].concat();
    let var = |axis: usize| if dims[axis] <= 1 { Index::constant(0) } else { Index::var(axis) };
    let coords = (outer.len()..dims.len()).chain(0..outer.len()).map(var).collect();
    let place = IndexMap { dims: dims.clone(), coords, valid: Vec::new() };
    Some((union(rows, &moved(columns, &place), &rows.space), place))
}

/// True iff two clusters are on equal spaces, and of a kind that may join.
pub(crate) fn side_by_side(a: &Cluster, b: &Cluster) -> bool {
    matches!(a.space, Space::Loop { .. } | Space::Attention { .. } | Space::Sort { .. }) && a.space == b.space
}

/// Why a consumer has no place on the index space of its producer, or the other way round, if it has none.
pub(crate) fn differ(producer: &Cluster, consumer: &Cluster) -> String {
    match (&producer.space, &consumer.space) {
        (_, Space::Dot(_)) => "a contraction reads each of its operands many times".into(),
        (_, Space::Attention { .. }) => "attention reads each of its operands many times".into(),
        (_, Space::Scatter(_)) => "a scatter binds its operands as they are".into(),
        (Space::Scatter(_), _) => "a scatter has no epilogue".into(),
        (Space::Attention { .. }, _) => "attention has no epilogue".into(),
        (_, Space::Scan(_)) => "a scan binds its operand as it is".into(),
        (Space::Scan(_), _) => "a scan has no epilogue".into(),
        (_, Space::Sort { .. }) => "a sort binds its operand as it is".into(),
        (Space::Sort { .. }, _) => "a sort has no epilogue".into(),
        (Space::Dot(_), Space::Loop { row, .. }) if !row.is_empty() => {
            format!("a row of {row:?} is reduced, which spans tiles of the contraction")
        }
        (a, b) => format!("no common index space: {} and {}", space(a), space(b)),
    }
}

fn space(space: &Space) -> String {
    match space {
        Space::Loop { outer, row } if row.is_empty() => format!("{outer:?}"),
        Space::Loop { outer, row } => format!("rows {row:?} over {outer:?}"),
        Space::Dot(id) | Space::Scatter(id) | Space::Scan(id) => format!("that of %{id}"),
        Space::Attention { .. } => "that of an attention".into(),
        Space::Sort { .. } => "that of a sort".into(),
    }
}

/// Two clusters on one space.
pub(crate) fn union(a: &Cluster, b: &Cluster, space: &Space) -> Cluster {
    let members = a.members.iter().chain(&b.members).map(|(id, map)| (*id, map.clone())).collect();
    let inlined = a.inlined.union(&b.inlined).copied().collect();
    let bounds = (a.bounds.0.min(b.bounds.0), a.bounds.1.max(b.bounds.1));
    Cluster { space: space.clone(), members, inlined, bounds }
}

/// The cluster computed where `place` takes the points of another space.
fn moved(cluster: &Cluster, place: &IndexMap) -> Cluster {
    let members = cluster.members.iter().map(|(id, map)| (*id, place.then(map))).collect();
    Cluster { members, space: cluster.space.clone(), inlined: cluster.inlined.clone(), bounds: cluster.bounds }
}

/// False where work over `points` would be left to a few long rows.
fn shares_out(outer: &[usize], row: &[usize], points: &[usize]) -> bool {
    let numel = |dims: &[usize]| dims.iter().product::<usize>();
    row.is_empty() || numel(outer) >= MANY_ROWS || numel(row) <= LONG_ROW || numel(points) <= LONG_ROW
}

/// `(axis, stride)` of the axes that a read depends on, if it walks every element of `shape` once.
fn walked(read: &IndexMap, shape: &Shape) -> Option<Vec<(usize, i64)>> {
    let flat = read.flatten(shape);
    if !read.valid.is_empty() || flat.constant != 0 || shape.numel() == 0 {
        return None;
    }
    let strides = flat.affine(read.dims.len())?;
    let mut used: Vec<(usize, i64)> = strides.into_iter().enumerate().filter(|(_, s)| *s != 0).collect();
    used.sort_by_key(|u| u.1);
    let mut next = 1;
    for &(axis, stride) in &used {
        if stride != next {
            return None;
        }
        next *= read.dims[axis] as i64;
    }
    (next == shape.numel() as i64).then_some(used)
}

/// The map from a space to that of `read`, which reads at each point the element that `own` has there.
/// Axes that the read ignores become the row's.
fn invert(read: &IndexMap, shape: &Shape, own: &IndexMap, outer: usize, row: &[usize]) -> Option<IndexMap> {
    let used = walked(read, shape)?;
    let flat = own.flatten(shape);
    let mut coords = vec![Index::constant(0); read.dims.len()];
    for &(axis, stride) in &used {
        coords[axis] = flat.div(stride, &own.dims).modulo(read.dims[axis] as i64, &own.dims);
    }
    let real = |dims: &[usize]| -> Vec<usize> { (0..dims.len()).filter(|&a| dims[a] != 1).collect() };
    let ignored: Vec<usize> = real(&read.dims).into_iter().filter(|axis| used.iter().all(|u| u.0 != *axis)).collect();
    if !ignored.is_empty() {
        let within = real(row);
        // Only what a row has one of leaves its points free.
        let one_a_row = !flat.uses(&|axis| (outer..own.dims.len()).contains(&axis));
        let same = one_a_row
            && ignored.len() == within.len()
            && ignored.iter().zip(&within).all(|(&a, &j)| read.dims[a] == row[j]);
        if !same {
            return None;
        }
        ignored.iter().zip(within).for_each(|(&axis, j)| coords[axis] = Index::var(outer + j));
    }
    Some(IndexMap { dims: own.dims.clone(), coords, valid: Vec::new() })
}

/// True iff a read visits each element exactly once, or once a row.
fn covers(read: &IndexMap, shape: &Shape, outer: usize) -> bool {
    let Some(used) = walked(read, shape) else { return false };
    let ignored = |axis: usize| read.dims[axis] != 1 && used.iter().all(|u| u.0 != axis);
    let rank = read.dims.len();
    !(0..outer).any(ignored) && ((outer..rank).all(|a| ignored(a) || read.dims[a] == 1) || !(outer..rank).any(ignored))
}
