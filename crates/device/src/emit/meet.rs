//! Where invocations that share a row meet: each has a partial result, afterwards all have the whole.
//!
//! A tree over the lanes, in workgroup memory, always in one order. Subgroups would need fewer barriers, and were no
//! faster where they were tried: rows wait for memory.

use kiln_ir::ReduceOp;

use super::code::{Code, value_type};
use super::reduce::Reduction;

/// A partial result that an invocation holds: its reduction, and the variable.
pub(crate) type Partial = (Reduction, String);

/// Who meets.
pub(crate) struct Meeting {
    /// Invocations of a workgroup.
    pub(crate) size: usize,
    /// Invocations that share a row; a power of two.
    pub(crate) lanes: usize,
    /// True iff neighbouring invocations have neighbouring rows.
    pub(crate) rows_first: bool,
}

impl Meeting {
    /// The workgroup memory for phases that reduce these, as declarations: phases share arrays of the same type.
    pub(crate) fn arrays(&self, phases: &[Vec<Partial>]) -> Vec<String> {
        let mut arrays: Vec<String> = Vec::new();
        for phase in phases.iter().filter(|_| self.lanes > 1) {
            for ((r, _), name) in phase.iter().zip(names(phase)) {
                let mut add = |name: String, kind| {
                    let line = format!("var<workgroup> {name}: array<{kind}, {}>;", self.size);
                    if !arrays.contains(&line) {
                        arrays.push(line);
                    }
                };
                if r.op == ReduceOp::ArgMax {
                    add(format!("{name}_at"), "u32");
                }
                add(name, value_type(r.word()));
            }
        }
        arrays
    }

    /// Appends the meeting of a phase; afterwards each variable holds the whole, in all lanes of the row. `again` says
    /// that the arrays may hold what others have yet to read.
    pub(crate) fn meet(&self, code: &mut Code, phase: &[Partial], again: bool) {
        if self.lanes == 1 {
            return;
        }
        if again {
            code.line("workgroupBarrier(); // all have read the last result");
        }
        let names = names(phase);
        publish(code, phase, &names);
        code.line("workgroupBarrier(); // publishes what each lane has");
        let (leader, step) = match (self.size / self.lanes, self.rows_first) {
            (1, _) => ("0u".into(), 1),
            (n, true) => ("slot".to_string(), n),
            (_, false) => (format!("slot * {}u", self.lanes), 1),
        };
        let halves = std::iter::successors(Some(self.lanes / 2), |half| Some(half / 2));
        for half in halves.take_while(|half| *half > 0) {
            code.open(format!("if (lane < {half}u)"));
            let other = format!("local + {}u", half * step);
            for ((r, acc), name) in phase.iter().zip(&names) {
                r.combine(code, acc, &format!("{name}[{other}]"), &format!("{name}_at[{other}]"));
            }
            publish(code, phase, &names);
            code.close();
            code.line("workgroupBarrier(); // publishes what each pair has");
        }
        for ((r, acc), name) in phase.iter().zip(&names) {
            code.line(format!("{acc} = {name}[{leader}];"));
            if r.op == ReduceOp::ArgMax {
                code.line(format!("{acc}_at = {name}_at[{leader}];"));
            }
        }
    }
}

/// One array per partial result of a phase.
fn names(phase: &[Partial]) -> Vec<String> {
    let kind = |p: &Partial| value_type(p.0.word());
    let nth = |n: usize| phase[..n].iter().filter(|p| kind(p) == kind(&phase[n])).count();
    (0..phase.len()).map(|n| format!("part_{}_{}", kind(&phase[n]), nth(n))).collect()
}

fn publish(code: &mut Code, phase: &[Partial], names: &[String]) {
    for ((r, acc), name) in phase.iter().zip(names) {
        code.line(format!("{name}[local] = {acc};"));
        if r.op == ReduceOp::ArgMax {
            code.line(format!("{name}_at[local] = {acc}_at;"));
        }
    }
}
