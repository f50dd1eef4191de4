//! What tests of several passes share.

use kiln_ir::{Caps, DType};

/// A small device that has everything.
pub(crate) fn caps() -> Caps {
    Caps {
        name: "test".into(),
        dtypes: DType::ALL.to_vec(),
        max_bindings: 8,
        max_binding_bytes: u64::MAX,
        max_workgroups: 65535,
        bool_bytes: 4,
        lanes: 1,
        flops: 1.0,
        bandwidth: 1.0,
    }
}
