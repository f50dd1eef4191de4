// loop add+sub+mul+sum+argmax [512]|[4096]
// 64 invocations a row of 4096, each 4 rows

@group(0) @binding(0) var<storage, read> a0: array<vec4<f32>>; // f32[2097152]
@group(0) @binding(1) var<storage, read> a1: array<vec4<f32>>; // f32[2097152]
@group(0) @binding(2) var<storage, read> a2: array<f32>; // f32[4096]
@group(0) @binding(3) var<storage, read> a3: array<vec4<f32>>; // f32[512]
@group(0) @binding(4) var<storage, read_write> a4: array<vec4<f32>>; // f32[512]
@group(0) @binding(5) var<storage, read_write> a5: array<vec4<f32>>; // f32[512]
@group(0) @binding(6) var<storage, read_write> a6: array<vec4<i32>>; // i32[512]
@group(0) @binding(7) var<storage, read> a7: array<f32>; // f32[4096]

fn k_nan(x: f32) -> bool {
    return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u;
}

// A float by its bits: WGSL has no literal for infinity, and constant expressions must not make one.
fn k_f32(bits: u32) -> f32 {
    return bitcast<f32>(bits);
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

var<workgroup> part_f32_0: array<f32, 256>;
var<workgroup> part_f32_1: array<f32, 256>;
var<workgroup> part_f32_2: array<f32, 256>;
var<workgroup> part_f32_3: array<f32, 256>;
var<workgroup> part_f32_4: array<f32, 256>;
var<workgroup> part_f32_5: array<f32, 256>;
var<workgroup> part_f32_6: array<f32, 256>;
var<workgroup> part_f32_7: array<f32, 256>;
var<workgroup> part_f32_8_at: array<u32, 256>;
var<workgroup> part_f32_8: array<f32, 256>;
var<workgroup> part_f32_9_at: array<u32, 256>;
var<workgroup> part_f32_9: array<f32, 256>;
var<workgroup> part_f32_10_at: array<u32, 256>;
var<workgroup> part_f32_10: array<f32, 256>;
var<workgroup> part_f32_11_at: array<u32, 256>;
var<workgroup> part_f32_11: array<f32, 256>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let lane = local / 4u;
    let slot = local % 4u;
    let item = id.x;
    let row = item * 4u + slot;
    let i0 = row;
    let q5 = a3[i0];
    var acc9_0 = 0.0f;
    var acc9_1 = 0.0f;
    var acc9_2 = 0.0f;
    var acc9_3 = 0.0f;
    var acc10_0 = 0.0f;
    var acc10_1 = 0.0f;
    var acc10_2 = 0.0f;
    var acc10_3 = 0.0f;
    var acc11_0 = k_f32(0xff800000u);
    var acc11_0_at = 0xffffffffu;
    var acc11_1 = k_f32(0xff800000u);
    var acc11_1_at = 0xffffffffu;
    var acc11_2 = k_f32(0xff800000u);
    var acc11_2_at = 0xffffffffu;
    var acc11_3 = k_f32(0xff800000u);
    var acc11_3_at = 0xffffffffu;
    for (var first = lane; first < 4096u; first += 256u) {
        let j_0 = first;
        let i1_0 = j_0;
        let q0_0 = a0[i0 + i1_0 * 128u];
        let q1_0 = a1[i0 + i1_0 * 128u];
        let q2_0 = a2[i1_0];
        let q3_0 = a7[i1_0];
        let j_1 = first + 64u;
        let i1_1 = j_1;
        let q0_1 = a0[i0 + i1_1 * 128u];
        let q1_1 = a1[i0 + i1_1 * 128u];
        let q2_1 = a2[i1_1];
        let q3_1 = a7[i1_1];
        let j_2 = first + 128u;
        let i1_2 = j_2;
        let q0_2 = a0[i0 + i1_2 * 128u];
        let q1_2 = a1[i0 + i1_2 * 128u];
        let q2_2 = a2[i1_2];
        let q3_2 = a7[i1_2];
        let j_3 = first + 192u;
        let i1_3 = j_3;
        let q0_3 = a0[i0 + i1_3 * 128u];
        let q1_3 = a1[i0 + i1_3 * 128u];
        let q2_3 = a2[i1_3];
        let q3_3 = a7[i1_3];
        {
            let t2 = q2_0;
            let t3 = q3_0;
            let t4 = t2 + t3;
            {
                let t0 = q0_0.x;
                let t1 = q1_0.x;
                let t5 = q5.x;
                let t6 = t1 - t4;
                let t7 = t0 * t6;
                let t8 = t7 + t5;
                acc9_0 += t0;
                acc10_0 += t8;
                if (k_first_f32(t0, j_0, acc11_0, acc11_0_at)) {
                    acc11_0 = t0;
                    acc11_0_at = j_0;
                }
            }
            {
                let t0 = q0_0.y;
                let t1 = q1_0.y;
                let t5 = q5.y;
                let t6 = t1 - t4;
                let t7 = t0 * t6;
                let t8 = t7 + t5;
                acc9_1 += t0;
                acc10_1 += t8;
                if (k_first_f32(t0, j_0, acc11_1, acc11_1_at)) {
                    acc11_1 = t0;
                    acc11_1_at = j_0;
                }
            }
            {
                let t0 = q0_0.z;
                let t1 = q1_0.z;
                let t5 = q5.z;
                let t6 = t1 - t4;
                let t7 = t0 * t6;
                let t8 = t7 + t5;
                acc9_2 += t0;
                acc10_2 += t8;
                if (k_first_f32(t0, j_0, acc11_2, acc11_2_at)) {
                    acc11_2 = t0;
                    acc11_2_at = j_0;
                }
            }
            {
                let t0 = q0_0.w;
                let t1 = q1_0.w;
                let t5 = q5.w;
                let t6 = t1 - t4;
                let t7 = t0 * t6;
                let t8 = t7 + t5;
                acc9_3 += t0;
                acc10_3 += t8;
                if (k_first_f32(t0, j_0, acc11_3, acc11_3_at)) {
                    acc11_3 = t0;
                    acc11_3_at = j_0;
                }
            }
        }
        {
            let t2 = q2_1;
            let t3 = q3_1;
            let t4 = t2 + t3;
            {
                let t0 = q0_1.x;
                let t1 = q1_1.x;
                let t5 = q5.x;
                let t6 = t1 - t4;
                let t7 = t0 * t6;
                let t8 = t7 + t5;
                acc9_0 += t0;
                acc10_0 += t8;
                if (k_first_f32(t0, j_1, acc11_0, acc11_0_at)) {
                    acc11_0 = t0;
                    acc11_0_at = j_1;
                }
            }
            {
                let t0 = q0_1.y;
                let t1 = q1_1.y;
                let t5 = q5.y;
                let t6 = t1 - t4;
                let t7 = t0 * t6;
                let t8 = t7 + t5;
                acc9_1 += t0;
                acc10_1 += t8;
                if (k_first_f32(t0, j_1, acc11_1, acc11_1_at)) {
                    acc11_1 = t0;
                    acc11_1_at = j_1;
                }
            }
            {
                let t0 = q0_1.z;
                let t1 = q1_1.z;
                let t5 = q5.z;
                let t6 = t1 - t4;
                let t7 = t0 * t6;
                let t8 = t7 + t5;
                acc9_2 += t0;
                acc10_2 += t8;
                if (k_first_f32(t0, j_1, acc11_2, acc11_2_at)) {
                    acc11_2 = t0;
                    acc11_2_at = j_1;
                }
            }
            {
                let t0 = q0_1.w;
                let t1 = q1_1.w;
                let t5 = q5.w;
                let t6 = t1 - t4;
                let t7 = t0 * t6;
                let t8 = t7 + t5;
                acc9_3 += t0;
                acc10_3 += t8;
                if (k_first_f32(t0, j_1, acc11_3, acc11_3_at)) {
                    acc11_3 = t0;
                    acc11_3_at = j_1;
                }
            }
        }
        {
            let t2 = q2_2;
            let t3 = q3_2;
            let t4 = t2 + t3;
            {
                let t0 = q0_2.x;
                let t1 = q1_2.x;
                let t5 = q5.x;
                let t6 = t1 - t4;
                let t7 = t0 * t6;
                let t8 = t7 + t5;
                acc9_0 += t0;
                acc10_0 += t8;
                if (k_first_f32(t0, j_2, acc11_0, acc11_0_at)) {
                    acc11_0 = t0;
                    acc11_0_at = j_2;
                }
            }
            {
                let t0 = q0_2.y;
                let t1 = q1_2.y;
                let t5 = q5.y;
                let t6 = t1 - t4;
                let t7 = t0 * t6;
                let t8 = t7 + t5;
                acc9_1 += t0;
                acc10_1 += t8;
                if (k_first_f32(t0, j_2, acc11_1, acc11_1_at)) {
                    acc11_1 = t0;
                    acc11_1_at = j_2;
                }
            }
            {
                let t0 = q0_2.z;
                let t1 = q1_2.z;
                let t5 = q5.z;
                let t6 = t1 - t4;
                let t7 = t0 * t6;
                let t8 = t7 + t5;
                acc9_2 += t0;
                acc10_2 += t8;
                if (k_first_f32(t0, j_2, acc11_2, acc11_2_at)) {
                    acc11_2 = t0;
                    acc11_2_at = j_2;
                }
            }
            {
                let t0 = q0_2.w;
                let t1 = q1_2.w;
                let t5 = q5.w;
                let t6 = t1 - t4;
                let t7 = t0 * t6;
                let t8 = t7 + t5;
                acc9_3 += t0;
                acc10_3 += t8;
                if (k_first_f32(t0, j_2, acc11_3, acc11_3_at)) {
                    acc11_3 = t0;
                    acc11_3_at = j_2;
                }
            }
        }
        {
            let t2 = q2_3;
            let t3 = q3_3;
            let t4 = t2 + t3;
            {
                let t0 = q0_3.x;
                let t1 = q1_3.x;
                let t5 = q5.x;
                let t6 = t1 - t4;
                let t7 = t0 * t6;
                let t8 = t7 + t5;
                acc9_0 += t0;
                acc10_0 += t8;
                if (k_first_f32(t0, j_3, acc11_0, acc11_0_at)) {
                    acc11_0 = t0;
                    acc11_0_at = j_3;
                }
            }
            {
                let t0 = q0_3.y;
                let t1 = q1_3.y;
                let t5 = q5.y;
                let t6 = t1 - t4;
                let t7 = t0 * t6;
                let t8 = t7 + t5;
                acc9_1 += t0;
                acc10_1 += t8;
                if (k_first_f32(t0, j_3, acc11_1, acc11_1_at)) {
                    acc11_1 = t0;
                    acc11_1_at = j_3;
                }
            }
            {
                let t0 = q0_3.z;
                let t1 = q1_3.z;
                let t5 = q5.z;
                let t6 = t1 - t4;
                let t7 = t0 * t6;
                let t8 = t7 + t5;
                acc9_2 += t0;
                acc10_2 += t8;
                if (k_first_f32(t0, j_3, acc11_2, acc11_2_at)) {
                    acc11_2 = t0;
                    acc11_2_at = j_3;
                }
            }
            {
                let t0 = q0_3.w;
                let t1 = q1_3.w;
                let t5 = q5.w;
                let t6 = t1 - t4;
                let t7 = t0 * t6;
                let t8 = t7 + t5;
                acc9_3 += t0;
                acc10_3 += t8;
                if (k_first_f32(t0, j_3, acc11_3, acc11_3_at)) {
                    acc11_3 = t0;
                    acc11_3_at = j_3;
                }
            }
        }
    }
    part_f32_0[local] = acc9_0;
    part_f32_1[local] = acc9_1;
    part_f32_2[local] = acc9_2;
    part_f32_3[local] = acc9_3;
    part_f32_4[local] = acc10_0;
    part_f32_5[local] = acc10_1;
    part_f32_6[local] = acc10_2;
    part_f32_7[local] = acc10_3;
    part_f32_8[local] = acc11_0;
    part_f32_8_at[local] = acc11_0_at;
    part_f32_9[local] = acc11_1;
    part_f32_9_at[local] = acc11_1_at;
    part_f32_10[local] = acc11_2;
    part_f32_10_at[local] = acc11_2_at;
    part_f32_11[local] = acc11_3;
    part_f32_11_at[local] = acc11_3_at;
    workgroupBarrier(); // publishes what each lane has
    if (lane < 32u) {
        acc9_0 += part_f32_0[local + 128u];
        acc9_1 += part_f32_1[local + 128u];
        acc9_2 += part_f32_2[local + 128u];
        acc9_3 += part_f32_3[local + 128u];
        acc10_0 += part_f32_4[local + 128u];
        acc10_1 += part_f32_5[local + 128u];
        acc10_2 += part_f32_6[local + 128u];
        acc10_3 += part_f32_7[local + 128u];
        if (k_first_f32(part_f32_8[local + 128u], part_f32_8_at[local + 128u], acc11_0, acc11_0_at)) {
            acc11_0 = part_f32_8[local + 128u];
            acc11_0_at = part_f32_8_at[local + 128u];
        }
        if (k_first_f32(part_f32_9[local + 128u], part_f32_9_at[local + 128u], acc11_1, acc11_1_at)) {
            acc11_1 = part_f32_9[local + 128u];
            acc11_1_at = part_f32_9_at[local + 128u];
        }
        if (k_first_f32(part_f32_10[local + 128u], part_f32_10_at[local + 128u], acc11_2, acc11_2_at)) {
            acc11_2 = part_f32_10[local + 128u];
            acc11_2_at = part_f32_10_at[local + 128u];
        }
        if (k_first_f32(part_f32_11[local + 128u], part_f32_11_at[local + 128u], acc11_3, acc11_3_at)) {
            acc11_3 = part_f32_11[local + 128u];
            acc11_3_at = part_f32_11_at[local + 128u];
        }
        part_f32_0[local] = acc9_0;
        part_f32_1[local] = acc9_1;
        part_f32_2[local] = acc9_2;
        part_f32_3[local] = acc9_3;
        part_f32_4[local] = acc10_0;
        part_f32_5[local] = acc10_1;
        part_f32_6[local] = acc10_2;
        part_f32_7[local] = acc10_3;
        part_f32_8[local] = acc11_0;
        part_f32_8_at[local] = acc11_0_at;
        part_f32_9[local] = acc11_1;
        part_f32_9_at[local] = acc11_1_at;
        part_f32_10[local] = acc11_2;
        part_f32_10_at[local] = acc11_2_at;
        part_f32_11[local] = acc11_3;
        part_f32_11_at[local] = acc11_3_at;
    }
    workgroupBarrier(); // publishes what each pair has
    if (lane < 16u) {
        acc9_0 += part_f32_0[local + 64u];
        acc9_1 += part_f32_1[local + 64u];
        acc9_2 += part_f32_2[local + 64u];
        acc9_3 += part_f32_3[local + 64u];
        acc10_0 += part_f32_4[local + 64u];
        acc10_1 += part_f32_5[local + 64u];
        acc10_2 += part_f32_6[local + 64u];
        acc10_3 += part_f32_7[local + 64u];
        if (k_first_f32(part_f32_8[local + 64u], part_f32_8_at[local + 64u], acc11_0, acc11_0_at)) {
            acc11_0 = part_f32_8[local + 64u];
            acc11_0_at = part_f32_8_at[local + 64u];
        }
        if (k_first_f32(part_f32_9[local + 64u], part_f32_9_at[local + 64u], acc11_1, acc11_1_at)) {
            acc11_1 = part_f32_9[local + 64u];
            acc11_1_at = part_f32_9_at[local + 64u];
        }
        if (k_first_f32(part_f32_10[local + 64u], part_f32_10_at[local + 64u], acc11_2, acc11_2_at)) {
            acc11_2 = part_f32_10[local + 64u];
            acc11_2_at = part_f32_10_at[local + 64u];
        }
        if (k_first_f32(part_f32_11[local + 64u], part_f32_11_at[local + 64u], acc11_3, acc11_3_at)) {
            acc11_3 = part_f32_11[local + 64u];
            acc11_3_at = part_f32_11_at[local + 64u];
        }
        part_f32_0[local] = acc9_0;
        part_f32_1[local] = acc9_1;
        part_f32_2[local] = acc9_2;
        part_f32_3[local] = acc9_3;
        part_f32_4[local] = acc10_0;
        part_f32_5[local] = acc10_1;
        part_f32_6[local] = acc10_2;
        part_f32_7[local] = acc10_3;
        part_f32_8[local] = acc11_0;
        part_f32_8_at[local] = acc11_0_at;
        part_f32_9[local] = acc11_1;
        part_f32_9_at[local] = acc11_1_at;
        part_f32_10[local] = acc11_2;
        part_f32_10_at[local] = acc11_2_at;
        part_f32_11[local] = acc11_3;
        part_f32_11_at[local] = acc11_3_at;
    }
    workgroupBarrier(); // publishes what each pair has
    if (lane < 8u) {
        acc9_0 += part_f32_0[local + 32u];
        acc9_1 += part_f32_1[local + 32u];
        acc9_2 += part_f32_2[local + 32u];
        acc9_3 += part_f32_3[local + 32u];
        acc10_0 += part_f32_4[local + 32u];
        acc10_1 += part_f32_5[local + 32u];
        acc10_2 += part_f32_6[local + 32u];
        acc10_3 += part_f32_7[local + 32u];
        if (k_first_f32(part_f32_8[local + 32u], part_f32_8_at[local + 32u], acc11_0, acc11_0_at)) {
            acc11_0 = part_f32_8[local + 32u];
            acc11_0_at = part_f32_8_at[local + 32u];
        }
        if (k_first_f32(part_f32_9[local + 32u], part_f32_9_at[local + 32u], acc11_1, acc11_1_at)) {
            acc11_1 = part_f32_9[local + 32u];
            acc11_1_at = part_f32_9_at[local + 32u];
        }
        if (k_first_f32(part_f32_10[local + 32u], part_f32_10_at[local + 32u], acc11_2, acc11_2_at)) {
            acc11_2 = part_f32_10[local + 32u];
            acc11_2_at = part_f32_10_at[local + 32u];
        }
        if (k_first_f32(part_f32_11[local + 32u], part_f32_11_at[local + 32u], acc11_3, acc11_3_at)) {
            acc11_3 = part_f32_11[local + 32u];
            acc11_3_at = part_f32_11_at[local + 32u];
        }
        part_f32_0[local] = acc9_0;
        part_f32_1[local] = acc9_1;
        part_f32_2[local] = acc9_2;
        part_f32_3[local] = acc9_3;
        part_f32_4[local] = acc10_0;
        part_f32_5[local] = acc10_1;
        part_f32_6[local] = acc10_2;
        part_f32_7[local] = acc10_3;
        part_f32_8[local] = acc11_0;
        part_f32_8_at[local] = acc11_0_at;
        part_f32_9[local] = acc11_1;
        part_f32_9_at[local] = acc11_1_at;
        part_f32_10[local] = acc11_2;
        part_f32_10_at[local] = acc11_2_at;
        part_f32_11[local] = acc11_3;
        part_f32_11_at[local] = acc11_3_at;
    }
    workgroupBarrier(); // publishes what each pair has
    if (lane < 4u) {
        acc9_0 += part_f32_0[local + 16u];
        acc9_1 += part_f32_1[local + 16u];
        acc9_2 += part_f32_2[local + 16u];
        acc9_3 += part_f32_3[local + 16u];
        acc10_0 += part_f32_4[local + 16u];
        acc10_1 += part_f32_5[local + 16u];
        acc10_2 += part_f32_6[local + 16u];
        acc10_3 += part_f32_7[local + 16u];
        if (k_first_f32(part_f32_8[local + 16u], part_f32_8_at[local + 16u], acc11_0, acc11_0_at)) {
            acc11_0 = part_f32_8[local + 16u];
            acc11_0_at = part_f32_8_at[local + 16u];
        }
        if (k_first_f32(part_f32_9[local + 16u], part_f32_9_at[local + 16u], acc11_1, acc11_1_at)) {
            acc11_1 = part_f32_9[local + 16u];
            acc11_1_at = part_f32_9_at[local + 16u];
        }
        if (k_first_f32(part_f32_10[local + 16u], part_f32_10_at[local + 16u], acc11_2, acc11_2_at)) {
            acc11_2 = part_f32_10[local + 16u];
            acc11_2_at = part_f32_10_at[local + 16u];
        }
        if (k_first_f32(part_f32_11[local + 16u], part_f32_11_at[local + 16u], acc11_3, acc11_3_at)) {
            acc11_3 = part_f32_11[local + 16u];
            acc11_3_at = part_f32_11_at[local + 16u];
        }
        part_f32_0[local] = acc9_0;
        part_f32_1[local] = acc9_1;
        part_f32_2[local] = acc9_2;
        part_f32_3[local] = acc9_3;
        part_f32_4[local] = acc10_0;
        part_f32_5[local] = acc10_1;
        part_f32_6[local] = acc10_2;
        part_f32_7[local] = acc10_3;
        part_f32_8[local] = acc11_0;
        part_f32_8_at[local] = acc11_0_at;
        part_f32_9[local] = acc11_1;
        part_f32_9_at[local] = acc11_1_at;
        part_f32_10[local] = acc11_2;
        part_f32_10_at[local] = acc11_2_at;
        part_f32_11[local] = acc11_3;
        part_f32_11_at[local] = acc11_3_at;
    }
    workgroupBarrier(); // publishes what each pair has
    if (lane < 2u) {
        acc9_0 += part_f32_0[local + 8u];
        acc9_1 += part_f32_1[local + 8u];
        acc9_2 += part_f32_2[local + 8u];
        acc9_3 += part_f32_3[local + 8u];
        acc10_0 += part_f32_4[local + 8u];
        acc10_1 += part_f32_5[local + 8u];
        acc10_2 += part_f32_6[local + 8u];
        acc10_3 += part_f32_7[local + 8u];
        if (k_first_f32(part_f32_8[local + 8u], part_f32_8_at[local + 8u], acc11_0, acc11_0_at)) {
            acc11_0 = part_f32_8[local + 8u];
            acc11_0_at = part_f32_8_at[local + 8u];
        }
        if (k_first_f32(part_f32_9[local + 8u], part_f32_9_at[local + 8u], acc11_1, acc11_1_at)) {
            acc11_1 = part_f32_9[local + 8u];
            acc11_1_at = part_f32_9_at[local + 8u];
        }
        if (k_first_f32(part_f32_10[local + 8u], part_f32_10_at[local + 8u], acc11_2, acc11_2_at)) {
            acc11_2 = part_f32_10[local + 8u];
            acc11_2_at = part_f32_10_at[local + 8u];
        }
        if (k_first_f32(part_f32_11[local + 8u], part_f32_11_at[local + 8u], acc11_3, acc11_3_at)) {
            acc11_3 = part_f32_11[local + 8u];
            acc11_3_at = part_f32_11_at[local + 8u];
        }
        part_f32_0[local] = acc9_0;
        part_f32_1[local] = acc9_1;
        part_f32_2[local] = acc9_2;
        part_f32_3[local] = acc9_3;
        part_f32_4[local] = acc10_0;
        part_f32_5[local] = acc10_1;
        part_f32_6[local] = acc10_2;
        part_f32_7[local] = acc10_3;
        part_f32_8[local] = acc11_0;
        part_f32_8_at[local] = acc11_0_at;
        part_f32_9[local] = acc11_1;
        part_f32_9_at[local] = acc11_1_at;
        part_f32_10[local] = acc11_2;
        part_f32_10_at[local] = acc11_2_at;
        part_f32_11[local] = acc11_3;
        part_f32_11_at[local] = acc11_3_at;
    }
    workgroupBarrier(); // publishes what each pair has
    if (lane < 1u) {
        acc9_0 += part_f32_0[local + 4u];
        acc9_1 += part_f32_1[local + 4u];
        acc9_2 += part_f32_2[local + 4u];
        acc9_3 += part_f32_3[local + 4u];
        acc10_0 += part_f32_4[local + 4u];
        acc10_1 += part_f32_5[local + 4u];
        acc10_2 += part_f32_6[local + 4u];
        acc10_3 += part_f32_7[local + 4u];
        if (k_first_f32(part_f32_8[local + 4u], part_f32_8_at[local + 4u], acc11_0, acc11_0_at)) {
            acc11_0 = part_f32_8[local + 4u];
            acc11_0_at = part_f32_8_at[local + 4u];
        }
        if (k_first_f32(part_f32_9[local + 4u], part_f32_9_at[local + 4u], acc11_1, acc11_1_at)) {
            acc11_1 = part_f32_9[local + 4u];
            acc11_1_at = part_f32_9_at[local + 4u];
        }
        if (k_first_f32(part_f32_10[local + 4u], part_f32_10_at[local + 4u], acc11_2, acc11_2_at)) {
            acc11_2 = part_f32_10[local + 4u];
            acc11_2_at = part_f32_10_at[local + 4u];
        }
        if (k_first_f32(part_f32_11[local + 4u], part_f32_11_at[local + 4u], acc11_3, acc11_3_at)) {
            acc11_3 = part_f32_11[local + 4u];
            acc11_3_at = part_f32_11_at[local + 4u];
        }
        part_f32_0[local] = acc9_0;
        part_f32_1[local] = acc9_1;
        part_f32_2[local] = acc9_2;
        part_f32_3[local] = acc9_3;
        part_f32_4[local] = acc10_0;
        part_f32_5[local] = acc10_1;
        part_f32_6[local] = acc10_2;
        part_f32_7[local] = acc10_3;
        part_f32_8[local] = acc11_0;
        part_f32_8_at[local] = acc11_0_at;
        part_f32_9[local] = acc11_1;
        part_f32_9_at[local] = acc11_1_at;
        part_f32_10[local] = acc11_2;
        part_f32_10_at[local] = acc11_2_at;
        part_f32_11[local] = acc11_3;
        part_f32_11_at[local] = acc11_3_at;
    }
    workgroupBarrier(); // publishes what each pair has
    acc9_0 = part_f32_0[slot];
    acc9_1 = part_f32_1[slot];
    acc9_2 = part_f32_2[slot];
    acc9_3 = part_f32_3[slot];
    acc10_0 = part_f32_4[slot];
    acc10_1 = part_f32_5[slot];
    acc10_2 = part_f32_6[slot];
    acc10_3 = part_f32_7[slot];
    acc11_0 = part_f32_8[slot];
    acc11_0_at = part_f32_8_at[slot];
    acc11_1 = part_f32_9[slot];
    acc11_1_at = part_f32_9_at[slot];
    acc11_2 = part_f32_10[slot];
    acc11_2_at = part_f32_10_at[slot];
    acc11_3 = part_f32_11[slot];
    acc11_3_at = part_f32_11_at[slot];
    if (lane == 0u) {
        var w4 = vec4<f32>();
        var w5 = vec4<f32>();
        var w6 = vec4<i32>();
        {
            let t5 = q5.x;
            let t9 = acc9_0;
            let t10 = acc10_0;
            let t11 = i32(select(acc11_0_at, 0u, acc11_0_at == 0xffffffffu));
            let t12 = t10 * t5;
            w4.x = t9;
            w5.x = t12;
            w6.x = t11;
        }
        {
            let t5 = q5.y;
            let t9 = acc9_1;
            let t10 = acc10_1;
            let t11 = i32(select(acc11_1_at, 0u, acc11_1_at == 0xffffffffu));
            let t12 = t10 * t5;
            w4.y = t9;
            w5.y = t12;
            w6.y = t11;
        }
        {
            let t5 = q5.z;
            let t9 = acc9_2;
            let t10 = acc10_2;
            let t11 = i32(select(acc11_2_at, 0u, acc11_2_at == 0xffffffffu));
            let t12 = t10 * t5;
            w4.z = t9;
            w5.z = t12;
            w6.z = t11;
        }
        {
            let t5 = q5.w;
            let t9 = acc9_3;
            let t10 = acc10_3;
            let t11 = i32(select(acc11_3_at, 0u, acc11_3_at == 0xffffffffu));
            let t12 = t10 * t5;
            w4.w = t9;
            w5.w = t12;
            w6.w = t11;
        }
        a4[i0] = w4;
        a5[i0] = w5;
        a6[i0] = w6;
    }
}
