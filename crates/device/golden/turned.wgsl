// loop mul+add+f16 [3, 100, 64]|[]
// a workgroup a tile of 32 × 32, read along axis 1 and written along the last

@group(0) @binding(0) var<storage, read> a0: array<f32>; // f32[19200]
@group(0) @binding(1) var<storage, read> a1: array<vec4<f32>>; // f32[19200]
@group(0) @binding(2) var<storage, read> a2: array<vec4<f32>>; // f32[64]
@group(0) @binding(3) var<storage, read_write> a3: array<vec2<u32>>; // f16[19200]

// The nearest f16, ties to even, from 65520 on infinity.
fn k_to_f16(x: f32) -> u32 {
    let bits = bitcast<u32>(x);
    let sign = (bits >> 16u) & 0x8000u;
    let a = bits & 0x7fffffffu;
    if (a >= 0x477ff000u) {
        return sign | select(0x7c00u, 0x7e00u, a > 0x7f800000u);
    }
    if (a >= 0x38800000u) {
        return sign | ((a - 0x38000000u + 0xfffu + ((a >> 13u) & 1u)) >> 13u);
    }
    if (a < 0x33000000u) {
        return sign;
    }
    // Subnormal: the significand in units of 2^-24.
    let shift = 126u - (a >> 23u);
    let m = (a & 0x7fffffu) | 0x800000u;
    let q = m >> shift;
    let rest = m & ((1u << shift) - 1u);
    let half = 1u << (shift - 1u);
    return sign | (q + select(0u, 1u, rest > half || (rest == half && (q & 1u) == 1u)));
}

// The f16 in the low half of a word.
fn k_from_f16(h: u32) -> f32 {
    let sign = (h & 0x8000u) << 16u;
    let a = h & 0x7fffu;
    let small = bitcast<u32>(f32(a) * 5.9604644775390625e-8);
    let normal = (a << 13u) + 0x38000000u;
    let special = (a << 13u) | 0x7f800000u;
    return bitcast<f32>(sign | select(select(normal, small, a < 0x400u), special, a >= 0x7c00u));
}

var<workgroup> tile_f32_0: array<f32, 1056>;

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let item = id.x;
    let tile_far = item % 2u;
    let tile_near = item / 2u % 4u;
    let rest = item / 8u;
    let i0 = rest;
    let near = local % 32u;
    let far = local / 32u;
    let i1_in0 = min(tile_near * 32u + near, 99u);
    let i2_in0 = tile_far * 32u + far;
    let q0_in0 = a0[i0 * 6400u + i1_in0 + i2_in0 * 100u];
    let i1_in1 = min(tile_near * 32u + near, 99u);
    let i2_in1 = tile_far * 32u + far + 4u;
    let q0_in1 = a0[i0 * 6400u + i1_in1 + i2_in1 * 100u];
    let i1_in2 = min(tile_near * 32u + near, 99u);
    let i2_in2 = tile_far * 32u + far + 8u;
    let q0_in2 = a0[i0 * 6400u + i1_in2 + i2_in2 * 100u];
    let i1_in3 = min(tile_near * 32u + near, 99u);
    let i2_in3 = tile_far * 32u + far + 12u;
    let q0_in3 = a0[i0 * 6400u + i1_in3 + i2_in3 * 100u];
    let i1_in4 = min(tile_near * 32u + near, 99u);
    let i2_in4 = tile_far * 32u + far + 16u;
    let q0_in4 = a0[i0 * 6400u + i1_in4 + i2_in4 * 100u];
    let i1_in5 = min(tile_near * 32u + near, 99u);
    let i2_in5 = tile_far * 32u + far + 20u;
    let q0_in5 = a0[i0 * 6400u + i1_in5 + i2_in5 * 100u];
    let i1_in6 = min(tile_near * 32u + near, 99u);
    let i2_in6 = tile_far * 32u + far + 24u;
    let q0_in6 = a0[i0 * 6400u + i1_in6 + i2_in6 * 100u];
    let i1_in7 = min(tile_near * 32u + near, 99u);
    let i2_in7 = tile_far * 32u + far + 28u;
    let q0_in7 = a0[i0 * 6400u + i1_in7 + i2_in7 * 100u];
    let strip = local % 8u;
    let line = local / 8u;
    let i1_0 = min(tile_near * 32u + line, 99u);
    let i2_0 = tile_far * 8u + strip;
    let q1_0 = a1[i0 * 1600u + i1_0 * 16u + i2_0];
    let q2_0 = a2[i2_0];
    let i1_1 = min(tile_near * 32u + line + 16u, 99u);
    let i2_1 = tile_far * 8u + strip;
    let q1_1 = a1[i0 * 1600u + i1_1 * 16u + i2_1];
    let q2_1 = a2[i2_1];
    tile_f32_0[(far) * 33u + near] = q0_in0;
    tile_f32_0[(far + 4u) * 33u + near] = q0_in1;
    tile_f32_0[(far + 8u) * 33u + near] = q0_in2;
    tile_f32_0[(far + 12u) * 33u + near] = q0_in3;
    tile_f32_0[(far + 16u) * 33u + near] = q0_in4;
    tile_f32_0[(far + 20u) * 33u + near] = q0_in5;
    tile_f32_0[(far + 24u) * 33u + near] = q0_in6;
    tile_f32_0[(far + 28u) * 33u + near] = q0_in7;
    workgroupBarrier(); // publishes the tile
    {
        if (tile_near * 32u + line < 100u) {
            var w3 = vec2<u32>();
            {
                let t0 = tile_f32_0[(strip * 4u) * 33u + line];
                let t1 = q1_0.x;
                let t2 = q2_0.x;
                let t3 = t1 * t2;
                let t4 = t0 + t3;
                let t5 = k_from_f16(k_to_f16(t4));
                w3.x = k_to_f16(t5);
            }
            {
                let t0 = tile_f32_0[(strip * 4u + 1u) * 33u + line];
                let t1 = q1_0.y;
                let t2 = q2_0.y;
                let t3 = t1 * t2;
                let t4 = t0 + t3;
                let t5 = k_from_f16(k_to_f16(t4));
                w3.x |= (k_to_f16(t5)) << 16u;
            }
            {
                let t0 = tile_f32_0[(strip * 4u + 2u) * 33u + line];
                let t1 = q1_0.z;
                let t2 = q2_0.z;
                let t3 = t1 * t2;
                let t4 = t0 + t3;
                let t5 = k_from_f16(k_to_f16(t4));
                w3.y = k_to_f16(t5);
            }
            {
                let t0 = tile_f32_0[(strip * 4u + 3u) * 33u + line];
                let t1 = q1_0.w;
                let t2 = q2_0.w;
                let t3 = t1 * t2;
                let t4 = t0 + t3;
                let t5 = k_from_f16(k_to_f16(t4));
                w3.y |= (k_to_f16(t5)) << 16u;
            }
            a3[i0 * 1600u + i1_0 * 16u + i2_0] = w3;
        }
    }
    {
        if (tile_near * 32u + line + 16u < 100u) {
            var w3 = vec2<u32>();
            {
                let t0 = tile_f32_0[(strip * 4u) * 33u + line + 16u];
                let t1 = q1_1.x;
                let t2 = q2_1.x;
                let t3 = t1 * t2;
                let t4 = t0 + t3;
                let t5 = k_from_f16(k_to_f16(t4));
                w3.x = k_to_f16(t5);
            }
            {
                let t0 = tile_f32_0[(strip * 4u + 1u) * 33u + line + 16u];
                let t1 = q1_1.y;
                let t2 = q2_1.y;
                let t3 = t1 * t2;
                let t4 = t0 + t3;
                let t5 = k_from_f16(k_to_f16(t4));
                w3.x |= (k_to_f16(t5)) << 16u;
            }
            {
                let t0 = tile_f32_0[(strip * 4u + 2u) * 33u + line + 16u];
                let t1 = q1_1.z;
                let t2 = q2_1.z;
                let t3 = t1 * t2;
                let t4 = t0 + t3;
                let t5 = k_from_f16(k_to_f16(t4));
                w3.y = k_to_f16(t5);
            }
            {
                let t0 = tile_f32_0[(strip * 4u + 3u) * 33u + line + 16u];
                let t1 = q1_1.w;
                let t2 = q2_1.w;
                let t3 = t1 * t2;
                let t4 = t0 + t3;
                let t5 = k_from_f16(k_to_f16(t4));
                w3.y |= (k_to_f16(t5)) << 16u;
            }
            a3[i0 * 1600u + i1_1 * 16u + i2_1] = w3;
        }
    }
}
