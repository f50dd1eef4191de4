//! Compiled kernels: shader text to pipeline, once for each text, several at a time.
//!
//! The caches are keyed by the text itself, so two kernels that differ only in what emission ignores
//! share a pipeline. Bind group layouts are explicit: wgpu's automatic ones never fit another pipeline.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use kiln_ir::kernel::Access;
use kiln_ir::{Error, ErrorKind, Result};

use crate::emit::Shader;
use crate::gpu::{Gpu, lock};
use crate::kept::Kept;

/// A kernel that can be dispatched.
#[derive(Clone)]
pub(crate) struct Pipeline {
    pub(crate) pipeline: wgpu::ComputePipeline,
    pub(crate) layout: wgpu::BindGroupLayout,
}

/// Which arguments are written, and whether a uniform block follows them.
type LayoutKey = (Vec<bool>, bool);

/// The pipelines of a device.
pub(crate) struct Pipelines {
    gpu: Arc<Gpu>,
    checked: bool,
    pipelines: Mutex<HashMap<String, Pipeline>>,
    layouts: Mutex<HashMap<LayoutKey, (wgpu::BindGroupLayout, wgpu::PipelineLayout)>>,
    /// Those of earlier processes, where the driver gives them away.
    kept: Option<Kept>,
}

impl Pipelines {
    /// With a directory in which pipelines are kept.
    pub(crate) fn new(gpu: Arc<Gpu>, checked: bool, directory: Option<&Path>) -> Pipelines {
        let kept = directory.and_then(|directory| Kept::open(&gpu, directory));
        Pipelines { gpu, checked, pipelines: Mutex::default(), layouts: Mutex::default(), kept }
    }

    /// True iff they are kept for later processes.
    pub(crate) fn are_kept(&self) -> bool {
        self.kept.is_some()
    }

    /// The pipelines of these shaders, in their order.
    pub(crate) fn get(&self, shaders: &[Shader]) -> Vec<Result<Pipeline>> {
        let mut missing: Vec<&Shader> = Vec::new();
        {
            let known = lock(&self.pipelines);
            for shader in shaders {
                if !known.contains_key(&shader.wgsl) && missing.iter().all(|m| m.wgsl != shader.wgsl) {
                    missing.push(shader);
                }
            }
        }
        let failed: Mutex<HashMap<&str, Error>> = Mutex::default();
        let next = AtomicUsize::new(0);
        let work = || {
            while let Some(shader) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
                match self.compile(shader) {
                    Ok(pipeline) => drop(lock(&self.pipelines).insert(shader.wgsl.clone(), pipeline)),
                    Err(error) => drop(lock(&failed).insert(&shader.wgsl, error)),
                }
            }
        };
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get()).min(missing.len());
        match threads {
            0 | 1 => work(),
            _ => std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work)))),
        }
        if let Some(kept) = self.kept.as_ref().filter(|_| !missing.is_empty()) {
            kept.save();
        }
        let (known, failed) = (lock(&self.pipelines), lock(&failed));
        let of = |shader: &Shader| match (known.get(&shader.wgsl), failed.get(shader.wgsl.as_str())) {
            (Some(pipeline), _) => Ok(pipeline.clone()),
            (None, Some(error)) => Err(error.clone()),
            (None, None) => Err(Error::new(ErrorKind::Kernel, format!("{}: was not compiled", shader.name))),
        };
        shaders.iter().map(of).collect()
    }

    fn compile(&self, shader: &Shader) -> Result<Pipeline> {
        self.gpu.check()?;
        // naga's writers panic on what their authors did not foresee; then the kernel is at fault, not the process.
        let made = catch_unwind(AssertUnwindSafe(|| self.gpu.scoped(|| self.create(shader))));
        let explain = |why: String| {
            Error::new(ErrorKind::Kernel, format!("{}: the kernel was rejected: {why}\n{}", shader.name, shader.wgsl))
        };
        match made {
            Ok(Ok(pipeline)) => Ok(pipeline),
            Ok(Err(error)) if error.kind() == ErrorKind::Kernel => Err(explain(error.to_string())),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(explain("the shader compiler panicked".into())),
        }
    }

    fn create(&self, shader: &Shader) -> Pipeline {
        let device = &self.gpu.device;
        let label = Some(shader.name.as_str());
        let source = wgpu::ShaderSource::Wgsl(shader.wgsl.as_str().into());
        let checks = wgpu::ShaderRuntimeChecks {
            // A counter in every loop, against loops that our emission does not write.
            force_loop_bounding: false,
            ..if self.checked { wgpu::ShaderRuntimeChecks::checked() } else { wgpu::ShaderRuntimeChecks::unchecked() }
        };
        let descriptor = wgpu::ShaderModuleDescriptor { label, source };
        // SAFETY: every loop that emission writes is counted, and every index is below the argument's
        // numel, which the tape compares with the bound buffer; gathered indices are clamped. The windows on an
        // argument cover it, each all of the indices for which it is chosen.
        let module = unsafe { device.create_shader_module_trusted(descriptor, checks) };
        let (layout, pipeline_layout) = self.layout(shader);
        self.gpu.made().pipelines += 1;
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label,
            layout: Some(&pipeline_layout),
            module: &module,
            entry_point: Some("main"),
            // Every kernel writes workgroup memory before it reads it.
            compilation_options: wgpu::PipelineCompilationOptions {
                zero_initialize_workgroup_memory: false,
                ..Default::default()
            },
            cache: self.kept.as_ref().map(Kept::cache),
        });
        Pipeline { pipeline, layout }
    }

    fn layout(&self, shader: &Shader) -> (wgpu::BindGroupLayout, wgpu::PipelineLayout) {
        let key =
            (shader.bindings.iter().map(|b| shader.args[b.arg].access != Access::Read).collect(), shader.scalars > 0);
        lock(&self.layouts)
            .entry(key)
            .or_insert_with_key(|(written, scalars)| self.create_layout(written, *scalars))
            .clone()
    }

    fn create_layout(&self, written: &[bool], scalars: bool) -> (wgpu::BindGroupLayout, wgpu::PipelineLayout) {
        let storage = written.iter().map(|&written| wgpu::BufferBindingType::Storage { read_only: !written });
        let kinds = storage.chain(scalars.then_some(wgpu::BufferBindingType::Uniform));
        let entry = |(binding, ty): (usize, wgpu::BufferBindingType)| wgpu::BindGroupLayoutEntry {
            binding: binding as u32,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
            count: None,
        };
        let entries: Vec<wgpu::BindGroupLayoutEntry> = kinds.enumerate().map(entry).collect();
        let device = &self.gpu.device;
        let label = Some("kernel arguments");
        let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label, entries: &entries });
        let pipeline = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label,
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        });
        (layout, pipeline)
    }
}
