// attention+attention_logsum causal [2, 3]·[200, 64]x[200, 64]
// a workgroup 64 rows of the queries, 32 of the other side at a time in slices of 32; 8 x 4 an invocation

@group(0) @binding(0) var<storage, read> a0: array<vec4<f32>>; // f32[76800]
@group(0) @binding(1) var<storage, read> a1: array<vec4<f32>>; // f32[76800]
@group(0) @binding(2) var<storage, read> a2: array<vec4<f32>>; // f32[76800]
@group(0) @binding(3) var<storage, read_write> a3: array<vec4<f32>>; // f32[76800]
@group(0) @binding(4) var<storage, read_write> a4: array<f32>; // f32[1200]

// A float by its bits: WGSL has no literal for infinity, and constant expressions must not make one.
fn k_f32(bits: u32) -> f32 {
    return bitcast<f32>(bits);
}

fn query4(b: u32, row: u32, column: u32) -> vec4<f32> {
    if (row >= 200u) {
        return vec4<f32>();
    }
    let i0 = b;
    let i1 = row;
    let i2 = (column / 4u);
    var four = vec4<f32>();
    let q0 = a0[i0 * 16u + i1 * 96u + i2];
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

fn key4(b: u32, row: u32, column: u32) -> vec4<f32> {
    if (row >= 200u) {
        return vec4<f32>();
    }
    let i0 = b;
    let i1 = row;
    let i2 = (column / 4u);
    var four = vec4<f32>();
    let q0 = a1[i0 * 16u + i1 * 96u + i2];
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

fn value4(b: u32, row: u32, column: u32) -> vec4<f32> {
    if (row >= 200u) {
        return vec4<f32>();
    }
    let i0 = b;
    let i1 = row;
    let i2 = (column / 4u);
    var four = vec4<f32>();
    let q0 = a2[i0 * 16u + i1 * 96u + i2];
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

fn keep_out(b: u32, row: u32, first: u32, x: vec4<f32>) {
    let at = (b * 200u + row) * 64u + first;
    a3[at / 4u] = x;
}

var<workgroup> stage: array<vec4<f32>, 832>;
var<workgroup> maxima: array<vec4<f32>, 136>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let inner = local;
    let column = inner % 8u; // of the scores and the sums, in quads
    let row = inner / 8u; // of the tile, in fours
    for (var tile = id.x; tile < 24u; tile += 24u) {
        let b = tile % 6u;
        let first = (3u - tile / 6u) * 64u;
        let own = first + row * 4u;
        var sum0_0 = vec4<f32>();
        var sum0_1 = vec4<f32>();
        var sum1_0 = vec4<f32>();
        var sum1_1 = vec4<f32>();
        var sum2_0 = vec4<f32>();
        var sum2_1 = vec4<f32>();
        var sum3_0 = vec4<f32>();
        var sum3_1 = vec4<f32>();
        var sum4_0 = vec4<f32>();
        var sum4_1 = vec4<f32>();
        var sum5_0 = vec4<f32>();
        var sum5_1 = vec4<f32>();
        var sum6_0 = vec4<f32>();
        var sum6_1 = vec4<f32>();
        var sum7_0 = vec4<f32>();
        var sum7_1 = vec4<f32>();
        var top0 = vec4<f32>(k_f32(0xff7fffffu));
        var total0 = vec4<f32>(); // of the columns that this invocation has
        var top1 = vec4<f32>(k_f32(0xff7fffffu));
        var total1 = vec4<f32>(); // of the columns that this invocation has
        let end = min(first + 64u, 200u);
        for (var at = 0u; at < end; at += 32u) {
            let others = at + column * 4u;
            var score0_0 = vec4<f32>();
            var score1_0 = vec4<f32>();
            var score2_0 = vec4<f32>();
            var score3_0 = vec4<f32>();
            var score4_0 = vec4<f32>();
            var score5_0 = vec4<f32>();
            var score6_0 = vec4<f32>();
            var score7_0 = vec4<f32>();
            for (var c = 0u; c < 64u; c += 32u) {
                workgroupBarrier(); // all have read the stage
                {
                    let at_row = inner / 4u;
                    let at_column = inner % 4u * 4u;
                    let place = 0u + at_column * 17u + at_row / 4u;
                    let lane = at_row % 4u;
                    let four0 = query4(b, first + at_row + 0u, c + at_column + 0u);
                    let four1 = query4(b, first + at_row + 16u, c + at_column + 0u);
                    let four2 = query4(b, first + at_row + 32u, c + at_column + 0u);
                    let four3 = query4(b, first + at_row + 48u, c + at_column + 0u);
                    let four4 = query4(b, first + at_row + 0u, c + at_column + 16u);
                    let four5 = query4(b, first + at_row + 16u, c + at_column + 16u);
                    let four6 = query4(b, first + at_row + 32u, c + at_column + 16u);
                    let four7 = query4(b, first + at_row + 48u, c + at_column + 16u);
                    stage[place + 0u][lane] = four0[0];
                    stage[place + 17u][lane] = four0[1];
                    stage[place + 34u][lane] = four0[2];
                    stage[place + 51u][lane] = four0[3];
                    stage[place + 4u][lane] = four1[0];
                    stage[place + 21u][lane] = four1[1];
                    stage[place + 38u][lane] = four1[2];
                    stage[place + 55u][lane] = four1[3];
                    stage[place + 8u][lane] = four2[0];
                    stage[place + 25u][lane] = four2[1];
                    stage[place + 42u][lane] = four2[2];
                    stage[place + 59u][lane] = four2[3];
                    stage[place + 12u][lane] = four3[0];
                    stage[place + 29u][lane] = four3[1];
                    stage[place + 46u][lane] = four3[2];
                    stage[place + 63u][lane] = four3[3];
                    stage[place + 272u][lane] = four4[0];
                    stage[place + 289u][lane] = four4[1];
                    stage[place + 306u][lane] = four4[2];
                    stage[place + 323u][lane] = four4[3];
                    stage[place + 276u][lane] = four5[0];
                    stage[place + 293u][lane] = four5[1];
                    stage[place + 310u][lane] = four5[2];
                    stage[place + 327u][lane] = four5[3];
                    stage[place + 280u][lane] = four6[0];
                    stage[place + 297u][lane] = four6[1];
                    stage[place + 314u][lane] = four6[2];
                    stage[place + 331u][lane] = four6[3];
                    stage[place + 284u][lane] = four7[0];
                    stage[place + 301u][lane] = four7[1];
                    stage[place + 318u][lane] = four7[2];
                    stage[place + 335u][lane] = four7[3];
                }
                {
                    let at_row = inner / 4u;
                    let at_column = inner % 4u * 4u;
                    let place = 544u + at_column * 9u + at_row / 4u;
                    let lane = at_row % 4u;
                    let four0 = key4(b, at + at_row + 0u, c + at_column + 0u);
                    let four1 = key4(b, at + at_row + 16u, c + at_column + 0u);
                    let four2 = key4(b, at + at_row + 0u, c + at_column + 16u);
                    let four3 = key4(b, at + at_row + 16u, c + at_column + 16u);
                    stage[place + 0u][lane] = four0[0];
                    stage[place + 9u][lane] = four0[1];
                    stage[place + 18u][lane] = four0[2];
                    stage[place + 27u][lane] = four0[3];
                    stage[place + 4u][lane] = four1[0];
                    stage[place + 13u][lane] = four1[1];
                    stage[place + 22u][lane] = four1[2];
                    stage[place + 31u][lane] = four1[3];
                    stage[place + 144u][lane] = four2[0];
                    stage[place + 153u][lane] = four2[1];
                    stage[place + 162u][lane] = four2[2];
                    stage[place + 171u][lane] = four2[3];
                    stage[place + 148u][lane] = four3[0];
                    stage[place + 157u][lane] = four3[1];
                    stage[place + 166u][lane] = four3[2];
                    stage[place + 175u][lane] = four3[3];
                }
                workgroupBarrier(); // publishes a slice of both operands
                let l_at = 0u + row;
                let r_at = 544u + column;
                for (var step = 0u; step < 32u; step += 16u) {
                    let l_at = l_at + step * 17u;
                    let r_at = r_at + step * 9u;
                    {
                        let l0 = stage[l_at + 0u];
                        let l1 = stage[l_at + 8u];
                        let r0 = stage[r_at + 0u];
                        score0_0 += l0.x * r0;
                        score1_0 += l0.y * r0;
                        score2_0 += l0.z * r0;
                        score3_0 += l0.w * r0;
                        score4_0 += l1.x * r0;
                        score5_0 += l1.y * r0;
                        score6_0 += l1.z * r0;
                        score7_0 += l1.w * r0;
                    }
                    {
                        let l0 = stage[l_at + 17u];
                        let l1 = stage[l_at + 25u];
                        let r0 = stage[r_at + 9u];
                        score0_0 += l0.x * r0;
                        score1_0 += l0.y * r0;
                        score2_0 += l0.z * r0;
                        score3_0 += l0.w * r0;
                        score4_0 += l1.x * r0;
                        score5_0 += l1.y * r0;
                        score6_0 += l1.z * r0;
                        score7_0 += l1.w * r0;
                    }
                    {
                        let l0 = stage[l_at + 34u];
                        let l1 = stage[l_at + 42u];
                        let r0 = stage[r_at + 18u];
                        score0_0 += l0.x * r0;
                        score1_0 += l0.y * r0;
                        score2_0 += l0.z * r0;
                        score3_0 += l0.w * r0;
                        score4_0 += l1.x * r0;
                        score5_0 += l1.y * r0;
                        score6_0 += l1.z * r0;
                        score7_0 += l1.w * r0;
                    }
                    {
                        let l0 = stage[l_at + 51u];
                        let l1 = stage[l_at + 59u];
                        let r0 = stage[r_at + 27u];
                        score0_0 += l0.x * r0;
                        score1_0 += l0.y * r0;
                        score2_0 += l0.z * r0;
                        score3_0 += l0.w * r0;
                        score4_0 += l1.x * r0;
                        score5_0 += l1.y * r0;
                        score6_0 += l1.z * r0;
                        score7_0 += l1.w * r0;
                    }
                    {
                        let l0 = stage[l_at + 68u];
                        let l1 = stage[l_at + 76u];
                        let r0 = stage[r_at + 36u];
                        score0_0 += l0.x * r0;
                        score1_0 += l0.y * r0;
                        score2_0 += l0.z * r0;
                        score3_0 += l0.w * r0;
                        score4_0 += l1.x * r0;
                        score5_0 += l1.y * r0;
                        score6_0 += l1.z * r0;
                        score7_0 += l1.w * r0;
                    }
                    {
                        let l0 = stage[l_at + 85u];
                        let l1 = stage[l_at + 93u];
                        let r0 = stage[r_at + 45u];
                        score0_0 += l0.x * r0;
                        score1_0 += l0.y * r0;
                        score2_0 += l0.z * r0;
                        score3_0 += l0.w * r0;
                        score4_0 += l1.x * r0;
                        score5_0 += l1.y * r0;
                        score6_0 += l1.z * r0;
                        score7_0 += l1.w * r0;
                    }
                    {
                        let l0 = stage[l_at + 102u];
                        let l1 = stage[l_at + 110u];
                        let r0 = stage[r_at + 54u];
                        score0_0 += l0.x * r0;
                        score1_0 += l0.y * r0;
                        score2_0 += l0.z * r0;
                        score3_0 += l0.w * r0;
                        score4_0 += l1.x * r0;
                        score5_0 += l1.y * r0;
                        score6_0 += l1.z * r0;
                        score7_0 += l1.w * r0;
                    }
                    {
                        let l0 = stage[l_at + 119u];
                        let l1 = stage[l_at + 127u];
                        let r0 = stage[r_at + 63u];
                        score0_0 += l0.x * r0;
                        score1_0 += l0.y * r0;
                        score2_0 += l0.z * r0;
                        score3_0 += l0.w * r0;
                        score4_0 += l1.x * r0;
                        score5_0 += l1.y * r0;
                        score6_0 += l1.z * r0;
                        score7_0 += l1.w * r0;
                    }
                    {
                        let l0 = stage[l_at + 136u];
                        let l1 = stage[l_at + 144u];
                        let r0 = stage[r_at + 72u];
                        score0_0 += l0.x * r0;
                        score1_0 += l0.y * r0;
                        score2_0 += l0.z * r0;
                        score3_0 += l0.w * r0;
                        score4_0 += l1.x * r0;
                        score5_0 += l1.y * r0;
                        score6_0 += l1.z * r0;
                        score7_0 += l1.w * r0;
                    }
                    {
                        let l0 = stage[l_at + 153u];
                        let l1 = stage[l_at + 161u];
                        let r0 = stage[r_at + 81u];
                        score0_0 += l0.x * r0;
                        score1_0 += l0.y * r0;
                        score2_0 += l0.z * r0;
                        score3_0 += l0.w * r0;
                        score4_0 += l1.x * r0;
                        score5_0 += l1.y * r0;
                        score6_0 += l1.z * r0;
                        score7_0 += l1.w * r0;
                    }
                    {
                        let l0 = stage[l_at + 170u];
                        let l1 = stage[l_at + 178u];
                        let r0 = stage[r_at + 90u];
                        score0_0 += l0.x * r0;
                        score1_0 += l0.y * r0;
                        score2_0 += l0.z * r0;
                        score3_0 += l0.w * r0;
                        score4_0 += l1.x * r0;
                        score5_0 += l1.y * r0;
                        score6_0 += l1.z * r0;
                        score7_0 += l1.w * r0;
                    }
                    {
                        let l0 = stage[l_at + 187u];
                        let l1 = stage[l_at + 195u];
                        let r0 = stage[r_at + 99u];
                        score0_0 += l0.x * r0;
                        score1_0 += l0.y * r0;
                        score2_0 += l0.z * r0;
                        score3_0 += l0.w * r0;
                        score4_0 += l1.x * r0;
                        score5_0 += l1.y * r0;
                        score6_0 += l1.z * r0;
                        score7_0 += l1.w * r0;
                    }
                    {
                        let l0 = stage[l_at + 204u];
                        let l1 = stage[l_at + 212u];
                        let r0 = stage[r_at + 108u];
                        score0_0 += l0.x * r0;
                        score1_0 += l0.y * r0;
                        score2_0 += l0.z * r0;
                        score3_0 += l0.w * r0;
                        score4_0 += l1.x * r0;
                        score5_0 += l1.y * r0;
                        score6_0 += l1.z * r0;
                        score7_0 += l1.w * r0;
                    }
                    {
                        let l0 = stage[l_at + 221u];
                        let l1 = stage[l_at + 229u];
                        let r0 = stage[r_at + 117u];
                        score0_0 += l0.x * r0;
                        score1_0 += l0.y * r0;
                        score2_0 += l0.z * r0;
                        score3_0 += l0.w * r0;
                        score4_0 += l1.x * r0;
                        score5_0 += l1.y * r0;
                        score6_0 += l1.z * r0;
                        score7_0 += l1.w * r0;
                    }
                    {
                        let l0 = stage[l_at + 238u];
                        let l1 = stage[l_at + 246u];
                        let r0 = stage[r_at + 126u];
                        score0_0 += l0.x * r0;
                        score1_0 += l0.y * r0;
                        score2_0 += l0.z * r0;
                        score3_0 += l0.w * r0;
                        score4_0 += l1.x * r0;
                        score5_0 += l1.y * r0;
                        score6_0 += l1.z * r0;
                        score7_0 += l1.w * r0;
                    }
                    {
                        let l0 = stage[l_at + 255u];
                        let l1 = stage[l_at + 263u];
                        let r0 = stage[r_at + 135u];
                        score0_0 += l0.x * r0;
                        score1_0 += l0.y * r0;
                        score2_0 += l0.z * r0;
                        score3_0 += l0.w * r0;
                        score4_0 += l1.x * r0;
                        score5_0 += l1.y * r0;
                        score6_0 += l1.z * r0;
                        score7_0 += l1.w * r0;
                    }
                }
            }
            var next0 = vec4<f32>();
            var next1 = vec4<f32>();
            var next2 = vec4<f32>();
            var next3 = vec4<f32>();
            next0 = value4(b, at + (inner / 16u + 0u) % 8u * 4u + (inner / 16u + 0u) / 8u, inner % 16u * 4u);
            next1 = value4(b, at + (inner / 16u + 4u) % 8u * 4u + (inner / 16u + 4u) / 8u, inner % 16u * 4u);
            next2 = value4(b, at + (inner / 16u + 8u) % 8u * 4u + (inner / 16u + 8u) / 8u, inner % 16u * 4u);
            next3 = value4(b, at + (inner / 16u + 12u) % 8u * 4u + (inner / 16u + 12u) / 8u, inner % 16u * 4u);
            score0_0 *= 0.125f;
            score1_0 *= 0.125f;
            score2_0 *= 0.125f;
            score3_0 *= 0.125f;
            score4_0 *= 0.125f;
            score5_0 *= 0.125f;
            score6_0 *= 0.125f;
            score7_0 *= 0.125f;
            if (at + 32u > 200u || at + 31u > first) {
                let other0 = others + 0u + vec4<u32>(0u, 1u, 2u, 3u);
                score0_0 = select(vec4<f32>(k_f32(0xff7fffffu)), score0_0, (other0 < vec4<u32>(200u)) & (other0 <= vec4<u32>(own + 0u)));
                score1_0 = select(vec4<f32>(k_f32(0xff7fffffu)), score1_0, (other0 < vec4<u32>(200u)) & (other0 <= vec4<u32>(own + 1u)));
                score2_0 = select(vec4<f32>(k_f32(0xff7fffffu)), score2_0, (other0 < vec4<u32>(200u)) & (other0 <= vec4<u32>(own + 2u)));
                score3_0 = select(vec4<f32>(k_f32(0xff7fffffu)), score3_0, (other0 < vec4<u32>(200u)) & (other0 <= vec4<u32>(own + 3u)));
                score4_0 = select(vec4<f32>(k_f32(0xff7fffffu)), score4_0, (other0 < vec4<u32>(200u)) & (other0 <= vec4<u32>(own + 32u)));
                score5_0 = select(vec4<f32>(k_f32(0xff7fffffu)), score5_0, (other0 < vec4<u32>(200u)) & (other0 <= vec4<u32>(own + 33u)));
                score6_0 = select(vec4<f32>(k_f32(0xff7fffffu)), score6_0, (other0 < vec4<u32>(200u)) & (other0 <= vec4<u32>(own + 34u)));
                score7_0 = select(vec4<f32>(k_f32(0xff7fffffu)), score7_0, (other0 < vec4<u32>(200u)) & (other0 <= vec4<u32>(own + 35u)));
            }
            var higher0 = top0;
            var higher1 = top1;
            let best0 = score0_0;
            higher0.x = max(higher0.x, max(max(best0.x, best0.y), max(best0.z, best0.w)));
            let best1 = score1_0;
            higher0.y = max(higher0.y, max(max(best1.x, best1.y), max(best1.z, best1.w)));
            let best2 = score2_0;
            higher0.z = max(higher0.z, max(max(best2.x, best2.y), max(best2.z, best2.w)));
            let best3 = score3_0;
            higher0.w = max(higher0.w, max(max(best3.x, best3.y), max(best3.z, best3.w)));
            let best4 = score4_0;
            higher1.x = max(higher1.x, max(max(best4.x, best4.y), max(best4.z, best4.w)));
            let best5 = score5_0;
            higher1.y = max(higher1.y, max(max(best5.x, best5.y), max(best5.z, best5.w)));
            let best6 = score6_0;
            higher1.z = max(higher1.z, max(max(best6.x, best6.y), max(best6.z, best6.w)));
            let best7 = score7_0;
            higher1.w = max(higher1.w, max(max(best7.x, best7.y), max(best7.z, best7.w)));
            let higher_at = 0u + row * 2u;
            maxima[higher_at + column * 17u + 0u] = higher0;
            maxima[higher_at + column * 17u + 1u] = higher1;
            workgroupBarrier(); // publishes what each invocation's columns give
            higher0 = maxima[higher_at + 0u];
            higher0 = max(higher0, maxima[higher_at + 17u]);
            higher0 = max(higher0, maxima[higher_at + 34u]);
            higher0 = max(higher0, maxima[higher_at + 51u]);
            higher0 = max(higher0, maxima[higher_at + 68u]);
            higher0 = max(higher0, maxima[higher_at + 85u]);
            higher0 = max(higher0, maxima[higher_at + 102u]);
            higher0 = max(higher0, maxima[higher_at + 119u]);
            higher1 = maxima[higher_at + 1u];
            higher1 = max(higher1, maxima[higher_at + 18u]);
            higher1 = max(higher1, maxima[higher_at + 35u]);
            higher1 = max(higher1, maxima[higher_at + 52u]);
            higher1 = max(higher1, maxima[higher_at + 69u]);
            higher1 = max(higher1, maxima[higher_at + 86u]);
            higher1 = max(higher1, maxima[higher_at + 103u]);
            higher1 = max(higher1, maxima[higher_at + 120u]);
            let fade0 = exp(top0 - higher0);
            top0 = higher0;
            total0 *= fade0;
            let fade1 = exp(top1 - higher1);
            top1 = higher1;
            total1 *= fade1;
            sum0_0 *= fade0.x;
            sum0_1 *= fade0.x;
            sum1_0 *= fade0.y;
            sum1_1 *= fade0.y;
            sum2_0 *= fade0.z;
            sum2_1 *= fade0.z;
            sum3_0 *= fade0.w;
            sum3_1 *= fade0.w;
            sum4_0 *= fade1.x;
            sum4_1 *= fade1.x;
            sum5_0 *= fade1.y;
            sum5_1 *= fade1.y;
            sum6_0 *= fade1.z;
            sum6_1 *= fade1.z;
            sum7_0 *= fade1.w;
            sum7_1 *= fade1.w;
            var share0_0 = exp(score0_0 - vec4<f32>(top0.x));
            var share1_0 = exp(score1_0 - vec4<f32>(top0.y));
            var share2_0 = exp(score2_0 - vec4<f32>(top0.z));
            var share3_0 = exp(score3_0 - vec4<f32>(top0.w));
            var share4_0 = exp(score4_0 - vec4<f32>(top1.x));
            var share5_0 = exp(score5_0 - vec4<f32>(top1.y));
            var share6_0 = exp(score6_0 - vec4<f32>(top1.z));
            var share7_0 = exp(score7_0 - vec4<f32>(top1.w));
            if (at + 32u > 200u || at + 31u > first) {
                let other0 = others + 0u + vec4<u32>(0u, 1u, 2u, 3u);
                share0_0 = select(vec4<f32>(), share0_0, (other0 < vec4<u32>(200u)) & (other0 <= vec4<u32>(own + 0u)));
                share1_0 = select(vec4<f32>(), share1_0, (other0 < vec4<u32>(200u)) & (other0 <= vec4<u32>(own + 1u)));
                share2_0 = select(vec4<f32>(), share2_0, (other0 < vec4<u32>(200u)) & (other0 <= vec4<u32>(own + 2u)));
                share3_0 = select(vec4<f32>(), share3_0, (other0 < vec4<u32>(200u)) & (other0 <= vec4<u32>(own + 3u)));
                share4_0 = select(vec4<f32>(), share4_0, (other0 < vec4<u32>(200u)) & (other0 <= vec4<u32>(own + 32u)));
                share5_0 = select(vec4<f32>(), share5_0, (other0 < vec4<u32>(200u)) & (other0 <= vec4<u32>(own + 33u)));
                share6_0 = select(vec4<f32>(), share6_0, (other0 < vec4<u32>(200u)) & (other0 <= vec4<u32>(own + 34u)));
                share7_0 = select(vec4<f32>(), share7_0, (other0 < vec4<u32>(200u)) & (other0 <= vec4<u32>(own + 35u)));
            }
            total0 += vec4<f32>(dot(share0_0, vec4<f32>(1.0f)), dot(share1_0, vec4<f32>(1.0f)), dot(share2_0, vec4<f32>(1.0f)), dot(share3_0, vec4<f32>(1.0f)));
            total1 += vec4<f32>(dot(share4_0, vec4<f32>(1.0f)), dot(share5_0, vec4<f32>(1.0f)), dot(share6_0, vec4<f32>(1.0f)), dot(share7_0, vec4<f32>(1.0f)));
            let weight_at = 0u + column * 17u + row;
            stage[weight_at + 0u] = vec4<f32>(share0_0.x, share1_0.x, share2_0.x, share3_0.x);
            stage[weight_at + 136u] = vec4<f32>(share0_0.y, share1_0.y, share2_0.y, share3_0.y);
            stage[weight_at + 272u] = vec4<f32>(share0_0.z, share1_0.z, share2_0.z, share3_0.z);
            stage[weight_at + 408u] = vec4<f32>(share0_0.w, share1_0.w, share2_0.w, share3_0.w);
            stage[weight_at + 8u] = vec4<f32>(share4_0.x, share5_0.x, share6_0.x, share7_0.x);
            stage[weight_at + 144u] = vec4<f32>(share4_0.y, share5_0.y, share6_0.y, share7_0.y);
            stage[weight_at + 280u] = vec4<f32>(share4_0.z, share5_0.z, share6_0.z, share7_0.z);
            stage[weight_at + 416u] = vec4<f32>(share4_0.w, share5_0.w, share6_0.w, share7_0.w);
            for (var part = 0u; part < 32u; part += 16u) {
                let rows_at = 544u;
                stage[rows_at + inner + 0u] = next0;
                stage[rows_at + inner + 64u] = next1;
                stage[rows_at + inner + 128u] = next2;
                stage[rows_at + inner + 192u] = next3;
                workgroupBarrier(); // publishes the weights and some rows of the other side
                if (part + 16u < 32u) {
                    next0 = value4(b, at + (part + 16u + inner / 16u + 0u) % 8u * 4u + (part + 16u + inner / 16u + 0u) / 8u, inner % 16u * 4u);
                    next1 = value4(b, at + (part + 16u + inner / 16u + 4u) % 8u * 4u + (part + 16u + inner / 16u + 4u) / 8u, inner % 16u * 4u);
                    next2 = value4(b, at + (part + 16u + inner / 16u + 8u) % 8u * 4u + (part + 16u + inner / 16u + 8u) / 8u, inner % 16u * 4u);
                    next3 = value4(b, at + (part + 16u + inner / 16u + 12u) % 8u * 4u + (part + 16u + inner / 16u + 12u) / 8u, inner % 16u * 4u);
                }
                let w_at = 0u + part * 17u + row;
                let r_at0 = rows_at + column + 0u;
                let r_at1 = rows_at + column + 8u;
                {
                    let w0 = stage[w_at + 0u];
                    let w1 = stage[w_at + 8u];
                    let r0 = stage[r_at0 + 0u];
                    let r1 = stage[r_at1 + 0u];
                    sum0_0 += w0.x * r0;
                    sum0_1 += w0.x * r1;
                    sum1_0 += w0.y * r0;
                    sum1_1 += w0.y * r1;
                    sum2_0 += w0.z * r0;
                    sum2_1 += w0.z * r1;
                    sum3_0 += w0.w * r0;
                    sum3_1 += w0.w * r1;
                    sum4_0 += w1.x * r0;
                    sum4_1 += w1.x * r1;
                    sum5_0 += w1.y * r0;
                    sum5_1 += w1.y * r1;
                    sum6_0 += w1.z * r0;
                    sum6_1 += w1.z * r1;
                    sum7_0 += w1.w * r0;
                    sum7_1 += w1.w * r1;
                }
                {
                    let w0 = stage[w_at + 17u];
                    let w1 = stage[w_at + 25u];
                    let r0 = stage[r_at0 + 16u];
                    let r1 = stage[r_at1 + 16u];
                    sum0_0 += w0.x * r0;
                    sum0_1 += w0.x * r1;
                    sum1_0 += w0.y * r0;
                    sum1_1 += w0.y * r1;
                    sum2_0 += w0.z * r0;
                    sum2_1 += w0.z * r1;
                    sum3_0 += w0.w * r0;
                    sum3_1 += w0.w * r1;
                    sum4_0 += w1.x * r0;
                    sum4_1 += w1.x * r1;
                    sum5_0 += w1.y * r0;
                    sum5_1 += w1.y * r1;
                    sum6_0 += w1.z * r0;
                    sum6_1 += w1.z * r1;
                    sum7_0 += w1.w * r0;
                    sum7_1 += w1.w * r1;
                }
                {
                    let w0 = stage[w_at + 34u];
                    let w1 = stage[w_at + 42u];
                    let r0 = stage[r_at0 + 32u];
                    let r1 = stage[r_at1 + 32u];
                    sum0_0 += w0.x * r0;
                    sum0_1 += w0.x * r1;
                    sum1_0 += w0.y * r0;
                    sum1_1 += w0.y * r1;
                    sum2_0 += w0.z * r0;
                    sum2_1 += w0.z * r1;
                    sum3_0 += w0.w * r0;
                    sum3_1 += w0.w * r1;
                    sum4_0 += w1.x * r0;
                    sum4_1 += w1.x * r1;
                    sum5_0 += w1.y * r0;
                    sum5_1 += w1.y * r1;
                    sum6_0 += w1.z * r0;
                    sum6_1 += w1.z * r1;
                    sum7_0 += w1.w * r0;
                    sum7_1 += w1.w * r1;
                }
                {
                    let w0 = stage[w_at + 51u];
                    let w1 = stage[w_at + 59u];
                    let r0 = stage[r_at0 + 48u];
                    let r1 = stage[r_at1 + 48u];
                    sum0_0 += w0.x * r0;
                    sum0_1 += w0.x * r1;
                    sum1_0 += w0.y * r0;
                    sum1_1 += w0.y * r1;
                    sum2_0 += w0.z * r0;
                    sum2_1 += w0.z * r1;
                    sum3_0 += w0.w * r0;
                    sum3_1 += w0.w * r1;
                    sum4_0 += w1.x * r0;
                    sum4_1 += w1.x * r1;
                    sum5_0 += w1.y * r0;
                    sum5_1 += w1.y * r1;
                    sum6_0 += w1.z * r0;
                    sum6_1 += w1.z * r1;
                    sum7_0 += w1.w * r0;
                    sum7_1 += w1.w * r1;
                }
                {
                    let w0 = stage[w_at + 68u];
                    let w1 = stage[w_at + 76u];
                    let r0 = stage[r_at0 + 64u];
                    let r1 = stage[r_at1 + 64u];
                    sum0_0 += w0.x * r0;
                    sum0_1 += w0.x * r1;
                    sum1_0 += w0.y * r0;
                    sum1_1 += w0.y * r1;
                    sum2_0 += w0.z * r0;
                    sum2_1 += w0.z * r1;
                    sum3_0 += w0.w * r0;
                    sum3_1 += w0.w * r1;
                    sum4_0 += w1.x * r0;
                    sum4_1 += w1.x * r1;
                    sum5_0 += w1.y * r0;
                    sum5_1 += w1.y * r1;
                    sum6_0 += w1.z * r0;
                    sum6_1 += w1.z * r1;
                    sum7_0 += w1.w * r0;
                    sum7_1 += w1.w * r1;
                }
                {
                    let w0 = stage[w_at + 85u];
                    let w1 = stage[w_at + 93u];
                    let r0 = stage[r_at0 + 80u];
                    let r1 = stage[r_at1 + 80u];
                    sum0_0 += w0.x * r0;
                    sum0_1 += w0.x * r1;
                    sum1_0 += w0.y * r0;
                    sum1_1 += w0.y * r1;
                    sum2_0 += w0.z * r0;
                    sum2_1 += w0.z * r1;
                    sum3_0 += w0.w * r0;
                    sum3_1 += w0.w * r1;
                    sum4_0 += w1.x * r0;
                    sum4_1 += w1.x * r1;
                    sum5_0 += w1.y * r0;
                    sum5_1 += w1.y * r1;
                    sum6_0 += w1.z * r0;
                    sum6_1 += w1.z * r1;
                    sum7_0 += w1.w * r0;
                    sum7_1 += w1.w * r1;
                }
                {
                    let w0 = stage[w_at + 102u];
                    let w1 = stage[w_at + 110u];
                    let r0 = stage[r_at0 + 96u];
                    let r1 = stage[r_at1 + 96u];
                    sum0_0 += w0.x * r0;
                    sum0_1 += w0.x * r1;
                    sum1_0 += w0.y * r0;
                    sum1_1 += w0.y * r1;
                    sum2_0 += w0.z * r0;
                    sum2_1 += w0.z * r1;
                    sum3_0 += w0.w * r0;
                    sum3_1 += w0.w * r1;
                    sum4_0 += w1.x * r0;
                    sum4_1 += w1.x * r1;
                    sum5_0 += w1.y * r0;
                    sum5_1 += w1.y * r1;
                    sum6_0 += w1.z * r0;
                    sum6_1 += w1.z * r1;
                    sum7_0 += w1.w * r0;
                    sum7_1 += w1.w * r1;
                }
                {
                    let w0 = stage[w_at + 119u];
                    let w1 = stage[w_at + 127u];
                    let r0 = stage[r_at0 + 112u];
                    let r1 = stage[r_at1 + 112u];
                    sum0_0 += w0.x * r0;
                    sum0_1 += w0.x * r1;
                    sum1_0 += w0.y * r0;
                    sum1_1 += w0.y * r1;
                    sum2_0 += w0.z * r0;
                    sum2_1 += w0.z * r1;
                    sum3_0 += w0.w * r0;
                    sum3_1 += w0.w * r1;
                    sum4_0 += w1.x * r0;
                    sum4_1 += w1.x * r1;
                    sum5_0 += w1.y * r0;
                    sum5_1 += w1.y * r1;
                    sum6_0 += w1.z * r0;
                    sum6_1 += w1.z * r1;
                    sum7_0 += w1.w * r0;
                    sum7_1 += w1.w * r1;
                }
                {
                    let w0 = stage[w_at + 136u];
                    let w1 = stage[w_at + 144u];
                    let r0 = stage[r_at0 + 128u];
                    let r1 = stage[r_at1 + 128u];
                    sum0_0 += w0.x * r0;
                    sum0_1 += w0.x * r1;
                    sum1_0 += w0.y * r0;
                    sum1_1 += w0.y * r1;
                    sum2_0 += w0.z * r0;
                    sum2_1 += w0.z * r1;
                    sum3_0 += w0.w * r0;
                    sum3_1 += w0.w * r1;
                    sum4_0 += w1.x * r0;
                    sum4_1 += w1.x * r1;
                    sum5_0 += w1.y * r0;
                    sum5_1 += w1.y * r1;
                    sum6_0 += w1.z * r0;
                    sum6_1 += w1.z * r1;
                    sum7_0 += w1.w * r0;
                    sum7_1 += w1.w * r1;
                }
                {
                    let w0 = stage[w_at + 153u];
                    let w1 = stage[w_at + 161u];
                    let r0 = stage[r_at0 + 144u];
                    let r1 = stage[r_at1 + 144u];
                    sum0_0 += w0.x * r0;
                    sum0_1 += w0.x * r1;
                    sum1_0 += w0.y * r0;
                    sum1_1 += w0.y * r1;
                    sum2_0 += w0.z * r0;
                    sum2_1 += w0.z * r1;
                    sum3_0 += w0.w * r0;
                    sum3_1 += w0.w * r1;
                    sum4_0 += w1.x * r0;
                    sum4_1 += w1.x * r1;
                    sum5_0 += w1.y * r0;
                    sum5_1 += w1.y * r1;
                    sum6_0 += w1.z * r0;
                    sum6_1 += w1.z * r1;
                    sum7_0 += w1.w * r0;
                    sum7_1 += w1.w * r1;
                }
                {
                    let w0 = stage[w_at + 170u];
                    let w1 = stage[w_at + 178u];
                    let r0 = stage[r_at0 + 160u];
                    let r1 = stage[r_at1 + 160u];
                    sum0_0 += w0.x * r0;
                    sum0_1 += w0.x * r1;
                    sum1_0 += w0.y * r0;
                    sum1_1 += w0.y * r1;
                    sum2_0 += w0.z * r0;
                    sum2_1 += w0.z * r1;
                    sum3_0 += w0.w * r0;
                    sum3_1 += w0.w * r1;
                    sum4_0 += w1.x * r0;
                    sum4_1 += w1.x * r1;
                    sum5_0 += w1.y * r0;
                    sum5_1 += w1.y * r1;
                    sum6_0 += w1.z * r0;
                    sum6_1 += w1.z * r1;
                    sum7_0 += w1.w * r0;
                    sum7_1 += w1.w * r1;
                }
                {
                    let w0 = stage[w_at + 187u];
                    let w1 = stage[w_at + 195u];
                    let r0 = stage[r_at0 + 176u];
                    let r1 = stage[r_at1 + 176u];
                    sum0_0 += w0.x * r0;
                    sum0_1 += w0.x * r1;
                    sum1_0 += w0.y * r0;
                    sum1_1 += w0.y * r1;
                    sum2_0 += w0.z * r0;
                    sum2_1 += w0.z * r1;
                    sum3_0 += w0.w * r0;
                    sum3_1 += w0.w * r1;
                    sum4_0 += w1.x * r0;
                    sum4_1 += w1.x * r1;
                    sum5_0 += w1.y * r0;
                    sum5_1 += w1.y * r1;
                    sum6_0 += w1.z * r0;
                    sum6_1 += w1.z * r1;
                    sum7_0 += w1.w * r0;
                    sum7_1 += w1.w * r1;
                }
                {
                    let w0 = stage[w_at + 204u];
                    let w1 = stage[w_at + 212u];
                    let r0 = stage[r_at0 + 192u];
                    let r1 = stage[r_at1 + 192u];
                    sum0_0 += w0.x * r0;
                    sum0_1 += w0.x * r1;
                    sum1_0 += w0.y * r0;
                    sum1_1 += w0.y * r1;
                    sum2_0 += w0.z * r0;
                    sum2_1 += w0.z * r1;
                    sum3_0 += w0.w * r0;
                    sum3_1 += w0.w * r1;
                    sum4_0 += w1.x * r0;
                    sum4_1 += w1.x * r1;
                    sum5_0 += w1.y * r0;
                    sum5_1 += w1.y * r1;
                    sum6_0 += w1.z * r0;
                    sum6_1 += w1.z * r1;
                    sum7_0 += w1.w * r0;
                    sum7_1 += w1.w * r1;
                }
                {
                    let w0 = stage[w_at + 221u];
                    let w1 = stage[w_at + 229u];
                    let r0 = stage[r_at0 + 208u];
                    let r1 = stage[r_at1 + 208u];
                    sum0_0 += w0.x * r0;
                    sum0_1 += w0.x * r1;
                    sum1_0 += w0.y * r0;
                    sum1_1 += w0.y * r1;
                    sum2_0 += w0.z * r0;
                    sum2_1 += w0.z * r1;
                    sum3_0 += w0.w * r0;
                    sum3_1 += w0.w * r1;
                    sum4_0 += w1.x * r0;
                    sum4_1 += w1.x * r1;
                    sum5_0 += w1.y * r0;
                    sum5_1 += w1.y * r1;
                    sum6_0 += w1.z * r0;
                    sum6_1 += w1.z * r1;
                    sum7_0 += w1.w * r0;
                    sum7_1 += w1.w * r1;
                }
                {
                    let w0 = stage[w_at + 238u];
                    let w1 = stage[w_at + 246u];
                    let r0 = stage[r_at0 + 224u];
                    let r1 = stage[r_at1 + 224u];
                    sum0_0 += w0.x * r0;
                    sum0_1 += w0.x * r1;
                    sum1_0 += w0.y * r0;
                    sum1_1 += w0.y * r1;
                    sum2_0 += w0.z * r0;
                    sum2_1 += w0.z * r1;
                    sum3_0 += w0.w * r0;
                    sum3_1 += w0.w * r1;
                    sum4_0 += w1.x * r0;
                    sum4_1 += w1.x * r1;
                    sum5_0 += w1.y * r0;
                    sum5_1 += w1.y * r1;
                    sum6_0 += w1.z * r0;
                    sum6_1 += w1.z * r1;
                    sum7_0 += w1.w * r0;
                    sum7_1 += w1.w * r1;
                }
                {
                    let w0 = stage[w_at + 255u];
                    let w1 = stage[w_at + 263u];
                    let r0 = stage[r_at0 + 240u];
                    let r1 = stage[r_at1 + 240u];
                    sum0_0 += w0.x * r0;
                    sum0_1 += w0.x * r1;
                    sum1_0 += w0.y * r0;
                    sum1_1 += w0.y * r1;
                    sum2_0 += w0.z * r0;
                    sum2_1 += w0.z * r1;
                    sum3_0 += w0.w * r0;
                    sum3_1 += w0.w * r1;
                    sum4_0 += w1.x * r0;
                    sum4_1 += w1.x * r1;
                    sum5_0 += w1.y * r0;
                    sum5_1 += w1.y * r1;
                    sum6_0 += w1.z * r0;
                    sum6_1 += w1.z * r1;
                    sum7_0 += w1.w * r0;
                    sum7_1 += w1.w * r1;
                }
                workgroupBarrier(); // all have read them
            }
        }
        workgroupBarrier(); // all have read the maxima
        let total_at = 0u + row * 2u;
        maxima[total_at + column * 17u + 0u] = total0;
        maxima[total_at + column * 17u + 1u] = total1;
        workgroupBarrier(); // publishes what each invocation's columns give
        total0 = maxima[total_at + 0u];
        total0 += maxima[total_at + 17u];
        total0 += maxima[total_at + 34u];
        total0 += maxima[total_at + 51u];
        total0 += maxima[total_at + 68u];
        total0 += maxima[total_at + 85u];
        total0 += maxima[total_at + 102u];
        total0 += maxima[total_at + 119u];
        total1 = maxima[total_at + 1u];
        total1 += maxima[total_at + 18u];
        total1 += maxima[total_at + 35u];
        total1 += maxima[total_at + 52u];
        total1 += maxima[total_at + 69u];
        total1 += maxima[total_at + 86u];
        total1 += maxima[total_at + 103u];
        total1 += maxima[total_at + 120u];
        let empty0 = bitcast<vec4<u32>>(total0) == vec4<u32>(); // by its bits, since NaN is not 0
        let portion0 = select(1.0f / total0, vec4<f32>(), empty0);
        let empty1 = bitcast<vec4<u32>>(total1) == vec4<u32>(); // by its bits, since NaN is not 0
        let portion1 = select(1.0f / total1, vec4<f32>(), empty1);
        if (own + 0u < 200u) {
            keep_out(b, own + 0u, column * 4u, sum0_0 * portion0.x);
            keep_out(b, own + 0u, (column + 8u) * 4u, sum0_1 * portion0.x);
        }
        if (own + 1u < 200u) {
            keep_out(b, own + 1u, column * 4u, sum1_0 * portion0.y);
            keep_out(b, own + 1u, (column + 8u) * 4u, sum1_1 * portion0.y);
        }
        if (own + 2u < 200u) {
            keep_out(b, own + 2u, column * 4u, sum2_0 * portion0.z);
            keep_out(b, own + 2u, (column + 8u) * 4u, sum2_1 * portion0.z);
        }
        if (own + 3u < 200u) {
            keep_out(b, own + 3u, column * 4u, sum3_0 * portion0.w);
            keep_out(b, own + 3u, (column + 8u) * 4u, sum3_1 * portion0.w);
        }
        if (own + 32u < 200u) {
            keep_out(b, own + 32u, column * 4u, sum4_0 * portion1.x);
            keep_out(b, own + 32u, (column + 8u) * 4u, sum4_1 * portion1.x);
        }
        if (own + 33u < 200u) {
            keep_out(b, own + 33u, column * 4u, sum5_0 * portion1.y);
            keep_out(b, own + 33u, (column + 8u) * 4u, sum5_1 * portion1.y);
        }
        if (own + 34u < 200u) {
            keep_out(b, own + 34u, column * 4u, sum6_0 * portion1.z);
            keep_out(b, own + 34u, (column + 8u) * 4u, sum6_1 * portion1.z);
        }
        if (own + 35u < 200u) {
            keep_out(b, own + 35u, column * 4u, sum7_0 * portion1.w);
            keep_out(b, own + 35u, (column + 8u) * 4u, sum7_1 * portion1.w);
        }
        if (own + 0u < 200u) {
            if (column == 0u) {
                a4[b * 200u + own + 0u] = select(log(total0.x) + top0.x, k_f32(0x7f7fffffu), empty0.x);
            }
        }
        if (own + 1u < 200u) {
            if (column == 0u) {
                a4[b * 200u + own + 1u] = select(log(total0.y) + top0.y, k_f32(0x7f7fffffu), empty0.y);
            }
        }
        if (own + 2u < 200u) {
            if (column == 0u) {
                a4[b * 200u + own + 2u] = select(log(total0.z) + top0.z, k_f32(0x7f7fffffu), empty0.z);
            }
        }
        if (own + 3u < 200u) {
            if (column == 0u) {
                a4[b * 200u + own + 3u] = select(log(total0.w) + top0.w, k_f32(0x7f7fffffu), empty0.w);
            }
        }
        if (own + 32u < 200u) {
            if (column == 0u) {
                a4[b * 200u + own + 32u] = select(log(total1.x) + top1.x, k_f32(0x7f7fffffu), empty1.x);
            }
        }
        if (own + 33u < 200u) {
            if (column == 0u) {
                a4[b * 200u + own + 33u] = select(log(total1.y) + top1.y, k_f32(0x7f7fffffu), empty1.y);
            }
        }
        if (own + 34u < 200u) {
            if (column == 0u) {
                a4[b * 200u + own + 34u] = select(log(total1.z) + top1.z, k_f32(0x7f7fffffu), empty1.z);
            }
        }
        if (own + 35u < 200u) {
            if (column == 0u) {
                a4[b * 200u + own + 35u] = select(log(total1.w) + top1.w, k_f32(0x7f7fffffu), empty1.w);
            }
        }
    }
}
