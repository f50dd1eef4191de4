// attention+attention_logsum causal [2, 3]·[200, 64]x[200, 64]
// a workgroup 32 rows of the queries, 64 of the other side at a time in slices of 16; 4 x 4 an invocation

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

var<workgroup> stage: array<vec4<f32>, 416>; // slices of the operands
var<workgroup> weights: array<vec4<f32>, 576>; // [other, own]

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let column = local % 16u; // of the scores and the sums, in quads
    let row = local / 16u; // of the tile, in fours
    for (var tile = id.x; tile < 42u; tile += 42u) {
        let b = tile / 7u;
        let first = tile % 7u * 32u;
        let own = first + row * 4u;
        var out0_0 = vec4<f32>();
        var out1_0 = vec4<f32>();
        var out2_0 = vec4<f32>();
        var out3_0 = vec4<f32>();
        var top = vec4<f32>(k_f32(0xff7fffffu));
        var total = vec4<f32>(); // of the columns that this invocation has
        let end = min(first + 32u, 200u);
        for (var at = 0u; at < end; at += 64u) {
            let others = at + column * 4u;
            var score0 = vec4<f32>();
            var score1 = vec4<f32>();
            var score2 = vec4<f32>();
            var score3 = vec4<f32>();
            for (var c = 0u; c < 64u; c += 16u) {
                workgroupBarrier(); // all have read the stage
                {
                    let slot = local;
                    let at_row = slot / 4u;
                    let at_column = slot % 4u * 4u;
                    let four = query4(b, first + at_row, c + at_column);
                    stage[(at_column + 0u) * 9u + at_row / 4u][at_row % 4u] = four[0];
                    stage[(at_column + 1u) * 9u + at_row / 4u][at_row % 4u] = four[1];
                    stage[(at_column + 2u) * 9u + at_row / 4u][at_row % 4u] = four[2];
                    stage[(at_column + 3u) * 9u + at_row / 4u][at_row % 4u] = four[3];
                }
                for (var turn = 0u; turn < 2u; turn++) {
                    let slot = turn * 128u + local;
                    let at_row = slot / 4u;
                    let at_column = slot % 4u * 4u;
                    let four = key4(b, at + at_row, c + at_column);
                    stage[144u + (at_column + 0u) * 17u + at_row / 4u][at_row % 4u] = four[0];
                    stage[144u + (at_column + 1u) * 17u + at_row / 4u][at_row % 4u] = four[1];
                    stage[144u + (at_column + 2u) * 17u + at_row / 4u][at_row % 4u] = four[2];
                    stage[144u + (at_column + 3u) * 17u + at_row / 4u][at_row % 4u] = four[3];
                }
                workgroupBarrier(); // publishes a slice of both operands
                {
                    let l = stage[row + 0u];
                    let r = stage[column + 144u];
                    score0 += l.x * r;
                    score1 += l.y * r;
                    score2 += l.z * r;
                    score3 += l.w * r;
                }
                {
                    let l = stage[row + 9u];
                    let r = stage[column + 161u];
                    score0 += l.x * r;
                    score1 += l.y * r;
                    score2 += l.z * r;
                    score3 += l.w * r;
                }
                {
                    let l = stage[row + 18u];
                    let r = stage[column + 178u];
                    score0 += l.x * r;
                    score1 += l.y * r;
                    score2 += l.z * r;
                    score3 += l.w * r;
                }
                {
                    let l = stage[row + 27u];
                    let r = stage[column + 195u];
                    score0 += l.x * r;
                    score1 += l.y * r;
                    score2 += l.z * r;
                    score3 += l.w * r;
                }
                {
                    let l = stage[row + 36u];
                    let r = stage[column + 212u];
                    score0 += l.x * r;
                    score1 += l.y * r;
                    score2 += l.z * r;
                    score3 += l.w * r;
                }
                {
                    let l = stage[row + 45u];
                    let r = stage[column + 229u];
                    score0 += l.x * r;
                    score1 += l.y * r;
                    score2 += l.z * r;
                    score3 += l.w * r;
                }
                {
                    let l = stage[row + 54u];
                    let r = stage[column + 246u];
                    score0 += l.x * r;
                    score1 += l.y * r;
                    score2 += l.z * r;
                    score3 += l.w * r;
                }
                {
                    let l = stage[row + 63u];
                    let r = stage[column + 263u];
                    score0 += l.x * r;
                    score1 += l.y * r;
                    score2 += l.z * r;
                    score3 += l.w * r;
                }
                {
                    let l = stage[row + 72u];
                    let r = stage[column + 280u];
                    score0 += l.x * r;
                    score1 += l.y * r;
                    score2 += l.z * r;
                    score3 += l.w * r;
                }
                {
                    let l = stage[row + 81u];
                    let r = stage[column + 297u];
                    score0 += l.x * r;
                    score1 += l.y * r;
                    score2 += l.z * r;
                    score3 += l.w * r;
                }
                {
                    let l = stage[row + 90u];
                    let r = stage[column + 314u];
                    score0 += l.x * r;
                    score1 += l.y * r;
                    score2 += l.z * r;
                    score3 += l.w * r;
                }
                {
                    let l = stage[row + 99u];
                    let r = stage[column + 331u];
                    score0 += l.x * r;
                    score1 += l.y * r;
                    score2 += l.z * r;
                    score3 += l.w * r;
                }
                {
                    let l = stage[row + 108u];
                    let r = stage[column + 348u];
                    score0 += l.x * r;
                    score1 += l.y * r;
                    score2 += l.z * r;
                    score3 += l.w * r;
                }
                {
                    let l = stage[row + 117u];
                    let r = stage[column + 365u];
                    score0 += l.x * r;
                    score1 += l.y * r;
                    score2 += l.z * r;
                    score3 += l.w * r;
                }
                {
                    let l = stage[row + 126u];
                    let r = stage[column + 382u];
                    score0 += l.x * r;
                    score1 += l.y * r;
                    score2 += l.z * r;
                    score3 += l.w * r;
                }
                {
                    let l = stage[row + 135u];
                    let r = stage[column + 399u];
                    score0 += l.x * r;
                    score1 += l.y * r;
                    score2 += l.z * r;
                    score3 += l.w * r;
                }
            }
            score0 *= 0.125f;
            var seen0 = vec4<bool>(true);
            score1 *= 0.125f;
            var seen1 = vec4<bool>(true);
            score2 *= 0.125f;
            var seen2 = vec4<bool>(true);
            score3 *= 0.125f;
            var seen3 = vec4<bool>(true);
            if (at + 64u > 200u || at + 63u > first) {
                let other = others + vec4<u32>(0u, 1u, 2u, 3u);
                seen0 = (other < vec4<u32>(200u)) & (other <= vec4<u32>(own + 0u));
                seen1 = (other < vec4<u32>(200u)) & (other <= vec4<u32>(own + 1u));
                seen2 = (other < vec4<u32>(200u)) & (other <= vec4<u32>(own + 2u));
                seen3 = (other < vec4<u32>(200u)) & (other <= vec4<u32>(own + 3u));
            }
            var higher = top;
            let best0 = select(vec4<f32>(k_f32(0xff7fffffu)), score0, seen0);
            higher.x = max(higher.x, max(max(best0.x, best0.y), max(best0.z, best0.w)));
            let best1 = select(vec4<f32>(k_f32(0xff7fffffu)), score1, seen1);
            higher.y = max(higher.y, max(max(best1.x, best1.y), max(best1.z, best1.w)));
            let best2 = select(vec4<f32>(k_f32(0xff7fffffu)), score2, seen2);
            higher.z = max(higher.z, max(max(best2.x, best2.y), max(best2.z, best2.w)));
            let best3 = select(vec4<f32>(k_f32(0xff7fffffu)), score3, seen3);
            higher.w = max(higher.w, max(max(best3.x, best3.y), max(best3.z, best3.w)));
            workgroupBarrier(); // all have read the stage
            stage[column * 8u + row] = higher;
            workgroupBarrier(); // publishes the maxima of each invocation's columns
            higher = stage[row];
            for (var lane = 1u; lane < 16u; lane++) {
                higher = max(higher, stage[lane * 8u + row]);
            }
            let fade = exp(top - higher);
            top = higher;
            total *= fade;
            out0_0 *= fade.x;
            out1_0 *= fade.y;
            out2_0 *= fade.z;
            out3_0 *= fade.w;
            let share0 = select(vec4<f32>(), exp(score0 - vec4<f32>(top.x)), seen0);
            let share1 = select(vec4<f32>(), exp(score1 - vec4<f32>(top.y)), seen1);
            let share2 = select(vec4<f32>(), exp(score2 - vec4<f32>(top.z)), seen2);
            let share3 = select(vec4<f32>(), exp(score3 - vec4<f32>(top.w)), seen3);
            total += vec4<f32>(dot(share0, vec4<f32>(1.0f)), dot(share1, vec4<f32>(1.0f)), dot(share2, vec4<f32>(1.0f)), dot(share3, vec4<f32>(1.0f)));
            weights[(column * 4u + 0u) * 9u + row] = vec4<f32>(share0.x, share1.x, share2.x, share3.x);
            weights[(column * 4u + 1u) * 9u + row] = vec4<f32>(share0.y, share1.y, share2.y, share3.y);
            weights[(column * 4u + 2u) * 9u + row] = vec4<f32>(share0.z, share1.z, share2.z, share3.z);
            weights[(column * 4u + 3u) * 9u + row] = vec4<f32>(share0.w, share1.w, share2.w, share3.w);
            for (var part = 0u; part < min(64u, end - at); part += 16u) {
                workgroupBarrier(); // publishes the weights; all have read the stage
                for (var turn = 0u; turn < 2u; turn++) {
                    let slot = turn * 128u + local;
                    let at_row = at + part + slot / 16u;
                    let c = slot % 16u * 4u;
                    stage[slot] = value4(b, at_row, c);
                }
                workgroupBarrier(); // publishes rows of the other side
                for (var step = 0u; step < 16u; step += 16u) {
                    let weight = (part + step) * 9u + row;
                    {
                        let w = weights[weight + 0u];
                        let r0 = stage[(step + 0u) * 16u + column];
                        out0_0 += w.x * r0;
                        out1_0 += w.y * r0;
                        out2_0 += w.z * r0;
                        out3_0 += w.w * r0;
                    }
                    {
                        let w = weights[weight + 9u];
                        let r0 = stage[(step + 1u) * 16u + column];
                        out0_0 += w.x * r0;
                        out1_0 += w.y * r0;
                        out2_0 += w.z * r0;
                        out3_0 += w.w * r0;
                    }
                    {
                        let w = weights[weight + 18u];
                        let r0 = stage[(step + 2u) * 16u + column];
                        out0_0 += w.x * r0;
                        out1_0 += w.y * r0;
                        out2_0 += w.z * r0;
                        out3_0 += w.w * r0;
                    }
                    {
                        let w = weights[weight + 27u];
                        let r0 = stage[(step + 3u) * 16u + column];
                        out0_0 += w.x * r0;
                        out1_0 += w.y * r0;
                        out2_0 += w.z * r0;
                        out3_0 += w.w * r0;
                    }
                    {
                        let w = weights[weight + 36u];
                        let r0 = stage[(step + 4u) * 16u + column];
                        out0_0 += w.x * r0;
                        out1_0 += w.y * r0;
                        out2_0 += w.z * r0;
                        out3_0 += w.w * r0;
                    }
                    {
                        let w = weights[weight + 45u];
                        let r0 = stage[(step + 5u) * 16u + column];
                        out0_0 += w.x * r0;
                        out1_0 += w.y * r0;
                        out2_0 += w.z * r0;
                        out3_0 += w.w * r0;
                    }
                    {
                        let w = weights[weight + 54u];
                        let r0 = stage[(step + 6u) * 16u + column];
                        out0_0 += w.x * r0;
                        out1_0 += w.y * r0;
                        out2_0 += w.z * r0;
                        out3_0 += w.w * r0;
                    }
                    {
                        let w = weights[weight + 63u];
                        let r0 = stage[(step + 7u) * 16u + column];
                        out0_0 += w.x * r0;
                        out1_0 += w.y * r0;
                        out2_0 += w.z * r0;
                        out3_0 += w.w * r0;
                    }
                    {
                        let w = weights[weight + 72u];
                        let r0 = stage[(step + 8u) * 16u + column];
                        out0_0 += w.x * r0;
                        out1_0 += w.y * r0;
                        out2_0 += w.z * r0;
                        out3_0 += w.w * r0;
                    }
                    {
                        let w = weights[weight + 81u];
                        let r0 = stage[(step + 9u) * 16u + column];
                        out0_0 += w.x * r0;
                        out1_0 += w.y * r0;
                        out2_0 += w.z * r0;
                        out3_0 += w.w * r0;
                    }
                    {
                        let w = weights[weight + 90u];
                        let r0 = stage[(step + 10u) * 16u + column];
                        out0_0 += w.x * r0;
                        out1_0 += w.y * r0;
                        out2_0 += w.z * r0;
                        out3_0 += w.w * r0;
                    }
                    {
                        let w = weights[weight + 99u];
                        let r0 = stage[(step + 11u) * 16u + column];
                        out0_0 += w.x * r0;
                        out1_0 += w.y * r0;
                        out2_0 += w.z * r0;
                        out3_0 += w.w * r0;
                    }
                    {
                        let w = weights[weight + 108u];
                        let r0 = stage[(step + 12u) * 16u + column];
                        out0_0 += w.x * r0;
                        out1_0 += w.y * r0;
                        out2_0 += w.z * r0;
                        out3_0 += w.w * r0;
                    }
                    {
                        let w = weights[weight + 117u];
                        let r0 = stage[(step + 13u) * 16u + column];
                        out0_0 += w.x * r0;
                        out1_0 += w.y * r0;
                        out2_0 += w.z * r0;
                        out3_0 += w.w * r0;
                    }
                    {
                        let w = weights[weight + 126u];
                        let r0 = stage[(step + 14u) * 16u + column];
                        out0_0 += w.x * r0;
                        out1_0 += w.y * r0;
                        out2_0 += w.z * r0;
                        out3_0 += w.w * r0;
                    }
                    {
                        let w = weights[weight + 135u];
                        let r0 = stage[(step + 15u) * 16u + column];
                        out0_0 += w.x * r0;
                        out1_0 += w.y * r0;
                        out2_0 += w.z * r0;
                        out3_0 += w.w * r0;
                    }
                }
            }
        }
        workgroupBarrier(); // all have read the stage
        stage[column * 8u + row] = total;
        workgroupBarrier(); // publishes the sums of each invocation's columns
        total = stage[row];
        for (var lane = 1u; lane < 16u; lane++) {
            total += stage[lane * 8u + row];
        }
        let empty = bitcast<vec4<u32>>(total) == vec4<u32>(); // by its bits, since NaN is not 0
        let portion = select(1.0f / total, vec4<f32>(), empty);
        if (own + 0u < 200u) {
            keep_out(b, own + 0u, column * 4u, out0_0 * portion.x);
            if (column == 0u) {
                a4[b * 200u + own + 0u] = select(log(total.x) + top.x, k_f32(0x7f7fffffu), empty.x);
            }
        }
        if (own + 1u < 200u) {
            keep_out(b, own + 1u, column * 4u, out1_0 * portion.y);
            if (column == 0u) {
                a4[b * 200u + own + 1u] = select(log(total.y) + top.y, k_f32(0x7f7fffffu), empty.y);
            }
        }
        if (own + 2u < 200u) {
            keep_out(b, own + 2u, column * 4u, out2_0 * portion.z);
            if (column == 0u) {
                a4[b * 200u + own + 2u] = select(log(total.z) + top.z, k_f32(0x7f7fffffu), empty.z);
            }
        }
        if (own + 3u < 200u) {
            keep_out(b, own + 3u, column * 4u, out3_0 * portion.w);
            if (column == 0u) {
                a4[b * 200u + own + 3u] = select(log(total.w) + top.w, k_f32(0x7f7fffffu), empty.w);
            }
        }
    }
}
