//! Seeing inside: what a new plan prints and writes when the environment asks.

use std::path::Path;

use kiln_ir::Graph;

use crate::env::Env;
use crate::plan::Plan;

/// Prints and writes a new plan as `KILN_DEBUG` and `KILN_DUMP` ask.
pub(crate) fn planned(env: &Env, graph: &Graph, plan: &Plan) {
    if env.debug >= 5 {
        eprint!("{graph}");
    }
    if env.debug >= 2 {
        eprint!("{}", describe(graph, plan));
    }
    if env.debug >= 3 {
        plan.notes.iter().for_each(|note| eprintln!("    {note}"));
    }
    if let Some(dir) = &env.dump
        && let Err(error) = dump(dir, graph, plan)
    {
        eprintln!("KILN_DUMP: {}: {error}", dir.display());
    }
}

/// The plan, with the user's line behind each kernel.
pub(crate) fn describe(graph: &Graph, plan: &Plan) -> String {
    let mut text = String::new();
    for (line, n) in plan.to_string().lines().zip(0..) {
        text.push_str(line);
        let step = plan.steps.get(n as usize);
        let last = step.and_then(|s| s.stores.last()).and_then(|&id| graph.nodes[id as usize].location);
        if let Some(at) = last {
            text.push_str(&format!("  at {}:{}", at.file(), at.line()));
        }
        text.push('\n');
    }
    text
}

fn dump(dir: &Path, graph: &Graph, plan: &Plan) -> std::io::Result<()> {
    std::fs::create_dir_all(dir)?;
    std::fs::write(dir.join("graph.txt"), graph.to_string())?;
    std::fs::write(dir.join("graph.dot"), dot(graph))?;
    std::fs::write(dir.join("plan.txt"), describe(graph, plan))?;
    for (n, step) in plan.steps.iter().enumerate() {
        std::fs::write(dir.join(format!("{n:03}_{}.txt", step.name)), format!("{:#?}\n", step.kernel))?;
    }
    Ok(())
}

/// The graph in Graphviz' language.
fn dot(graph: &Graph) -> String {
    let mut text = String::from("digraph kiln {\n");
    for (id, node) in graph.nodes.iter().enumerate() {
        text.push_str(&format!("  n{id} [label=\"{} {}{}\"];\n", node.op.name(), node.dtype, node.shape));
        node.inputs.iter().for_each(|i| text.push_str(&format!("  n{i} -> n{id};\n")));
    }
    text.push_str("}\n");
    text
}
