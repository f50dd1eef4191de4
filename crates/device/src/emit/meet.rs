//! Where invocations that share a row meet: each has a partial result, afterwards all have the whole.
//!
//! Lanes of one subgroup exchange what they have without a barrier, and subgroups meet in workgroup memory, with one
//! barrier and a place for each. Without subgroups a tree over all lanes does the same, always in one order.

use kiln_ir::ReduceOp;

use super::code::{Code, value_type};
use super::reduce::Reduction;

/// A partial result that an invocation holds: its reduction, and the variable.
pub(crate) type Partial = (Reduction, String);

/// Who meets, and where.
pub(crate) struct Meeting {
    /// Invocations of a workgroup.
    pub(crate) size: usize,
    /// Invocations that share a row; a power of two.
    pub(crate) lanes: usize,
    /// True iff neighbouring invocations have neighbouring rows.
    pub(crate) rows_first: bool,
    /// Invocations of a subgroup, if rows use them; neighbouring invocations are of one subgroup.
    pub(crate) subgroup: Option<usize>,
}

impl Meeting {
    /// The workgroup memory for phases that reduce these, as declarations; phases of subgroups have places of their own.
    pub(crate) fn arrays(&self, phases: &[Vec<Partial>]) -> Vec<String> {
        let mut arrays: Vec<String> = Vec::new();
        for (n, phase) in phases.iter().enumerate() {
            for ((r, _), name) in phase.iter().zip(self.names(n, phase)) {
                let mut add = |name: String, kind| {
                    let line = format!("var<workgroup> {name}: array<{kind}, {}>;", self.places());
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
        if self.places() == 0 { Vec::new() } else { arrays }
    }

    /// Places of an array: one an invocation or a subgroup; none where nothing is exchanged through memory.
    fn places(&self) -> usize {
        match self.subgroup {
            Some(n) if self.lanes <= n => 0,
            Some(n) => self.size / n,
            None if self.lanes == 1 => 0,
            None => self.size,
        }
    }

    fn names(&self, n: usize, phase: &[Partial]) -> Vec<String> {
        let kind = |p: &Partial| value_type(p.0.word());
        let nth = |n: usize| phase[..n].iter().filter(|p| kind(p) == kind(&phase[n])).count();
        let prefix = if self.subgroup.is_some() { format!("pass{n}") } else { "part".into() };
        (0..phase.len()).map(|i| format!("{prefix}_{}_{}", kind(&phase[i]), nth(i))).collect()
    }

    /// Appends the meeting of phase `n`; afterwards each variable holds the whole, in all lanes of the row. `again` says
    /// that places may hold what others have yet to read.
    pub(crate) fn meet(&self, code: &mut Code, n: usize, phase: &[Partial], again: bool) {
        if self.lanes == 1 {
            return;
        }
        let names = self.names(n, phase);
        if again && self.places() > 0 {
            code.line("workgroupBarrier(); // all have read the last result");
        }
        match self.subgroup {
            Some(subgroup) => self.by_subgroups(code, subgroup, phase, &names),
            None => self.by_tree(code, phase, &names),
        }
    }

    fn by_subgroups(&self, code: &mut Code, subgroup: usize, phase: &[Partial], names: &[String]) {
        let mut distance = subgroup.min(self.lanes) / 2;
        while distance > 0 {
            for (r, acc) in phase {
                let other = |name: &str| format!("subgroupShuffleXor({name}, {distance}u)");
                if r.op == ReduceOp::ArgMax {
                    // Both halves of a pair are exchanged before either changes.
                    let (value, at) = (format!("{acc}_x{distance}"), format!("{acc}_at{distance}"));
                    code.line(format!("let {value} = {};", other(acc)));
                    code.line(format!("let {at} = {};", other(&format!("{acc}_at"))));
                    r.combine(code, acc, &value, &at);
                } else {
                    r.combine(code, acc, &other(acc), "0u");
                }
            }
            distance /= 2;
        }
        let each = self.lanes / subgroup;
        if each <= 1 {
            return;
        }
        code.open("if (member == 0u)");
        publish(code, phase, names, "subgroup");
        code.close();
        code.line("workgroupBarrier(); // publishes what each subgroup has");
        let first = match self.size / self.lanes {
            1 => "0u".to_owned(),
            _ => format!("slot * {each}u"),
        };
        for ((r, acc), name) in phase.iter().zip(names) {
            code.line(format!("{acc} = {name}[{first}];"));
            if r.op == ReduceOp::ArgMax {
                code.line(format!("{acc}_at = {name}_at[{first}];"));
            }
        }
        let from = if first == "0u" { String::new() } else { format!("{first} + ") };
        code.open(format!("for (var other = 1u; other < {each}u; other++)"));
        for ((r, acc), name) in phase.iter().zip(names) {
            r.combine(code, acc, &format!("{name}[{from}other]"), &format!("{name}_at[{from}other]"));
        }
        code.close();
    }

    fn by_tree(&self, code: &mut Code, phase: &[Partial], names: &[String]) {
        publish(code, phase, names, "local");
        code.line("workgroupBarrier(); // publishes what each lane has");
        let (leader, distance) = match (self.size / self.lanes, self.rows_first) {
            (1, _) => ("0u".into(), "local + half".into()),
            (n, true) => ("slot".to_string(), format!("local + half * {n}u")),
            (_, false) => (format!("slot * {}u", self.lanes), "local + half".to_string()),
        };
        code.open(format!("for (var half = {}u; half > 0u; half /= 2u)", self.lanes / 2));
        code.open("if (lane < half)");
        for ((r, acc), name) in phase.iter().zip(names) {
            r.combine(code, acc, &format!("{name}[{distance}]"), &format!("{name}_at[{distance}]"));
        }
        publish(code, phase, names, "local");
        code.close();
        code.line("workgroupBarrier(); // publishes what each pair has");
        code.close();
        for ((r, acc), name) in phase.iter().zip(names) {
            code.line(format!("{acc} = {name}[{leader}];"));
            if r.op == ReduceOp::ArgMax {
                code.line(format!("{acc}_at = {name}_at[{leader}];"));
            }
        }
    }
}

fn publish(code: &mut Code, phase: &[Partial], names: &[String], place: &str) {
    for ((r, acc), name) in phase.iter().zip(names) {
        code.line(format!("{name}[{place}] = {acc};"));
        if r.op == ReduceOp::ArgMax {
            code.line(format!("{name}_at[{place}] = {acc}_at;"));
        }
    }
}
