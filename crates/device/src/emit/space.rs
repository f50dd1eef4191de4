//! Index spaces with as few axes as possible.
//!
//! Two neighbouring axes are one wherever every index steps over them as over one: then the division
//! that would take them apart is never emitted, and a contiguous tensor of any rank is a line.

use kiln_ir::kernel::Body;
use kiln_ir::{Atom, Index};

/// Merges axes within each group of dims. `bodies` pairs each body with the groups that form its
/// space, in order; afterwards all indices are over the merged groups.
pub(crate) fn merge(groups: &mut [Vec<usize>], bodies: &mut [(&mut Body, &[usize])]) {
    for g in 0..groups.len() {
        let mut at = 0;
        while at + 1 < groups[g].len() {
            let (dim, next) = (groups[g][at], groups[g][at + 1]);
            let first_axis = |spaces: &[usize]| {
                let place = spaces.iter().position(|&s| s == g)?;
                Some(spaces[..place].iter().map(|&s| groups[s].len()).sum::<usize>() + at)
            };
            let axes: Vec<Option<usize>> = bodies.iter().map(|(_, spaces)| first_axis(spaces)).collect();
            let joins = |body: &Body, axis| body.indices().all(|e| steps_as_one(e, axis, dim, next));
            if !bodies.iter().zip(&axes).all(|((body, _), axis)| axis.is_none_or(|axis| joins(body, axis))) {
                at += 1;
                continue;
            }
            for ((body, _), axis) in bodies.iter_mut().zip(axes) {
                let Some(axis) = axis else { continue };
                let dropped = if next == 1 { axis + 1 } else { axis };
                body.map_indices(&|e| join(e, axis, dropped));
            }
            groups[g][at] = dim * next;
            groups[g].remove(at + 1);
        }
        if groups[g] == [1] {
            drop_axis(groups, g, bodies);
        }
    }
}

/// Orders axes as all stores lie, if they agree: the axis of the longest steps comes first.
pub(crate) fn in_order_of_stores(dims: &mut Vec<usize>, body: &mut Body) {
    let order_of = |index: &Index| {
        let strides = index.affine(dims.len())?;
        let mut order: Vec<usize> = (0..dims.len()).collect();
        order.sort_by_key(|&axis| std::cmp::Reverse(strides[axis].abs()));
        order.iter().all(|&axis| strides[axis] != 0 || dims[axis] <= 1).then_some(order)
    };
    let Some(Some(order)) = body.stores.first().map(|s| order_of(&s.index)) else { return };
    if order.is_sorted() || body.stores.iter().any(|s| order_of(&s.index).as_ref() != Some(&order)) {
        return;
    }
    // The gathered coordinate comes after all axes, and stays there.
    let place = |axis: usize| order.iter().position(|&a| a == axis).unwrap_or(axis);
    *body = body.renamed(&place);
    *dims = order.iter().map(|&axis| dims[axis]).collect();
}

/// Removes the only axis of a group, whose dim is 1.
fn drop_axis(groups: &mut [Vec<usize>], g: usize, bodies: &mut [(&mut Body, &[usize])]) {
    for (body, spaces) in bodies {
        let Some(place) = spaces.iter().position(|&s| s == g) else { continue };
        let axis = spaces[..place].iter().map(|&s| groups[s].len()).sum::<usize>();
        body.map_indices(&|e| join(e, axis, axis));
    }
    groups[g].clear();
}

fn steps_as_one(e: &Index, axis: usize, dim: usize, next: usize) -> bool {
    let coefficient = |v| e.terms.iter().find(|t| t.1 == Atom::Var(v)).map_or(0, |t| t.0);
    let nested = e.terms.iter().all(|(_, atom)| match atom {
        Atom::Var(_) => true,
        Atom::Div(e, _) | Atom::Mod(e, _) => steps_as_one(e, axis, dim, next),
    });
    nested && (dim == 1 || next == 1 || coefficient(axis) == coefficient(axis + 1) * next as i64)
}

/// The index after the terms in `dropped` went and the axes behind `axis` moved up by one.
fn join(e: &Index, axis: usize, dropped: usize) -> Index {
    let terms = e.terms.iter().filter(|(_, atom)| !matches!(atom, Atom::Var(v) if *v == dropped));
    let atom = |atom: &Atom| match atom {
        Atom::Var(v) => Atom::Var(if *v > axis { v - 1 } else { *v }),
        Atom::Div(e, n) => Atom::Div(Box::new(join(e, axis, dropped)), *n),
        Atom::Mod(e, n) => Atom::Mod(Box::new(join(e, axis, dropped)), *n),
    };
    Index { constant: e.constant, terms: terms.map(|(c, a)| (*c, atom(a))).collect() }
}

/// True iff the index is the row-major element number in a space with these dims.
pub(crate) fn is_row_major(e: &Index, dims: &[usize]) -> bool {
    let Some(strides) = e.affine(dims.len()) else { return false };
    let mut expected = 1;
    let in_order = dims.iter().zip(strides).rev().all(|(&dim, stride)| {
        let matches = dim <= 1 || stride == expected;
        expected *= dim as i64;
        matches
    });
    e.constant == 0 && (in_order || dims.contains(&0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_ir::DType;
    use kiln_ir::kernel::{Instr, Store};

    fn load(index: Index) -> Body {
        let mut body = Body::default();
        body.push(Instr::Load { arg: 0, index, valid: Vec::new(), gather: None }, DType::F32);
        body
    }

    fn merged(dims: &[usize], strides: &[i64]) -> (Vec<usize>, String) {
        let terms = strides.iter().enumerate().filter(|t| *t.1 != 0).map(|(v, &c)| (c, Atom::Var(v)));
        let mut body = load(Index { constant: 0, terms: terms.collect() });
        let mut groups = [dims.to_vec()];
        merge(&mut groups, &mut [(&mut body, &[0])]);
        let Instr::Load { index, .. } = &body.instrs[0] else { unreachable!() };
        (groups[0].clone(), index.to_string())
    }

    #[test]
    fn contiguous_axes_are_a_line() {
        assert_eq!(merged(&[2, 3, 4], &[12, 4, 1]), (vec![24], "i0".into()));
        assert_eq!(merged(&[2, 3, 4], &[3, 1, 6]), (vec![6, 4], "i0 + 6*i1".into()));
        assert_eq!(merged(&[2, 3, 4], &[0, 0, 1]), (vec![6, 4], "i1".into()));
        assert_eq!(merged(&[2, 1, 3], &[3, 0, 1]), (vec![6], "i0".into()));
        assert_eq!(merged(&[1, 5, 1], &[0, 2, 0]), (vec![5], "2*i0".into()));
        assert_eq!(merged(&[1], &[0]), (vec![], "0".into()));
    }

    #[test]
    fn axes_come_in_the_order_in_which_results_lie() {
        let index = |strides: [i64; 2]| Index {
            constant: 0,
            terms: vec![(strides[0], Atom::Var(0)), (strides[1], Atom::Var(1))],
        };
        let ordered = |stores: &[[i64; 2]]| {
            let mut body = load(index([3, 1]));
            body.stores = stores.iter().map(|&s| Store { arg: 1, index: index(s), value: 0 }).collect();
            let mut dims = vec![2, 3];
            in_order_of_stores(&mut dims, &mut body);
            (dims, body.stores[0].index.to_string())
        };
        assert_eq!(ordered(&[[1, 2], [1, 2]]), (vec![3, 2], "2*i0 + i1".into()));
        assert_eq!(ordered(&[[1, 2], [3, 1]]), (vec![2, 3], "i0 + 2*i1".into()));
    }

    #[test]
    fn row_major_is_told_from_transposed() {
        let row_major = Index { constant: 0, terms: vec![(3, Atom::Var(0)), (1, Atom::Var(1))] };
        assert!(is_row_major(&row_major, &[2, 3]));
        assert!(!is_row_major(&row_major, &[3, 2]));
        assert!(!is_row_major(&row_major.offset(1), &[2, 3]));
    }
}
