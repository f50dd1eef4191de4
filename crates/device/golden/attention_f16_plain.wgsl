// attention+attention_logsum [2]·[9, 6]x[11, 8]
// one invocation four rows of the queries and at most 16 columns of the result

@group(0) @binding(0) var<storage, read> a0: array<u32>; // f16[108]
@group(0) @binding(1) var<storage, read> a1: array<u32>; // f16[132]
@group(0) @binding(2) var<storage, read> a2: array<u32>; // f16[176]
@group(0) @binding(3) var<storage, read> a3: array<u32>; // f16[198]
@group(0) @binding(4) var<storage, read_write> a4: array<u32>; // f16[144]
@group(0) @binding(5) var<storage, read_write> a5: array<f32>; // f32[18]

// A float by its bits: WGSL has no literal for infinity, and constant expressions must not make one.
fn k_f32(bits: u32) -> f32 {
    return bitcast<f32>(bits);
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

fn query(b: u32, row: u32, column: u32) -> f32 {
    let i0 = b;
    let i1 = row;
    let i2 = column;
    let t0 = k_from_f16(k_half(a0[(i0 * 54u + i1 * 6u + i2) / 2u], i0 * 54u + i1 * 6u + i2));
    return t0;
}

fn key(b: u32, row: u32, column: u32) -> f32 {
    let i0 = b;
    let i1 = row;
    let i2 = column;
    let t0 = k_from_f16(k_half(a1[(i0 * 66u + i1 * 6u + i2) / 2u], i0 * 66u + i1 * 6u + i2));
    return t0;
}

fn value(b: u32, row: u32, column: u32) -> f32 {
    let i0 = b;
    let i1 = row;
    let i2 = column;
    let t0 = k_from_f16(k_half(a2[(i0 * 88u + i1 * 8u + i2) / 2u], i0 * 88u + i1 * 8u + i2));
    return t0;
}

fn bias(b: u32, row: u32, column: u32) -> f32 {
    if (row >= 9u || column >= 11u) {
        return 0.0f;
    }
    let i0 = b;
    let i1 = row;
    let i2 = column;
    let t0 = k_from_f16(k_half(a3[(i0 * 99u + i1 * 11u + i2) / 2u], i0 * 99u + i1 * 11u + i2));
    return t0;
}

fn keep_out(b: u32, row: u32, first: u32, x: vec4<f32>) {
    let at = (b * 9u + row) * 8u + first;
    for (var c = 0u; c < 4u; c += 2u) {
        a4[(at + c) / 2u] = k_to_f16(x[c]) | (k_to_f16(x[c + 1u]) << 16u);
    }
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    for (var item = id.x; item < 6u; item += 64u) {
        let b = item / 3u;
        let own = item % 3u * 4u;
        let own0 = min(own + 0u, 8u);
        let own1 = min(own + 1u, 8u);
        let own2 = min(own + 2u, 8u);
        let own3 = min(own + 3u, 8u);
        var out0_0 = vec4<f32>();
        var out0_1 = vec4<f32>();
        var out1_0 = vec4<f32>();
        var out1_1 = vec4<f32>();
        var out2_0 = vec4<f32>();
        var out2_1 = vec4<f32>();
        var out3_0 = vec4<f32>();
        var out3_1 = vec4<f32>();
        var top0 = vec4<f32>(k_f32(0xff7fffffu));
        var total0 = vec4<f32>(); // of the columns that this invocation has
        let end = 11u;
        for (var others = 0u; others < end; others += 4u) {
            let other0 = min(others + 0u, 10u);
            let other1 = min(others + 1u, 10u);
            let other2 = min(others + 2u, 10u);
            let other3 = min(others + 3u, 10u);
            var score0_0 = vec4<f32>();
            var score1_0 = vec4<f32>();
            var score2_0 = vec4<f32>();
            var score3_0 = vec4<f32>();
            for (var c = 0u; c < 6u; c += 1u) {
                let r0 = vec4<f32>(key(b, other0, c + 0u), key(b, other1, c + 0u), key(b, other2, c + 0u), key(b, other3, c + 0u));
                score0_0 += query(b, own0, c + 0u) * r0;
                score1_0 += query(b, own1, c + 0u) * r0;
                score2_0 += query(b, own2, c + 0u) * r0;
                score3_0 += query(b, own3, c + 0u) * r0;
            }
            let bias0_0 = vec4<f32>(bias(b, own + 0u, others + 0u), bias(b, own + 0u, others + 1u), bias(b, own + 0u, others + 2u), bias(b, own + 0u, others + 3u));
            score0_0 = score0_0 * 0.4082483f + bias0_0;
            let seen0_0 = bitcast<vec4<u32>>(bias0_0) != vec4<u32>(0xff800000u);
            let bias1_0 = vec4<f32>(bias(b, own + 1u, others + 0u), bias(b, own + 1u, others + 1u), bias(b, own + 1u, others + 2u), bias(b, own + 1u, others + 3u));
            score1_0 = score1_0 * 0.4082483f + bias1_0;
            let seen1_0 = bitcast<vec4<u32>>(bias1_0) != vec4<u32>(0xff800000u);
            let bias2_0 = vec4<f32>(bias(b, own + 2u, others + 0u), bias(b, own + 2u, others + 1u), bias(b, own + 2u, others + 2u), bias(b, own + 2u, others + 3u));
            score2_0 = score2_0 * 0.4082483f + bias2_0;
            let seen2_0 = bitcast<vec4<u32>>(bias2_0) != vec4<u32>(0xff800000u);
            let bias3_0 = vec4<f32>(bias(b, own + 3u, others + 0u), bias(b, own + 3u, others + 1u), bias(b, own + 3u, others + 2u), bias(b, own + 3u, others + 3u));
            score3_0 = score3_0 * 0.4082483f + bias3_0;
            let seen3_0 = bitcast<vec4<u32>>(bias3_0) != vec4<u32>(0xff800000u);
            score0_0 = select(vec4<f32>(k_f32(0xff7fffffu)), score0_0, seen0_0);
            score1_0 = select(vec4<f32>(k_f32(0xff7fffffu)), score1_0, seen1_0);
            score2_0 = select(vec4<f32>(k_f32(0xff7fffffu)), score2_0, seen2_0);
            score3_0 = select(vec4<f32>(k_f32(0xff7fffffu)), score3_0, seen3_0);
            if (others + 4u > 11u) {
                let other0 = others + 0u + vec4<u32>(0u, 1u, 2u, 3u);
                score0_0 = select(vec4<f32>(k_f32(0xff7fffffu)), score0_0, (other0 < vec4<u32>(11u)));
                score1_0 = select(vec4<f32>(k_f32(0xff7fffffu)), score1_0, (other0 < vec4<u32>(11u)));
                score2_0 = select(vec4<f32>(k_f32(0xff7fffffu)), score2_0, (other0 < vec4<u32>(11u)));
                score3_0 = select(vec4<f32>(k_f32(0xff7fffffu)), score3_0, (other0 < vec4<u32>(11u)));
            }
            var higher0 = top0;
            let best0 = score0_0;
            higher0.x = max(higher0.x, max(max(best0.x, best0.y), max(best0.z, best0.w)));
            let best1 = score1_0;
            higher0.y = max(higher0.y, max(max(best1.x, best1.y), max(best1.z, best1.w)));
            let best2 = score2_0;
            higher0.z = max(higher0.z, max(max(best2.x, best2.y), max(best2.z, best2.w)));
            let best3 = score3_0;
            higher0.w = max(higher0.w, max(max(best3.x, best3.y), max(best3.z, best3.w)));
            let fade0 = exp(top0 - higher0);
            top0 = higher0;
            total0 *= fade0;
            out0_0 *= fade0.x;
            out0_1 *= fade0.x;
            out1_0 *= fade0.y;
            out1_1 *= fade0.y;
            out2_0 *= fade0.z;
            out2_1 *= fade0.z;
            out3_0 *= fade0.w;
            out3_1 *= fade0.w;
            var share0_0 = exp(score0_0 - vec4<f32>(top0.x));
            var share1_0 = exp(score1_0 - vec4<f32>(top0.y));
            var share2_0 = exp(score2_0 - vec4<f32>(top0.z));
            var share3_0 = exp(score3_0 - vec4<f32>(top0.w));
            share0_0 = select(vec4<f32>(), share0_0, seen0_0);
            share1_0 = select(vec4<f32>(), share1_0, seen1_0);
            share2_0 = select(vec4<f32>(), share2_0, seen2_0);
            share3_0 = select(vec4<f32>(), share3_0, seen3_0);
            if (others + 4u > 11u) {
                let other0 = others + 0u + vec4<u32>(0u, 1u, 2u, 3u);
                share0_0 = select(vec4<f32>(), share0_0, (other0 < vec4<u32>(11u)));
                share1_0 = select(vec4<f32>(), share1_0, (other0 < vec4<u32>(11u)));
                share2_0 = select(vec4<f32>(), share2_0, (other0 < vec4<u32>(11u)));
                share3_0 = select(vec4<f32>(), share3_0, (other0 < vec4<u32>(11u)));
            }
            total0 += vec4<f32>(dot(share0_0, vec4<f32>(1.0f)), dot(share1_0, vec4<f32>(1.0f)), dot(share2_0, vec4<f32>(1.0f)), dot(share3_0, vec4<f32>(1.0f)));
            for (var j = 0u; j < 4u; j++) {
                let w = vec4<f32>(share0_0[j], share1_0[j], share2_0[j], share3_0[j]);
                let at_row = min(others + j, 10u);
                let r0 = vec4<f32>(value(b, at_row, 0u), value(b, at_row, 1u), value(b, at_row, 2u), value(b, at_row, 3u));
                out0_0 += w.x * r0;
                out1_0 += w.y * r0;
                out2_0 += w.z * r0;
                out3_0 += w.w * r0;
                let r1 = vec4<f32>(value(b, at_row, 4u), value(b, at_row, 5u), value(b, at_row, 6u), value(b, at_row, 7u));
                out0_1 += w.x * r1;
                out1_1 += w.y * r1;
                out2_1 += w.z * r1;
                out3_1 += w.w * r1;
            }
        }
        let empty0 = bitcast<vec4<u32>>(total0) == vec4<u32>(); // by its bits, since NaN is not 0
        let portion0 = select(1.0f / total0, vec4<f32>(), empty0);
        if (own + 0u < 9u) {
            keep_out(b, own + 0u, 0u, out0_0 * portion0.x);
            keep_out(b, own + 0u, 4u, out0_1 * portion0.x);
            a5[b * 9u + own + 0u] = select(log(total0.x) + top0.x, k_f32(0x7f7fffffu), empty0.x);
        }
        if (own + 1u < 9u) {
            keep_out(b, own + 1u, 0u, out1_0 * portion0.y);
            keep_out(b, own + 1u, 4u, out1_1 * portion0.y);
            a5[b * 9u + own + 1u] = select(log(total0.y) + top0.y, k_f32(0x7f7fffffu), empty0.y);
        }
        if (own + 2u < 9u) {
            keep_out(b, own + 2u, 0u, out2_0 * portion0.z);
            keep_out(b, own + 2u, 4u, out2_1 * portion0.z);
            a5[b * 9u + own + 2u] = select(log(total0.z) + top0.z, k_f32(0x7f7fffffu), empty0.z);
        }
        if (own + 3u < 9u) {
            keep_out(b, own + 3u, 0u, out3_0 * portion0.w);
            keep_out(b, own + 3u, 4u, out3_1 * portion0.w);
            a5[b * 9u + own + 3u] = select(log(total0.w) + top0.w, k_f32(0x7f7fffffu), empty0.w);
        }
    }
}
