// Functions that generated kernels call. Only those that a kernel names, and what these name, are
// copied into it. One function per compute type where the arithmetic differs: `k_name_type`.
//
// NaN is tested by its bits: compilers may assume that floats are never NaN, and then fold `x != x`.

fn k_nan(x: f32) -> bool {
    return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u;
}

// A float by its bits: WGSL has no literal for infinity, and constant expressions must not make one.
fn k_f32(bits: u32) -> f32 {
    return bitcast<f32>(bits);
}

fn k_neg_f32(x: f32) -> f32 {
    return -x;
}

fn k_neg_i32(x: i32) -> i32 {
    return 0i - x;
}

fn k_neg_u32(x: u32) -> u32 {
    return 0u - x;
}

// The built-in may turn NaN into 0.
fn k_sign_f32(x: f32) -> f32 {
    return select(sign(x), x, k_nan(x));
}

// Beyond 15 the value is 1 in f32, and some fast implementations overflow.
fn k_tanh_f32(x: f32) -> f32 {
    return select(tanh(clamp(x, -15.0, 15.0)), x, k_nan(x));
}

// Series near 0 (Abramowitz and Stegun 1964, 7.1.5), rational approximation elsewhere (7.1.26).
fn k_erf_f32(x: f32) -> f32 {
    let a = abs(x);
    let s = x * x;
    let series = x * (1.1283792 + s * (-0.37612638 + s * (0.11283792 + s * (-0.026866170 + s * (0.0052239776
        - s * 0.00085483270)))));
    let t = 1.0 / (1.0 + 0.3275911 * a);
    let poly = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
    let tail = 1.0 - poly * exp(-min(s, 80.0));
    let value = select(select(tail, -tail, x < 0.0), series, a < 0.5);
    return select(value, x, k_nan(x));
}

// The exponent is never positive, so neither tail overflows.
fn k_sigmoid_f32(x: f32) -> f32 {
    let e = exp(-abs(x));
    return select(select(e, 1.0, x >= 0.0) / (1.0 + e), x, k_nan(x));
}

// Negative by its bits: a comparison with 0 may be compiled into a maximum, which loses NaN.
fn k_relu_f32(x: f32) -> f32 {
    return select(x, 0.0, bitcast<i32>(x) < 0i && !k_nan(x));
}

fn k_not_bool(x: bool) -> bool {
    return !x;
}

fn k_not_i32(x: i32) -> i32 {
    return ~x;
}

fn k_not_u32(x: u32) -> u32 {
    return ~x;
}

fn k_div_f32(x: f32, y: f32) -> f32 {
    return x / y;
}

// Both exceptional divisors are handled here, so that no driver has to be trusted with them.
fn k_div_i32(x: i32, y: i32) -> i32 {
    if (y == 0i) {
        return 0i;
    }
    if (y == -1i) {
        return 0i - x;
    }
    return x / y;
}

fn k_div_u32(x: u32, y: u32) -> u32 {
    if (y == 0u) {
        return 0u;
    }
    return x / y;
}

// The quotient may round up to the next whole number; then the remainder is one divisor off.
fn k_rem_f32(x: f32, y: f32) -> f32 {
    let a = abs(x);
    let b = abs(y);
    var r = fma(-trunc(a / b), b, a);
    if (r < 0.0) {
        r += b;
    }
    if (r >= b) {
        r -= b;
    }
    return select(r, -r, x < 0.0);
}

fn k_rem_i32(x: i32, y: i32) -> i32 {
    if (y == 0i || y == -1i) {
        return 0i;
    }
    return x % y;
}

fn k_rem_u32(x: u32, y: u32) -> u32 {
    if (y == 0u) {
        return 0u;
    }
    return x % y;
}

fn k_min_f32(x: f32, y: f32) -> f32 {
    return select(y, x, k_nan(x) || x < y);
}

fn k_min_i32(x: i32, y: i32) -> i32 {
    return min(x, y);
}

fn k_min_u32(x: u32, y: u32) -> u32 {
    return min(x, y);
}

fn k_max_f32(x: f32, y: f32) -> f32 {
    return select(y, x, k_nan(x) || x > y);
}

fn k_max_i32(x: i32, y: i32) -> i32 {
    return max(x, y);
}

fn k_max_u32(x: u32, y: u32) -> u32 {
    return max(x, y);
}

fn k_xor_bool(x: bool, y: bool) -> bool {
    return x != y;
}

fn k_xor_i32(x: i32, y: i32) -> i32 {
    return x ^ y;
}

fn k_xor_u32(x: u32, y: u32) -> u32 {
    return x ^ y;
}

fn k_shr_i32(x: i32, y: i32) -> i32 {
    return x >> (u32(y) & 31u);
}

fn k_shr_u32(x: u32, y: u32) -> u32 {
    return x >> (y & 31u);
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

fn k_first_i32(v: i32, i: u32, w: i32, j: u32) -> bool {
    return v > w || (v == w && i < j);
}

fn k_first_u32(v: u32, i: u32, w: u32, j: u32) -> bool {
    return v > w || (v == w && i < j);
}

fn k_rotate(x: u32, bits: u32) -> u32 {
    return (x << bits) | (x >> (32u - bits));
}

// Four rounds of Threefry2x32.
fn k_threefry_mix(v: vec2<u32>, r: vec4<u32>) -> vec2<u32> {
    let x1 = v.x + v.y;
    let y1 = k_rotate(v.y, r.x) ^ x1;
    let x2 = x1 + y1;
    let y2 = k_rotate(y1, r.y) ^ x2;
    let x3 = x2 + y2;
    let y3 = k_rotate(y2, r.z) ^ x3;
    let x4 = x3 + y3;
    return vec2<u32>(x4, k_rotate(y3, r.w) ^ x4);
}

// First word of Threefry2x32-20, key (x, y), counter (z, 0). Salmon et al. 2011.
fn k_threefry_u32(x: u32, y: u32, z: u32) -> u32 {
    let even = vec4<u32>(13u, 15u, 26u, 6u);
    let odd = vec4<u32>(17u, 29u, 16u, 24u);
    let w = 0x1bd11bdau ^ x ^ y;
    let v1 = k_threefry_mix(vec2<u32>(z + x, y), even) + vec2<u32>(y, w + 1u);
    let v2 = k_threefry_mix(v1, odd) + vec2<u32>(w, x + 2u);
    let v3 = k_threefry_mix(v2, even) + vec2<u32>(x, y + 3u);
    let v4 = k_threefry_mix(v3, odd) + vec2<u32>(y, w + 4u);
    let v5 = k_threefry_mix(v4, even) + vec2<u32>(w, x + 5u);
    return v5.x;
}

// Truncates and saturates; NaN gives 0.
fn k_to_i32(x: f32) -> i32 {
    if (k_nan(x)) {
        return 0i;
    }
    if (x >= 2147483648.0) {
        return 2147483647i;
    }
    if (x <= -2147483648.0) {
        return bitcast<i32>(0x80000000u);
    }
    return i32(x);
}

// Truncates and saturates; NaN gives 0.
fn k_to_u32(x: f32) -> u32 {
    if (k_nan(x) || x <= 0.0) {
        return 0u;
    }
    if (x >= 4294967296.0) {
        return 0xffffffffu;
    }
    return u32(x);
}

// NaN and subnormal numbers are not 0.
fn k_to_bool(x: f32) -> bool {
    return (bitcast<u32>(x) & 0x7fffffffu) != 0u;
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

// The nearest bf16, ties to even.
fn k_to_bf16(x: f32) -> u32 {
    let bits = bitcast<u32>(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) {
        return (bits >> 16u) | 0x40u;
    }
    return (bits + 0x7fffu + ((bits >> 16u) & 1u)) >> 16u;
}

// The bf16 in the low half of a word.
fn k_from_bf16(h: u32) -> f32 {
    return bitcast<f32>(h << 16u);
}

// The n-th half of the words, of which this is the one that holds it.
fn k_half(word: u32, n: u32) -> u32 {
    return (word >> ((n & 1u) * 16u)) & 0xffffu;
}

// The n-th byte of the words, of which this is the one that holds it.
fn k_byte(word: u32, n: u32) -> u32 {
    return (word >> ((n & 3u) * 8u)) & 0xffu;
}

// Division that rounds down, n > 0.
fn k_floor_div(x: i32, n: i32) -> i32 {
    return select(x / n, -((n - 1i - x) / n), x < 0i);
}

// The remainder that is never negative, n > 0.
fn k_floor_mod(x: i32, n: i32) -> i32 {
    let r = x % n;
    return select(r, r + n, r < 0i);
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

// A number as bits in order: both zeros are one, and NaN is the greatest.
fn k_key_f32(x: f32) -> u32 {
    let bits = bitcast<u32>(x);
    let magnitude = bits & 0x7fffffffu;
    if (magnitude == 0u || magnitude > 0x7f800000u) {
        return select(0x80000000u, 0xffffffffu, magnitude > 0u);
    }
    return select(bits | 0x80000000u, ~bits, bits > 0x80000000u);
}

fn k_key_i32(x: i32) -> u32 {
    return bitcast<u32>(x) ^ 0x80000000u;
}

fn k_key_u32(x: u32) -> u32 {
    return x;
}
