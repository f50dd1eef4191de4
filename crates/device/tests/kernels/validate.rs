//! A second opinion on emitted text: parsed, validated, and written in the three languages that drivers take.

use std::sync::Mutex;

/// Parses and validates WGSL, and writes it as SPIR-V, MSL and HLSL; kernels on matrices as SPIR-V only,
/// which is where they run.
#[track_caller]
pub(crate) fn validate(wgsl: &str) {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock();
    let module = naga::front::wgsl::parse_str(wgsl).unwrap_or_else(|e| panic!("{}", e.emit_to_string(wgsl)));
    let flags = naga::valid::ValidationFlags::all();
    let matrices = wgsl.contains("enable wgpu_cooperative_matrix;");
    let capabilities = match matrices {
        true => naga::valid::Capabilities::SHADER_FLOAT16 | naga::valid::Capabilities::COOPERATIVE_MATRIX,
        false => naga::valid::Capabilities::empty(),
    };
    let info = naga::valid::Validator::new(flags, capabilities).validate(&module);
    let info = info.unwrap_or_else(|e| panic!("{}", e.emit_to_string(wgsl)));
    naga::back::spv::write_vec(&module, &info, &Default::default(), None).unwrap();
    if matrices {
        return;
    }
    naga::back::msl::write_string(&module, &info, &Default::default(), &Default::default()).unwrap();
    let (options, pipeline) = (naga::back::hlsl::Options::default(), naga::back::hlsl::PipelineOptions::default());
    let mut hlsl = String::new();
    naga::back::hlsl::Writer::new(&mut hlsl, &options, &pipeline).write(&module, &info, None).unwrap();
}
