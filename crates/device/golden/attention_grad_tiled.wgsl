// attention_grad_k+attention_grad_v causal [2, 3]·[200, 64]x[200, 64]
// a workgroup 32 rows of the keys, 64 of the other side at a time in slices of 16; 4 x 4 an invocation

@group(0) @binding(0) var<storage, read> a0: array<vec4<f32>>; // f32[76800]
@group(0) @binding(1) var<storage, read> a1: array<vec4<f32>>; // f32[76800]
@group(0) @binding(2) var<storage, read> a2: array<vec4<f32>>; // f32[76800]
@group(0) @binding(3) var<storage, read> a3: array<f32>; // f32[1200]
@group(0) @binding(4) var<storage, read> a4: array<f32>; // f32[1200]
@group(0) @binding(5) var<storage, read> a5: array<vec4<f32>>; // f32[76800]
@group(0) @binding(6) var<storage, read_write> a6: array<vec4<f32>>; // f32[76800]
@group(0) @binding(7) var<storage, read_write> a7: array<vec4<f32>>; // f32[76800]

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

fn logsum(b: u32, row: u32) -> f32 {
    if (row >= 200u) {
        return 0.0f;
    }
    let i0 = b;
    let i1 = row;
    let t0 = a3[i0 * 200u + i1];
    return t0;
}

fn delta(b: u32, row: u32) -> f32 {
    if (row >= 200u) {
        return 0.0f;
    }
    let i0 = b;
    let i1 = row;
    let t0 = a4[i0 * 200u + i1];
    return t0;
}

fn cotangent4(b: u32, row: u32, column: u32) -> vec4<f32> {
    if (row >= 200u) {
        return vec4<f32>();
    }
    let i0 = b;
    let i1 = row;
    let i2 = (column / 4u);
    var four = vec4<f32>();
    let q0 = a5[i0 * 16u + i1 * 96u + i2];
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

fn keep_grad_v(b: u32, row: u32, first: u32, x: vec4<f32>) {
    let at = (b * 200u + row) * 64u + first;
    a7[at / 4u] = x;
}

fn keep_grad_k(b: u32, row: u32, first: u32, x: vec4<f32>) {
    let at = (b * 200u + row) * 64u + first;
    a6[at / 4u] = x;
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
        var grad_v0_0 = vec4<f32>();
        var grad_v1_0 = vec4<f32>();
        var grad_v2_0 = vec4<f32>();
        var grad_v3_0 = vec4<f32>();
        var grad_k0_0 = vec4<f32>();
        var grad_k1_0 = vec4<f32>();
        var grad_k2_0 = vec4<f32>();
        var grad_k3_0 = vec4<f32>();
        let end = 200u;
        for (var at = first / 64u * 64u; at < end; at += 64u) {
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
                    let four = key4(b, first + at_row, c + at_column);
                    stage[(at_column + 0u) * 9u + at_row / 4u][at_row % 4u] = four[0];
                    stage[(at_column + 1u) * 9u + at_row / 4u][at_row % 4u] = four[1];
                    stage[(at_column + 2u) * 9u + at_row / 4u][at_row % 4u] = four[2];
                    stage[(at_column + 3u) * 9u + at_row / 4u][at_row % 4u] = four[3];
                }
                for (var turn = 0u; turn < 2u; turn++) {
                    let slot = turn * 128u + local;
                    let at_row = slot / 4u;
                    let at_column = slot % 4u * 4u;
                    let four = query4(b, at + at_row, c + at_column);
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
            if (at + 64u > 200u || first + 31u > at) {
                let other = others + vec4<u32>(0u, 1u, 2u, 3u);
                seen0 = (other < vec4<u32>(200u)) & (other >= vec4<u32>(own + 0u));
                seen1 = (other < vec4<u32>(200u)) & (other >= vec4<u32>(own + 1u));
                seen2 = (other < vec4<u32>(200u)) & (other >= vec4<u32>(own + 2u));
                seen3 = (other < vec4<u32>(200u)) & (other >= vec4<u32>(own + 3u));
            }
            let sum_log = vec4<f32>(logsum(b, others + 0u), logsum(b, others + 1u), logsum(b, others + 2u), logsum(b, others + 3u));
            let mean = vec4<f32>(delta(b, others + 0u), delta(b, others + 1u), delta(b, others + 2u), delta(b, others + 3u));
            let share0 = select(vec4<f32>(), exp(score0 - sum_log), seen0);
            let share1 = select(vec4<f32>(), exp(score1 - sum_log), seen1);
            let share2 = select(vec4<f32>(), exp(score2 - sum_log), seen2);
            let share3 = select(vec4<f32>(), exp(score3 - sum_log), seen3);
            var slope0 = vec4<f32>();
            var slope1 = vec4<f32>();
            var slope2 = vec4<f32>();
            var slope3 = vec4<f32>();
            for (var c = 0u; c < 64u; c += 16u) {
                workgroupBarrier(); // all have read the stage
                {
                    let slot = local;
                    let at_row = slot / 4u;
                    let at_column = slot % 4u * 4u;
                    let four = value4(b, first + at_row, c + at_column);
                    stage[(at_column + 0u) * 9u + at_row / 4u][at_row % 4u] = four[0];
                    stage[(at_column + 1u) * 9u + at_row / 4u][at_row % 4u] = four[1];
                    stage[(at_column + 2u) * 9u + at_row / 4u][at_row % 4u] = four[2];
                    stage[(at_column + 3u) * 9u + at_row / 4u][at_row % 4u] = four[3];
                }
                for (var turn = 0u; turn < 2u; turn++) {
                    let slot = turn * 128u + local;
                    let at_row = slot / 4u;
                    let at_column = slot % 4u * 4u;
                    let four = cotangent4(b, at + at_row, c + at_column);
                    stage[144u + (at_column + 0u) * 17u + at_row / 4u][at_row % 4u] = four[0];
                    stage[144u + (at_column + 1u) * 17u + at_row / 4u][at_row % 4u] = four[1];
                    stage[144u + (at_column + 2u) * 17u + at_row / 4u][at_row % 4u] = four[2];
                    stage[144u + (at_column + 3u) * 17u + at_row / 4u][at_row % 4u] = four[3];
                }
                workgroupBarrier(); // publishes a slice of both operands
                {
                    let l = stage[row + 0u];
                    let r = stage[column + 144u];
                    slope0 += l.x * r;
                    slope1 += l.y * r;
                    slope2 += l.z * r;
                    slope3 += l.w * r;
                }
                {
                    let l = stage[row + 9u];
                    let r = stage[column + 161u];
                    slope0 += l.x * r;
                    slope1 += l.y * r;
                    slope2 += l.z * r;
                    slope3 += l.w * r;
                }
                {
                    let l = stage[row + 18u];
                    let r = stage[column + 178u];
                    slope0 += l.x * r;
                    slope1 += l.y * r;
                    slope2 += l.z * r;
                    slope3 += l.w * r;
                }
                {
                    let l = stage[row + 27u];
                    let r = stage[column + 195u];
                    slope0 += l.x * r;
                    slope1 += l.y * r;
                    slope2 += l.z * r;
                    slope3 += l.w * r;
                }
                {
                    let l = stage[row + 36u];
                    let r = stage[column + 212u];
                    slope0 += l.x * r;
                    slope1 += l.y * r;
                    slope2 += l.z * r;
                    slope3 += l.w * r;
                }
                {
                    let l = stage[row + 45u];
                    let r = stage[column + 229u];
                    slope0 += l.x * r;
                    slope1 += l.y * r;
                    slope2 += l.z * r;
                    slope3 += l.w * r;
                }
                {
                    let l = stage[row + 54u];
                    let r = stage[column + 246u];
                    slope0 += l.x * r;
                    slope1 += l.y * r;
                    slope2 += l.z * r;
                    slope3 += l.w * r;
                }
                {
                    let l = stage[row + 63u];
                    let r = stage[column + 263u];
                    slope0 += l.x * r;
                    slope1 += l.y * r;
                    slope2 += l.z * r;
                    slope3 += l.w * r;
                }
                {
                    let l = stage[row + 72u];
                    let r = stage[column + 280u];
                    slope0 += l.x * r;
                    slope1 += l.y * r;
                    slope2 += l.z * r;
                    slope3 += l.w * r;
                }
                {
                    let l = stage[row + 81u];
                    let r = stage[column + 297u];
                    slope0 += l.x * r;
                    slope1 += l.y * r;
                    slope2 += l.z * r;
                    slope3 += l.w * r;
                }
                {
                    let l = stage[row + 90u];
                    let r = stage[column + 314u];
                    slope0 += l.x * r;
                    slope1 += l.y * r;
                    slope2 += l.z * r;
                    slope3 += l.w * r;
                }
                {
                    let l = stage[row + 99u];
                    let r = stage[column + 331u];
                    slope0 += l.x * r;
                    slope1 += l.y * r;
                    slope2 += l.z * r;
                    slope3 += l.w * r;
                }
                {
                    let l = stage[row + 108u];
                    let r = stage[column + 348u];
                    slope0 += l.x * r;
                    slope1 += l.y * r;
                    slope2 += l.z * r;
                    slope3 += l.w * r;
                }
                {
                    let l = stage[row + 117u];
                    let r = stage[column + 365u];
                    slope0 += l.x * r;
                    slope1 += l.y * r;
                    slope2 += l.z * r;
                    slope3 += l.w * r;
                }
                {
                    let l = stage[row + 126u];
                    let r = stage[column + 382u];
                    slope0 += l.x * r;
                    slope1 += l.y * r;
                    slope2 += l.z * r;
                    slope3 += l.w * r;
                }
                {
                    let l = stage[row + 135u];
                    let r = stage[column + 399u];
                    slope0 += l.x * r;
                    slope1 += l.y * r;
                    slope2 += l.z * r;
                    slope3 += l.w * r;
                }
            }
            slope0 = share0 * (slope0 - mean) * 0.125f;
            slope1 = share1 * (slope1 - mean) * 0.125f;
            slope2 = share2 * (slope2 - mean) * 0.125f;
            slope3 = share3 * (slope3 - mean) * 0.125f;
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
                    stage[slot] = cotangent4(b, at_row, c);
                }
                workgroupBarrier(); // publishes rows of the other side
                for (var step = 0u; step < 16u; step += 16u) {
                    let weight = (part + step) * 9u + row;
                    {
                        let w = weights[weight + 0u];
                        let r0 = stage[(step + 0u) * 16u + column];
                        grad_v0_0 += w.x * r0;
                        grad_v1_0 += w.y * r0;
                        grad_v2_0 += w.z * r0;
                        grad_v3_0 += w.w * r0;
                    }
                    {
                        let w = weights[weight + 9u];
                        let r0 = stage[(step + 1u) * 16u + column];
                        grad_v0_0 += w.x * r0;
                        grad_v1_0 += w.y * r0;
                        grad_v2_0 += w.z * r0;
                        grad_v3_0 += w.w * r0;
                    }
                    {
                        let w = weights[weight + 18u];
                        let r0 = stage[(step + 2u) * 16u + column];
                        grad_v0_0 += w.x * r0;
                        grad_v1_0 += w.y * r0;
                        grad_v2_0 += w.z * r0;
                        grad_v3_0 += w.w * r0;
                    }
                    {
                        let w = weights[weight + 27u];
                        let r0 = stage[(step + 3u) * 16u + column];
                        grad_v0_0 += w.x * r0;
                        grad_v1_0 += w.y * r0;
                        grad_v2_0 += w.z * r0;
                        grad_v3_0 += w.w * r0;
                    }
                    {
                        let w = weights[weight + 36u];
                        let r0 = stage[(step + 4u) * 16u + column];
                        grad_v0_0 += w.x * r0;
                        grad_v1_0 += w.y * r0;
                        grad_v2_0 += w.z * r0;
                        grad_v3_0 += w.w * r0;
                    }
                    {
                        let w = weights[weight + 45u];
                        let r0 = stage[(step + 5u) * 16u + column];
                        grad_v0_0 += w.x * r0;
                        grad_v1_0 += w.y * r0;
                        grad_v2_0 += w.z * r0;
                        grad_v3_0 += w.w * r0;
                    }
                    {
                        let w = weights[weight + 54u];
                        let r0 = stage[(step + 6u) * 16u + column];
                        grad_v0_0 += w.x * r0;
                        grad_v1_0 += w.y * r0;
                        grad_v2_0 += w.z * r0;
                        grad_v3_0 += w.w * r0;
                    }
                    {
                        let w = weights[weight + 63u];
                        let r0 = stage[(step + 7u) * 16u + column];
                        grad_v0_0 += w.x * r0;
                        grad_v1_0 += w.y * r0;
                        grad_v2_0 += w.z * r0;
                        grad_v3_0 += w.w * r0;
                    }
                    {
                        let w = weights[weight + 72u];
                        let r0 = stage[(step + 8u) * 16u + column];
                        grad_v0_0 += w.x * r0;
                        grad_v1_0 += w.y * r0;
                        grad_v2_0 += w.z * r0;
                        grad_v3_0 += w.w * r0;
                    }
                    {
                        let w = weights[weight + 81u];
                        let r0 = stage[(step + 9u) * 16u + column];
                        grad_v0_0 += w.x * r0;
                        grad_v1_0 += w.y * r0;
                        grad_v2_0 += w.z * r0;
                        grad_v3_0 += w.w * r0;
                    }
                    {
                        let w = weights[weight + 90u];
                        let r0 = stage[(step + 10u) * 16u + column];
                        grad_v0_0 += w.x * r0;
                        grad_v1_0 += w.y * r0;
                        grad_v2_0 += w.z * r0;
                        grad_v3_0 += w.w * r0;
                    }
                    {
                        let w = weights[weight + 99u];
                        let r0 = stage[(step + 11u) * 16u + column];
                        grad_v0_0 += w.x * r0;
                        grad_v1_0 += w.y * r0;
                        grad_v2_0 += w.z * r0;
                        grad_v3_0 += w.w * r0;
                    }
                    {
                        let w = weights[weight + 108u];
                        let r0 = stage[(step + 12u) * 16u + column];
                        grad_v0_0 += w.x * r0;
                        grad_v1_0 += w.y * r0;
                        grad_v2_0 += w.z * r0;
                        grad_v3_0 += w.w * r0;
                    }
                    {
                        let w = weights[weight + 117u];
                        let r0 = stage[(step + 13u) * 16u + column];
                        grad_v0_0 += w.x * r0;
                        grad_v1_0 += w.y * r0;
                        grad_v2_0 += w.z * r0;
                        grad_v3_0 += w.w * r0;
                    }
                    {
                        let w = weights[weight + 126u];
                        let r0 = stage[(step + 14u) * 16u + column];
                        grad_v0_0 += w.x * r0;
                        grad_v1_0 += w.y * r0;
                        grad_v2_0 += w.z * r0;
                        grad_v3_0 += w.w * r0;
                    }
                    {
                        let w = weights[weight + 135u];
                        let r0 = stage[(step + 15u) * 16u + column];
                        grad_v0_0 += w.x * r0;
                        grad_v1_0 += w.y * r0;
                        grad_v2_0 += w.z * r0;
                        grad_v3_0 += w.w * r0;
                    }
                }
            }
            workgroupBarrier(); // all have read the last weights
            weights[(column * 4u + 0u) * 9u + row] = vec4<f32>(slope0.x, slope1.x, slope2.x, slope3.x);
            weights[(column * 4u + 1u) * 9u + row] = vec4<f32>(slope0.y, slope1.y, slope2.y, slope3.y);
            weights[(column * 4u + 2u) * 9u + row] = vec4<f32>(slope0.z, slope1.z, slope2.z, slope3.z);
            weights[(column * 4u + 3u) * 9u + row] = vec4<f32>(slope0.w, slope1.w, slope2.w, slope3.w);
            for (var part = 0u; part < min(64u, end - at); part += 16u) {
                workgroupBarrier(); // publishes the weights; all have read the stage
                for (var turn = 0u; turn < 2u; turn++) {
                    let slot = turn * 128u + local;
                    let at_row = at + part + slot / 16u;
                    let c = slot % 16u * 4u;
                    stage[slot] = query4(b, at_row, c);
                }
                workgroupBarrier(); // publishes rows of the other side
                for (var step = 0u; step < 16u; step += 16u) {
                    let weight = (part + step) * 9u + row;
                    {
                        let w = weights[weight + 0u];
                        let r0 = stage[(step + 0u) * 16u + column];
                        grad_k0_0 += w.x * r0;
                        grad_k1_0 += w.y * r0;
                        grad_k2_0 += w.z * r0;
                        grad_k3_0 += w.w * r0;
                    }
                    {
                        let w = weights[weight + 9u];
                        let r0 = stage[(step + 1u) * 16u + column];
                        grad_k0_0 += w.x * r0;
                        grad_k1_0 += w.y * r0;
                        grad_k2_0 += w.z * r0;
                        grad_k3_0 += w.w * r0;
                    }
                    {
                        let w = weights[weight + 18u];
                        let r0 = stage[(step + 2u) * 16u + column];
                        grad_k0_0 += w.x * r0;
                        grad_k1_0 += w.y * r0;
                        grad_k2_0 += w.z * r0;
                        grad_k3_0 += w.w * r0;
                    }
                    {
                        let w = weights[weight + 27u];
                        let r0 = stage[(step + 3u) * 16u + column];
                        grad_k0_0 += w.x * r0;
                        grad_k1_0 += w.y * r0;
                        grad_k2_0 += w.z * r0;
                        grad_k3_0 += w.w * r0;
                    }
                    {
                        let w = weights[weight + 36u];
                        let r0 = stage[(step + 4u) * 16u + column];
                        grad_k0_0 += w.x * r0;
                        grad_k1_0 += w.y * r0;
                        grad_k2_0 += w.z * r0;
                        grad_k3_0 += w.w * r0;
                    }
                    {
                        let w = weights[weight + 45u];
                        let r0 = stage[(step + 5u) * 16u + column];
                        grad_k0_0 += w.x * r0;
                        grad_k1_0 += w.y * r0;
                        grad_k2_0 += w.z * r0;
                        grad_k3_0 += w.w * r0;
                    }
                    {
                        let w = weights[weight + 54u];
                        let r0 = stage[(step + 6u) * 16u + column];
                        grad_k0_0 += w.x * r0;
                        grad_k1_0 += w.y * r0;
                        grad_k2_0 += w.z * r0;
                        grad_k3_0 += w.w * r0;
                    }
                    {
                        let w = weights[weight + 63u];
                        let r0 = stage[(step + 7u) * 16u + column];
                        grad_k0_0 += w.x * r0;
                        grad_k1_0 += w.y * r0;
                        grad_k2_0 += w.z * r0;
                        grad_k3_0 += w.w * r0;
                    }
                    {
                        let w = weights[weight + 72u];
                        let r0 = stage[(step + 8u) * 16u + column];
                        grad_k0_0 += w.x * r0;
                        grad_k1_0 += w.y * r0;
                        grad_k2_0 += w.z * r0;
                        grad_k3_0 += w.w * r0;
                    }
                    {
                        let w = weights[weight + 81u];
                        let r0 = stage[(step + 9u) * 16u + column];
                        grad_k0_0 += w.x * r0;
                        grad_k1_0 += w.y * r0;
                        grad_k2_0 += w.z * r0;
                        grad_k3_0 += w.w * r0;
                    }
                    {
                        let w = weights[weight + 90u];
                        let r0 = stage[(step + 10u) * 16u + column];
                        grad_k0_0 += w.x * r0;
                        grad_k1_0 += w.y * r0;
                        grad_k2_0 += w.z * r0;
                        grad_k3_0 += w.w * r0;
                    }
                    {
                        let w = weights[weight + 99u];
                        let r0 = stage[(step + 11u) * 16u + column];
                        grad_k0_0 += w.x * r0;
                        grad_k1_0 += w.y * r0;
                        grad_k2_0 += w.z * r0;
                        grad_k3_0 += w.w * r0;
                    }
                    {
                        let w = weights[weight + 108u];
                        let r0 = stage[(step + 12u) * 16u + column];
                        grad_k0_0 += w.x * r0;
                        grad_k1_0 += w.y * r0;
                        grad_k2_0 += w.z * r0;
                        grad_k3_0 += w.w * r0;
                    }
                    {
                        let w = weights[weight + 117u];
                        let r0 = stage[(step + 13u) * 16u + column];
                        grad_k0_0 += w.x * r0;
                        grad_k1_0 += w.y * r0;
                        grad_k2_0 += w.z * r0;
                        grad_k3_0 += w.w * r0;
                    }
                    {
                        let w = weights[weight + 126u];
                        let r0 = stage[(step + 14u) * 16u + column];
                        grad_k0_0 += w.x * r0;
                        grad_k1_0 += w.y * r0;
                        grad_k2_0 += w.z * r0;
                        grad_k3_0 += w.w * r0;
                    }
                    {
                        let w = weights[weight + 135u];
                        let r0 = stage[(step + 15u) * 16u + column];
                        grad_k0_0 += w.x * r0;
                        grad_k1_0 += w.y * r0;
                        grad_k2_0 += w.z * r0;
                        grad_k3_0 += w.w * r0;
                    }
                }
            }
        }
        if (own + 0u < 200u) {
            keep_grad_v(b, own + 0u, column * 4u, grad_v0_0);
            keep_grad_k(b, own + 0u, column * 4u, grad_k0_0);
        }
        if (own + 1u < 200u) {
            keep_grad_v(b, own + 1u, column * 4u, grad_v1_0);
            keep_grad_k(b, own + 1u, column * 4u, grad_k1_0);
        }
        if (own + 2u < 200u) {
            keep_grad_v(b, own + 2u, column * 4u, grad_v2_0);
            keep_grad_k(b, own + 2u, column * 4u, grad_k2_0);
        }
        if (own + 3u < 200u) {
            keep_grad_v(b, own + 3u, column * 4u, grad_v3_0);
            keep_grad_k(b, own + 3u, column * 4u, grad_k3_0);
        }
    }
}
