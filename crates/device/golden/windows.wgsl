// loop amax+sub+exp+sum+div+log+argmax [300]|[65]
// one invocation a row of 65

@group(0) @binding(0) var<storage, read> a0_0: array<f32>; // f32[19500], window 0 of 2
@group(0) @binding(1) var<storage, read> a0_1: array<f32>; // f32[19500], window 1 of 2
@group(0) @binding(2) var<storage, read_write> a1_0: array<f32>; // f32[19500], window 0 of 2
@group(0) @binding(3) var<storage, read_write> a1_1: array<f32>; // f32[19500], window 1 of 2
@group(0) @binding(4) var<storage, read_write> a2: array<f32>; // f32[300]
@group(0) @binding(5) var<storage, read_write> a3: array<i32>; // i32[300]

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

// a0 is bound in 2 windows of 16384 elements.
fn load_a0(at: u32) -> f32 {
    let within = at & 16383u;
    var x: f32;
    switch (at >> 14u) {
        case 0u: { x = a0_0[within]; }
        default: { x = a0_1[within]; }
    }
    return x;
}

// a1 is bound in 2 windows of 16384 elements.
fn store_a1(at: u32, x: f32) {
    let within = at & 16383u;
    switch (at >> 14u) {
        case 0u: { a1_0[within] = x; }
        default: { a1_1[within] = x; }
    }
}

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let item = id.x;
    if (item >= 300u) {
        return;
    }
    let row = item;
    let i0 = row;
    var acc1 = k_f32(0xff800000u);
    var acc7 = k_f32(0xff800000u);
    var acc7_at = 0xffffffffu;
    for (var j = 0u; j < 65u; j++) {
        let i1 = j;
        let t0 = load_a0(i0 * 65u + i1);
        acc1 = k_max_f32(acc1, t0);
        if (k_first_f32(t0, j, acc7, acc7_at)) {
            acc7 = t0;
            acc7_at = j;
        }
    }
    let t1 = acc1;
    let t7 = i32(select(acc7_at, 0u, acc7_at == 0xffffffffu));
    var acc4 = 0.0f;
    for (var j = 0u; j < 65u; j++) {
        let i1 = j;
        let t0 = load_a0(i0 * 65u + i1);
        let t2 = t0 - t1;
        let t3 = exp(t2);
        acc4 += t3;
    }
    let t4 = acc4;
    let t6 = log(t4);
    for (var j = 0u; j < 65u; j++) {
        let i1 = j;
        let t0 = load_a0(i0 * 65u + i1);
        let t2 = t0 - t1;
        let t3 = exp(t2);
        let t5 = k_div_f32(t3, t4);
        store_a1(i0 * 65u + i1, t5);
    }
    a2[i0] = t6;
    a3[i0] = t7;
}
