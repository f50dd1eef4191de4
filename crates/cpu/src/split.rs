//! Axes taken apart where addresses take them apart: `i / 2` and `i % 2` over an axis of 28 are two axes, 14 and 2.
//!
//! Afterwards such an address is affine, and loads go on by addition. Planners write quotients wherever a view
//! splits what the kernel's space has merged, as the gradient of a pool does.

use kiln_ir::kernel::{Body, Instr};
use kiln_ir::{Atom, Index};

/// The dims with axes split, and the body over them. Row-major order, and so every result, stays as it was.
///
/// `groups` holds the numbers of axes of which each part of the space consists, and follows the splits.
pub(crate) fn split(dims: &[usize], groups: &mut [usize], body: &Body) -> (Vec<usize>, Body) {
    let (mut dims, mut body) = (dims.to_vec(), body.clone());
    while let Some((axis, n)) = (0..dims.len()).find_map(|axis| Some((axis, divisor(axis, dims[axis], &body)?))) {
        let outer = dims[axis] / n;
        dims[axis] = outer;
        dims.insert(axis + 1, n);
        let mut end = 0;
        let group = groups.iter_mut().find(|len| {
            end += **len;
            axis < end
        });
        *group.expect("each axis belongs to a group") += 1;
        rewrite(&mut body, &dims, axis, n);
    }
    (dims, body)
}

/// As [`split`] for a body over a batch of matrices: the axes of the batch, the rows and the columns.
pub(crate) fn split_matrix(axes: [&[usize]; 3], body: &Body) -> ([Vec<usize>; 3], Body) {
    let mut groups = axes.map(|dims| dims.len());
    let (dims, body) = split(&axes.concat(), &mut groups, body);
    let [batch, rows, _] = groups;
    let (batch, rest) = dims.split_at(batch);
    let (rows, columns) = rest.split_at(rows);
    ([batch.to_vec(), rows.to_vec(), columns.to_vec()], body)
}

/// The least number by which some address divides this axis, if it divides the axis' dim.
fn divisor(axis: usize, dim: usize, body: &Body) -> Option<usize> {
    fn visit(index: &Index, axis: usize, found: &mut Vec<i64>) {
        for (_, atom) in &index.terms {
            let (Atom::Div(e, n) | Atom::Mod(e, n)) = atom else { continue };
            if **e == Index::var(axis) {
                found.push(*n);
            } else {
                visit(e, axis, found);
            }
        }
    }
    let mut found = Vec::new();
    body.indices().for_each(|index| visit(index, axis, &mut found));
    let least = found.into_iter().min()? as usize;
    (least > 1 && least < dim && dim.is_multiple_of(least)).then_some(least)
}

/// Puts `n·axis + (axis + 1)` in place of `axis`, over dims that are split already.
fn rewrite(body: &mut Body, dims: &[usize], axis: usize, n: usize) {
    let rank = dims.len();
    // The gathered coordinate comes after the axes.
    let old = |gather: Option<usize>| -> (Vec<Index>, Vec<usize>) {
        let wide = [dims, &[gather.unwrap_or(1)]].concat();
        let var = |a: usize| if wide[a] <= 1 { Index::constant(0) } else { Index::var(a) };
        let whole = var(axis).scale(n as i64).add(&var(axis + 1), &wide);
        let coords = (0..rank).map(|a| match a {
            _ if a < axis => var(a),
            _ if a == axis => whole.clone(),
            _ => var(a + 1),
        });
        (coords.collect(), wide)
    };
    let put = |gather: Option<usize>| {
        let (coords, wide) = old(gather);
        move |index: &Index| index.substitute(&coords, &wide)
    };
    for instr in &mut body.instrs {
        let gather = if let Instr::Load { gather, .. } = instr { gather.map(|g| g.1) } else { None };
        instr.map_indices(&put(gather));
    }
    let plain = put(None);
    body.stores.iter_mut().for_each(|s| s.index = plain(&s.index));
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_ir::DType;
    use kiln_ir::kernel::Store;

    #[test]
    fn quotients_become_axes_and_addresses_stay() {
        let dims = [3, 28, 12];
        let (half, odd) = (Index::var(1).div(2, &dims), Index::var(1).modulo(2, &dims));
        let third = Index::var(2).div(3, &dims);
        let index = half.scale(100).add(&odd.scale(7), &dims).add(&third, &dims);
        let mut body = Body::default();
        let value = body.push(Instr::Load { arg: 0, index: index.clone(), valid: vec![], gather: None }, DType::F32);
        let all = Index::var(0).scale(336).add(&Index::var(1).scale(12), &dims).add(&Index::var(2), &dims);
        body.stores.push(Store { arg: 1, index: all.clone(), value });
        let mut groups = [1, 2];
        let (found, split) = split(&dims, &mut groups, &body);
        assert_eq!((found.as_slice(), groups), (&[3, 14, 2, 4, 3][..], [1, 4]));
        let Instr::Load { index: after, .. } = &split.instrs[0] else { unreachable!() };
        assert!(after.affine(6).is_some() && split.stores[0].index.affine(6).is_some());
        for point in 0..3 * 28 * 12 {
            let before = [point / 336, point / 12 % 28, point % 12];
            let now = [point / 336, point / 24 % 14, point / 12 % 2, point / 3 % 4, point % 3];
            assert_eq!(after.eval(&now), index.eval(&before));
            assert_eq!(split.stores[0].index.eval(&now), all.eval(&before));
        }
    }
}
