//! Seeing inside: what a new plan prints and writes when the environment asks.

use std::path::Path;

use kiln_ir::{Caps, Graph, Step};

use crate::Device;
use crate::env::Env;
use crate::plan::Plan;

/// Says at `KILN_DEBUG=1` what a new device can do.
pub(crate) fn opened(env: &Env, caps: &Caps) {
    if env.debug >= 1 {
        let dtypes: Vec<&str> = caps.dtypes.iter().map(|t| t.name()).collect();
        eprintln!("{}: {}", caps.name, dtypes.join(" "));
        let (bindings, bytes, workgroups) = (caps.max_bindings, caps.max_binding_bytes, caps.max_workgroups);
        eprintln!("  {bindings} bindings a kernel, {bytes} bytes a binding, {workgroups} workgroups a dispatch");
    }
}

/// Says why a program needs a new plan; always, if its family took too many.
pub(crate) fn missed(device: &Device, why: Option<&str>, too_many: bool) {
    let Some(why) = why else { return };
    if too_many {
        eprintln!(
            "kiln: programs that differ in dims only keep taking new plans, the last for {why}; help: pad to one size"
        );
    } else if device.env().debug >= 1 {
        eprintln!("new plan: {why}");
    }
}

/// Prints and writes the `n`-th plan of a device, compiled, as `KILN_DEBUG` and `KILN_DUMP` ask.
pub(crate) fn planned(device: &Device, n: usize, plan: &Plan, steps: &[Step]) {
    let (env, graph) = (device.env(), &plan.graph);
    if env.debug >= 5 {
        eprint!("{graph}");
    }
    if env.debug >= 2 {
        eprint!("{}", describe(plan));
    }
    let sources = || steps.iter().map(|s| device.backend().source(&s.exe));
    if env.debug >= 4 {
        sources().flatten().for_each(|text| eprintln!("{text}"));
    }
    if let Some(dir) = env.dump_of(n)
        && let Err(error) = dump(&dir, plan, sources())
    {
        eprintln!("KILN_DUMP: {}: {error}", dir.display());
    }
}

/// The plan, with the user's line behind each kernel, and its notes before the summary.
pub(crate) fn describe(plan: &Plan) -> String {
    let mut text = String::new();
    for (line, n) in plan.to_string().lines().zip(0..) {
        let step = plan.steps.get(n);
        if step.is_none() {
            plan.notes.iter().for_each(|note| text.push_str(&format!("      {note}\n")));
        }
        text.push_str(line);
        let place = step.and_then(|s| s.stores.last()).map(|&id| plan.graph.nodes[id as usize].place());
        if let Some(place) = place.filter(|place| !place.is_empty()) {
            text.push_str(&format!(" {place}"));
        }
        text.push('\n');
    }
    text
}

fn dump(dir: &Path, plan: &Plan, sources: impl Iterator<Item = Option<String>>) -> std::io::Result<()> {
    std::fs::create_dir_all(dir)?;
    std::fs::write(dir.join("graph.txt"), plan.graph.to_string())?;
    std::fs::write(dir.join("graph.dot"), dot(&plan.graph))?;
    std::fs::write(dir.join("plan.txt"), describe(plan))?;
    for (n, (step, source)) in plan.steps.iter().zip(sources).enumerate() {
        let file = |end: &str| dir.join(format!("{n:03}_{}.{end}", step.name));
        std::fs::write(file("txt"), format!("{:#?}\n", step.kernel))?;
        if let Some(text) = source {
            std::fs::write(file("wgsl"), text)?;
        }
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
