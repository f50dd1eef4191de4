//! What becomes of a contraction's sums: the epilogue of four results at a time.

use kiln_ir::kernel::{Instr, Store, Value};

use super::body::Scope;
use super::code::{Code, per_word};
use super::dot::Matmul;
use super::rows::{decompose, reached};
use super::strip::{Strip, WIDTH, loaded};

/// The epilogue of four neighbouring columns.
pub(crate) struct Epilogue<'a> {
    x: &'a Matmul,
    scope: Scope<'a>,
    /// Its steps in strips along n; `None` where it is done column by column.
    strip: Option<Strip<'a>>,
    wanted: Vec<bool>,
    /// True iff columns stand in the text one after the other.
    written_out: bool,
}

impl<'a> Epilogue<'a> {
    /// The epilogue column by column.
    pub(crate) fn scalar(x: &'a Matmul) -> Epilogue<'a> {
        let scope = x.scope(&x.epilogue, [0, 1, 2]);
        let wanted = reached(x.epilogue.stores.iter().map(|s| s.value), &x.epilogue.instrs);
        Epilogue { x, scope, strip: None, wanted, written_out: false }
    }

    /// The epilogue in strips, where the last axis of n consists of whole ones.
    fn new(x: &'a Matmul) -> Epilogue<'a> {
        let mut epilogue = Epilogue { written_out: true, ..Epilogue::scalar(x) };
        let rank = epilogue.scope.axes.dims.len();
        if !x.groups[2].is_empty() {
            let strip = Strip::new(&epilogue.scope, rank - 1, true);
            epilogue.strip = Some(strip).filter(|strip| strip.width == WIDTH && epilogue.suits(strip));
        }
        epilogue
    }

    /// The epilogue, and in `wide` the arguments that it and `others` take in strips, of those that may be.
    pub(crate) fn settled(x: &'a Matmul, wide: &mut Vec<bool>, others: &mut dyn FnMut(&mut [bool])) -> Epilogue<'a> {
        let mut epilogue = Epilogue::new(x);
        loop {
            let mut found = wide.clone();
            others(&mut found);
            epilogue.narrow(&mut found);
            if epilogue.keep(&found) {
                *wide = found;
                return epilogue;
            }
        }
    }

    /// True iff no words are shared by what is stored column by column.
    fn suits(&self, strip: &Strip) -> bool {
        let packed = |s: &&Store| per_word(self.x.args[s.arg as usize].dtype) > 1;
        self.x.epilogue.stores.iter().filter(packed).all(|s| strip.is_whole_store(s))
    }

    /// Takes from `wide` the arguments that are not always taken in strips.
    fn narrow(&self, wide: &mut [bool]) {
        match &self.strip {
            Some(strip) => strip.narrow(wide, &|v| self.wanted[v], true),
            None => {
                loaded(&self.x.epilogue).for_each(|arg| wide[arg as usize] = false);
                self.x.epilogue.stores.iter().for_each(|s| wide[s.arg as usize] = false);
            }
        }
    }

    /// Leaves only these arguments to be taken in strips; false iff the epilogue is no longer done in strips then.
    fn keep(&mut self, wide: &[bool]) -> bool {
        let Some(mut strip) = self.strip.take() else { return true };
        strip.keep(wide);
        let suits = self.suits(&strip);
        self.strip = suits.then_some(strip);
        suits
    }

    /// `fn finish(b, m, first, sums)`: the epilogue of four results from column `first` on, in blocks of
    /// `width` columns of which the last may reach beyond the edge.
    pub(crate) fn function(&self, code: &mut Code, width: usize) {
        code.open("fn finish(b: u32, m: u32, first: u32, sums: vec4<f32>)");
        match &self.strip {
            Some(strip) => self.in_strips(code, strip, width),
            None => self.by_columns(code, width),
        }
        code.close();
        code.line("");
    }

    fn in_strips(&self, code: &mut Code, strip: &Strip, width: usize) {
        if !self.x.n.is_multiple_of(width) {
            code.open(format!("if (first >= {}u)", self.x.n));
            code.line("return;");
            code.close();
        }
        let axes = strip.axes("", &|_| false);
        let body = &self.x.epilogue;
        let used = |axis: usize| {
            let is = |a: usize| a == axis;
            let loads = body.instrs.iter().zip(&self.wanted).filter(|i| *i.1).flat_map(|i| i.0.indices());
            loads.chain(body.stores.iter().map(|s| &s.index)).any(|index| index.uses(&is))
        };
        let mut start = 0;
        for (group, linear) in ["b", "m", "(first / 4u)"].into_iter().enumerate() {
            let end = start + self.x.groups[group].len();
            decompose(code, &axes, start..end, linear, &used);
            start = end;
        }
        body.stores.iter().for_each(|s| strip.open_store(code, s));
        let sum = |v: Value, c: usize| match body.instrs[v as usize] {
            Instr::Acc => Some(format!("sums[{c}]")),
            _ => None,
        };
        strip.steps(code, (&axes, ""), &|v| self.wanted[v], &|_| false, &sum, &mut |code, c| {
            body.stores.iter().for_each(|s| strip.put(code, &axes, s, c, None));
        });
        body.stores.iter().for_each(|s| strip.close_store(code, &axes, s));
    }

    fn by_columns(&self, code: &mut Code, width: usize) {
        let packed = |arg: u32| per_word(self.x.args[arg as usize].dtype);
        for store in self.x.epilogue.stores.iter().filter(|s| packed(s.arg) > 1) {
            code.line(format!("var word{} = 0u;", store.arg));
        }
        match self.written_out {
            true => (0..WIDTH).for_each(|c| {
                code.open("");
                code.line(format!("const c = {c}u;"));
                self.column(code, width);
                code.close();
            }),
            false => {
                code.open(format!("for (var c = 0u; c < {WIDTH}u; c++)"));
                self.column(code, width);
                code.close();
            }
        }
    }

    /// Column `c` of the four.
    fn column(&self, code: &mut Code, width: usize) {
        let (x, scope) = (self.x, &self.scope);
        code.line("let n = first + c;");
        let ragged = !x.n.is_multiple_of(width);
        if ragged {
            code.open(format!("if (n < {}u)", x.n));
        }
        let values: Vec<Value> = x.epilogue.stores.iter().map(|s| s.value).collect();
        x.steps(code, scope, [0, 1, 2], &values);
        for store in &x.epilogue.stores {
            let (arg, value) = (store.arg, scope.stored(store));
            let per = per_word(x.args[arg as usize].dtype);
            let at = scope.axes.index(&store.index);
            if per == 1 {
                code.line(format!("a{arg}[{at}] = {value};"));
                continue;
            }
            let last = per - 1;
            code.line(format!("word{arg} |= ({value}) << ((c & {last}u) * {}u);", 32 / per));
            code.open(format!("if ((c & {last}u) == {last}u)"));
            code.line(format!("a{arg}[({at}) / {per}u] = word{arg};"));
            code.line(format!("word{arg} = 0u;"));
            code.close();
        }
        if ragged {
            code.close();
        }
    }
}
