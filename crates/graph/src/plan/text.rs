//! How a plan reads: one line a kernel, in the order of execution.

use std::fmt;

use kiln_ir::{Graph, Kernel, Op, Slot};

use super::cluster::{Lowered, reduces};
use super::roots::base;
use super::{Output, Plan};

/// A name for a kernel: its kind, and the ops that it stores.
pub(crate) fn name(graph: &Graph, lowered: &Lowered) -> String {
    let kind = match &lowered.kernel {
        Kernel::Loop(_) if reduces(&lowered.kernel) => "reduce",
        Kernel::Loop(_) => "map",
        Kernel::Dot(_) => "dot",
        Kernel::Scatter(_) => "scatter",
        Kernel::Attention(_) => "attend",
        Kernel::Scan(_) => "scan",
        Kernel::Sort(_) => "sort",
        Kernel::Group(_) => "group",
    };
    let mut name = kind.to_owned();
    for &id in lowered.stores.iter().take(3) {
        // A view says little of what was computed.
        let op = &graph.nodes[base(graph, id) as usize].op;
        if !matches!(op, Op::Dot(_) | Op::Scatter { .. }) {
            name.push('_');
            name.push_str(op.name());
        }
    }
    if lowered.stores.len() > 3 {
        name.push_str(&format!("_and_{}", lowered.stores.len() - 3));
    }
    name
}

/// Bytes for people: `3.2 MiB`.
pub(crate) fn size(bytes: u64) -> String {
    let mut size = bytes as f64;
    let mut units = ["bytes", "KiB", "MiB", "GiB", "TiB"].into_iter();
    let mut unit = units.next().expect("the list is not empty");
    while size >= 1024.0
        && let Some(next) = units.next()
    {
        size /= 1024.0;
        unit = next;
    }
    if unit == "bytes" { format!("{bytes} bytes") } else { format!("{size:.1} {unit}") }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dims = |dims: &[usize]| dims.iter().map(usize::to_string).collect::<Vec<_>>().join("·");
        for (n, step) in self.steps.iter().enumerate() {
            write!(f, "{n:3} {}", step.name)?;
            match &step.kernel {
                Kernel::Loop(k) if k.row.is_empty() => write!(f, " over [{}]", dims(&k.outer))?,
                Kernel::Loop(k) => write!(f, " over [{}] rows of [{}]", dims(&k.outer), dims(&k.row))?,
                Kernel::Dot(k) => {
                    write!(f, " [{}] m [{}] n [{}] k [{}]", dims(&k.batch), dims(&k.m), dims(&k.n), dims(&k.k))?
                }
                Kernel::Scatter(k) => write!(f, " [{}] of {} into {}", dims(&k.index), dims(&k.inner), k.size)?,
                Kernel::Attention(k) => {
                    let x = &k.extents;
                    write!(f, " [{}] q {}·{} kv {}·{}", dims(&x.batch), x.t, x.d, x.s, x.e)?;
                }
                Kernel::Scan(k) => write!(f, " [{}·{}] rows of [{}]", k.outer, k.inner, k.len)?,
                Kernel::Sort(k) => {
                    write!(f, " [{}·{}] rows of [{}]", k.outer, k.inner, k.len)?;
                    if k.keep < k.len {
                        write!(f, ", {} kept", k.keep)?;
                    }
                }
                Kernel::Group(loops) => write!(f, " of {} loops", loops.len())?,
            }
            f.write_str(":")?;
            for ((slot, access), id) in step.binds.iter().zip(&step.args) {
                let slot = match slot {
                    Slot::Arg(a) => format!("arg{a}"),
                    Slot::Temp(t) => format!("temp{t}"),
                };
                write!(f, " {}{slot}=%{id}", if *access == kiln_ir::Access::Read { "" } else { "→" })?;
            }
            writeln!(f)?;
        }
        let donated = self.outputs.iter().filter(|o| matches!(o, Output::Donated(_))).count();
        writeln!(
            f,
            "{} kernels, {} temporaries, {} results of which {donated} in place, {} bytes",
            self.steps.len(),
            self.temps.len(),
            self.outputs.len(),
            self.peak_bytes
        )
    }
}
