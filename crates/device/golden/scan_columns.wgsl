// scan prod 2·700·64 from the end
// one invocation a row

@group(0) @binding(0) var<storage, read> a0: array<f32>; // f32[89600]
@group(0) @binding(1) var<storage, read_write> a1: array<f32>; // f32[89600]

// A float by its bits: WGSL has no literal for infinity, and constant expressions must not make one.
fn k_f32(bits: u32) -> f32 {
    return bitcast<f32>(bits);
}

// A float as `x · 2^y` with `1 ≤ |x| < 2`; zeros, infinities and NaN are `x` themselves.
fn k_scaled(v: f32) -> vec2<f32> {
    let bits = bitcast<u32>(v);
    let exponent = (bits >> 23u) & 0xffu;
    if (exponent == 255u || (bits & 0x7fffffffu) == 0u) {
        return vec2<f32>(v, 0.0);
    }
    if (exponent > 0u) {
        return vec2<f32>(k_f32((bits & 0x807fffffu) | 0x3f800000u), f32(exponent) - 127.0);
    }
    let zeros = countLeadingZeros(bits & 0x7fffffu) - 8u;
    let mantissa = (bits << zeros) & 0x7fffffu;
    return vec2<f32>(k_f32((bits & 0x80000000u) | 0x3f800000u | mantissa), -126.0 - f32(zeros));
}

// The product of two that are scaled: it leaves the range of f32 nowhere on the way.
fn k_scaled_times(a: vec2<f32>, b: vec2<f32>) -> vec2<f32> {
    let product = k_scaled(a.x * b.x);
    return vec2<f32>(product.x, a.y + b.y + product.y);
}

// The float that was scaled, rounded once: two powers of two, as one could leave the range.
fn k_unscaled(v: vec2<f32>) -> f32 {
    let exponent = i32(clamp(v.y, -200.0, 200.0));
    let half = exponent / 2i;
    return v.x * k_f32(u32(half + 127i) << 23u) * k_f32(u32(exponent - half + 127i) << 23u);
}

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    for (var row = id.x; row < 128u; row += 256u) {
        let base = row / 64u * 44800u + row % 64u + 44736u;
        var sum = vec2<f32>(1.0, 0.0);
        for (var n = 0u; n < 700u; n++) {
            let at = base - n * 64u;
            sum = k_scaled_times(sum, k_scaled(a0[at]));
            a1[at] = k_unscaled(sum);
        }
    }
}
