//! The backend: kernels on wgpu, behind the trait that the CPU backend shares.

use std::collections::HashMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, Weak};

use kiln_ir::{
    Backend, Buffer, Caps, DType, Error, ErrorKind, Executable, Fence, Kernel, KernelTime, Readback, Reject, Result,
    Slot, Step, Tape,
};

use crate::adapter::{self, AdapterInfo, AdapterKind};
use crate::emit::{self, Schedule, Shader, Target};
use crate::emitted::Emitted;
use crate::gpu::{Gpu, Made, lock};
use crate::known;
use crate::memory::{Memory, Pool, bin};
use crate::pipeline::Pipelines;
use crate::probe::Probe;
use crate::profile::Profiler;
use crate::quirks::Quirk;
use crate::tape::{Exe, Recorded, accesses_match};

/// How a backend runs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// Time every kernel, for [`Backend::take_times`]: then each has a pass of its own.
    pub profile: bool,
    /// Which schedules kernels get.
    pub schedule: Schedule,
    /// Check indices and integer divisions in shaders; by default, in debug builds.
    pub checked: bool,
    /// Where pipelines are kept for later processes, if the driver can; by default, nowhere.
    pub kept: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Options {
        Options { profile: false, schedule: Schedule::Auto, checked: cfg!(debug_assertions), kept: None }
    }
}

/// A device reached through wgpu.
pub struct WgpuBackend {
    info: AdapterInfo,
    caps: Caps,
    /// With the matrices that the driver lists.
    listed: Target,
    /// Without matrices.
    plain: Target,
    /// Whether the listed matrices multiply as they should; asked for before a kernel on them is handed out.
    matrices: OnceLock<bool>,
    emitted: Emitted,
    pool: Arc<Pool>,
    pipelines: Pipelines,
    profiler: Option<Profiler>,
    /// Temporaries of all tapes; those of one size are the same for each, since replays are ordered.
    temps: Mutex<HashMap<u64, Vec<Weak<Memory>>>>,
    /// Held while a replay writes its scalars and submits.
    replaying: Mutex<()>,
}

impl WgpuBackend {
    /// The first real GPU; `None` if there is none.
    ///
    /// # Errors
    /// If there is one, but it gives no device.
    pub fn best(options: Options) -> Result<Option<WgpuBackend>> {
        match adapter::adapters().first() {
            Some(info) if info.kind != AdapterKind::Cpu => WgpuBackend::gpu(0, options).map(Some),
            _ => Ok(None),
        }
    }

    /// The n-th of [`adapters`](crate::adapters): real GPUs come first, software last.
    ///
    /// # Errors
    /// If there is no such adapter, with a list of those that were found, or it gives no device.
    pub fn gpu(n: usize, options: Options) -> Result<WgpuBackend> {
        let (device, queue, info) = adapter::open(n)?;
        Ok(WgpuBackend::new(device, queue, info, options))
    }

    /// A device that the caller opened. Its error handler and device-lost callback are replaced, and
    /// its limits bound what kernels it can run. Which matrices it has only its adapter knows: it uses none.
    pub fn from_wgpu(device: wgpu::Device, queue: wgpu::Queue, options: Options) -> WgpuBackend {
        let info = adapter::info(&device.adapter_info());
        WgpuBackend::new(device, queue, info, options)
    }

    fn new(device: wgpu::Device, queue: wgpu::Queue, info: AdapterInfo, options: Options) -> WgpuBackend {
        let (limits, adapter) = (device.limits(), device.adapter_info());
        let plain = Target {
            parts: known::parts(&info),
            software: Quirk::BarriersCost.is_of(&adapter),
            // A few of the 65,535 are spare: turns are counted about.
            max_turns: if Quirk::LoopsEnd.is_of(&adapter) { 65_000 } else { usize::MAX },
            max_invocations: limits.max_compute_invocations_per_workgroup.min(limits.max_compute_workgroup_size_x),
            max_workgroup_bytes: limits.max_compute_workgroup_storage_size,
            max_workgroups: limits.max_compute_workgroups_per_dimension,
            // Layouts are tables; beyond this a kernel gains nothing from more.
            max_bindings: limits.max_storage_buffers_per_shader_stage.min(64) as usize,
            max_binding_bytes: limits.max_storage_buffer_binding_size,
            schedule: options.schedule,
            matrix: None,
        };
        let gpu = Arc::new(Gpu::new(device, queue));
        WgpuBackend {
            caps: caps(&info, &plain),
            listed: Target { matrix: info.matrix, ..plain.clone() },
            plain,
            matrices: OnceLock::new(),
            emitted: Emitted::default(),
            info,
            pool: Arc::new(Pool::new(gpu.clone())),
            pipelines: Pipelines::new(gpu, options.checked, options.kept.as_deref()),
            profiler: options.profile.then(Profiler::default),
            temps: Mutex::default(),
            replaying: Mutex::default(),
        }
    }

    /// The adapter behind this device.
    pub fn info(&self) -> &AdapterInfo {
        &self.info
    }

    /// What this device's kernels are emitted for.
    pub fn target(&self) -> &Target {
        let works = || self.listed.matrix.is_none() || self.matrices_work();
        if works() { &self.listed } else { &self.plain }
    }

    /// The kernel as this device runs it.
    fn emit(&self, kernel: &Kernel) -> Result<Shader, Reject> {
        let shader = self.listed(kernel, Clone::clone)?;
        match shader.uses_matrices() && !self.matrices_work() {
            true => emit::emit(kernel, &self.plain),
            false => Ok(shader),
        }
    }

    /// What `look` makes of the kernel with the matrices that the driver lists.
    fn listed<T>(&self, kernel: &Kernel, look: impl FnOnce(&Result<Shader, Reject>) -> T) -> T {
        self.emitted.ask(kernel.key(), || emit::emit(kernel, &self.listed), look)
    }

    /// True iff products on matrices came out right on this device, which is tried once.
    fn matrices_work(&self) -> bool {
        *self.matrices.get_or_init(|| {
            let failed = Probe::ALL.iter().find_map(|probe| self.try_matrices(probe).err());
            if let Some(why) = &failed {
                log::warn!("{}: no cooperative matrices are used: {why}", self.caps.name);
            }
            failed.is_none()
        })
    }

    /// Runs a product that is known on the listed matrices.
    fn try_matrices(&self, probe: &Probe) -> Result<()> {
        let target = Target { schedule: Schedule::Shared, ..self.listed.clone() };
        let kernel = probe.kernel();
        let refuse = |why| Error::new(ErrorKind::Unsupported, format!("{why:?}"));
        let shader = emit::emit(&kernel, &target).map_err(refuse)?;
        let pipeline = self.pipelines.get(std::slice::from_ref(&shader)).remove(0)?;
        let exe = Executable::new(Exe { shader, pipeline });
        let mut buffers = Vec::new();
        for bytes in probe.args() {
            let buffer = self.alloc(bytes.len() as u64)?;
            self.write(&buffer, 0, &bytes)?;
            buffers.push(buffer);
        }
        let binds = kernel.args().iter().enumerate().map(|(n, arg)| (Slot::Arg(n as u32), arg.access)).collect();
        let tape = self.record(&[Step { exe, binds, scalars: Vec::new() }], &[])?;
        self.replay(&tape, &buffers, &[])?.wait()?;
        let result = buffers.last().expect("a product has a result");
        probe.check(&self.read(result, 0..result.bytes()).wait()?)
    }

    /// How many objects of wgpu's were made so far.
    pub fn made(&self) -> Made {
        *self.pool.gpu.made()
    }

    /// The device itself, for tests.
    #[cfg(test)]
    pub(crate) fn device(&self) -> &Gpu {
        &self.pool.gpu
    }

    /// True iff pipelines are kept for later processes: they are on disk when the backend is dropped, mostly sooner.
    pub fn keeps_pipelines(&self) -> bool {
        self.pipelines.are_kept()
    }

    /// Waits until everything submitted is done.
    ///
    /// # Errors
    /// If the device failed.
    pub fn wait(&self) -> Result<()> {
        let ticket = self.pool.gpu.line.submit(None);
        self.pool.gpu.wait(ticket)
    }

    /// The n-th shared temporary of a size.
    fn temp(&self, bytes: u64, n: usize) -> Result<Arc<Memory>> {
        let mut temps = lock(&self.temps);
        let same_size = temps.entry(bytes).or_default();
        same_size.resize_with(same_size.len().max(n + 1), Weak::new);
        if let Some(found) = same_size[n].upgrade() {
            return Ok(found);
        }
        let made = Arc::new(self.pool.storage(bytes)?);
        same_size[n] = Arc::downgrade(&made);
        Ok(made)
    }
}

/// Rates are what devices of each kind have at least in common: they weigh memory against arithmetic before fusion.
fn caps(info: &AdapterInfo, target: &Target) -> Caps {
    let (flops, bandwidth) = match info.kind {
        AdapterKind::Discrete | AdapterKind::Virtual => (1e13, 4e11),
        AdapterKind::Integrated | AdapterKind::Other => (1e12, 5e10),
        AdapterKind::Cpu => (1e10, 1e10),
    };
    let lanes = if info.kind == AdapterKind::Cpu { 1 } else { target.busy() };
    Caps {
        name: info.to_string(),
        dtypes: DType::ALL.into_iter().filter(|&t| t != DType::F64).collect(),
        max_bindings: target.max_bindings,
        max_binding_bytes: target.max_binding_bytes,
        max_workgroups: target.max_workgroups,
        bool_bytes: 4,
        lanes,
        flops,
        bandwidth,
    }
}

impl Backend for WgpuBackend {
    fn caps(&self) -> &Caps {
        &self.caps
    }

    fn supports(&self, kernel: &Kernel) -> Result<(), Reject> {
        // Schedules differ in nothing that a planner asks.
        self.listed(kernel, |answer| answer.as_ref().map(|_| ()).map_err(Clone::clone))
    }

    fn alloc(&self, bytes: u64) -> Result<Buffer> {
        self.pool.gpu.check()?;
        let bytes = bytes.next_multiple_of(4).max(4);
        Ok(Buffer::new(bytes, self.pool.storage(bytes)?))
    }

    fn write(&self, dst: &Buffer, at: u64, data: &[u8]) -> Result<()> {
        self.pool.gpu.check()?;
        let end = at + data.len() as u64;
        assert!(end <= dst.bytes(), "write: bytes {at}..{end} of a buffer of {}", dst.bytes());
        let buffer = &dst.memory::<Memory>().buffer;
        let whole = data.len() / 4 * 4;
        if at.is_multiple_of(4) && (whole == data.len() || end + 4 > dst.bytes()) {
            self.pool.gpu.line.write(buffer, at, &data[..whole]);
            let mut tail = [0; 4];
            tail[..data.len() - whole].copy_from_slice(&data[whole..]);
            if whole < data.len() {
                self.pool.gpu.line.write(buffer, at + whole as u64, &tail);
            }
            return self.pool.gpu.ask();
        }
        // Part of a word: what else is in the words at both ends has to be fetched.
        let words = at / 4 * 4..end.next_multiple_of(4);
        let mut bytes = self.pool.read(buffer, words.clone()).wait()?;
        let skip = (at - words.start) as usize;
        bytes[skip..skip + data.len()].copy_from_slice(data);
        self.pool.gpu.line.write(buffer, words.start, &bytes);
        self.pool.gpu.ask()
    }

    fn read(&self, src: &Buffer, range: Range<u64>) -> Readback {
        assert!(range.end <= src.bytes(), "read: bytes {range:?} of a buffer of {}", src.bytes());
        self.pool.read(&src.memory::<Memory>().buffer, range)
    }

    fn compile(&self, kernels: &[Kernel]) -> Vec<Result<Executable>> {
        let emitted: Vec<Result<Shader, Reject>> = kernels.iter().map(|k| self.emit(k)).collect();
        let shaders: Vec<Shader> = emitted.iter().flatten().cloned().collect();
        let mut pipelines = self.pipelines.get(&shaders).into_iter();
        let finish = |emitted: Result<Shader, Reject>| {
            let refuse = |why| Error::new(ErrorKind::Unsupported, format!("{}: {why:?}", self.caps.name));
            let shader = emitted.map_err(refuse)?;
            let pipeline = pipelines.next().expect("one pipeline for each shader")?;
            Ok(Executable::new(Exe { shader, pipeline }))
        };
        emitted.into_iter().map(finish).collect()
    }

    fn source(&self, exe: &Executable) -> Option<String> {
        Some(exe.get::<Exe>().shader.wgsl.clone())
    }

    fn take_times(&self) -> Result<Vec<KernelTime>> {
        self.profiler.as_ref().map_or(Ok(Vec::new()), |profiler| profiler.take(&self.pool))
    }

    fn record(&self, steps: &[Step], temps: &[u64]) -> Result<Tape> {
        self.pool.gpu.check()?;
        if let Some(step) = steps.iter().find(|step| !accesses_match(step)) {
            let name = &step.exe.get::<Exe>().shader.name;
            return Err(Error::new(
                ErrorKind::Kernel,
                format!("{name}: bound for another access than it was compiled for"),
            ));
        }
        let mut used: HashMap<u64, usize> = HashMap::new();
        let mut take = |bytes: &u64| {
            let size = bin(*bytes);
            let n = used.entry(size).or_default();
            *n += 1;
            self.temp(size, *n - 1)
        };
        let temps = temps.iter().map(&mut take).collect::<Result<Vec<_>>>()?;
        Ok(Tape::new(Recorded::new(&self.pool, &self.caps, steps, temps)?))
    }

    fn replay(&self, tape: &Tape, args: &[Buffer], scalars: &[u32]) -> Result<Fence> {
        self.pool.gpu.check()?;
        let replaying = lock(&self.replaying);
        let ticket = tape.get::<Recorded>().replay(&self.pool, args, scalars, self.profiler.as_ref())?;
        drop(replaying);
        let gpu = self.pool.gpu.clone();
        Ok(Fence::new(move || gpu.wait(ticket)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emit::Matrix;

    /// A device whose matrices fail, since it was opened without them.
    #[test]
    fn matrices_that_fail_are_not_used() {
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
        let Ok(adapter) = pollster::block_on(instance.request_adapter(&wgpu::RequestAdapterOptions::default())) else {
            assert!(std::env::var_os("KILN_REQUIRE_GPU").is_none(), "KILN_REQUIRE_GPU is set and there is no adapter");
            return println!("skipped: no adapter");
        };
        let descriptor = wgpu::DeviceDescriptor { required_limits: adapter.limits(), ..Default::default() };
        let (device, queue) = pollster::block_on(adapter.request_device(&descriptor)).unwrap();
        let matrix = Some(Matrix { size: 16, subgroup: 32 });
        let info = AdapterInfo { matrix, ..adapter::of(&adapter) };
        let options = Options { schedule: Schedule::Shared, ..Options::default() };
        let backend = WgpuBackend::new(device, queue, info, options);
        for probe in &Probe::ALL {
            let kernel = probe.kernel();
            assert!(emit::emit(&kernel, &backend.listed).unwrap().uses_matrices());
            assert!(backend.try_matrices(probe).is_err());
            let exe = backend.compile(&[kernel]).remove(0).unwrap();
            assert!(!exe.get::<Exe>().shader.uses_matrices());
        }
        assert_eq!(backend.target().matrix, None);
    }

    /// The probe's own product, on the schedule without matrices: the check accepts what is right.
    #[test]
    fn what_a_probe_expects_is_the_product() {
        if crate::adapters().is_empty() {
            return println!("skipped: no adapter");
        }
        let mut backend = WgpuBackend::gpu(0, Options::default()).unwrap();
        backend.listed.matrix = None;
        for probe in &Probe::ALL {
            backend.try_matrices(probe).unwrap();
        }
    }
}
