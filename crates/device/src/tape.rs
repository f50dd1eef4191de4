//! Tapes: steps recorded once, replayed with other arguments.
//!
//! A replay writes the scalars of all steps at once, then submits one pass. Bind groups are kept for
//! the buffers that were seen, so a training loop whose buffers alternate creates none after a while.

use std::sync::{Arc, Mutex};

use kiln_ir::kernel::Access;
use kiln_ir::{Buffer, Caps, Error, ErrorKind, Result, Slot, Step};

use crate::emit::{Binding, Shader};
use crate::gpu::{Gpu, lock};
use crate::line::Ticket;
use crate::memory::{Memory, Pool};
use crate::pipeline::Pipeline;

/// A compiled kernel and how it is bound.
pub(crate) struct Exe {
    pub(crate) shader: Shader,
    pub(crate) pipeline: Pipeline,
}

/// A recorded sequence.
pub(crate) struct Recorded {
    steps: Vec<RecordedStep>,
    temps: Vec<Arc<Memory>>,
    /// The scalars of all steps, each step's at an aligned offset.
    uniforms: Option<Uniforms>,
    groups: Mutex<Groups>,
}

struct RecordedStep {
    exe: kiln_ir::Executable,
    /// A slot and the bytes that the kernel may touch, for each argument.
    binds: Vec<(Slot, u64)>,
    /// Byte offset among the uniforms.
    offset: u64,
}

struct Uniforms {
    buffer: wgpu::Buffer,
    /// For each word, its place among a replay's scalars; padding is `None`.
    words: Vec<Option<u32>>,
    last: Mutex<Vec<u8>>,
}

/// Bind groups by the serial numbers of the buffers in them, for each step.
#[derive(Default)]
struct Groups {
    generation: u64,
    steps: Vec<Vec<(Vec<u64>, wgpu::BindGroup)>>,
}

/// Steps of a sequence whose first ones are submitted before the others are recorded, so that the device starts early;
/// and how many those are. Recording takes 1 to 3 µs a step, a submission 12.
const LONG: usize = 48;
const FIRST: usize = 16;

/// Buffers seen in turn at one step: leaves that swap places, and the rotation of a pool.
const MAX_GROUPS: usize = 8;

impl Recorded {
    /// Fixes the sequence; step `n` may use any of these temporaries.
    pub(crate) fn new(pool: &Pool, caps: &Caps, steps: &[Step], temps: Vec<Arc<Memory>>) -> Result<Recorded> {
        let align = u64::from(pool.gpu.device.limits().min_uniform_buffer_offset_alignment).max(16);
        let mut words: Vec<Option<u32>> = Vec::new();
        let mut recorded = Vec::with_capacity(steps.len());
        for step in steps {
            let shader = &step.exe.get::<Exe>().shader;
            if step.binds.len() != shader.args.len() || step.scalars.len() < shader.scalars {
                let message = format!("{}: binds do not match the kernel's arguments", shader.name);
                return Err(Error::new(ErrorKind::Kernel, message));
            }
            let offset = 4 * words.len() as u64;
            if shader.scalars > 0 {
                words.extend(step.scalars[..shader.scalars].iter().map(|&n| Some(n)));
                words.resize((4 * words.len() as u64).next_multiple_of(align) as usize / 4, None);
            }
            let bytes = shader.args.iter().map(|arg| caps.bytes(arg.dtype, arg.numel));
            let binds = step.binds.iter().map(|b| b.0).zip(bytes).collect();
            recorded.push(RecordedStep { exe: step.exe.clone(), binds, offset });
        }
        let uniforms = (!words.is_empty()).then(|| {
            let descriptor = wgpu::BufferDescriptor {
                label: Some("scalars"),
                size: 4 * words.len() as u64,
                usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            };
            pool.gpu.made().buffers += 1;
            pool.gpu.scoped(|| pool.gpu.device.create_buffer(&descriptor))
        });
        let uniforms = uniforms.transpose()?.map(|buffer| Uniforms { buffer, words, last: Mutex::default() });
        Ok(Recorded { steps: recorded, temps, uniforms, groups: Mutex::default() })
    }

    /// Runs the sequence; the caller sees to it that replays are submitted one after the other.
    pub(crate) fn replay(
        &self,
        pool: &Pool,
        args: &[Buffer],
        scalars: &[u32],
        profiler: Option<&crate::profile::Profiler>,
    ) -> Result<Ticket> {
        let gpu = &pool.gpu;
        // Held while commands are written: groups are used where they are kept.
        let mut groups = lock(&self.groups);
        self.bind(pool, args, &mut groups)?;
        self.write_scalars(pool, scalars)?;
        let bound = self.steps.iter().zip(&groups.steps).filter(|(step, _)| step.exe().shader.workgroups > 0);
        let running = || bound.clone().map(|(step, known)| (step, &known.last().expect("`bind` placed it there").1));
        let ticket = match profiler {
            None => {
                let mut running = running();
                match self.steps.len() > LONG {
                    true => {
                        gpu.line.begin(|pass| dispatch(running.by_ref().take(FIRST), pass));
                        gpu.line.end(|pass| dispatch(running, pass))
                    }
                    false => gpu.line.take(|pass| dispatch(running, pass)),
                }
            }
            // A timestamp needs a pass of its own.
            Some(profiler) => {
                let names: Vec<&str> = running().map(|(step, _)| step.exe().shader.name.as_str()).collect();
                let queries = profiler.begin(gpu, &names);
                let mut encoder = encoder(gpu);
                for (n, (step, group)) in running().enumerate() {
                    let timestamp_writes = queries.as_ref().map(|q| q.writes(n as u32));
                    let label = Some(step.exe().shader.name.as_str());
                    let descriptor = wgpu::ComputePassDescriptor { label, timestamp_writes };
                    let mut pass = encoder.begin_compute_pass(&descriptor);
                    pass.set_pipeline(&step.exe().pipeline.pipeline);
                    step.dispatch(&mut pass, group);
                }
                if let Some(queries) = queries {
                    profiler.end(queries, &mut encoder);
                }
                gpu.line.submit(Some(encoder.finish()))
            }
        };
        // A group that could not be made must not be found again.
        gpu.ask().inspect_err(|_| *groups = Groups::default())?;
        Ok(ticket)
    }

    fn write_scalars(&self, pool: &Pool, scalars: &[u32]) -> Result<()> {
        let Some(uniforms) = &self.uniforms else { return Ok(()) };
        let missing = || Error::new(ErrorKind::Kernel, format!("replay: only {} scalars were given", scalars.len()));
        if uniforms.words.iter().flatten().any(|&n| n as usize >= scalars.len()) {
            return Err(missing());
        }
        let word = |n: &Option<u32>| n.map_or(0, |n| scalars[n as usize]).to_ne_bytes();
        let bytes: Vec<u8> = uniforms.words.iter().flat_map(word).collect();
        let mut last = lock(&uniforms.last);
        if *last != bytes {
            pool.gpu.line.write(&uniforms.buffer, 0, &bytes);
            *last = bytes;
        }
        Ok(())
    }

    /// Sees to it that the last group of each step is of these arguments.
    fn bind(&self, pool: &Pool, args: &[Buffer], groups: &mut Groups) -> Result<()> {
        // What the pool gave up must not live on in a bind group.
        if groups.generation != pool.generation() {
            *groups = Groups { generation: pool.generation(), steps: Vec::new() };
        }
        groups.steps.resize_with(self.steps.len(), Vec::new);
        for (step, known) in self.steps.iter().zip(&mut groups.steps) {
            let memory = |&(slot, bytes): &(Slot, u64)| self.memory(step, args, slot, bytes);
            let is_of = |(key, _): &(Vec<u64>, wgpu::BindGroup)| {
                key.iter().zip(&step.binds).all(|(&serial, bind)| memory(bind).is_ok_and(|m| m.0.serial == serial))
            };
            // Mostly it is the one that was used last, or that comes round again.
            match known.iter().rposition(is_of) {
                Some(at) => known[at..].rotate_left(1),
                None => {
                    let memories: Vec<(&Memory, u64)> = step.binds.iter().map(memory).collect::<Result<_>>()?;
                    if known.len() == MAX_GROUPS {
                        known.remove(0);
                    }
                    let serials = memories.iter().map(|m| m.0.serial).collect();
                    known.push((serials, self.group(pool, step, &memories)));
                }
            }
        }
        Ok(())
    }

    fn memory<'a>(
        &'a self,
        step: &RecordedStep,
        args: &'a [Buffer],
        slot: Slot,
        bytes: u64,
    ) -> Result<(&'a Memory, u64)> {
        let (memory, available) = match slot {
            Slot::Arg(n) => args.get(n as usize).map(|b| (b.memory::<Memory>(), b.bytes())),
            Slot::Temp(n) => self.temps.get(n as usize).map(|m| (&**m, m.buffer.size())),
        }
        .ok_or_else(|| Error::new(ErrorKind::Kernel, format!("{}: {slot:?} is not there", step.exe().shader.name)))?;
        if available < bytes {
            let message = format!("{}: {slot:?} has {available} bytes, needs {bytes}", step.exe().shader.name);
            return Err(Error::new(ErrorKind::Kernel, message));
        }
        Ok((memory, bytes))
    }

    fn group(&self, pool: &Pool, step: &RecordedStep, memories: &[(&Memory, u64)]) -> wgpu::BindGroup {
        let exe = step.exe();
        let binding = |buffer, offset, size| {
            wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer, offset, size: std::num::NonZeroU64::new(size) })
        };
        let of = |b: &Binding| binding(&memories[b.arg].0.buffer, b.bytes.start, b.bytes.end - b.bytes.start);
        let mut resources: Vec<_> = exe.shader.bindings.iter().map(of).collect();
        if let Some(uniforms) = self.uniforms.as_ref().filter(|_| exe.shader.scalars > 0) {
            let size = (4 * exe.shader.scalars as u64).next_multiple_of(16);
            resources.push(binding(&uniforms.buffer, step.offset, size));
        }
        let entry = |(n, resource)| wgpu::BindGroupEntry { binding: n as u32, resource };
        let entries: Vec<_> = resources.into_iter().enumerate().map(entry).collect();
        pool.gpu.made().bind_groups += 1;
        pool.gpu.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(&exe.shader.name),
            layout: &exe.pipeline.layout,
            entries: &entries,
        })
    }
}

fn encoder(gpu: &Gpu) -> wgpu::CommandEncoder {
    gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("replay") })
}

/// Dispatches steps with their groups.
fn dispatch<'a>(steps: impl Iterator<Item = (&'a RecordedStep, &'a wgpu::BindGroup)>, pass: &mut wgpu::ComputePass) {
    let mut last: Option<&Exe> = None;
    for (step, group) in steps {
        // Layers alike share a kernel.
        if !last.is_some_and(|last| std::ptr::eq(last, step.exe())) {
            pass.set_pipeline(&step.exe().pipeline.pipeline);
        }
        last = Some(step.exe());
        step.dispatch(pass, group);
    }
}

impl RecordedStep {
    fn exe(&self) -> &Exe {
        self.exe.get()
    }

    /// Dispatches the kernel, whose pipeline is set.
    fn dispatch(&self, pass: &mut wgpu::ComputePass<'_>, group: &wgpu::BindGroup) {
        pass.set_bind_group(0, group, &[]);
        pass.dispatch_workgroups(self.exe().shader.workgroups, 1, 1);
    }
}

/// True iff the step's accesses are those that its kernel was compiled for.
pub(crate) fn accesses_match(step: &Step) -> bool {
    let written = |access: Access| access != Access::Read;
    let args = &step.exe.get::<Exe>().shader.args;
    step.binds.iter().zip(args).all(|(bind, arg)| written(bind.1) == written(arg.access))
}
