//! Operands where they lie or evaluated, copied into panels whose rows are padded; and results on their way out.

use kiln_ir::DType;
use kiln_ir::kernel::{Arg, Body, Instr};

use super::product::LANES;
use super::room;
use crate::cast::{Stored, with_stored};
use crate::exec::{Env, Loan};
use crate::memory::View;
use crate::panel::{Block, Direct, Panel};
use crate::simd::{Reg, multiversion};
use crate::turn::{EIGHT, turn_eights};

/// An operand of attention: a matrix for each element of the batch.
pub(super) enum Operand {
    /// In an argument.
    Direct(Direct),
    /// Evaluated.
    Panel(Box<Panel>),
}

/// A block of a matrix as lines of elements that are neighbours.
pub(super) struct Lines<'a> {
    data: &'a [f32],
    /// From the start of a line to that of the next.
    pitch: usize,
    /// How many lines, and how long they are.
    dims: [usize; 2],
    /// True iff a line is a column.
    turned: bool,
}

impl Operand {
    pub(super) fn new(body: &Body, args: &[Arg], batch: &[usize], dims: [usize; 2]) -> Operand {
        let axes = [batch, &dims[..1], &dims[1..]];
        match Direct::operand(body, args, axes) {
            Some(direct) => Operand::Direct(direct),
            None => Operand::Panel(Box::new(Panel::new(body, args, axes, true))),
        }
    }

    /// Prepares a worker for [`Operand::lines`].
    pub(super) fn prepare(&self, worker: &mut Loan, env: Env) {
        if let Operand::Panel(panel) = self {
            panel.prepare(worker, env);
        }
    }

    /// A measure of the work at a point.
    pub(super) fn weight(&self) -> usize {
        match self {
            Operand::Direct(_) => 1,
            Operand::Panel(panel) => panel.weight(),
        }
    }

    /// Finds a block, in `space` unless it lies somewhere in lines.
    pub(super) fn lines<'a>(&self, worker: &mut Loan, space: &'a mut Reg, env: Env, block: &Block) -> Lines<'a> {
        let dims = [block.rows.len(), block.columns.len()];
        let dense = |space: &'a Reg, turned: bool| {
            let dims = if turned { [dims[1], dims[0]] } else { dims };
            Lines { data: space.lanes(), pitch: dims[1], dims, turned }
        };
        if dims.contains(&0) {
            return dense(space, false);
        }
        let direct = match self {
            Operand::Direct(direct) => direct,
            Operand::Panel(panel) => {
                panel.fill(worker, env, block, room(space, dims[0], dims[1]));
                return dense(space, panel.swapped);
            }
        };
        let ([rs, cs], view) = (direct.strides, env.args[direct.arg]);
        let at = direct.start(block.batch, env) + block.rows.start as isize * rs + block.columns.start as isize * cs;
        match (usize::try_from(rs), usize::try_from(cs)) {
            (Ok(pitch), Ok(1)) => {
                let data = view.slice(at as usize, (dims[0] - 1) * pitch + dims[1]);
                Lines { data, pitch, dims, turned: false }
            }
            (Ok(1), Ok(pitch)) => {
                let data = view.slice(at as usize, (dims[1] - 1) * pitch + dims[0]);
                Lines { data, pitch, dims: [dims[1], dims[0]], turned: true }
            }
            _ => {
                for (i, out) in room(space, dims[0], dims[1]).chunks_exact_mut(dims[1]).enumerate() {
                    let row = view.stepped((at + i as isize * rs) as i64, cs as i64, dims[1]);
                    out.iter_mut().zip(row).for_each(|(o, x)| *o = x);
                }
                dense(space, false)
            }
        }
    }
}

impl Lines<'_> {
    /// Copies the block, times `scale`, with its rows `pitch` apart.
    pub(super) fn rows(&self, out: &mut [f32], pitch: usize, scale: f32) {
        self.copy(out, pitch, scale, self.turned);
    }

    /// Copies the block, times `scale`, with its columns `pitch` apart.
    pub(super) fn columns(&self, out: &mut [f32], pitch: usize, scale: f32) {
        self.copy(out, pitch, scale, !self.turned);
    }

    fn copy(&self, out: &mut [f32], pitch: usize, scale: f32, across: bool) {
        if across {
            return transpose(self.data, self.pitch, out, pitch, self.dims, scale);
        }
        copy_lines(self.data, self.pitch, out, pitch, self.dims, scale);
    }
}

multiversion! {
    /// Copies lines, times `scale`, which for short ones is faster than to call what copies.
    fn copy_lines(src: &[f32], pitch: usize, out: &mut [f32], out_pitch: usize, dims: [usize; 2], scale: f32) {
        let [n, len] = dims;
        for i in 0..n {
            let (line, out) = (&src[i * pitch..][..len], &mut out[i * out_pitch..][..len]);
            out.iter_mut().zip(line).for_each(|(o, x)| *o = x * scale);
        }
    }
}

/// Copies `dims` rows and columns, times `scale`, to where rows are columns; rows are so far apart on either side.
pub(super) fn transpose(
    src: &[f32],
    pitch: usize,
    out: &mut [f32],
    out_pitch: usize,
    [rows, columns]: [usize; 2],
    scale: f32,
) {
    let whole = rows / EIGHT * EIGHT;
    let done = turn_eights(src, pitch, [whole, columns], (&mut *out, out_pitch), false);
    if scale != 1.0 && whole > 0 {
        for row in out.chunks_mut(out_pitch).take(done) {
            row[..whole].iter_mut().for_each(|x| *x *= scale);
        }
    }
    for (first, [rows, columns]) in [([0, done], [whole, columns - done]), ([whole, 0], [rows - whole, columns])] {
        if rows * columns > 0 {
            let [row, column] = first;
            let (src, out) = (&src[row * pitch + column..], &mut out[column * out_pitch + row..]);
            turn_rest(src, pitch, out, out_pitch, [rows, columns], scale);
        }
    }
}

multiversion! {
    /// The same element by element.
    fn turn_rest(src: &[f32], pitch: usize, out: &mut [f32], out_pitch: usize, dims: [usize; 2], scale: f32) {
        let [rows, columns] = dims;
        for row in (0..rows).step_by(LANES) {
            let n = LANES.min(rows - row);
            for column in 0..columns {
                let out = &mut out[column * out_pitch + row..][..n];
                out.iter_mut().enumerate().for_each(|(i, o)| *o = src[(row + i) * pitch + column] * scale);
            }
        }
    }
}

/// Writes elements of a result, from number `at` on.
pub(super) fn store(env: Env, arg: usize, dtype: DType, at: usize, values: &[f32]) {
    with_stored!(dtype, store_as::<_>(env.args[arg], at, values));
}

fn store_as<S: Stored>(view: View, at: usize, values: &[f32]) {
    // SAFETY: a task stores only its own rows of a result, once.
    let out = unsafe { view.slice_mut::<S>(at, values.len()) };
    S::narrow_run(bytemuck::cast_slice(values), out);
}

/// True iff a body is 0 everywhere.
pub(super) fn is_zero(body: &Body) -> bool {
    let mut last = body.instrs.last();
    while let Some(Instr::Cast(_, v)) = last {
        last = body.instrs.get(*v as usize);
    }
    matches!(last, Some(Instr::Const(_, value)) if *value == 0.0)
}
