//! The operands of a contraction on their way into workgroup memory: four neighbours at a time.
//!
//! Neighbours lie along the operand's own axis (m or n) or along k, whichever memory has side by side. The hard idea is
//! that an operand stays a body: its steps are done for the four as a strip, so a window, a conversion or a look-up is
//! brought in by the same text, and what neighbours share of it is done once.

use kiln_ir::kernel::Value;

use super::code::Code;
use super::dot::Matmul;
use super::rows::{decompose, reached};
use super::strip::{Strip, WIDTH, loaded};

/// One operand.
pub(crate) struct Operand<'a> {
    x: &'a Matmul,
    /// True for the left one, whose own axis is m.
    left: bool,
    /// True iff its neighbours lie along k.
    pub(crate) along_k: bool,
    /// True iff neighbouring invocations take neighbours along k, where each takes four along the own axis.
    pub(crate) k_first: bool,
    /// Its steps in strips; `None` where the axis has no whole ones, so that four elements are fetched one by one.
    strip: Option<Strip<'a>>,
    wanted: Vec<bool>,
}

impl<'a> Operand<'a> {
    /// The left operand, or the right one.
    pub(crate) fn new(x: &'a Matmul, left: bool) -> Operand<'a> {
        let body = x.body(left);
        let wanted = reached([body.instrs.len() as Value - 1].into_iter(), &body.instrs);
        let whole = |strip: &Strip| (0..wanted.len()).any(|v| strip.is_whole(v));
        let own = x.last_axis(left, false).map(|axis| Strip::new(&x.operand_scope(left), axis, false));
        let of_k = x.last_axis(left, true).map(|axis| Strip::new(&x.operand_scope(left), axis, false));
        let own = own.filter(|strip| strip.width == WIDTH);
        let (along_k, strip) = match (own, of_k) {
            (Some(own), _) if whole(&own) => (false, Some(own)),
            (_, Some(of_k)) if whole(&of_k) => (true, Some(of_k)),
            (own, _) => (false, own),
        };
        Operand { k_first: !along_k && !x.contiguous(left), x, left, along_k, strip, wanted }
    }

    fn name(&self) -> &'static str {
        if self.left { "lhs" } else { "rhs" }
    }

    /// Takes from `wide` the arguments that are not always taken in strips.
    pub(crate) fn narrow(&self, wide: &mut [bool]) {
        match &self.strip {
            Some(strip) => strip.narrow(wide, &|v| self.wanted[v], false),
            None => loaded(self.x.body(self.left)).for_each(|arg| wide[arg as usize] = false),
        }
    }

    /// Leaves only these arguments to be taken in strips.
    pub(crate) fn keep(&mut self, wide: &[bool]) {
        if let Some(strip) = &mut self.strip {
            strip.keep(wide);
        }
    }

    /// `fn lhs4(b, m, k) -> vec4<f32>` or `fn rhs4(b, k, n)`: four neighbours from an element on, 0 beyond what is
    /// there; `edge` says for the own axis and for k whether a tile may reach beyond.
    pub(crate) fn function(&self, code: &mut Code, edge: (bool, bool)) {
        let (x, name) = (self.x, self.name());
        let own = if self.left { ("m", x.m) } else { ("n", x.n) };
        let [first, second] = if self.left { [own, ("k", x.k)] } else { [("k", x.k), own] };
        let edges = if self.left { [edge.0, edge.1] } else { [edge.1, edge.0] };
        let head = format!("(b: u32, {}: u32, {}: u32)", first.0, second.0);
        let Some(strip) = &self.strip else {
            x.operand(code, self.left, (edges[0], edges[1]));
            code.open(format!("fn {name}4{head} -> vec4<f32>"));
            let at = |c: usize| match self.left {
                true => format!("lhs(b, m + {c}u, k)"),
                false => format!("rhs(b, k, n + {c}u)"),
            };
            code.line(format!("return vec4<f32>({});", (0..WIDTH).map(at).collect::<Vec<_>>().join(", ")));
            code.close();
            return code.line("");
        };
        code.open(format!("fn {name}4{head} -> vec4<f32>"));
        // Strips end where the axis ends, so a strip is there or it is not.
        let beyond = [first, second].into_iter().zip(edges).filter(|e| e.1);
        let beyond: Vec<String> = beyond.map(|((axis, dim), _)| format!("{axis} >= {dim}u")).collect();
        if !beyond.is_empty() {
            code.open(format!("if ({})", beyond.join(" || ")));
            code.line("return vec4<f32>();");
            code.close();
        }
        let axes = strip.axes("", &|_| false);
        let body = x.body(self.left);
        let used = |axis: usize| {
            let is = |a: usize| a == axis;
            body.instrs.iter().zip(&self.wanted).any(|(i, w)| *w && i.indices().iter().any(|e| e.uses(&is)))
        };
        let mut start = 0;
        for group in Matmul::groups_of(self.left) {
            let linear = ["b", "m", "n", "k"][group];
            let range = start..start + x.groups[group].len();
            start = range.end;
            match range.contains(&strip.axis) && strip.width == WIDTH {
                true => decompose(code, &axes, range, &format!("({linear} / {WIDTH}u)"), &used),
                false => decompose(code, &axes, range, linear, &used),
            }
        }
        let last = body.instrs.len() - 1;
        code.line("var four = vec4<f32>();");
        let nowhere = |_: Value, _: usize| None;
        strip.steps(code, (&axes, ""), &|v| self.wanted[v], &|_| false, &nowhere, &mut |code, c| {
            code.line(format!("four[{c}] = t{last};"));
        });
        code.line("return four;");
        code.close();
        code.line("");
    }

    /// The call that brings four neighbours from these elements of the own axis and of k on.
    pub(crate) fn call(&self, own: &str, k: &str) -> String {
        match self.left {
            true => format!("lhs4(b, {own}, {k})"),
            false => format!("rhs4(b, {k}, {own})"),
        }
    }
}
