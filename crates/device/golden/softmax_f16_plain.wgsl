// loop amax+sub+exp+sum+div+f16+log+argmax [7]|[65]
// one invocation a row of 65, 2 rows in turn

@group(0) @binding(0) var<storage, read> a0: array<u32>; // f16[455]
@group(0) @binding(1) var<storage, read_write> a1: array<u32>; // f16[455]
@group(0) @binding(2) var<storage, read_write> a2: array<u32>; // f16[7]
@group(0) @binding(3) var<storage, read_write> a3: array<i32>; // i32[7]

fn k_nan(x: f32) -> bool {
    return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u;
}

// A float by its bits: WGSL has no literal for infinity, and constant expressions must not make one.
fn k_f32(bits: u32) -> f32 {
    return bitcast<f32>(bits);
}

fn k_div_f32(x: f32, y: f32) -> f32 {
    return x / y;
}

fn k_max_f32(x: f32, y: f32) -> f32 {
    return select(y, x, k_nan(x) || x > y);
}

// True iff (v, i) comes before (w, j) as the place of the greatest: NaN is greatest, then the first.
fn k_first_f32(v: f32, i: u32, w: f32, j: u32) -> bool {
    let v_nan = k_nan(v);
    let w_nan = k_nan(w);
    if (v_nan != w_nan) {
        return v_nan;
    }
    if (!v_nan && v != w) {
        return v > w;
    }
    return i < j;
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

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let item = id.x;
    if (item >= 4u) {
        return;
    }
    var word1 = 0u;
    var word2 = 0u;
    for (var row = item * 2u; row < min(item * 2u + 2u, 7u); row++) {
        let i0 = row;
        var acc1 = k_f32(0xff800000u);
        var acc8 = k_f32(0xff800000u);
        var acc8_at = 0xffffffffu;
        for (var j = 0u; j < 65u; j++) {
            let i1 = j;
            let t0 = k_from_f16(k_half(a0[(i0 * 65u + i1) / 2u], i0 * 65u + i1));
            acc1 = k_max_f32(acc1, t0);
            if (k_first_f32(t0, j, acc8, acc8_at)) {
                acc8 = t0;
                acc8_at = j;
            }
        }
        let t1 = acc1;
        let t8 = i32(select(acc8_at, 0u, acc8_at == 0xffffffffu));
        var acc4 = 0.0f;
        for (var j = 0u; j < 65u; j++) {
            let i1 = j;
            let t0 = k_from_f16(k_half(a0[(i0 * 65u + i1) / 2u], i0 * 65u + i1));
            let t2 = t0 - t1;
            let t3 = exp(t2);
            acc4 += t3;
        }
        let t4 = acc4;
        let t7 = log(t4);
        for (var j = 0u; j < 65u; j++) {
            let i1 = j;
            let t0 = k_from_f16(k_half(a0[(i0 * 65u + i1) / 2u], i0 * 65u + i1));
            let t2 = t0 - t1;
            let t3 = exp(t2);
            let t5 = k_div_f32(t3, t4);
            let t6 = k_from_f16(k_to_f16(t5));
            let at = row * 65u + j;
            word1 |= (k_to_f16(t6)) << ((at & 1u) * 16u);
            if ((at & 1u) == 1u || at == 454u) {
                a1[at / 2u] = word1;
                word1 = 0u;
            }
        }
        word2 |= (k_to_f16(t7)) << ((row & 1u) * 16u);
        if ((row & 1u) == 1u || row == 6u) {
            a2[row / 2u] = word2;
            word2 = 0u;
        }
        a3[i0] = t8;
    }
}
