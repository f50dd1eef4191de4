//! Contractions: the choice of a schedule, the schedule without workgroup memory, and the operands
//! and the epilogue as WGSL functions.
//!
//! The hard idea is that operands are functions of `(b, m, k)` and `(b, k, n)`, not matrices: a
//! transposition, a convolution's window or a dequantized weight is only another body.

use kiln_ir::kernel::{Access, Arg, Body, Dot, Instr, Value};
use kiln_ir::{DType, Index, Reject};

use super::body::Scope;
use super::code::{Code, per_word};
use super::epilogue::Epilogue;
use super::index::Axes;
use super::matrix::{self, Plan};
use super::module::{Module, n_scalars, op_names};
use super::tiled::{self, Tile};
use super::{Schedule, Shader, Target, check_body, looped, space};

/// A contraction whose axes were merged, with the extents that its schedules loop over.
pub(crate) struct Matmul {
    /// Merged dims of batch, m, n, k.
    pub(crate) groups: [Vec<usize>; 4],
    /// Their products.
    pub(crate) batch: usize,
    pub(crate) m: usize,
    pub(crate) n: usize,
    pub(crate) k: usize,
    pub(crate) args: Vec<Arg>,
    lhs: Body,
    rhs: Body,
    pub(crate) epilogue: Body,
}

/// The contraction in WGSL.
pub(crate) fn emit(k: &Dot, target: &Target) -> Result<Shader, Reject> {
    let groups = [&k.batch, &k.m, &k.n, &k.k];
    for (body, [x, y, z]) in [(&k.lhs, [0, 1, 3]), (&k.rhs, [0, 3, 2]), (&k.epilogue, [0, 1, 2])] {
        check_body(body, &k.args, &[&groups[x][..], groups[y], groups[z]].concat())?;
        let operand = body.types.last().is_none_or(|t| t.compute() == DType::F32);
        if !operand && body.stores.is_empty() {
            return Err(Reject::Unsupported("a contraction of integers"));
        }
    }
    let matmul = Matmul::new(k);
    let bodies = [&k.lhs, &k.rhs, &k.epilogue];
    let name = format!("dot {} {:?}·{:?}x{:?}·{:?}", op_names(&bodies), k.batch, k.m, k.k, k.n);
    let scalars = n_scalars(&bodies);
    let mut wide = vec![false; k.args.len()];
    let (how, code, workgroups) = match choose(&matmul, target) {
        Choice::Rows => {
            let shader = looped::emit(&k.as_loop(), target)?;
            return Ok(Shader { wgsl: format!("// {name}\n{}", shader.wgsl), name, ..shader });
        }
        Choice::Registers => {
            let (code, workgroups) = registers(&matmul, target);
            ("a 4 x 4 block an invocation, in registers".to_string(), code, workgroups)
        }
        Choice::Tiles(tile) => {
            let (code, workgroups);
            (code, workgroups, wide) = tiled::emit(&matmul, &tile, target);
            (tile.describe(), code, workgroups)
        }
        Choice::Matrices(plan) => {
            let (code, workgroups, wide) = plan.emit(&matmul.rounding_once(), target);
            let module = Module::new([name, plan.describe()], &k.args, code, workgroups).with(&wide, scalars);
            let mut module = Module { enables: &matrix::ENABLES, ..module };
            plan.declare(&mut module.types);
            return Ok(module.shader(target));
        }
    };
    Ok(Module::new([name, how], &k.args, code, workgroups).with(&wide, scalars).shader(target))
}

enum Choice {
    /// As a loop with a sum, one row a result.
    Rows,
    Registers,
    Tiles(Tile),
    Matrices(Box<Plan>),
}

fn choose(x: &Matmul, target: &Target) -> Choice {
    // A block of four results in a row of m owns whole words only if it starts at one.
    let packed = x.epilogue.stores.iter().map(|s| (s, per_word(x.args[s.arg as usize].dtype))).filter(|s| s.1 > 1);
    let dims = [&x.groups[0][..], &x.groups[1], &x.groups[2]].concat();
    if packed.into_iter().any(|(s, per)| !x.n.is_multiple_of(per) || !space::is_row_major(&s.index, &dims)) {
        return Choice::Rows;
    }
    if let Some(plan) = Plan::choose(x, target) {
        return Choice::Matrices(Box::new(plan));
    }
    match target.schedule {
        Schedule::Plain => Choice::Registers,
        Schedule::Shared => Choice::Tiles(Tile::covering(x.m, x.n)),
        Schedule::Auto if x.m.min(x.n) < 4 || x.k == 0 => Choice::Rows,
        Schedule::Auto if target.software => match x.k + 100 > target.max_turns {
            true => Choice::Rows,
            false => Choice::Registers,
        },
        Schedule::Auto => Tile::fastest(x, target).map_or(Choice::Rows, Choice::Tiles),
    }
}

impl Matmul {
    fn new(k: &Dot) -> Matmul {
        let (mut lhs, mut rhs, mut epilogue) = (k.lhs.clone(), k.rhs.clone(), k.epilogue.clone());
        let mut groups = [k.batch.clone(), k.m.clone(), k.n.clone(), k.k.clone()];
        let mut bodies: [(&mut Body, &[usize]); 3] =
            [(&mut lhs, &[0, 1, 3]), (&mut rhs, &[0, 3, 2]), (&mut epilogue, &[0, 1, 2])];
        space::merge(&mut groups, &mut bodies);
        let [batch, m, n, k_numel] = [0, 1, 2, 3].map(|g| groups[g].iter().product());
        Matmul { groups, batch, m, n, k: k_numel, args: k.args.clone(), lhs, rhs, epilogue }
    }

    /// The body of the left operand, or of the right one.
    pub(crate) fn body(&self, left: bool) -> &Body {
        if left { &self.lhs } else { &self.rhs }
    }

    /// The groups of axes of an operand's space, in order.
    pub(crate) fn groups_of(left: bool) -> [usize; 3] {
        if left { [0, 1, 3] } else { [0, 3, 2] }
    }

    /// An operand in its space.
    pub(crate) fn operand_scope(&self, left: bool) -> Scope<'_> {
        self.scope(self.body(left), Matmul::groups_of(left))
    }

    /// The last axis of k, or of the operand's own, in the operand's space.
    pub(crate) fn last_axis(&self, left: bool, of_k: bool) -> Option<usize> {
        let groups = Matmul::groups_of(left);
        let group = if of_k { 3 } else { 2 - left as usize };
        let place = groups.iter().position(|&g| g == group).expect("a group of the operand's");
        let end = groups[..=place].iter().map(|&g| self.groups[g].len()).sum::<usize>();
        (!self.groups[group].is_empty()).then(|| end - 1)
    }

    pub(crate) fn scope<'a>(&'a self, body: &'a Body, groups: [usize; 3]) -> Scope<'a> {
        let dims = groups.map(|g| self.groups[g].clone()).concat();
        Scope { body, args: &self.args, axes: Axes::numbered(&dims) }
    }

    /// True iff neighbours along m (of the left operand) or n (of the right) are neighbours in memory.
    pub(crate) fn contiguous(&self, left: bool) -> bool {
        let rank: usize = Matmul::groups_of(left).iter().map(|&g| self.groups[g].len()).sum();
        self.last_axis(left, false).is_some_and(|axis| {
            self.body(left).instrs.iter().any(|instr| match instr {
                Instr::Load { index, .. } => index.affine(rank + 1).is_some_and(|s| s[axis].abs() == 1),
                _ => false,
            })
        })
    }

    /// The argument and the index of an operand that is elements of f16 and nothing else.
    pub(crate) fn halves(&self, left: bool) -> Option<(u32, &Index)> {
        let body = if left { &self.lhs } else { &self.rhs };
        let (load, rest) = body.instrs.split_first()?;
        // Conversions of an f16 that keep what it is.
        let idle = |(v, instr): (usize, &Instr)| match instr {
            Instr::Cast(to, a) => matches!(to, DType::F16 | DType::F32) && *a as usize == v,
            _ => false,
        };
        match load {
            Instr::Load { arg, index, valid, gather: None } => {
                let Arg { dtype, access, .. } = self.args[*arg as usize];
                let plain = valid.is_empty() && dtype == DType::F16 && access == Access::Read;
                (plain && rest.iter().enumerate().all(idle)).then_some((*arg, index))
            }
            _ => None,
        }
    }

    /// The argument that the sums are stored into as they are, row-major, if that is all of the epilogue.
    pub(crate) fn stores_sums(&self) -> Option<u32> {
        let dims = [0, 1, 2].map(|g| self.groups[g].clone()).concat();
        match (&self.epilogue.instrs[..], &self.epilogue.stores[..]) {
            ([Instr::Acc], [store]) if space::is_row_major(&store.index, &dims) => {
                (self.args[store.arg as usize].dtype == DType::F32).then_some(store.arg)
            }
            _ => None,
        }
    }

    /// The contraction with stores that round by themselves: a conversion to what they store is left out.
    fn rounding_once(mut self) -> Matmul {
        for store in &mut self.epilogue.stores {
            if let Instr::Cast(to, from) = self.epilogue.instrs[store.value as usize]
                && to == self.args[store.arg as usize].dtype
                && self.epilogue.types[from as usize].compute() == DType::F32
                && matches!(to, DType::F16 | DType::BF16)
            {
                store.value = from;
            }
        }
        self
    }

    /// True iff the epilogue loads from this argument.
    pub(crate) fn epilogue_loads(&self, from: u32) -> bool {
        self.epilogue.instrs.iter().any(|instr| matches!(instr, Instr::Load { arg, .. } if *arg == from))
    }

    /// `fn lhs(b, m, k)` or `fn rhs(b, k, n)`, with this behind its name; where a tile may be ragged, 0 beyond the edge.
    pub(crate) fn operand(&self, code: &mut Code, (left, suffix): (bool, &str), edge: (bool, bool)) {
        let (name, [x, y]) = match left {
            true => ("lhs", [("m", self.m), ("k", self.k)]),
            false => ("rhs", [("k", self.k), ("n", self.n)]),
        };
        let (body, groups) = (self.body(left), Matmul::groups_of(left));
        code.open(format!("fn {name}{suffix}(b: u32, {}: u32, {}: u32) -> f32", x.0, y.0));
        let checks = [(x, edge.0), (y, edge.1)].into_iter().filter(|c| c.1);
        let checks: Vec<String> = checks.map(|((name, dim), _)| format!("{name} >= {dim}u")).collect();
        if !checks.is_empty() {
            code.open(format!("if ({})", checks.join(" || ")));
            code.line("return 0.0f;");
            code.close();
        }
        let last = body.instrs.len() as Value - 1;
        self.steps(code, &self.scope(body, groups), groups, &[last]);
        code.line(format!("return t{last};"));
        code.close();
        code.line("");
    }

    /// Coordinates from the linear `b`, `m`, `n`, `k`, then the steps that these values come from.
    pub(crate) fn steps(&self, code: &mut Code, scope: &Scope, groups: [usize; 3], values: &[Value]) {
        let groups = groups.map(|g| (["b", "m", "n", "k"][g], self.groups[g].len()));
        scope.steps(code, &groups, values, "sums[c]");
    }
}

/// Each invocation computes a block of four rows and four columns, and reads what it needs itself.
fn registers(x: &Matmul, target: &Target) -> (String, u32) {
    let mut code = Code::default();
    x.operand(&mut code, (true, ""), (false, false));
    x.operand(&mut code, (false, ""), (false, false));
    Epilogue::scalar(x).function(&mut code, 4);
    // An empty result has no blocks, but its text divides by their number all the same.
    let (rows, columns) = (x.m.div_ceil(4).max(1), x.n.div_ceil(4).max(1));
    let blocks = x.batch * x.m.div_ceil(4) * x.n.div_ceil(4);
    let workgroups = blocks.div_ceil(64).min(target.max_workgroups as usize);
    code.line("@compute @workgroup_size(64)");
    code.open("fn main(@builtin(global_invocation_id) id: vec3<u32>)");
    code.open(format!("for (var block = id.x; block < {blocks}u; block += {}u)", 64 * workgroups));
    code.line(format!("let b = block / {}u;", rows * columns));
    code.line(format!("let m = block / {columns}u % {rows}u * 4u;"));
    code.line(format!("let n = block % {columns}u * 4u;"));
    // Beyond the edge the last row or column is computed again, and not kept.
    let clamped = |name: &str, dim: usize, i: usize| match (i, dim % 4) {
        (0, _) => name.to_string(),
        (_, 0) => format!("{name} + {i}u"),
        _ => format!("min({name} + {i}u, {}u)", dim - 1),
    };
    for i in 0..4 {
        code.line(format!("var acc{i} = vec4<f32>();"));
    }
    code.open(format!("for (var k = 0u; k < {}u; k++)", x.k));
    let columns: Vec<String> = (0..4).map(|i| format!("rhs(b, k, {})", clamped("n", x.n, i))).collect();
    code.line(format!("let r = vec4<f32>({});", columns.join(", ")));
    for i in 0..4 {
        code.line(format!("acc{i} += lhs(b, {}, k) * r;", clamped("m", x.m, i)));
    }
    code.close();
    code.line("finish(b, m, n, acc0);");
    for i in 1..4 {
        let finish = format!("finish(b, m + {i}u, n, acc{i});");
        match x.m % 4 {
            0 => code.line(finish),
            _ => {
                code.open(format!("if (m + {i}u < {}u)", x.m));
                code.line(finish);
                code.close();
            }
        }
    }
    code.close();
    code.close();
    (code.into_text(), workgroups as u32)
}
