//! Cooperative matrices for devices without them: operands are read from the tile when they are
//! multiplied, and an invocation has half a row of the sums.
//!
//! The text of a kernel stays as it is, but for the names that stand for matrices.

use kiln_device::emit::Shader;
use kiln_ir::Kernel;
use kiln_ir::kernel::{Access, Dot};

use crate::harness::{close, decode, encode};
use crate::oracle;

/// The kernel's text with functions in place of what only matrices have.
fn replaced(wgsl: &str) -> String {
    let mut text = String::new();
    for line in wgsl.lines().filter(|line| !line.contains("enable wgpu_cooperative_matrix")) {
        let mut line =
            line.replace("coop_mat16x16<f32, C>()", "mat2x4<f32>()").replace("coopMultiplyAdd", "multiply_add");
        for (role, tile) in [("A", "lhs_tile"), ("B", "rhs_tile")] {
            for (load, by_rows) in [("coopLoadT", "1u"), ("coopLoad", "0u")] {
                let call = format!("{load}<coop_mat16x16<f16, {role}>>(&{tile}[");
                if line.contains(&call) {
                    line = line.replace(&call, &format!("vec3<u32>({by_rows}, ")).replace("], ", ", ");
                }
            }
        }
        for into in ["kept", "a2"] {
            if line.contains(&format!("&{into}[")) {
                line = line.replace("coopStoreT", &format!("store_{into}")).replace(&format!("&{into}["), "");
                line = line.replace("], ", ", ");
            }
        }
        text += &line;
        text.push('\n');
        if line.starts_with("fn main(") {
            text += "    lane = local % 32u;\n";
        }
    }
    assert!(!text.contains("coop"), "{text}");
    let stores_sums = text.contains("store_a2(");
    text + FUNCTIONS + if stores_sums { STORE_SUMS } else { STORE_KEPT }
}

/// Operands are whether they lie by rows, where in the tile, and how far apart lines are; sums are eight
/// neighbours of a row.
const FUNCTIONS: &str = "
var<private> lane: u32;

fn lhs_element(x: vec3<u32>, row: u32, column: u32) -> f32 {
    let line = select(column, row, x.x == 1u);
    let at = select(row, column, x.x == 1u);
    return f32(lhs_tile[x.y + line * x.z + at / 4u][at % 4u]);
}

fn rhs_element(x: vec3<u32>, row: u32, column: u32) -> f32 {
    let line = select(column, row, x.x == 1u);
    let at = select(row, column, x.x == 1u);
    return f32(rhs_tile[x.y + line * x.z + at / 4u][at % 4u]);
}

fn multiply_add(a: vec3<u32>, b: vec3<u32>, c: mat2x4<f32>) -> mat2x4<f32> {
    var sums = c;
    for (var k = 0u; k < 16u; k++) {
        let x = lhs_element(a, lane / 2u, k);
        for (var q = 0u; q < 2u; q++) {
            let first = lane % 2u * 8u + q * 4u;
            sums[q] += x * vec4<f32>(rhs_element(b, k, first), rhs_element(b, k, first + 1u),
                rhs_element(b, k, first + 2u), rhs_element(b, k, first + 3u));
        }
    }
    return sums;
}
";

const STORE_KEPT: &str = "
fn store_kept(sums: mat2x4<f32>, at: u32, pitch: u32) {
    kept[at + lane / 2u * pitch + lane % 2u * 2u] = sums[0];
    kept[at + lane / 2u * pitch + lane % 2u * 2u + 1u] = sums[1];
}
";

const STORE_SUMS: &str = "
fn store_a2(sums: mat2x4<f32>, at: u32, pitch: u32) {
    var own = sums;
    for (var i = 0u; i < 8u; i++) {
        a2[at + lane / 2u * pitch + lane % 2u * 8u + i] = own[i / 4u][i % 4u];
    }
}
";

/// Runs a kernel with stand-ins and compares its results with the oracle.
#[track_caller]
pub(crate) fn check(shader: &Shader, dot: &Dot, args: &[Vec<f64>], tolerance: f64) {
    let Some((device, queue)) = open() else { return println!("skipped: no adapter with f16") };
    let expected = oracle::run(&Kernel::Dot(dot.clone()), args, &[]);
    let wgsl = replaced(&shader.wgsl);
    let found = run(&device, &queue, shader, &wgsl, args);
    for (n, arg) in dot.args.iter().enumerate().filter(|(_, arg)| arg.access != Access::Read) {
        for (i, (&f, &e)) in found[n].iter().zip(&expected[n]).enumerate() {
            assert!(close(arg.dtype, f, e, tolerance), "a{n}[{i}]: {f} ≠ {e}\n{wgsl}");
        }
    }
}

fn open() -> Option<(wgpu::Device, wgpu::Queue)> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let adapter = pollster::block_on(instance.request_adapter(&wgpu::RequestAdapterOptions::default())).ok()?;
    let required_features = wgpu::Features::SHADER_F16;
    let descriptor =
        wgpu::DeviceDescriptor { required_features, required_limits: adapter.limits(), ..Default::default() };
    adapter
        .features()
        .contains(required_features)
        .then(|| pollster::block_on(adapter.request_device(&descriptor)).unwrap())
}

fn run(device: &wgpu::Device, queue: &wgpu::Queue, shader: &Shader, wgsl: &str, args: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
    let buffer = |bytes: &[u8], usage| {
        let size = bytes.len().next_multiple_of(4) as u64;
        let buffer =
            device.create_buffer(&wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: true });
        buffer.get_mapped_range_mut(..).unwrap().slice(..bytes.len()).copy_from_slice(bytes);
        buffer.unmap();
        buffer
    };
    let bytes: Vec<Vec<u8>> = shader.args.iter().zip(args).map(|(arg, v)| encode(arg.dtype, v)).collect();
    let buffers: Vec<wgpu::Buffer> = bytes.iter().map(|b| buffer(b, usage)).collect();
    let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
        label: None,
        source: wgpu::ShaderSource::Wgsl(wgsl.into()),
    });
    let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: None,
        layout: None,
        module: &module,
        entry_point: Some("main"),
        compilation_options: Default::default(),
        cache: None,
    });
    let entries: Vec<wgpu::BindGroupEntry> = buffers
        .iter()
        .enumerate()
        .map(|(n, b)| wgpu::BindGroupEntry { binding: n as u32, resource: b.as_entire_binding() })
        .collect();
    let layout = pipeline.get_bind_group_layout(0);
    let group =
        device.create_bind_group(&wgpu::BindGroupDescriptor { label: None, layout: &layout, entries: &entries });
    let mut encoder = device.create_command_encoder(&Default::default());
    let mut pass = encoder.begin_compute_pass(&Default::default());
    pass.set_pipeline(&pipeline);
    pass.set_bind_group(0, &group, &[]);
    pass.dispatch_workgroups(shader.workgroups, 1, 1);
    drop(pass);
    let staging = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
    let copies: Vec<wgpu::Buffer> = bytes.iter().map(|b| buffer(b, staging)).collect();
    for (from, to) in buffers.iter().zip(&copies) {
        encoder.copy_buffer_to_buffer(from, 0, to, 0, to.size());
    }
    queue.submit([encoder.finish()]);
    let read = |(arg, copy): (&kiln_ir::kernel::Arg, &wgpu::Buffer)| -> Vec<f64> {
        copy.slice(..).map_async(wgpu::MapMode::Read, |result| result.unwrap());
        device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
        let mut values = decode(arg.dtype, &copy.get_mapped_range(..).unwrap());
        values.truncate(arg.numel);
        values
    };
    shader.args.iter().zip(&copies).map(read).collect()
}
