// loop amax+sub+exp+sum+div+log+argmax [512]|[256]
// 64 invocations a row of 256, each 1 × 4 elements, kept in registers

@group(0) @binding(0) var<storage, read> a0: array<vec4<f32>>; // f32[131072]
@group(0) @binding(1) var<storage, read_write> a1: array<vec4<f32>>; // f32[131072]
@group(0) @binding(2) var<storage, read_write> a2: array<f32>; // f32[512]
@group(0) @binding(3) var<storage, read_write> a3: array<i32>; // i32[512]

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

var<workgroup> part_f32_0: array<f32, 128>;
var<workgroup> part_f32_1_at: array<u32, 128>;
var<workgroup> part_f32_1: array<f32, 128>;

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let lane = local % 64u;
    let slot = local / 64u;
    let item = id.x;
    let row = item * 2u + slot;
    let i0 = row;
    let strip_0 = lane;
    let i1_0 = strip_0;
    let q0_0 = a0[i0 * 64u + i1_0];
    var acc1 = k_f32(0xff800000u);
    var acc7 = k_f32(0xff800000u);
    var acc7_at = 0xffffffffu;
    {
        {
            let t0 = q0_0.x;
            acc1 = k_max_f32(acc1, t0);
            if (k_first_f32(t0, strip_0 * 4u, acc7, acc7_at)) {
                acc7 = t0;
                acc7_at = strip_0 * 4u;
            }
        }
        {
            let t0 = q0_0.y;
            acc1 = k_max_f32(acc1, t0);
            if (k_first_f32(t0, strip_0 * 4u + 1u, acc7, acc7_at)) {
                acc7 = t0;
                acc7_at = strip_0 * 4u + 1u;
            }
        }
        {
            let t0 = q0_0.z;
            acc1 = k_max_f32(acc1, t0);
            if (k_first_f32(t0, strip_0 * 4u + 2u, acc7, acc7_at)) {
                acc7 = t0;
                acc7_at = strip_0 * 4u + 2u;
            }
        }
        {
            let t0 = q0_0.w;
            acc1 = k_max_f32(acc1, t0);
            if (k_first_f32(t0, strip_0 * 4u + 3u, acc7, acc7_at)) {
                acc7 = t0;
                acc7_at = strip_0 * 4u + 3u;
            }
        }
    }
    part_f32_0[local] = acc1;
    part_f32_1[local] = acc7;
    part_f32_1_at[local] = acc7_at;
    workgroupBarrier(); // publishes what each lane has
    if (lane < 32u) {
        acc1 = k_max_f32(acc1, part_f32_0[local + 32u]);
        if (k_first_f32(part_f32_1[local + 32u], part_f32_1_at[local + 32u], acc7, acc7_at)) {
            acc7 = part_f32_1[local + 32u];
            acc7_at = part_f32_1_at[local + 32u];
        }
        part_f32_0[local] = acc1;
        part_f32_1[local] = acc7;
        part_f32_1_at[local] = acc7_at;
    }
    workgroupBarrier(); // publishes what each pair has
    if (lane < 16u) {
        acc1 = k_max_f32(acc1, part_f32_0[local + 16u]);
        if (k_first_f32(part_f32_1[local + 16u], part_f32_1_at[local + 16u], acc7, acc7_at)) {
            acc7 = part_f32_1[local + 16u];
            acc7_at = part_f32_1_at[local + 16u];
        }
        part_f32_0[local] = acc1;
        part_f32_1[local] = acc7;
        part_f32_1_at[local] = acc7_at;
    }
    workgroupBarrier(); // publishes what each pair has
    if (lane < 8u) {
        acc1 = k_max_f32(acc1, part_f32_0[local + 8u]);
        if (k_first_f32(part_f32_1[local + 8u], part_f32_1_at[local + 8u], acc7, acc7_at)) {
            acc7 = part_f32_1[local + 8u];
            acc7_at = part_f32_1_at[local + 8u];
        }
        part_f32_0[local] = acc1;
        part_f32_1[local] = acc7;
        part_f32_1_at[local] = acc7_at;
    }
    workgroupBarrier(); // publishes what each pair has
    if (lane < 4u) {
        acc1 = k_max_f32(acc1, part_f32_0[local + 4u]);
        if (k_first_f32(part_f32_1[local + 4u], part_f32_1_at[local + 4u], acc7, acc7_at)) {
            acc7 = part_f32_1[local + 4u];
            acc7_at = part_f32_1_at[local + 4u];
        }
        part_f32_0[local] = acc1;
        part_f32_1[local] = acc7;
        part_f32_1_at[local] = acc7_at;
    }
    workgroupBarrier(); // publishes what each pair has
    if (lane < 2u) {
        acc1 = k_max_f32(acc1, part_f32_0[local + 2u]);
        if (k_first_f32(part_f32_1[local + 2u], part_f32_1_at[local + 2u], acc7, acc7_at)) {
            acc7 = part_f32_1[local + 2u];
            acc7_at = part_f32_1_at[local + 2u];
        }
        part_f32_0[local] = acc1;
        part_f32_1[local] = acc7;
        part_f32_1_at[local] = acc7_at;
    }
    workgroupBarrier(); // publishes what each pair has
    if (lane < 1u) {
        acc1 = k_max_f32(acc1, part_f32_0[local + 1u]);
        if (k_first_f32(part_f32_1[local + 1u], part_f32_1_at[local + 1u], acc7, acc7_at)) {
            acc7 = part_f32_1[local + 1u];
            acc7_at = part_f32_1_at[local + 1u];
        }
        part_f32_0[local] = acc1;
        part_f32_1[local] = acc7;
        part_f32_1_at[local] = acc7_at;
    }
    workgroupBarrier(); // publishes what each pair has
    acc1 = part_f32_0[slot * 64u];
    acc7 = part_f32_1[slot * 64u];
    acc7_at = part_f32_1_at[slot * 64u];
    let t1 = acc1;
    let t7 = i32(select(acc7_at, 0u, acc7_at == 0xffffffffu));
    var acc4 = 0.0f;
    {
        {
            let t0 = q0_0.x;
            let t2 = t0 - t1;
            let t3 = exp(t2);
            acc4 += t3;
        }
        {
            let t0 = q0_0.y;
            let t2 = t0 - t1;
            let t3 = exp(t2);
            acc4 += t3;
        }
        {
            let t0 = q0_0.z;
            let t2 = t0 - t1;
            let t3 = exp(t2);
            acc4 += t3;
        }
        {
            let t0 = q0_0.w;
            let t2 = t0 - t1;
            let t3 = exp(t2);
            acc4 += t3;
        }
    }
    workgroupBarrier(); // all have read the last result
    part_f32_0[local] = acc4;
    workgroupBarrier(); // publishes what each lane has
    if (lane < 32u) {
        acc4 += part_f32_0[local + 32u];
        part_f32_0[local] = acc4;
    }
    workgroupBarrier(); // publishes what each pair has
    if (lane < 16u) {
        acc4 += part_f32_0[local + 16u];
        part_f32_0[local] = acc4;
    }
    workgroupBarrier(); // publishes what each pair has
    if (lane < 8u) {
        acc4 += part_f32_0[local + 8u];
        part_f32_0[local] = acc4;
    }
    workgroupBarrier(); // publishes what each pair has
    if (lane < 4u) {
        acc4 += part_f32_0[local + 4u];
        part_f32_0[local] = acc4;
    }
    workgroupBarrier(); // publishes what each pair has
    if (lane < 2u) {
        acc4 += part_f32_0[local + 2u];
        part_f32_0[local] = acc4;
    }
    workgroupBarrier(); // publishes what each pair has
    if (lane < 1u) {
        acc4 += part_f32_0[local + 1u];
        part_f32_0[local] = acc4;
    }
    workgroupBarrier(); // publishes what each pair has
    acc4 = part_f32_0[slot * 64u];
    let t4 = acc4;
    let t6 = log(t4);
    {
        var w1 = vec4<f32>();
        {
            let t0 = q0_0.x;
            let t2 = t0 - t1;
            let t3 = exp(t2);
            let t5 = k_div_f32(t3, t4);
            w1.x = t5;
        }
        {
            let t0 = q0_0.y;
            let t2 = t0 - t1;
            let t3 = exp(t2);
            let t5 = k_div_f32(t3, t4);
            w1.y = t5;
        }
        {
            let t0 = q0_0.z;
            let t2 = t0 - t1;
            let t3 = exp(t2);
            let t5 = k_div_f32(t3, t4);
            w1.z = t5;
        }
        {
            let t0 = q0_0.w;
            let t2 = t0 - t1;
            let t3 = exp(t2);
            let t5 = k_div_f32(t3, t4);
            w1.w = t5;
        }
        a1[i0 * 64u + i1_0] = w1;
    }
    if (lane == 0u) {
        a2[i0] = t6;
        a3[i0] = t7;
    }
}
