// loop f32+mul+add [100, 1023]|[]
// one invocation a point

@group(0) @binding(0) var<storage, read_write> a0: array<f32>; // f32[102300]
@group(0) @binding(1) var<storage, read> a1: array<f32>; // f32[100]
@group(0) @binding(2) var<storage, read> a2: array<f32>; // f32[1023]
@group(0) @binding(3) var<storage, read> a3: array<f32>; // f32[102300]
@group(0) @binding(4) var<storage, read> a4: array<i32>; // i32[100]
@group(0) @binding(5) var<storage, read> a5: array<f32>; // f32[9207]

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let item = id.x;
    let live = item * 256u + local < 102300u;
    let strip = min(item * 256u + local, 102299u);
    let i0 = strip / 1023u;
    let i1 = strip % 1023u;
    let q0 = a0[i0 * 1023u + i1];
    let q1 = a1[i0];
    let q2 = a2[i1];
    var q3 = f32();
    if (i1 >= 1u) {
        q3 = a3[i0 * 1023u + i1 - 1u];
    }
    let q4 = a4[i0];
    let t1 = q1;
    let t4 = q4;
    let t0 = q0;
    let t2 = q2;
    let t3 = q3;
    let g5 = u32(clamp(t4, 0i, 8i));
    var t5 = 0.0f;
    if (i0 >= 1u) {
        t5 = a5[i1 + g5 * 1023u];
    }
    let t6 = i32(i1);
    let t7 = f32(t6);
    let t8 = t0 * t1;
    let t9 = t8 + t2;
    let t10 = t9 + t3;
    let t11 = t10 + t5;
    let t12 = t11 + t7;
    if (live) {
        a0[i0 * 1023u + i1] = t12;
    }
}
