// dot copy [1]·[1000]x[512]·[1024]
// tiles of 64 x 64, 16 deep; 8 x 8 an invocation, k in 2 parts

@group(0) @binding(0) var<storage, read> a0: array<vec4<f32>>; // f32[512000]
@group(0) @binding(1) var<storage, read> a1: array<vec4<f32>>; // f32[524288]
@group(0) @binding(2) var<storage, read_write> a2: array<vec4<f32>>; // f32[1024000]

fn lhs4(b: u32, m: u32, k: u32) -> vec4<f32> {
    if (m >= 1000u) {
        return vec4<f32>();
    }
    let i0 = m;
    let i1 = (k / 4u);
    var four = vec4<f32>();
    let q0 = a0[i0 * 128u + i1];
    {
        let t0 = q0.x;
        four[0] = t0;
    }
    {
        let t0 = q0.y;
        four[1] = t0;
    }
    {
        let t0 = q0.z;
        four[2] = t0;
    }
    {
        let t0 = q0.w;
        four[3] = t0;
    }
    return four;
}

fn rhs4(b: u32, k: u32, n: u32) -> vec4<f32> {
    let i0 = (k / 4u);
    let i1 = n;
    var four = vec4<f32>();
    let q0 = a1[i0 + i1 * 128u];
    {
        let t0 = q0.x;
        four[0] = t0;
    }
    {
        let t0 = q0.y;
        four[1] = t0;
    }
    {
        let t0 = q0.z;
        four[2] = t0;
    }
    {
        let t0 = q0.w;
        four[3] = t0;
    }
    return four;
}

fn finish(b: u32, m: u32, first: u32, sums: vec4<f32>) {
    let i0 = m;
    let i1 = (first / 4u);
    var w2 = vec4<f32>();
    {
        let t0 = sums[0];
        w2.x = t0;
    }
    {
        let t0 = sums[1];
        w2.y = t0;
    }
    {
        let t0 = sums[2];
        w2.z = t0;
    }
    {
        let t0 = sums[3];
        w2.w = t0;
    }
    a2[i0 * 256u + i1] = w2;
}

var<workgroup> lhs_tile: array<vec4<f32>, 272>;
var<workgroup> rhs_tile: array<vec4<f32>, 272>;

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let slice = local / 64u;
    let inner = local % 64u;
    let column = inner % 8u; // of the block, in quads
    let row = inner / 8u;
    for (var tile = id.x; tile < 256u; tile += 256u) {
        let b = tile / 256u;
        let band = tile % 256u / 128u * 8u;
        let high = 8u; // tiles of the band below each other
        let within = tile % 256u % 128u;
        let m = (band + within % high) * 64u;
        let n = within / high * 64u;
        var acc0_0 = vec4<f32>();
        var acc0_1 = vec4<f32>();
        var acc1_0 = vec4<f32>();
        var acc1_1 = vec4<f32>();
        var acc2_0 = vec4<f32>();
        var acc2_1 = vec4<f32>();
        var acc3_0 = vec4<f32>();
        var acc3_1 = vec4<f32>();
        var acc4_0 = vec4<f32>();
        var acc4_1 = vec4<f32>();
        var acc5_0 = vec4<f32>();
        var acc5_1 = vec4<f32>();
        var acc6_0 = vec4<f32>();
        var acc6_1 = vec4<f32>();
        var acc7_0 = vec4<f32>();
        var acc7_1 = vec4<f32>();
        let lhs_k0 = local % 4u * 4u;
        let lhs_own0 = local / 4u;
        var lhs_next0 = vec4<f32>();
        let lhs_k1 = (local + 128u) % 4u * 4u;
        let lhs_own1 = (local + 128u) / 4u;
        var lhs_next1 = vec4<f32>();
        let rhs_k0 = local % 4u * 4u;
        let rhs_own0 = local / 4u;
        var rhs_next0 = vec4<f32>();
        let rhs_k1 = (local + 128u) % 4u * 4u;
        let rhs_own1 = (local + 128u) / 4u;
        var rhs_next1 = vec4<f32>();
        lhs_next0 = lhs4(b, m + lhs_own0, lhs_k0);
        lhs_next1 = lhs4(b, m + lhs_own1, lhs_k1);
        rhs_next0 = rhs4(b, rhs_k0, n + rhs_own0);
        rhs_next1 = rhs4(b, rhs_k1, n + rhs_own1);
        for (var k = 0u; k < 512u; k += 16u) {
            lhs_tile[lhs_k0 * 17u + lhs_own0 / 4u][lhs_own0 % 4u] = lhs_next0[0];
            lhs_tile[(lhs_k0 + 1u) * 17u + lhs_own0 / 4u][lhs_own0 % 4u] = lhs_next0[1];
            lhs_tile[(lhs_k0 + 2u) * 17u + lhs_own0 / 4u][lhs_own0 % 4u] = lhs_next0[2];
            lhs_tile[(lhs_k0 + 3u) * 17u + lhs_own0 / 4u][lhs_own0 % 4u] = lhs_next0[3];
            lhs_tile[lhs_k1 * 17u + lhs_own1 / 4u][lhs_own1 % 4u] = lhs_next1[0];
            lhs_tile[(lhs_k1 + 1u) * 17u + lhs_own1 / 4u][lhs_own1 % 4u] = lhs_next1[1];
            lhs_tile[(lhs_k1 + 2u) * 17u + lhs_own1 / 4u][lhs_own1 % 4u] = lhs_next1[2];
            lhs_tile[(lhs_k1 + 3u) * 17u + lhs_own1 / 4u][lhs_own1 % 4u] = lhs_next1[3];
            rhs_tile[rhs_k0 * 17u + rhs_own0 / 4u][rhs_own0 % 4u] = rhs_next0[0];
            rhs_tile[(rhs_k0 + 1u) * 17u + rhs_own0 / 4u][rhs_own0 % 4u] = rhs_next0[1];
            rhs_tile[(rhs_k0 + 2u) * 17u + rhs_own0 / 4u][rhs_own0 % 4u] = rhs_next0[2];
            rhs_tile[(rhs_k0 + 3u) * 17u + rhs_own0 / 4u][rhs_own0 % 4u] = rhs_next0[3];
            rhs_tile[rhs_k1 * 17u + rhs_own1 / 4u][rhs_own1 % 4u] = rhs_next1[0];
            rhs_tile[(rhs_k1 + 1u) * 17u + rhs_own1 / 4u][rhs_own1 % 4u] = rhs_next1[1];
            rhs_tile[(rhs_k1 + 2u) * 17u + rhs_own1 / 4u][rhs_own1 % 4u] = rhs_next1[2];
            rhs_tile[(rhs_k1 + 3u) * 17u + rhs_own1 / 4u][rhs_own1 % 4u] = rhs_next1[3];
            workgroupBarrier(); // publishes both tiles
            if (k + 16u < 512u) {
                lhs_next0 = lhs4(b, m + lhs_own0, k + 16u + lhs_k0);
                lhs_next1 = lhs4(b, m + lhs_own1, k + 16u + lhs_k1);
                rhs_next0 = rhs4(b, k + 16u + rhs_k0, n + rhs_own0);
                rhs_next1 = rhs4(b, k + 16u + rhs_k1, n + rhs_own1);
            }
            let lhs_at = slice * 136u + row;
            let rhs_at = slice * 136u + column;
            {
                let l0 = lhs_tile[lhs_at + 0u];
                let r0 = rhs_tile[rhs_at + 0u];
                let l1 = lhs_tile[lhs_at + 8u];
                let r1 = rhs_tile[rhs_at + 8u];
                acc0_0 += l0.x * r0;
                acc0_1 += l0.x * r1;
                acc1_0 += l0.y * r0;
                acc1_1 += l0.y * r1;
                acc2_0 += l0.z * r0;
                acc2_1 += l0.z * r1;
                acc3_0 += l0.w * r0;
                acc3_1 += l0.w * r1;
                acc4_0 += l1.x * r0;
                acc4_1 += l1.x * r1;
                acc5_0 += l1.y * r0;
                acc5_1 += l1.y * r1;
                acc6_0 += l1.z * r0;
                acc6_1 += l1.z * r1;
                acc7_0 += l1.w * r0;
                acc7_1 += l1.w * r1;
            }
            {
                let l0 = lhs_tile[lhs_at + 17u];
                let r0 = rhs_tile[rhs_at + 17u];
                let l1 = lhs_tile[lhs_at + 25u];
                let r1 = rhs_tile[rhs_at + 25u];
                acc0_0 += l0.x * r0;
                acc0_1 += l0.x * r1;
                acc1_0 += l0.y * r0;
                acc1_1 += l0.y * r1;
                acc2_0 += l0.z * r0;
                acc2_1 += l0.z * r1;
                acc3_0 += l0.w * r0;
                acc3_1 += l0.w * r1;
                acc4_0 += l1.x * r0;
                acc4_1 += l1.x * r1;
                acc5_0 += l1.y * r0;
                acc5_1 += l1.y * r1;
                acc6_0 += l1.z * r0;
                acc6_1 += l1.z * r1;
                acc7_0 += l1.w * r0;
                acc7_1 += l1.w * r1;
            }
            {
                let l0 = lhs_tile[lhs_at + 34u];
                let r0 = rhs_tile[rhs_at + 34u];
                let l1 = lhs_tile[lhs_at + 42u];
                let r1 = rhs_tile[rhs_at + 42u];
                acc0_0 += l0.x * r0;
                acc0_1 += l0.x * r1;
                acc1_0 += l0.y * r0;
                acc1_1 += l0.y * r1;
                acc2_0 += l0.z * r0;
                acc2_1 += l0.z * r1;
                acc3_0 += l0.w * r0;
                acc3_1 += l0.w * r1;
                acc4_0 += l1.x * r0;
                acc4_1 += l1.x * r1;
                acc5_0 += l1.y * r0;
                acc5_1 += l1.y * r1;
                acc6_0 += l1.z * r0;
                acc6_1 += l1.z * r1;
                acc7_0 += l1.w * r0;
                acc7_1 += l1.w * r1;
            }
            {
                let l0 = lhs_tile[lhs_at + 51u];
                let r0 = rhs_tile[rhs_at + 51u];
                let l1 = lhs_tile[lhs_at + 59u];
                let r1 = rhs_tile[rhs_at + 59u];
                acc0_0 += l0.x * r0;
                acc0_1 += l0.x * r1;
                acc1_0 += l0.y * r0;
                acc1_1 += l0.y * r1;
                acc2_0 += l0.z * r0;
                acc2_1 += l0.z * r1;
                acc3_0 += l0.w * r0;
                acc3_1 += l0.w * r1;
                acc4_0 += l1.x * r0;
                acc4_1 += l1.x * r1;
                acc5_0 += l1.y * r0;
                acc5_1 += l1.y * r1;
                acc6_0 += l1.z * r0;
                acc6_1 += l1.z * r1;
                acc7_0 += l1.w * r0;
                acc7_1 += l1.w * r1;
            }
            {
                let l0 = lhs_tile[lhs_at + 68u];
                let r0 = rhs_tile[rhs_at + 68u];
                let l1 = lhs_tile[lhs_at + 76u];
                let r1 = rhs_tile[rhs_at + 76u];
                acc0_0 += l0.x * r0;
                acc0_1 += l0.x * r1;
                acc1_0 += l0.y * r0;
                acc1_1 += l0.y * r1;
                acc2_0 += l0.z * r0;
                acc2_1 += l0.z * r1;
                acc3_0 += l0.w * r0;
                acc3_1 += l0.w * r1;
                acc4_0 += l1.x * r0;
                acc4_1 += l1.x * r1;
                acc5_0 += l1.y * r0;
                acc5_1 += l1.y * r1;
                acc6_0 += l1.z * r0;
                acc6_1 += l1.z * r1;
                acc7_0 += l1.w * r0;
                acc7_1 += l1.w * r1;
            }
            {
                let l0 = lhs_tile[lhs_at + 85u];
                let r0 = rhs_tile[rhs_at + 85u];
                let l1 = lhs_tile[lhs_at + 93u];
                let r1 = rhs_tile[rhs_at + 93u];
                acc0_0 += l0.x * r0;
                acc0_1 += l0.x * r1;
                acc1_0 += l0.y * r0;
                acc1_1 += l0.y * r1;
                acc2_0 += l0.z * r0;
                acc2_1 += l0.z * r1;
                acc3_0 += l0.w * r0;
                acc3_1 += l0.w * r1;
                acc4_0 += l1.x * r0;
                acc4_1 += l1.x * r1;
                acc5_0 += l1.y * r0;
                acc5_1 += l1.y * r1;
                acc6_0 += l1.z * r0;
                acc6_1 += l1.z * r1;
                acc7_0 += l1.w * r0;
                acc7_1 += l1.w * r1;
            }
            {
                let l0 = lhs_tile[lhs_at + 102u];
                let r0 = rhs_tile[rhs_at + 102u];
                let l1 = lhs_tile[lhs_at + 110u];
                let r1 = rhs_tile[rhs_at + 110u];
                acc0_0 += l0.x * r0;
                acc0_1 += l0.x * r1;
                acc1_0 += l0.y * r0;
                acc1_1 += l0.y * r1;
                acc2_0 += l0.z * r0;
                acc2_1 += l0.z * r1;
                acc3_0 += l0.w * r0;
                acc3_1 += l0.w * r1;
                acc4_0 += l1.x * r0;
                acc4_1 += l1.x * r1;
                acc5_0 += l1.y * r0;
                acc5_1 += l1.y * r1;
                acc6_0 += l1.z * r0;
                acc6_1 += l1.z * r1;
                acc7_0 += l1.w * r0;
                acc7_1 += l1.w * r1;
            }
            {
                let l0 = lhs_tile[lhs_at + 119u];
                let r0 = rhs_tile[rhs_at + 119u];
                let l1 = lhs_tile[lhs_at + 127u];
                let r1 = rhs_tile[rhs_at + 127u];
                acc0_0 += l0.x * r0;
                acc0_1 += l0.x * r1;
                acc1_0 += l0.y * r0;
                acc1_1 += l0.y * r1;
                acc2_0 += l0.z * r0;
                acc2_1 += l0.z * r1;
                acc3_0 += l0.w * r0;
                acc3_1 += l0.w * r1;
                acc4_0 += l1.x * r0;
                acc4_1 += l1.x * r1;
                acc5_0 += l1.y * r0;
                acc5_1 += l1.y * r1;
                acc6_0 += l1.z * r0;
                acc6_1 += l1.z * r1;
                acc7_0 += l1.w * r0;
                acc7_1 += l1.w * r1;
            }
            workgroupBarrier(); // all have read both tiles
        }
        if (slice == 1u) {
            lhs_tile[inner + 0u] = acc0_0;
            lhs_tile[inner + 64u] = acc0_1;
            lhs_tile[inner + 128u] = acc1_0;
            lhs_tile[inner + 192u] = acc1_1;
        }
        workgroupBarrier(); // publishes some sums
        if (slice == 0u) {
            acc0_0 += lhs_tile[inner + 0u];
            acc0_1 += lhs_tile[inner + 64u];
            acc1_0 += lhs_tile[inner + 128u];
            acc1_1 += lhs_tile[inner + 192u];
        }
        workgroupBarrier(); // all have read them
        if (slice == 1u) {
            lhs_tile[inner + 0u] = acc2_0;
            lhs_tile[inner + 64u] = acc2_1;
            lhs_tile[inner + 128u] = acc3_0;
            lhs_tile[inner + 192u] = acc3_1;
        }
        workgroupBarrier(); // publishes some sums
        if (slice == 0u) {
            acc2_0 += lhs_tile[inner + 0u];
            acc2_1 += lhs_tile[inner + 64u];
            acc3_0 += lhs_tile[inner + 128u];
            acc3_1 += lhs_tile[inner + 192u];
        }
        workgroupBarrier(); // all have read them
        if (slice == 1u) {
            lhs_tile[inner + 0u] = acc4_0;
            lhs_tile[inner + 64u] = acc4_1;
            lhs_tile[inner + 128u] = acc5_0;
            lhs_tile[inner + 192u] = acc5_1;
        }
        workgroupBarrier(); // publishes some sums
        if (slice == 0u) {
            acc4_0 += lhs_tile[inner + 0u];
            acc4_1 += lhs_tile[inner + 64u];
            acc5_0 += lhs_tile[inner + 128u];
            acc5_1 += lhs_tile[inner + 192u];
        }
        workgroupBarrier(); // all have read them
        if (slice == 1u) {
            lhs_tile[inner + 0u] = acc6_0;
            lhs_tile[inner + 64u] = acc6_1;
            lhs_tile[inner + 128u] = acc7_0;
            lhs_tile[inner + 192u] = acc7_1;
        }
        workgroupBarrier(); // publishes some sums
        if (slice == 0u) {
            acc6_0 += lhs_tile[inner + 0u];
            acc6_1 += lhs_tile[inner + 64u];
            acc7_0 += lhs_tile[inner + 128u];
            acc7_1 += lhs_tile[inner + 192u];
        }
        workgroupBarrier(); // all have read them
        if (slice == 0u) {
            let m0 = m + row * 4u + 0u;
            if (m0 < 1000u) {
                finish(b, m0, n + column * 4u + 0u, acc0_0);
                finish(b, m0, n + column * 4u + 32u, acc0_1);
            }
            let m1 = m + row * 4u + 1u;
            if (m1 < 1000u) {
                finish(b, m1, n + column * 4u + 0u, acc1_0);
                finish(b, m1, n + column * 4u + 32u, acc1_1);
            }
            let m2 = m + row * 4u + 2u;
            if (m2 < 1000u) {
                finish(b, m2, n + column * 4u + 0u, acc2_0);
                finish(b, m2, n + column * 4u + 32u, acc2_1);
            }
            let m3 = m + row * 4u + 3u;
            if (m3 < 1000u) {
                finish(b, m3, n + column * 4u + 0u, acc3_0);
                finish(b, m3, n + column * 4u + 32u, acc3_1);
            }
            let m4 = m + row * 4u + 32u;
            if (m4 < 1000u) {
                finish(b, m4, n + column * 4u + 0u, acc4_0);
                finish(b, m4, n + column * 4u + 32u, acc4_1);
            }
            let m5 = m + row * 4u + 33u;
            if (m5 < 1000u) {
                finish(b, m5, n + column * 4u + 0u, acc5_0);
                finish(b, m5, n + column * 4u + 32u, acc5_1);
            }
            let m6 = m + row * 4u + 34u;
            if (m6 < 1000u) {
                finish(b, m6, n + column * 4u + 0u, acc6_0);
                finish(b, m6, n + column * 4u + 32u, acc6_1);
            }
            let m7 = m + row * 4u + 35u;
            if (m7 < 1000u) {
                finish(b, m7, n + column * 4u + 0u, acc7_0);
                finish(b, m7, n + column * 4u + 32u, acc7_1);
            }
        }
    }
}
