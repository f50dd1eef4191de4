//! What is known of adapters that wgpu does not say: how many processors compute side by side.
//!
//! Schedules are chosen by whole turns of workgroups over these (`Target::parts`), so a product that is best cut into many
//! tiles on a large GPU is done in few on a small one. Names are those that drivers give; who is not here is taken for
//! one of its kind. A name counts as a whole: what only begins alike (`RTX 4080 SUPER`, `RTX 4080 Laptop GPU`, a part of a
//! card) has other numbers. The numbers are those of the vendors' data sheets and architecture papers: multiprocessors
//! that are enabled on the card, not all of the chip's.

use crate::adapter::{AdapterInfo, AdapterKind};
use crate::emit::LARGE;

/// Adapters by name, and their processors: NVIDIA's streaming multiprocessors, AMD's compute units, Apple's and
/// Intel's cores. Apple sells most of its chips with two numbers under one name: the higher one is here.
const KNOWN: &[(&str, usize)] = &[
    ("NVIDIA H200", 132),
    ("NVIDIA H100 80GB HBM3", 132),
    ("NVIDIA H100 NVL", 132),
    ("NVIDIA H100 PCIe", 114),
    ("NVIDIA A100-SXM4-40GB", 108),
    ("NVIDIA A100-SXM4-80GB", 108),
    ("NVIDIA A100-PCIE-40GB", 108),
    ("NVIDIA A100 80GB PCIe", 108),
    ("NVIDIA L40S", 142),
    ("NVIDIA L4", 58),
    ("NVIDIA A10", 72),
    ("Tesla V100-SXM2-16GB", 80),
    ("Tesla V100-SXM2-32GB", 80),
    ("Tesla T4", 40),
    ("NVIDIA GeForce RTX 4090", 128),
    ("NVIDIA GeForce RTX 4080", 76),
    ("NVIDIA GeForce RTX 4070", 46),
    ("NVIDIA GeForce RTX 3090", 82),
    // With 10 GB; the few with 12 GB have 70.
    ("NVIDIA GeForce RTX 3080", 68),
    ("NVIDIA GeForce RTX 3070", 46),
    ("NVIDIA GeForce RTX 3060", 28),
    ("NVIDIA GeForce RTX 2080 Ti", 68),
    ("AMD Radeon RX 7900 XTX", 96),
    ("AMD Radeon RX 7900 XT", 84),
    ("AMD Radeon RX 7800 XT", 60),
    ("AMD Radeon RX 6900 XT", 80),
    ("AMD Radeon RX 6800 XT", 72),
    ("Intel(R) Arc(tm) A770 Graphics", 32),
    ("Apple M1", 8),
    ("Apple M1 Pro", 16),
    ("Apple M1 Max", 32),
    ("Apple M1 Ultra", 64),
    ("Apple M2", 10),
    ("Apple M2 Pro", 19),
    ("Apple M2 Max", 38),
    ("Apple M2 Ultra", 76),
    ("Apple M3", 10),
    ("Apple M3 Pro", 18),
    ("Apple M3 Max", 40),
    ("Apple M4", 10),
    ("Apple M4 Pro", 20),
    ("Apple M4 Max", 40),
];

/// Processors of one that shares the CPU's memory.
const SMALL: usize = 16;

/// How many processors of the adapter compute side by side, as far as its name or its kind tells.
pub(crate) fn parts(info: &AdapterInfo) -> usize {
    // Some drivers add the chip: `AMD Radeon RX 7900 XTX (RADV NAVI31)`. Intel's write `(TM)` or `(tm)`.
    let name = info.name.split(" (").next().unwrap_or_default();
    let known = KNOWN.iter().find(|row| row.0.eq_ignore_ascii_case(name)).map(|row| row.1);
    known.unwrap_or(match info.kind {
        // What software is asked for beside its own schedules is what a large GPU does.
        AdapterKind::Discrete | AdapterKind::Virtual | AdapterKind::Cpu => LARGE,
        AdapterKind::Integrated | AdapterKind::Other => SMALL,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adapters_are_known_by_their_whole_names() {
        for (n, (name, parts)) in KNOWN.iter().enumerate() {
            assert!((4..=256).contains(parts) && name.trim() == *name && !name.contains(" ("), "{name}");
            assert!(KNOWN[..n].iter().all(|row| !row.0.eq_ignore_ascii_case(name)), "{name} stands twice");
        }
        let parts = |name: &str, kind| {
            let (name, backend, driver) = (name.into(), String::new(), String::new());
            parts(&AdapterInfo { name, backend, kind, driver, matrix: None })
        };
        let discrete = |name| parts(name, AdapterKind::Discrete);
        let rows = [
            ("NVIDIA L4", 58),
            ("NVIDIA H100 80GB HBM3", 132),
            ("NVIDIA H100 PCIe", 114),
            ("NVIDIA GeForce RTX 4080", 76),
            ("AMD Radeon RX 7900 XT", 84),
            ("AMD Radeon RX 7900 XTX (RADV NAVI31)", 96),
            ("Intel(R) Arc(TM) A770 Graphics", 32),
            ("Intel(R) Arc(tm) A770 Graphics (DG2)", 32),
        ];
        for (name, n) in rows {
            assert_eq!(discrete(name), n, "{name}");
        }
        for name in ["Apple M1", "Apple M1 Pro", "Apple M1 Max", "Apple M1 Ultra"].iter().zip([8, 16, 32, 64]) {
            assert_eq!(parts(name.0, AdapterKind::Integrated), name.1, "{}", name.0);
        }
        // What begins or ends like one that is known.
        let others = [
            "NVIDIA GeForce RTX 4080 SUPER",
            "NVIDIA GeForce RTX 4080 Laptop GPU",
            "NVIDIA GeForce RTX 3080 Ti",
            "NVIDIA RTX A1000",
            "NVIDIA A100-SXM4-40GB MIG 1g.5gb",
            "NVIDIA A10G",
            "NVIDIA H100",
            "RTX 4080",
            "",
        ];
        for name in others {
            assert_eq!(discrete(name), LARGE, "{name}");
        }
        assert_eq!(parts("Intel(R) Iris(R) Xe Graphics (TGL GT2)", AdapterKind::Integrated), SMALL);
        assert_eq!(parts("Apple M9 Pro", AdapterKind::Integrated), SMALL);
    }
}
