// dot copy [2]·[9]x[5]·[6]
// a 4 x 4 block an invocation, in registers

@group(0) @binding(0) var<storage, read> a0: array<f32>; // f32[90]
@group(0) @binding(1) var<storage, read> a1: array<f32>; // f32[60]
@group(0) @binding(2) var<storage, read_write> a2: array<f32>; // f32[108]

fn lhs(b: u32, m: u32, k: u32) -> f32 {
    let i0 = b;
    let i1 = m;
    let i2 = k;
    let t0 = a0[i0 * 45u + i1 + i2 * 9u];
    return t0;
}

fn rhs(b: u32, k: u32, n: u32) -> f32 {
    let i0 = b;
    let i1 = k;
    let i2 = n;
    let t0 = a1[i0 * 30u + i1 * 6u + i2];
    return t0;
}

fn finish(b: u32, m: u32, first: u32, sums: vec4<f32>) {
    for (var c = 0u; c < 4u; c++) {
        let n = first + c;
        if (n < 6u) {
            let i0 = b;
            let i1 = m;
            let i2 = n;
            let t0 = sums[c];
            a2[i0 * 54u + i1 * 6u + i2] = t0;
        }
    }
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    for (var block = id.x; block < 12u; block += 64u) {
        let b = block / 6u;
        let m = block / 2u % 3u * 4u;
        let n = block % 2u * 4u;
        var acc0 = vec4<f32>();
        var acc1 = vec4<f32>();
        var acc2 = vec4<f32>();
        var acc3 = vec4<f32>();
        for (var k = 0u; k < 5u; k++) {
            let r = vec4<f32>(rhs(b, k, n), rhs(b, k, min(n + 1u, 5u)), rhs(b, k, min(n + 2u, 5u)), rhs(b, k, min(n + 3u, 5u)));
            acc0 += lhs(b, m, k) * r;
            acc1 += lhs(b, min(m + 1u, 8u), k) * r;
            acc2 += lhs(b, min(m + 2u, 8u), k) * r;
            acc3 += lhs(b, min(m + 3u, 8u), k) * r;
        }
        finish(b, m, n, acc0);
        if (m + 1u < 9u) {
            finish(b, m + 1u, n, acc1);
        }
        if (m + 2u < 9u) {
            finish(b, m + 2u, n, acc2);
        }
        if (m + 3u < 9u) {
            finish(b, m + 3u, n, acc3);
        }
    }
}
