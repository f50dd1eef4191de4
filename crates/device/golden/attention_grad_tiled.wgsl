// attention_grad_k+attention_grad_v causal [2, 3]·[200, 64]x[200, 64]
// a workgroup 32 rows of the keys, 32 of the other side at a time in slices of 16; 4 x 4 an invocation, in two roles

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

var<workgroup> stage: array<vec4<f32>, 832>;

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let role = local / 64u; // 0 has scores, 1 has slopes
    let inner = local % 64u;
    let column = inner % 8u; // of the scores and the sums, in quads
    let row = inner / 8u; // of the tile, in fours
    for (var tile = id.x; tile < 42u; tile += 42u) {
        let b = tile % 6u;
        let first = tile / 6u * 32u;
        let own = first + row * 4u;
        var sum0_0 = vec4<f32>();
        var sum0_1 = vec4<f32>();
        var sum1_0 = vec4<f32>();
        var sum1_1 = vec4<f32>();
        var sum2_0 = vec4<f32>();
        var sum2_1 = vec4<f32>();
        var sum3_0 = vec4<f32>();
        var sum3_1 = vec4<f32>();
        let end = 200u;
        for (var at = first / 32u * 32u; at < end; at += 32u) {
            let others = at + column * 4u;
            var number0 = vec4<f32>();
            if (role == 0u) {
                number0 = vec4<f32>(logsum(b, others + 0u), logsum(b, others + 1u), logsum(b, others + 2u), logsum(b, others + 3u));
            }
            else {
                number0 = vec4<f32>(delta(b, others + 0u), delta(b, others + 1u), delta(b, others + 2u), delta(b, others + 3u));
            }
            var score0_0 = vec4<f32>();
            var score1_0 = vec4<f32>();
            var score2_0 = vec4<f32>();
            var score3_0 = vec4<f32>();
            for (var c = 0u; c < 64u; c += 16u) {
                workgroupBarrier(); // all have read the stage
                if (role == 0u) {
                    {
                        let at_row = inner / 4u;
                        let at_column = inner % 4u * 4u;
                        let place = 0u + at_column * 9u + at_row / 4u;
                        let lane = at_row % 4u;
                        let four0 = key4(b, first + at_row + 0u, c + at_column + 0u);
                        let four1 = key4(b, first + at_row + 16u, c + at_column + 0u);
                        stage[place + 0u][lane] = four0[0];
                        stage[place + 9u][lane] = four0[1];
                        stage[place + 18u][lane] = four0[2];
                        stage[place + 27u][lane] = four0[3];
                        stage[place + 4u][lane] = four1[0];
                        stage[place + 13u][lane] = four1[1];
                        stage[place + 22u][lane] = four1[2];
                        stage[place + 31u][lane] = four1[3];
                    }
                    {
                        let at_row = inner / 4u;
                        let at_column = inner % 4u * 4u;
                        let place = 144u + at_column * 9u + at_row / 4u;
                        let lane = at_row % 4u;
                        let four0 = query4(b, at + at_row + 0u, c + at_column + 0u);
                        let four1 = query4(b, at + at_row + 16u, c + at_column + 0u);
                        stage[place + 0u][lane] = four0[0];
                        stage[place + 9u][lane] = four0[1];
                        stage[place + 18u][lane] = four0[2];
                        stage[place + 27u][lane] = four0[3];
                        stage[place + 4u][lane] = four1[0];
                        stage[place + 13u][lane] = four1[1];
                        stage[place + 22u][lane] = four1[2];
                        stage[place + 31u][lane] = four1[3];
                    }
                }
                else {
                    {
                        let at_row = inner / 4u;
                        let at_column = inner % 4u * 4u;
                        let place = 288u + at_column * 9u + at_row / 4u;
                        let lane = at_row % 4u;
                        let four0 = value4(b, first + at_row + 0u, c + at_column + 0u);
                        let four1 = value4(b, first + at_row + 16u, c + at_column + 0u);
                        stage[place + 0u][lane] = four0[0];
                        stage[place + 9u][lane] = four0[1];
                        stage[place + 18u][lane] = four0[2];
                        stage[place + 27u][lane] = four0[3];
                        stage[place + 4u][lane] = four1[0];
                        stage[place + 13u][lane] = four1[1];
                        stage[place + 22u][lane] = four1[2];
                        stage[place + 31u][lane] = four1[3];
                    }
                    {
                        let at_row = inner / 4u;
                        let at_column = inner % 4u * 4u;
                        let place = 432u + at_column * 9u + at_row / 4u;
                        let lane = at_row % 4u;
                        let four0 = cotangent4(b, at + at_row + 0u, c + at_column + 0u);
                        let four1 = cotangent4(b, at + at_row + 16u, c + at_column + 0u);
                        stage[place + 0u][lane] = four0[0];
                        stage[place + 9u][lane] = four0[1];
                        stage[place + 18u][lane] = four0[2];
                        stage[place + 27u][lane] = four0[3];
                        stage[place + 4u][lane] = four1[0];
                        stage[place + 13u][lane] = four1[1];
                        stage[place + 22u][lane] = four1[2];
                        stage[place + 31u][lane] = four1[3];
                    }
                }
                workgroupBarrier(); // publishes a slice of both operands
                let l_at = 0u + role * 288u + row;
                let r_at = 144u + role * 288u + column;
                {
                    let l0 = stage[l_at + 0u];
                    let r0 = stage[r_at + 0u];
                    score0_0 += l0.x * r0;
                    score1_0 += l0.y * r0;
                    score2_0 += l0.z * r0;
                    score3_0 += l0.w * r0;
                }
                {
                    let l0 = stage[l_at + 9u];
                    let r0 = stage[r_at + 9u];
                    score0_0 += l0.x * r0;
                    score1_0 += l0.y * r0;
                    score2_0 += l0.z * r0;
                    score3_0 += l0.w * r0;
                }
                {
                    let l0 = stage[l_at + 18u];
                    let r0 = stage[r_at + 18u];
                    score0_0 += l0.x * r0;
                    score1_0 += l0.y * r0;
                    score2_0 += l0.z * r0;
                    score3_0 += l0.w * r0;
                }
                {
                    let l0 = stage[l_at + 27u];
                    let r0 = stage[r_at + 27u];
                    score0_0 += l0.x * r0;
                    score1_0 += l0.y * r0;
                    score2_0 += l0.z * r0;
                    score3_0 += l0.w * r0;
                }
                {
                    let l0 = stage[l_at + 36u];
                    let r0 = stage[r_at + 36u];
                    score0_0 += l0.x * r0;
                    score1_0 += l0.y * r0;
                    score2_0 += l0.z * r0;
                    score3_0 += l0.w * r0;
                }
                {
                    let l0 = stage[l_at + 45u];
                    let r0 = stage[r_at + 45u];
                    score0_0 += l0.x * r0;
                    score1_0 += l0.y * r0;
                    score2_0 += l0.z * r0;
                    score3_0 += l0.w * r0;
                }
                {
                    let l0 = stage[l_at + 54u];
                    let r0 = stage[r_at + 54u];
                    score0_0 += l0.x * r0;
                    score1_0 += l0.y * r0;
                    score2_0 += l0.z * r0;
                    score3_0 += l0.w * r0;
                }
                {
                    let l0 = stage[l_at + 63u];
                    let r0 = stage[r_at + 63u];
                    score0_0 += l0.x * r0;
                    score1_0 += l0.y * r0;
                    score2_0 += l0.z * r0;
                    score3_0 += l0.w * r0;
                }
                {
                    let l0 = stage[l_at + 72u];
                    let r0 = stage[r_at + 72u];
                    score0_0 += l0.x * r0;
                    score1_0 += l0.y * r0;
                    score2_0 += l0.z * r0;
                    score3_0 += l0.w * r0;
                }
                {
                    let l0 = stage[l_at + 81u];
                    let r0 = stage[r_at + 81u];
                    score0_0 += l0.x * r0;
                    score1_0 += l0.y * r0;
                    score2_0 += l0.z * r0;
                    score3_0 += l0.w * r0;
                }
                {
                    let l0 = stage[l_at + 90u];
                    let r0 = stage[r_at + 90u];
                    score0_0 += l0.x * r0;
                    score1_0 += l0.y * r0;
                    score2_0 += l0.z * r0;
                    score3_0 += l0.w * r0;
                }
                {
                    let l0 = stage[l_at + 99u];
                    let r0 = stage[r_at + 99u];
                    score0_0 += l0.x * r0;
                    score1_0 += l0.y * r0;
                    score2_0 += l0.z * r0;
                    score3_0 += l0.w * r0;
                }
                {
                    let l0 = stage[l_at + 108u];
                    let r0 = stage[r_at + 108u];
                    score0_0 += l0.x * r0;
                    score1_0 += l0.y * r0;
                    score2_0 += l0.z * r0;
                    score3_0 += l0.w * r0;
                }
                {
                    let l0 = stage[l_at + 117u];
                    let r0 = stage[r_at + 117u];
                    score0_0 += l0.x * r0;
                    score1_0 += l0.y * r0;
                    score2_0 += l0.z * r0;
                    score3_0 += l0.w * r0;
                }
                {
                    let l0 = stage[l_at + 126u];
                    let r0 = stage[r_at + 126u];
                    score0_0 += l0.x * r0;
                    score1_0 += l0.y * r0;
                    score2_0 += l0.z * r0;
                    score3_0 += l0.w * r0;
                }
                {
                    let l0 = stage[l_at + 135u];
                    let r0 = stage[r_at + 135u];
                    score0_0 += l0.x * r0;
                    score1_0 += l0.y * r0;
                    score2_0 += l0.z * r0;
                    score3_0 += l0.w * r0;
                }
            }
            var next0 = vec4<f32>();
            var next1 = vec4<f32>();
            if (role == 0u) {
                next0 = cotangent4(b, at + (inner / 16u + 0u) % 8u * 4u + (inner / 16u + 0u) / 8u, inner % 16u * 4u);
                next1 = cotangent4(b, at + (inner / 16u + 4u) % 8u * 4u + (inner / 16u + 4u) / 8u, inner % 16u * 4u);
            }
            else {
                next0 = query4(b, at + (inner / 16u + 0u) % 8u * 4u + (inner / 16u + 0u) / 8u, inner % 16u * 4u);
                next1 = query4(b, at + (inner / 16u + 4u) % 8u * 4u + (inner / 16u + 4u) / 8u, inner % 16u * 4u);
            }
            workgroupBarrier(); // all have read the slices
            if (role == 0u) {
                score0_0 *= 0.125f;
                score1_0 *= 0.125f;
                score2_0 *= 0.125f;
                score3_0 *= 0.125f;
                var share0_0 = exp(score0_0 - number0);
                var share1_0 = exp(score1_0 - number0);
                var share2_0 = exp(score2_0 - number0);
                var share3_0 = exp(score3_0 - number0);
                if (at + 32u > 200u || first + 31u > at) {
                    let other0 = others + 0u + vec4<u32>(0u, 1u, 2u, 3u);
                    share0_0 = select(vec4<f32>(), share0_0, (other0 < vec4<u32>(200u)) & (other0 >= vec4<u32>(own + 0u)));
                    share1_0 = select(vec4<f32>(), share1_0, (other0 < vec4<u32>(200u)) & (other0 >= vec4<u32>(own + 1u)));
                    share2_0 = select(vec4<f32>(), share2_0, (other0 < vec4<u32>(200u)) & (other0 >= vec4<u32>(own + 2u)));
                    share3_0 = select(vec4<f32>(), share3_0, (other0 < vec4<u32>(200u)) & (other0 >= vec4<u32>(own + 3u)));
                }
                let weight_at = 0u + column * 9u + row;
                stage[weight_at + 0u] = vec4<f32>(share0_0.x, share1_0.x, share2_0.x, share3_0.x);
                stage[weight_at + 72u] = vec4<f32>(share0_0.y, share1_0.y, share2_0.y, share3_0.y);
                stage[weight_at + 144u] = vec4<f32>(share0_0.z, share1_0.z, share2_0.z, share3_0.z);
                stage[weight_at + 216u] = vec4<f32>(share0_0.w, share1_0.w, share2_0.w, share3_0.w);
            }
            workgroupBarrier(); // publishes the shares
            if (role == 1u) {
                let weight_at = 0u + column * 9u + row;
                stage[weight_at + 288u] = stage[weight_at + 0u] * (vec4<f32>(score0_0.x, score1_0.x, score2_0.x, score3_0.x) - number0.x) * 0.125f;
                stage[weight_at + 360u] = stage[weight_at + 72u] * (vec4<f32>(score0_0.y, score1_0.y, score2_0.y, score3_0.y) - number0.y) * 0.125f;
                stage[weight_at + 432u] = stage[weight_at + 144u] * (vec4<f32>(score0_0.z, score1_0.z, score2_0.z, score3_0.z) - number0.z) * 0.125f;
                stage[weight_at + 504u] = stage[weight_at + 216u] * (vec4<f32>(score0_0.w, score1_0.w, score2_0.w, score3_0.w) - number0.w) * 0.125f;
            }
            for (var part = 0u; part < 32u; part += 8u) {
                let rows_at = 576u + role * 128u;
                stage[rows_at + inner + 0u] = next0;
                stage[rows_at + inner + 64u] = next1;
                workgroupBarrier(); // publishes the weights and some rows of the other side
                if (part + 8u < 32u) {
                    if (role == 0u) {
                        next0 = cotangent4(b, at + (part + 8u + inner / 16u + 0u) % 8u * 4u + (part + 8u + inner / 16u + 0u) / 8u, inner % 16u * 4u);
                        next1 = cotangent4(b, at + (part + 8u + inner / 16u + 4u) % 8u * 4u + (part + 8u + inner / 16u + 4u) / 8u, inner % 16u * 4u);
                    }
                    else {
                        next0 = query4(b, at + (part + 8u + inner / 16u + 0u) % 8u * 4u + (part + 8u + inner / 16u + 0u) / 8u, inner % 16u * 4u);
                        next1 = query4(b, at + (part + 8u + inner / 16u + 4u) % 8u * 4u + (part + 8u + inner / 16u + 4u) / 8u, inner % 16u * 4u);
                    }
                }
                let w_at = 0u + role * 288u + part * 9u + row;
                let r_at0 = rows_at + column + 0u;
                let r_at1 = rows_at + column + 8u;
                {
                    let w0 = stage[w_at + 0u];
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
                }
                {
                    let w0 = stage[w_at + 9u];
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
                }
                {
                    let w0 = stage[w_at + 18u];
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
                }
                {
                    let w0 = stage[w_at + 27u];
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
                }
                {
                    let w0 = stage[w_at + 36u];
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
                }
                {
                    let w0 = stage[w_at + 45u];
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
                }
                {
                    let w0 = stage[w_at + 54u];
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
                }
                {
                    let w0 = stage[w_at + 63u];
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
                }
                workgroupBarrier(); // all have read them
            }
        }
        if (role == 0u) {
            if (own + 0u < 200u) {
                keep_grad_v(b, own + 0u, column * 4u, sum0_0);
                keep_grad_v(b, own + 0u, (column + 8u) * 4u, sum0_1);
            }
            if (own + 1u < 200u) {
                keep_grad_v(b, own + 1u, column * 4u, sum1_0);
                keep_grad_v(b, own + 1u, (column + 8u) * 4u, sum1_1);
            }
            if (own + 2u < 200u) {
                keep_grad_v(b, own + 2u, column * 4u, sum2_0);
                keep_grad_v(b, own + 2u, (column + 8u) * 4u, sum2_1);
            }
            if (own + 3u < 200u) {
                keep_grad_v(b, own + 3u, column * 4u, sum3_0);
                keep_grad_v(b, own + 3u, (column + 8u) * 4u, sum3_1);
            }
        }
        else {
            if (own + 0u < 200u) {
                keep_grad_k(b, own + 0u, column * 4u, sum0_0);
                keep_grad_k(b, own + 0u, (column + 8u) * 4u, sum0_1);
            }
            if (own + 1u < 200u) {
                keep_grad_k(b, own + 1u, column * 4u, sum1_0);
                keep_grad_k(b, own + 1u, (column + 8u) * 4u, sum1_1);
            }
            if (own + 2u < 200u) {
                keep_grad_k(b, own + 2u, column * 4u, sum2_0);
                keep_grad_k(b, own + 2u, (column + 8u) * 4u, sum2_1);
            }
            if (own + 3u < 200u) {
                keep_grad_k(b, own + 3u, column * 4u, sum3_0);
                keep_grad_k(b, own + 3u, (column + 8u) * 4u, sum3_1);
            }
        }
    }
}
