//! What invocations of a workgroup tell each other beside weights: parts of scores, of maxima and of sums.

use super::super::code::Code;
use super::tile::ACROSS;
use super::tiled::Walk;
use super::walk::AXES;

impl Walk<'_> {
    /// The scores of half of the other side's rows, whole, in `score0_0..`: each role has half of their columns.
    pub(super) fn share_scores(&self, code: &mut Code) {
        if !self.tile.joint {
            return;
        }
        let (start, given, n) = (self.tile.start(), self.tile.given(), self.block.own.n());
        let place = |role: usize, i: usize| format!("stage[inner + {}u]", start + role * given + i * self.tile.team());
        code.line("workgroupBarrier(); // all have read the slices");
        self.by_role(code, |code, role| {
            (0..n).for_each(|i| code.line(format!("{} = score{i}_{};", place(role, i), 1 - role)));
        });
        code.line("workgroupBarrier(); // publishes the other role's part");
        self.by_role(code, |code, role| {
            (0..n).for_each(|i| code.line(format!("score{i}_0 = score{i}_{role} + {};", place(1 - role, i))));
        });
    }

    /// Combines what the invocations of a role that share rows have found.
    pub(super) fn exchange(&self, code: &mut Code, name: &str, how: &str) {
        let (fours, apart) = (self.block.own.fours, self.tile.exchanged());
        code.line(format!("let {name}_at = {} + row * {fours}u;", self.of_role(0, ACROSS * apart)));
        for f in 0..fours {
            code.line(format!("maxima[{name}_at + column * {apart}u + {f}u] = {name}{f};"));
        }
        code.line("workgroupBarrier(); // publishes what each invocation's columns give");
        for f in 0..fours {
            let of = |lane: usize| format!("maxima[{name}_at + {}u]", lane * apart + f);
            code.line(format!("{name}{f} = {};", of(0)));
            for lane in 1..ACROSS {
                code.line(match how {
                    "max" => format!("{name}{f} = max({name}{f}, {});", of(lane)),
                    _ => format!("{name}{f} += {};", of(lane)),
                });
            }
        }
    }

    /// Both roles' maxima and totals become those of all rows, and what is summed is in proportion to them.
    pub(super) fn meet_roles(&self, code: &mut Code) {
        let (fours, rows) = (self.block.own.fours, self.tile.down() * self.block.own.fours);
        code.line("workgroupBarrier(); // all have read the totals");
        let place =
            |role: &str, f: usize, n: usize| format!("maxima[({role} * {rows}u + row * {fours}u + {f}u) * 2u + {n}u]");
        code.open("if (column == 0u)");
        for f in 0..fours {
            code.line(format!("{} = top{f};", place("role", f, 0)));
            code.line(format!("{} = total{f};", place("role", f, 1)));
        }
        code.close();
        code.line("workgroupBarrier(); // publishes what each role has found");
        for f in 0..fours {
            code.line(format!("let top_there{f} = {};", place("(1u - role)", f, 0)));
            code.line(format!("let greatest{f} = max(top{f}, top_there{f});"));
            code.line(format!("let fade{f} = exp(top{f} - greatest{f});"));
            code.line(format!(
                "let total_there{f} = {} * exp(top_there{f} - greatest{f});",
                place("(1u - role)", f, 1)
            ));
            code.line(format!("total{f} = total{f} * fade{f} + total_there{f};"));
            code.line(format!("top{f} = greatest{f};"));
        }
        self.parts().for_each(|(i, share)| code.line(format!("sum{i}_{share} *= fade{}.{};", i / 4, AXES[i % 4])));
    }

    /// The sums of both roles, for the first, some at a time.
    pub(super) fn add_halves(&self, code: &mut Code) {
        let team = self.tile.team();
        let sums: Vec<String> = self.parts().map(|(i, share)| format!("sum{i}_{share}")).collect();
        if self.tile.kept {
            // A walk that visits nothing has passed no barrier since it brought the own rows.
            code.line("workgroupBarrier(); // all have brought their rows");
        }
        for some in sums.chunks((self.tile.stage() / team).max(1)) {
            let place = |n: usize| format!("stage[inner + {}u]", n * team);
            self.role(code, 1, |code| {
                some.iter().enumerate().for_each(|(n, sum)| code.line(format!("{} = {sum};", place(n))));
            });
            code.line("workgroupBarrier(); // publishes some sums");
            self.role(code, 0, |code| {
                some.iter().enumerate().for_each(|(n, sum)| code.line(format!("{sum} += {};", place(n))));
            });
            code.line("workgroupBarrier(); // all have read them");
        }
    }
}
