//! The operands of a contraction on their way into workgroup memory: four neighbours at a time.
//!
//! Neighbours lie along the operand's own axis (m or n) or along k, whichever memory has side by side. The hard idea is
//! that an operand stays a body: its steps are done for the four as a strip, so a window, a conversion or a look-up is
//! brought in by the same text, and what neighbours share of it is done once.

use super::code::Code;
use super::dot::Matmul;
use super::fours::Fours;
use super::strip::WIDTH;

/// What stands behind the names of functions for what is not beyond the end of k.
const INSIDE: &str = "_inside";

/// One operand.
pub(crate) struct Operand<'a> {
    x: &'a Matmul,
    /// True for the left one, whose own axis is m.
    left: bool,
    /// True iff its neighbours lie along k.
    pub(crate) along_k: bool,
    /// True iff neighbouring invocations take neighbours along k, where each takes four along the own axis.
    pub(crate) k_first: bool,
    /// Its steps for four; `None` where the axis has no whole fours, so that elements are fetched one by one.
    fours: Option<Fours<'a>>,
}

impl<'a> Operand<'a> {
    /// The left operand, or the right one.
    pub(crate) fn new(x: &'a Matmul, left: bool) -> Operand<'a> {
        let along = |of_k| x.last_axis(left, of_k).and_then(|axis| Fours::new(&x.operand_scope(left), axis));
        let (along_k, fours) = match (along(false), along(true)) {
            (Some(own), _) if own.are_whole() => (false, Some(own)),
            (_, Some(of_k)) if of_k.are_whole() => (true, Some(of_k)),
            (own, _) => (false, own),
        };
        Operand { k_first: !along_k && !x.contiguous(left), x, left, along_k, fours }
    }

    /// Takes from `wide` the arguments that are not always taken in strips.
    pub(crate) fn narrow(&self, wide: &mut [bool]) {
        Fours::narrow(self.fours.as_ref(), self.x.body(self.left), wide);
    }

    /// Leaves only these arguments to be taken in strips.
    pub(crate) fn keep(&mut self, wide: &[bool]) {
        self.fours.iter_mut().for_each(|fours| fours.keep(wide));
    }

    /// `fn lhs4(b, m, k) -> vec4<f32>` or `fn rhs4(b, k, n)`: four neighbours from an element on, 0 beyond what is
    /// there; `edge` says for the own axis and for k whether a tile may reach beyond. If one may along k, the same without
    /// that condition, which can cost a fifth of a product, as `lhs4_inside` or `rhs4_inside`.
    pub(crate) fn functions(&self, code: &mut Code, edge: (bool, bool)) {
        self.function(code, edge, "");
        if edge.1 {
            self.function(code, (edge.0, false), INSIDE);
        }
    }

    fn function(&self, code: &mut Code, edge: (bool, bool), suffix: &str) {
        let x = self.x;
        let own = if self.left { ("m", x.m, edge.0) } else { ("n", x.n, edge.0) };
        let of_k = ("k", x.k, edge.1);
        let [first, second] = if self.left { [own, of_k] } else { [of_k, own] };
        let name = if self.left { "lhs" } else { "rhs" };
        let head = format!("fn {name}4{suffix}(b: u32, {}: u32, {}: u32) -> vec4<f32>", first.0, second.0);
        let Some(fours) = &self.fours else {
            x.operand(code, (self.left, suffix), (first.2, second.2));
            code.open(head);
            let at = |c: usize| match self.left {
                true => format!("lhs{suffix}(b, m + {c}u, k)"),
                false => format!("rhs{suffix}(b, k, n + {c}u)"),
            };
            code.line(format!("return vec4<f32>({});", (0..WIDTH).map(at).collect::<Vec<_>>().join(", ")));
            code.close();
            return code.line("");
        };
        let beyond = [first, second].into_iter().filter(|axis| axis.2);
        let beyond: Vec<String> = beyond.map(|(axis, dim, _)| format!("{axis} >= {dim}u")).collect();
        let groups = Matmul::groups_of(self.left).map(|g| (["b", "m", "n", "k"][g], x.groups[g].len()));
        fours.function(code, &head, &beyond, &groups);
    }

    /// The call that brings four neighbours from these elements of the own axis and of k on, which `inside` says are there.
    pub(crate) fn call(&self, own: &str, k: &str, inside: bool) -> String {
        let suffix = if inside { INSIDE } else { "" };
        match self.left {
            true => format!("lhs4{suffix}(b, {own}, {k})"),
            false => format!("rhs4{suffix}(b, {k}, {own})"),
        }
    }
}
