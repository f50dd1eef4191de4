// loop sum+div+sub+mul+sqrt+add+f16 [8192]|[256]
// 16 invocations a row of 256, each 4 × 4 elements, kept in registers

@group(0) @binding(0) var<storage, read> a0: array<vec2<u32>>; // f16[2097152]
@group(0) @binding(1) var<storage, read> a1: array<vec2<u32>>; // f16[256]
@group(0) @binding(2) var<storage, read_write> a2: array<vec2<u32>>; // f16[2097152]
@group(0) @binding(3) var<storage, read_write> a3: array<u32>; // f16[8192]

fn k_div_f32(x: f32, y: f32) -> f32 {
    return x / y;
}

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

// The n-th half of the words, of which this is the one that holds it.
fn k_half(word: u32, n: u32) -> u32 {
    return (word >> ((n & 1u) * 16u)) & 0xffffu;
}

var<workgroup> part_f32_0: array<f32, 128>;
var<workgroup> once_3: array<u32, 8>;

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let lane = local % 16u;
    let slot = local / 16u;
    let item = id.x;
    let row = item * 8u + slot;
    let i0 = row;
    let t1 = 256.0f;
    let t9 = 1.0f;
    let strip_0 = lane;
    let i1_0 = strip_0;
    let strip_1 = lane + 16u;
    let i1_1 = strip_1;
    let strip_2 = lane + 32u;
    let i1_2 = strip_2;
    let strip_3 = lane + 48u;
    let i1_3 = strip_3;
    let q0_0 = a0[i0 * 64u + i1_0];
    let q0_1 = a0[i0 * 64u + i1_1];
    let q0_2 = a0[i0 * 64u + i1_2];
    let q0_3 = a0[i0 * 64u + i1_3];
    var acc2 = 0.0f;
    {
        {
            let t0 = k_from_f16(k_half(q0_0.x, 0u));
            acc2 += t0;
        }
        {
            let t0 = k_from_f16(k_half(q0_0.x, 1u));
            acc2 += t0;
        }
        {
            let t0 = k_from_f16(k_half(q0_0.y, 0u));
            acc2 += t0;
        }
        {
            let t0 = k_from_f16(k_half(q0_0.y, 1u));
            acc2 += t0;
        }
    }
    {
        {
            let t0 = k_from_f16(k_half(q0_1.x, 0u));
            acc2 += t0;
        }
        {
            let t0 = k_from_f16(k_half(q0_1.x, 1u));
            acc2 += t0;
        }
        {
            let t0 = k_from_f16(k_half(q0_1.y, 0u));
            acc2 += t0;
        }
        {
            let t0 = k_from_f16(k_half(q0_1.y, 1u));
            acc2 += t0;
        }
    }
    {
        {
            let t0 = k_from_f16(k_half(q0_2.x, 0u));
            acc2 += t0;
        }
        {
            let t0 = k_from_f16(k_half(q0_2.x, 1u));
            acc2 += t0;
        }
        {
            let t0 = k_from_f16(k_half(q0_2.y, 0u));
            acc2 += t0;
        }
        {
            let t0 = k_from_f16(k_half(q0_2.y, 1u));
            acc2 += t0;
        }
    }
    {
        {
            let t0 = k_from_f16(k_half(q0_3.x, 0u));
            acc2 += t0;
        }
        {
            let t0 = k_from_f16(k_half(q0_3.x, 1u));
            acc2 += t0;
        }
        {
            let t0 = k_from_f16(k_half(q0_3.y, 0u));
            acc2 += t0;
        }
        {
            let t0 = k_from_f16(k_half(q0_3.y, 1u));
            acc2 += t0;
        }
    }
    part_f32_0[local] = acc2;
    workgroupBarrier(); // publishes what each lane has
    if (lane < 8u) {
        acc2 += part_f32_0[local + 8u];
        part_f32_0[local] = acc2;
    }
    workgroupBarrier(); // publishes what each pair has
    if (lane < 4u) {
        acc2 += part_f32_0[local + 4u];
        part_f32_0[local] = acc2;
    }
    workgroupBarrier(); // publishes what each pair has
    if (lane < 2u) {
        acc2 += part_f32_0[local + 2u];
        part_f32_0[local] = acc2;
    }
    workgroupBarrier(); // publishes what each pair has
    if (lane < 1u) {
        acc2 += part_f32_0[local + 1u];
        part_f32_0[local] = acc2;
    }
    workgroupBarrier(); // publishes what each pair has
    acc2 = part_f32_0[slot * 16u];
    let t2 = acc2;
    let t3 = k_div_f32(t2, t1);
    let t15 = k_from_f16(k_to_f16(t3));
    var acc6 = 0.0f;
    {
        {
            let t0 = k_from_f16(k_half(q0_0.x, 0u));
            let t4 = t0 - t3;
            let t5 = t4 * t4;
            acc6 += t5;
        }
        {
            let t0 = k_from_f16(k_half(q0_0.x, 1u));
            let t4 = t0 - t3;
            let t5 = t4 * t4;
            acc6 += t5;
        }
        {
            let t0 = k_from_f16(k_half(q0_0.y, 0u));
            let t4 = t0 - t3;
            let t5 = t4 * t4;
            acc6 += t5;
        }
        {
            let t0 = k_from_f16(k_half(q0_0.y, 1u));
            let t4 = t0 - t3;
            let t5 = t4 * t4;
            acc6 += t5;
        }
    }
    {
        {
            let t0 = k_from_f16(k_half(q0_1.x, 0u));
            let t4 = t0 - t3;
            let t5 = t4 * t4;
            acc6 += t5;
        }
        {
            let t0 = k_from_f16(k_half(q0_1.x, 1u));
            let t4 = t0 - t3;
            let t5 = t4 * t4;
            acc6 += t5;
        }
        {
            let t0 = k_from_f16(k_half(q0_1.y, 0u));
            let t4 = t0 - t3;
            let t5 = t4 * t4;
            acc6 += t5;
        }
        {
            let t0 = k_from_f16(k_half(q0_1.y, 1u));
            let t4 = t0 - t3;
            let t5 = t4 * t4;
            acc6 += t5;
        }
    }
    {
        {
            let t0 = k_from_f16(k_half(q0_2.x, 0u));
            let t4 = t0 - t3;
            let t5 = t4 * t4;
            acc6 += t5;
        }
        {
            let t0 = k_from_f16(k_half(q0_2.x, 1u));
            let t4 = t0 - t3;
            let t5 = t4 * t4;
            acc6 += t5;
        }
        {
            let t0 = k_from_f16(k_half(q0_2.y, 0u));
            let t4 = t0 - t3;
            let t5 = t4 * t4;
            acc6 += t5;
        }
        {
            let t0 = k_from_f16(k_half(q0_2.y, 1u));
            let t4 = t0 - t3;
            let t5 = t4 * t4;
            acc6 += t5;
        }
    }
    {
        {
            let t0 = k_from_f16(k_half(q0_3.x, 0u));
            let t4 = t0 - t3;
            let t5 = t4 * t4;
            acc6 += t5;
        }
        {
            let t0 = k_from_f16(k_half(q0_3.x, 1u));
            let t4 = t0 - t3;
            let t5 = t4 * t4;
            acc6 += t5;
        }
        {
            let t0 = k_from_f16(k_half(q0_3.y, 0u));
            let t4 = t0 - t3;
            let t5 = t4 * t4;
            acc6 += t5;
        }
        {
            let t0 = k_from_f16(k_half(q0_3.y, 1u));
            let t4 = t0 - t3;
            let t5 = t4 * t4;
            acc6 += t5;
        }
    }
    workgroupBarrier(); // all have read the last result
    part_f32_0[local] = acc6;
    workgroupBarrier(); // publishes what each lane has
    if (lane < 8u) {
        acc6 += part_f32_0[local + 8u];
        part_f32_0[local] = acc6;
    }
    workgroupBarrier(); // publishes what each pair has
    if (lane < 4u) {
        acc6 += part_f32_0[local + 4u];
        part_f32_0[local] = acc6;
    }
    workgroupBarrier(); // publishes what each pair has
    if (lane < 2u) {
        acc6 += part_f32_0[local + 2u];
        part_f32_0[local] = acc6;
    }
    workgroupBarrier(); // publishes what each pair has
    if (lane < 1u) {
        acc6 += part_f32_0[local + 1u];
        part_f32_0[local] = acc6;
    }
    workgroupBarrier(); // publishes what each pair has
    acc6 = part_f32_0[slot * 16u];
    let t6 = acc6;
    let t7 = k_div_f32(t6, t1);
    let t8 = sqrt(t7);
    let t10 = t8 + t9;
    {
        let q12_0 = a1[i1_0];
        let q12_1 = a1[i1_1];
        let q12_2 = a1[i1_2];
        let q12_3 = a1[i1_3];
        {
            var w2 = vec2<u32>();
            {
                let t0 = k_from_f16(k_half(q0_0.x, 0u));
                let t4 = t0 - t3;
                let t11 = k_div_f32(t4, t10);
                let t12 = k_from_f16(k_half(q12_0.x, 0u));
                let t13 = t11 * t12;
                let t14 = k_from_f16(k_to_f16(t13));
                w2.x = k_to_f16(t14);
            }
            {
                let t0 = k_from_f16(k_half(q0_0.x, 1u));
                let t4 = t0 - t3;
                let t11 = k_div_f32(t4, t10);
                let t12 = k_from_f16(k_half(q12_0.x, 1u));
                let t13 = t11 * t12;
                let t14 = k_from_f16(k_to_f16(t13));
                w2.x |= (k_to_f16(t14)) << 16u;
            }
            {
                let t0 = k_from_f16(k_half(q0_0.y, 0u));
                let t4 = t0 - t3;
                let t11 = k_div_f32(t4, t10);
                let t12 = k_from_f16(k_half(q12_0.y, 0u));
                let t13 = t11 * t12;
                let t14 = k_from_f16(k_to_f16(t13));
                w2.y = k_to_f16(t14);
            }
            {
                let t0 = k_from_f16(k_half(q0_0.y, 1u));
                let t4 = t0 - t3;
                let t11 = k_div_f32(t4, t10);
                let t12 = k_from_f16(k_half(q12_0.y, 1u));
                let t13 = t11 * t12;
                let t14 = k_from_f16(k_to_f16(t13));
                w2.y |= (k_to_f16(t14)) << 16u;
            }
            a2[i0 * 64u + i1_0] = w2;
        }
        {
            var w2 = vec2<u32>();
            {
                let t0 = k_from_f16(k_half(q0_1.x, 0u));
                let t4 = t0 - t3;
                let t11 = k_div_f32(t4, t10);
                let t12 = k_from_f16(k_half(q12_1.x, 0u));
                let t13 = t11 * t12;
                let t14 = k_from_f16(k_to_f16(t13));
                w2.x = k_to_f16(t14);
            }
            {
                let t0 = k_from_f16(k_half(q0_1.x, 1u));
                let t4 = t0 - t3;
                let t11 = k_div_f32(t4, t10);
                let t12 = k_from_f16(k_half(q12_1.x, 1u));
                let t13 = t11 * t12;
                let t14 = k_from_f16(k_to_f16(t13));
                w2.x |= (k_to_f16(t14)) << 16u;
            }
            {
                let t0 = k_from_f16(k_half(q0_1.y, 0u));
                let t4 = t0 - t3;
                let t11 = k_div_f32(t4, t10);
                let t12 = k_from_f16(k_half(q12_1.y, 0u));
                let t13 = t11 * t12;
                let t14 = k_from_f16(k_to_f16(t13));
                w2.y = k_to_f16(t14);
            }
            {
                let t0 = k_from_f16(k_half(q0_1.y, 1u));
                let t4 = t0 - t3;
                let t11 = k_div_f32(t4, t10);
                let t12 = k_from_f16(k_half(q12_1.y, 1u));
                let t13 = t11 * t12;
                let t14 = k_from_f16(k_to_f16(t13));
                w2.y |= (k_to_f16(t14)) << 16u;
            }
            a2[i0 * 64u + i1_1] = w2;
        }
        {
            var w2 = vec2<u32>();
            {
                let t0 = k_from_f16(k_half(q0_2.x, 0u));
                let t4 = t0 - t3;
                let t11 = k_div_f32(t4, t10);
                let t12 = k_from_f16(k_half(q12_2.x, 0u));
                let t13 = t11 * t12;
                let t14 = k_from_f16(k_to_f16(t13));
                w2.x = k_to_f16(t14);
            }
            {
                let t0 = k_from_f16(k_half(q0_2.x, 1u));
                let t4 = t0 - t3;
                let t11 = k_div_f32(t4, t10);
                let t12 = k_from_f16(k_half(q12_2.x, 1u));
                let t13 = t11 * t12;
                let t14 = k_from_f16(k_to_f16(t13));
                w2.x |= (k_to_f16(t14)) << 16u;
            }
            {
                let t0 = k_from_f16(k_half(q0_2.y, 0u));
                let t4 = t0 - t3;
                let t11 = k_div_f32(t4, t10);
                let t12 = k_from_f16(k_half(q12_2.y, 0u));
                let t13 = t11 * t12;
                let t14 = k_from_f16(k_to_f16(t13));
                w2.y = k_to_f16(t14);
            }
            {
                let t0 = k_from_f16(k_half(q0_2.y, 1u));
                let t4 = t0 - t3;
                let t11 = k_div_f32(t4, t10);
                let t12 = k_from_f16(k_half(q12_2.y, 1u));
                let t13 = t11 * t12;
                let t14 = k_from_f16(k_to_f16(t13));
                w2.y |= (k_to_f16(t14)) << 16u;
            }
            a2[i0 * 64u + i1_2] = w2;
        }
        {
            var w2 = vec2<u32>();
            {
                let t0 = k_from_f16(k_half(q0_3.x, 0u));
                let t4 = t0 - t3;
                let t11 = k_div_f32(t4, t10);
                let t12 = k_from_f16(k_half(q12_3.x, 0u));
                let t13 = t11 * t12;
                let t14 = k_from_f16(k_to_f16(t13));
                w2.x = k_to_f16(t14);
            }
            {
                let t0 = k_from_f16(k_half(q0_3.x, 1u));
                let t4 = t0 - t3;
                let t11 = k_div_f32(t4, t10);
                let t12 = k_from_f16(k_half(q12_3.x, 1u));
                let t13 = t11 * t12;
                let t14 = k_from_f16(k_to_f16(t13));
                w2.x |= (k_to_f16(t14)) << 16u;
            }
            {
                let t0 = k_from_f16(k_half(q0_3.y, 0u));
                let t4 = t0 - t3;
                let t11 = k_div_f32(t4, t10);
                let t12 = k_from_f16(k_half(q12_3.y, 0u));
                let t13 = t11 * t12;
                let t14 = k_from_f16(k_to_f16(t13));
                w2.y = k_to_f16(t14);
            }
            {
                let t0 = k_from_f16(k_half(q0_3.y, 1u));
                let t4 = t0 - t3;
                let t11 = k_div_f32(t4, t10);
                let t12 = k_from_f16(k_half(q12_3.y, 1u));
                let t13 = t11 * t12;
                let t14 = k_from_f16(k_to_f16(t13));
                w2.y |= (k_to_f16(t14)) << 16u;
            }
            a2[i0 * 64u + i1_3] = w2;
        }
    }
    if (lane == 0u) {
        once_3[slot] = k_to_f16(t15);
    }
    workgroupBarrier(); // publishes what is kept of each row
    if (local < 4u && item * 4u + local < 4096u) {
        a3[item * 4u + local] = (once_3[local * 2u + 0u] << 0u) | (once_3[local * 2u + 1u] << 16u);
    }
}
