//! Operands of a product on their way into strips: matrices where they lie, or bodies evaluated tile by tile.

use std::ops::Range;

use kiln_ir::kernel::{Arg, Body};

use super::element::Element;
use super::pack::{Lines, Strips};
use super::window::Window;
use crate::exec::{Env, Worker};
use crate::memory::View;
use crate::panel::{Block, Panel};
use crate::split::split_matrix;

/// The dims of a contraction: `batch`, `m`, `n`, `k`.
pub(super) type Axes<'a> = [&'a [usize]; 4];

/// One operand, as lines to multiply and steps to sum over.
pub(super) struct Operand {
    source: Source,
    /// True iff its lines are rows, as those of the left operand are.
    rows: bool,
}

enum Source {
    /// Where it lies, or a copy of it with zeros around.
    Window(Window),
    /// Evaluated.
    Panel(Box<Panel>),
}

impl Operand {
    /// The left operand if its lines are rows, else the right one.
    pub(super) fn new(body: &Body, args: &[Arg], [batch, m, n, k]: Axes, rows: bool) -> Operand {
        let (axes, body) = &split_matrix(if rows { [batch, m, k] } else { [batch, k, n] }, body);
        let axes = [&*axes[0], &axes[1], &axes[2]];
        let source = match Window::new(body, args, axes, rows) {
            Some(window) => Source::Window(window),
            None => Source::Panel(Box::new(Panel::new(body, args, axes, true))),
        };
        Operand { source, rows }
    }

    /// The operand where it is not evaluated.
    pub(super) fn window(&self) -> Option<&Window> {
        match &self.source {
            Source::Window(window) => Some(window),
            Source::Panel(_) => None,
        }
    }

    /// The operand where its steps are neighbours in memory.
    pub(super) fn along_k(&self) -> Option<&Window> {
        self.window().filter(|window| window.lies_along_k())
    }

    /// Elements of memory that [`Operand::begin`] fills.
    pub(super) fn scratch(&self) -> usize {
        match &self.source {
            Source::Window(window) => window.padded.as_ref().map_or(0, |padded| padded.len()),
            Source::Panel(_) => 0,
        }
    }

    /// Does what is done once for all tasks, and returns what they pack from.
    pub(super) fn begin<T: Element>(&self, env: Env, scratch: View, parallel: bool) -> View {
        match &self.source {
            Source::Window(window) => {
                window.pad::<T>(env, scratch, parallel);
                window.source(env, scratch)
            }
            Source::Panel(_) => scratch,
        }
    }

    /// Prepares a worker for [`Operand::pack`].
    pub(super) fn prepare(&self, worker: &mut Worker, env: Env) {
        if let Source::Panel(panel) = &self.source {
            panel.prepare(worker, env);
        }
    }

    /// A measure of the work at an element.
    pub(super) fn weight(&self) -> usize {
        match &self.source {
            Source::Window(_) => 1,
            Source::Panel(panel) => panel.weight(),
        }
    }

    /// Packs lines and steps of one matrix into strips that begin with the first of them.
    pub(super) fn pack<T: Element>(
        &self,
        worker: &mut Worker,
        (src, env): (View, Env),
        batch: usize,
        lines: &Range<usize>,
        steps: &Range<usize>,
        (width, out): (usize, &mut [T]),
    ) {
        let strips = Strips { width, depth: steps.len() };
        strips.pad(lines.len(), out);
        match &self.source {
            Source::Window(window) => window.pack((src, env), batch, [lines, steps], strips, out),
            Source::Panel(panel) => {
                let (rows, columns) = if self.rows { (lines, steps) } else { (steps, lines) };
                let block = Block { batch, rows: rows.clone(), columns: columns.clone() };
                // Lines along which nothing is turned are as long as possible, others make squares.
                let turned = self.rows != panel.swapped;
                panel.evaluate(worker, env, &block, if turned { TURNED } else { usize::MAX }, |part, [slow, fast]| {
                    let [high, wide] = part.dims;
                    if turned {
                        strips.put(Lines { data: part.lanes, line: wide, step: 1 }, [slow, fast], [high, wide], out);
                    } else {
                        strips.put(Lines { data: part.lanes, line: 1, step: wide }, [fast, slow], [wide, high], out);
                    }
                });
            }
        }
    }
}

/// Steps of a line that is turned.
const TURNED: usize = 64;
