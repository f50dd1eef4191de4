//! What adapters, drivers and wgpu do otherwise than one would think, in one table.
//!
//! Rows that are of some adapters only are asked for by name, when a device is opened; nothing else in this crate looks
//! at an adapter's name, interface or kind to decide what to do. The others hold for all that is emitted and called, and
//! say where. A row goes when its source says that it is over.

use wgpu::Backend::Vulkan;
use wgpu::DeviceType::Cpu;

/// The quirks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Quirk {
    LoopsEnd,
    BarriersCost,
    WatchingSteals,
    MatricesOfScalars,
    SubgroupsVary,
    MatricesOfWords,
    NoOperandsOfStores,
    WritersPanic,
    NoNan,
    DestructionIsSilent,
    LossPanics,
    ShortWaitsPanic,
    MappingsNeedPolls,
    IndirectChecks,
}

/// One of them.
pub(crate) struct Row {
    quirk: Quirk,
    /// Whose it is.
    whose: &'static str,
    /// True iff an adapter has it; `None` if all are treated as if they had.
    on: Option<fn(&wgpu::AdapterInfo) -> bool>,
    what: &'static str,
    /// What is done about it, and where.
    answer: &'static str,
    source: &'static str,
}

/// All of them.
const QUIRKS: &[Row] = &[
    Row {
        quirk: Quirk::LoopsEnd,
        whose: "llvmpipe",
        on: Some(|a| a.device_type == Cpu),
        what: "ends a shader without a word after 65,535 turns of all its loops",
        answer: "`Target::max_turns`; what would take more is spread further or refused",
        source: "LP_MAX_TGSI_LOOP_ITERATIONS in Mesa's lp_bld_limits.h, 22.3",
    },
    Row {
        quirk: Quirk::BarriersCost,
        whose: "adapters that compute on the processor",
        on: Some(|a| a.device_type == Cpu),
        what: "a barrier costs more than the loads that it saves: 3.8 instead of 13.2 GFLOP/s for a product of 512³",
        answer: "`Target::software`; schedules without workgroup memory",
        source: "measured on llvmpipe, LLVM 15",
    },
    Row {
        quirk: Quirk::WatchingSteals,
        whose: "adapters that compute on the processor",
        on: Some(|a| a.device_type == Cpu),
        what: "a host that watches a submission takes the processor from it",
        answer: "`Line` sleeps at once",
        source: "measured on llvmpipe with two cores",
    },
    Row {
        quirk: Quirk::MatricesOfScalars,
        whose: "naga 30.0.1 for Metal",
        on: Some(|a| a.backend != Vulkan),
        what: "writes loads of matrices for pointers to scalars only, and tiles lie in vectors; other interfaces have none",
        answer: "no cooperative matrices but on Vulkan",
        source: "naga, back/msl/writer.rs",
    },
    Row {
        quirk: Quirk::SubgroupsVary,
        whose: "drivers whose subgroups are of several sizes",
        on: Some(|a| a.subgroup_min_size != a.subgroup_max_size),
        what: "nothing says how many invocations hold a matrix together",
        answer: "no cooperative matrices",
        source: "wgpu-hal 30.0.1, vulkan/device.rs: ALLOW_VARYING_SUBGROUP_SIZE is set, no size can be asked for",
    },
    Row {
        quirk: Quirk::MatricesOfWords,
        whose: "NVIDIA under Vulkan",
        on: None,
        what: "the device is lost where matrices of f16 are loaded from workgroup memory declared as vec4<u32>",
        answer: "tiles are declared as vec4<f16> (`emit::matrix`); a known product is tried before any other (`probe`)",
        source: "seen on an H200",
    },
    Row {
        quirk: Quirk::NoOperandsOfStores,
        whose: "naga 30.0.1",
        on: None,
        what: "panics while it writes a store of a matrix whose operands are expressions",
        answer: "operands have names of their own (`emit::matrix`)",
        source: "naga, back/spv/block.rs",
    },
    Row {
        quirk: Quirk::WritersPanic,
        whose: "naga 30.0.1",
        on: None,
        what: "its writers panic on what their authors did not foresee, inside of the creation of a pipeline",
        answer: "`Pipelines` catches that: the kernel is at fault, not the process",
        source: "naga, back/spv",
    },
    Row {
        quirk: Quirk::NoNan,
        whose: "drivers under Vulkan and Metal",
        on: None,
        what: "assume that no float is NaN: `x != x` is false, and built-in extremes and signs lose NaN",
        answer: "bits are tested instead (`prelude.wgsl`)",
        source: "WGSL, 15.7 (implementations may assume that there are none); llvmpipe does",
    },
    Row {
        quirk: Quirk::DestructionIsSilent,
        whose: "wgpu 30.0.1",
        on: None,
        what: "reports no error of a device that was destroyed, and calls back only from a poll that finds no work left; \
               objects made since then are reported as somebody's mistake",
        answer: "`Gpu::ask` polls after each call, `Gpu::cause` looks behind an error",
        source: "https://github.com/gfx-rs/wgpu/issues/9278",
    },
    Row {
        quirk: Quirk::LossPanics,
        whose: "wgpu 30.0.1",
        on: None,
        what: "`Device::poll` panics where a driver answers that the device is lost",
        answer: "`Line::poll` catches that",
        source: "wgpu, backend/wgpu_core.rs: handle_error_fatal",
    },
    Row {
        quirk: Quirk::ShortWaitsPanic,
        whose: "wgpu 30.0.1",
        on: None,
        what: "a wait that ends early panics if another thread's poll clears away what it has just seen running",
        answer: "`Line` polls without waiting, or waits to the end",
        source: "wgpu-core, device/resource.rs: an assertion in maintain",
    },
    Row {
        quirk: Quirk::MappingsNeedPolls,
        whose: "wgpu",
        on: None,
        what: "a buffer that is to be mapped after its work is over is mapped by the next poll, whoever polls",
        answer: "`Gpu::await_mapping` polls while it waits",
        source: "wgpu-core, resource.rs: try_map_async",
    },
    Row {
        quirk: Quirk::IndirectChecks,
        whose: "wgpu 30.0.1",
        on: None,
        what: "checks indirect dispatches by default, for which it halves the size of buffers",
        answer: "release builds ask for no flags (`adapter::instance`)",
        source: "wgpu-core, instance.rs",
    },
];

impl Quirk {
    /// True iff an adapter has it, as far as anybody knows.
    pub(crate) fn is_of(self, adapter: &wgpu::AdapterInfo) -> bool {
        let row = QUIRKS.iter().find(|row| row.quirk == self).expect("each quirk has a row");
        let found = row.on.is_none_or(|on| on(adapter));
        if found && row.on.is_some() {
            log::debug!("{}: {} {}: {} ({})", adapter.name, row.whose, row.what, row.answer, row.source);
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_quirk_has_one_row_that_says_all() {
        for (n, row) in QUIRKS.iter().enumerate() {
            assert_eq!(row.quirk as usize, n, "rows are in the order of the quirks");
            for text in [row.whose, row.what, row.answer, row.source] {
                assert!(!text.is_empty() && !text.ends_with('.'), "{:?}: {text}", row.quirk);
            }
        }
        assert_eq!(QUIRKS.len(), Quirk::IndirectChecks as usize + 1);
    }

    #[test]
    fn adapters_have_their_own_only() {
        let info = |device_type, backend| wgpu::AdapterInfo {
            subgroup_min_size: 32,
            subgroup_max_size: 32,
            ..wgpu::AdapterInfo::new(device_type, backend)
        };
        let of = |info: &wgpu::AdapterInfo| {
            let own = QUIRKS.iter().filter(|row| row.on.is_some()).map(|row| row.quirk);
            own.filter(|quirk| quirk.is_of(info)).collect::<Vec<_>>()
        };
        assert_eq!(of(&info(wgpu::DeviceType::DiscreteGpu, Vulkan)), []);
        assert_eq!(of(&info(wgpu::DeviceType::DiscreteGpu, wgpu::Backend::Metal)), [Quirk::MatricesOfScalars]);
        let software = of(&info(Cpu, Vulkan));
        assert_eq!(software, [Quirk::LoopsEnd, Quirk::BarriersCost, Quirk::WatchingSteals]);
        let varying = wgpu::AdapterInfo { subgroup_min_size: 8, ..info(wgpu::DeviceType::IntegratedGpu, Vulkan) };
        assert_eq!(of(&varying), [Quirk::SubgroupsVary]);
    }
}
