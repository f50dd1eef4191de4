// dot copy [1]·[1000]x[512]·[1024]
// tiles of 64 x 64, 16 deep; 4 x 4 an invocation

@group(0) @binding(0) var<storage, read> a0: array<f32>; // f32[512000]
@group(0) @binding(1) var<storage, read> a1: array<f32>; // f32[524288]
@group(0) @binding(2) var<storage, read_write> a2: array<f32>; // f32[1024000]

fn lhs(b: u32, m: u32, k: u32) -> f32 {
    if (m >= 1000u) {
        return 0.0f;
    }
    let i0 = m;
    let i1 = k;
    let t0 = a0[i0 * 512u + i1];
    return t0;
}

fn rhs(b: u32, k: u32, n: u32) -> f32 {
    let i0 = k;
    let i1 = n;
    let t0 = a1[i0 + i1 * 512u];
    return t0;
}

fn finish(b: u32, m: u32, first: u32, sums: vec4<f32>) {
    for (var c = 0u; c < 4u; c++) {
        let n = first + c;
        let i0 = m;
        let i1 = n;
        let t0 = sums[c];
        a2[i0 * 1024u + i1] = t0;
    }
}

var<workgroup> lhs_tile: array<vec4<f32>, 272>;
var<workgroup> rhs_tile: array<vec4<f32>, 272>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let column = local % 16u; // of the block, in quads
    let row = local / 16u;
    for (var tile = id.x; tile < 256u; tile += 256u) {
        let b = tile / 256u;
        let m = tile / 16u % 16u * 64u;
        let n = tile % 16u * 64u;
        var acc0_0 = vec4<f32>();
        var acc1_0 = vec4<f32>();
        var acc2_0 = vec4<f32>();
        var acc3_0 = vec4<f32>();
        let lhs_k0 = local % 16u;
        let lhs_quad0 = local / 16u;
        var lhs_next0 = vec4<f32>();
        let rhs_k0 = local % 16u;
        let rhs_quad0 = local / 16u;
        var rhs_next0 = vec4<f32>();
        lhs_next0 = vec4<f32>(lhs(b, m + lhs_quad0 * 4u + 0u, lhs_k0), lhs(b, m + lhs_quad0 * 4u + 1u, lhs_k0), lhs(b, m + lhs_quad0 * 4u + 2u, lhs_k0), lhs(b, m + lhs_quad0 * 4u + 3u, lhs_k0));
        rhs_next0 = vec4<f32>(rhs(b, rhs_k0, n + rhs_quad0 * 4u + 0u), rhs(b, rhs_k0, n + rhs_quad0 * 4u + 1u), rhs(b, rhs_k0, n + rhs_quad0 * 4u + 2u), rhs(b, rhs_k0, n + rhs_quad0 * 4u + 3u));
        for (var k = 0u; k < 512u; k += 16u) {
            lhs_tile[lhs_k0 * 17u + lhs_quad0] = lhs_next0;
            rhs_tile[rhs_k0 * 17u + rhs_quad0] = rhs_next0;
            workgroupBarrier(); // publishes both tiles
            if (k + 16u < 512u) {
                lhs_next0 = vec4<f32>(lhs(b, m + lhs_quad0 * 4u + 0u, k + 16u + lhs_k0), lhs(b, m + lhs_quad0 * 4u + 1u, k + 16u + lhs_k0), lhs(b, m + lhs_quad0 * 4u + 2u, k + 16u + lhs_k0), lhs(b, m + lhs_quad0 * 4u + 3u, k + 16u + lhs_k0));
                rhs_next0 = vec4<f32>(rhs(b, k + 16u + rhs_k0, n + rhs_quad0 * 4u + 0u), rhs(b, k + 16u + rhs_k0, n + rhs_quad0 * 4u + 1u), rhs(b, k + 16u + rhs_k0, n + rhs_quad0 * 4u + 2u), rhs(b, k + 16u + rhs_k0, n + rhs_quad0 * 4u + 3u));
            }
            for (var step = 0u; step < 16u; step++) {
                let l0 = lhs_tile[step * 17u + row + 0u];
                let r0 = rhs_tile[step * 17u + column + 0u];
                acc0_0 += l0.x * r0;
                acc1_0 += l0.y * r0;
                acc2_0 += l0.z * r0;
                acc3_0 += l0.w * r0;
            }
            workgroupBarrier(); // all have read both tiles
        }
        let m0 = m + row * 4u + 0u;
        if (m0 < 1000u) {
            finish(b, m0, n + column * 4u + 0u, acc0_0);
        }
        let m1 = m + row * 4u + 1u;
        if (m1 < 1000u) {
            finish(b, m1, n + column * 4u + 0u, acc1_0);
        }
        let m2 = m + row * 4u + 2u;
        if (m2 < 1000u) {
            finish(b, m2, n + column * 4u + 0u, acc2_0);
        }
        let m3 = m + row * 4u + 3u;
        if (m3 < 1000u) {
            finish(b, m3, n + column * 4u + 0u, acc3_0);
        }
    }
}
