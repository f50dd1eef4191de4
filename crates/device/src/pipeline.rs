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
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
        each(&missing, threads, |shader| match self.compile(shader) {
            Ok(pipeline) => drop(lock(&self.pipelines).insert(shader.wgsl.clone(), pipeline)),
            Err(error) => drop(lock(&failed).insert(&shader.wgsl, error)),
        });
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
        let descriptor = wgpu::ShaderModuleDescriptor { label, source };
        // SAFETY: every loop that emission writes is counted, and every index is below the argument's
        // numel, which the tape compares with the bound buffer; gathered indices are clamped. The windows on an
        // argument cover it, each all of the indices for which it is chosen.
        let module = unsafe { device.create_shader_module_trusted(descriptor, checks(self.checked)) };
        let (layout, pipeline_layout) = self.layout(shader);
        self.gpu.made().pipelines += 1;
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label,
            layout: Some(&pipeline_layout),
            module: &module,
            entry_point: Some("main"),
            compilation_options: compilation(),
            cache: self.kept.as_ref().map(Kept::cache),
        });
        Pipeline { pipeline, layout }
    }

    fn layout(&self, shader: &Shader) -> (wgpu::BindGroupLayout, wgpu::PipelineLayout) {
        lock(&self.layouts)
            .entry(key(shader))
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

/// Calls `work` with each of the items, on so many threads at most.
fn each<T: Sync>(items: &[T], threads: usize, work: impl Fn(&T) + Sync) {
    let next = AtomicUsize::new(0);
    let some = || {
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            work(item);
        }
    };
    match threads.min(items.len()) {
        0 | 1 => some(),
        threads => std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(some)))),
    }
}

/// What is added to a shader's text against mistakes in it.
fn checks(checked: bool) -> wgpu::ShaderRuntimeChecks {
    wgpu::ShaderRuntimeChecks {
        // A counter in every loop, against loops that our emission does not write.
        force_loop_bounding: false,
        ..if checked { wgpu::ShaderRuntimeChecks::checked() } else { wgpu::ShaderRuntimeChecks::unchecked() }
    }
}

/// Every kernel writes workgroup memory before it reads it.
fn compilation() -> wgpu::PipelineCompilationOptions<'static> {
    wgpu::PipelineCompilationOptions { zero_initialize_workgroup_memory: false, ..Default::default() }
}

/// What is only read is bound so: kernels that share it then need no barrier between them.
fn key(shader: &Shader) -> LayoutKey {
    (shader.bindings.iter().map(|b| shader.args[b.arg].access != Access::Read).collect(), shader.scalars > 0)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Condvar;
    use std::time::Duration;

    use super::*;
    use crate::emit::{self, Target};
    use crate::probe::Probe;

    /// Each item waits for a second one to be begun, as it is by another thread.
    #[test]
    fn several_are_compiled_at_a_time() {
        let (begun, met) = (Mutex::new(HashSet::new()), Condvar::new());
        let items: Vec<usize> = (0..8).collect();
        let done = Mutex::new(Vec::new());
        each(&items, 2, |item| {
            lock(&begun).insert(std::thread::current().id());
            met.notify_all();
            let (both, _) =
                met.wait_timeout_while(lock(&begun), Duration::from_secs(10), |begun| begun.len() < 2).unwrap();
            assert_eq!(both.len(), 2);
            drop(both);
            lock(&done).push(*item);
        });
        let mut done = done.into_inner().unwrap();
        done.sort_unstable();
        assert_eq!(done, items);
        // One alone is done here.
        let here = std::thread::current().id();
        each(&[()], 2, |()| assert_eq!(std::thread::current().id(), here));
    }

    #[test]
    fn nothing_is_checked_or_zeroed_where_it_costs() {
        let unchecked = checks(false);
        assert!(!unchecked.bounds_checks && !unchecked.force_loop_bounding);
        assert!(checks(true).bounds_checks && !checks(true).force_loop_bounding);
        assert!(!compilation().zero_initialize_workgroup_memory);
        assert_eq!(crate::Options::default().checked, cfg!(debug_assertions));
    }

    #[test]
    fn what_is_only_read_is_bound_so() {
        let shader = emit::emit(&Probe::ALL[0].kernel(), &Target::default()).unwrap();
        assert_eq!(key(&shader), (vec![false, false, true], false));
    }
}
