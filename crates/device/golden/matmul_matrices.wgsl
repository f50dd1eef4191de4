// dot f16 [1]·[1000]x[520]·[1024]
// tiles of 64 x 128, 32 deep; 64 x 64 a subgroup, in matrices of 16 x 16

enable f16;
enable wgpu_cooperative_matrix;

@group(0) @binding(0) var<storage, read> a0: array<vec4<f16>>; // f16[520000]
@group(0) @binding(1) var<storage, read> a1: array<vec4<f16>>; // f16[532480]
@group(0) @binding(2) var<storage, read_write> a2: array<vec2<u32>>; // f16[1024000]

// The nearest f16, ties to even, from 65520 on infinity.
fn k_to_f16(x: f32) -> u32 {
    let bits = bitcast<u32>(x);
    let sign = (bits >> 16u) & 0x8000u;
    let a = bits & 0x7fffffffu;
    if (a >= 0x477ff000u) {
        return sign | select(0x7c00u, 0x7e00u, a > 0x7f800000u);
    }
    if (a >= 0x38800000u) {
        return sign | ((a - 0x38000000u + 0xfffu + ((a >> 13u) & 1u)) >> 13u);
    }
    if (a < 0x33000000u) {
        return sign;
    }
    // Subnormal: the significand in units of 2^-24.
    let shift = 126u - (a >> 23u);
    let m = (a & 0x7fffffu) | 0x800000u;
    let q = m >> shift;
    let rest = m & ((1u << shift) - 1u);
    let half = 1u << (shift - 1u);
    return sign | (q + select(0u, 1u, rest > half || (rest == half && (q & 1u) == 1u)));
}

// The f16 in the low half of a word.
fn k_from_f16(h: u32) -> f32 {
    let sign = (h & 0x8000u) << 16u;
    let a = h & 0x7fffu;
    let small = bitcast<u32>(f32(a) * 5.9604644775390625e-8);
    let normal = (a << 13u) + 0x38000000u;
    let special = (a << 13u) | 0x7f800000u;
    return bitcast<f32>(sign | select(select(normal, small, a < 0x400u), special, a >= 0x7c00u));
}

fn lhs_at(b: u32, m: u32, k: u32) -> u32 {
    let i0 = m;
    let i1 = k;
    return (i0 * 520u + i1) / 4u;
}

fn rhs_at(b: u32, n: u32, k: u32) -> u32 {
    let i0 = k;
    let i1 = n;
    return (i0 * 1024u + i1) / 4u;
}

fn finish(b: u32, m: u32, first: u32, sums: vec4<f32>) {
    let i0 = m;
    let i1 = (first / 4u);
    var w2 = vec2<u32>();
    {
        let t0 = sums[0];
        let t1 = k_from_f16(k_to_f16(t0));
        w2.x = k_to_f16(t1);
    }
    {
        let t0 = sums[1];
        let t1 = k_from_f16(k_to_f16(t0));
        w2.x |= (k_to_f16(t1)) << 16u;
    }
    {
        let t0 = sums[2];
        let t1 = k_from_f16(k_to_f16(t0));
        w2.y = k_to_f16(t1);
    }
    {
        let t0 = sums[3];
        let t1 = k_from_f16(k_to_f16(t0));
        w2.y |= (k_to_f16(t1)) << 16u;
    }
    a2[i0 * 256u + i1] = w2;
}

var<workgroup> lhs_tile: array<vec4<f16>, 640>;
var<workgroup> rhs_tile: array<vec4<f16>, 1088>;
var<workgroup> kept: array<vec4<f32>, 160>; // sums on their way to the epilogue

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let subgroup = local / 32u;
    let below = subgroup / 2u * 64u; // where its part of the tile begins
    let beside = subgroup % 2u * 64u;
    let lhs_row = local / 8u;
    let lhs_quad = local % 8u;
    let lhs_to = lhs_row * 10u + lhs_quad;
    let lhs_from = below * 10u;
    let rhs_row = local / 32u;
    let rhs_quad = local % 32u;
    let rhs_to = rhs_row * 34u + rhs_quad;
    let rhs_from = beside / 4u;
    let tile = id.x;
    let b = tile / 128u;
    let band = tile % 128u / 64u * 8u;
    let high = 8u; // tiles of the band below each other
    let within = tile % 128u % 64u;
    let m = (band + within % high) * 64u;
    let n = within / high * 128u;
    var acc0_0 = coop_mat16x16<f32, C>();
    var acc0_1 = coop_mat16x16<f32, C>();
    var acc0_2 = coop_mat16x16<f32, C>();
    var acc0_3 = coop_mat16x16<f32, C>();
    var acc1_0 = coop_mat16x16<f32, C>();
    var acc1_1 = coop_mat16x16<f32, C>();
    var acc1_2 = coop_mat16x16<f32, C>();
    var acc1_3 = coop_mat16x16<f32, C>();
    var acc2_0 = coop_mat16x16<f32, C>();
    var acc2_1 = coop_mat16x16<f32, C>();
    var acc2_2 = coop_mat16x16<f32, C>();
    var acc2_3 = coop_mat16x16<f32, C>();
    var acc3_0 = coop_mat16x16<f32, C>();
    var acc3_1 = coop_mat16x16<f32, C>();
    var acc3_2 = coop_mat16x16<f32, C>();
    var acc3_3 = coop_mat16x16<f32, C>();
    var lhs_at0 = lhs_at(b, min(m + lhs_row, 999u), lhs_quad * 4u);
    var lhs_next0 = vec4<f16>();
    var lhs_at1 = lhs_at(b, min(m + lhs_row + 8u, 999u), lhs_quad * 4u);
    var lhs_next1 = vec4<f16>();
    var lhs_at2 = lhs_at(b, min(m + lhs_row + 16u, 999u), lhs_quad * 4u);
    var lhs_next2 = vec4<f16>();
    var lhs_at3 = lhs_at(b, min(m + lhs_row + 24u, 999u), lhs_quad * 4u);
    var lhs_next3 = vec4<f16>();
    var lhs_at4 = lhs_at(b, min(m + lhs_row + 32u, 999u), lhs_quad * 4u);
    var lhs_next4 = vec4<f16>();
    var lhs_at5 = lhs_at(b, min(m + lhs_row + 40u, 999u), lhs_quad * 4u);
    var lhs_next5 = vec4<f16>();
    var lhs_at6 = lhs_at(b, min(m + lhs_row + 48u, 999u), lhs_quad * 4u);
    var lhs_next6 = vec4<f16>();
    var lhs_at7 = lhs_at(b, min(m + lhs_row + 56u, 999u), lhs_quad * 4u);
    var lhs_next7 = vec4<f16>();
    var rhs_at0 = rhs_at(b, n + rhs_quad * 4u, rhs_row);
    var rhs_next0 = vec4<f16>();
    var rhs_at1 = rhs_at(b, n + rhs_quad * 4u, rhs_row + 2u);
    var rhs_next1 = vec4<f16>();
    var rhs_at2 = rhs_at(b, n + rhs_quad * 4u, rhs_row + 4u);
    var rhs_next2 = vec4<f16>();
    var rhs_at3 = rhs_at(b, n + rhs_quad * 4u, rhs_row + 6u);
    var rhs_next3 = vec4<f16>();
    var rhs_at4 = rhs_at(b, n + rhs_quad * 4u, rhs_row + 8u);
    var rhs_next4 = vec4<f16>();
    var rhs_at5 = rhs_at(b, n + rhs_quad * 4u, rhs_row + 10u);
    var rhs_next5 = vec4<f16>();
    var rhs_at6 = rhs_at(b, n + rhs_quad * 4u, rhs_row + 12u);
    var rhs_next6 = vec4<f16>();
    var rhs_at7 = rhs_at(b, n + rhs_quad * 4u, rhs_row + 14u);
    var rhs_next7 = vec4<f16>();
    var rhs_at8 = rhs_at(b, n + rhs_quad * 4u, rhs_row + 16u);
    var rhs_next8 = vec4<f16>();
    var rhs_at9 = rhs_at(b, n + rhs_quad * 4u, rhs_row + 18u);
    var rhs_next9 = vec4<f16>();
    var rhs_at10 = rhs_at(b, n + rhs_quad * 4u, rhs_row + 20u);
    var rhs_next10 = vec4<f16>();
    var rhs_at11 = rhs_at(b, n + rhs_quad * 4u, rhs_row + 22u);
    var rhs_next11 = vec4<f16>();
    var rhs_at12 = rhs_at(b, n + rhs_quad * 4u, rhs_row + 24u);
    var rhs_next12 = vec4<f16>();
    var rhs_at13 = rhs_at(b, n + rhs_quad * 4u, rhs_row + 26u);
    var rhs_next13 = vec4<f16>();
    var rhs_at14 = rhs_at(b, n + rhs_quad * 4u, rhs_row + 28u);
    var rhs_next14 = vec4<f16>();
    var rhs_at15 = rhs_at(b, n + rhs_quad * 4u, rhs_row + 30u);
    var rhs_next15 = vec4<f16>();
    if (0u + lhs_quad * 4u < 520u) {
        lhs_next0 = a0[lhs_at0];
    }
    else {
        lhs_next0 = vec4<f16>();
    }
    lhs_at0 += 8u;
    if (0u + lhs_quad * 4u < 520u) {
        lhs_next1 = a0[lhs_at1];
    }
    else {
        lhs_next1 = vec4<f16>();
    }
    lhs_at1 += 8u;
    if (0u + lhs_quad * 4u < 520u) {
        lhs_next2 = a0[lhs_at2];
    }
    else {
        lhs_next2 = vec4<f16>();
    }
    lhs_at2 += 8u;
    if (0u + lhs_quad * 4u < 520u) {
        lhs_next3 = a0[lhs_at3];
    }
    else {
        lhs_next3 = vec4<f16>();
    }
    lhs_at3 += 8u;
    if (0u + lhs_quad * 4u < 520u) {
        lhs_next4 = a0[lhs_at4];
    }
    else {
        lhs_next4 = vec4<f16>();
    }
    lhs_at4 += 8u;
    if (0u + lhs_quad * 4u < 520u) {
        lhs_next5 = a0[lhs_at5];
    }
    else {
        lhs_next5 = vec4<f16>();
    }
    lhs_at5 += 8u;
    if (0u + lhs_quad * 4u < 520u) {
        lhs_next6 = a0[lhs_at6];
    }
    else {
        lhs_next6 = vec4<f16>();
    }
    lhs_at6 += 8u;
    if (0u + lhs_quad * 4u < 520u) {
        lhs_next7 = a0[lhs_at7];
    }
    else {
        lhs_next7 = vec4<f16>();
    }
    lhs_at7 += 8u;
    if (0u + rhs_row + 0u < 520u) {
        rhs_next0 = a1[rhs_at0];
    }
    else {
        rhs_next0 = vec4<f16>();
    }
    rhs_at0 += 8192u;
    if (0u + rhs_row + 2u < 520u) {
        rhs_next1 = a1[rhs_at1];
    }
    else {
        rhs_next1 = vec4<f16>();
    }
    rhs_at1 += 8192u;
    if (0u + rhs_row + 4u < 520u) {
        rhs_next2 = a1[rhs_at2];
    }
    else {
        rhs_next2 = vec4<f16>();
    }
    rhs_at2 += 8192u;
    if (0u + rhs_row + 6u < 520u) {
        rhs_next3 = a1[rhs_at3];
    }
    else {
        rhs_next3 = vec4<f16>();
    }
    rhs_at3 += 8192u;
    if (0u + rhs_row + 8u < 520u) {
        rhs_next4 = a1[rhs_at4];
    }
    else {
        rhs_next4 = vec4<f16>();
    }
    rhs_at4 += 8192u;
    if (0u + rhs_row + 10u < 520u) {
        rhs_next5 = a1[rhs_at5];
    }
    else {
        rhs_next5 = vec4<f16>();
    }
    rhs_at5 += 8192u;
    if (0u + rhs_row + 12u < 520u) {
        rhs_next6 = a1[rhs_at6];
    }
    else {
        rhs_next6 = vec4<f16>();
    }
    rhs_at6 += 8192u;
    if (0u + rhs_row + 14u < 520u) {
        rhs_next7 = a1[rhs_at7];
    }
    else {
        rhs_next7 = vec4<f16>();
    }
    rhs_at7 += 8192u;
    if (0u + rhs_row + 16u < 520u) {
        rhs_next8 = a1[rhs_at8];
    }
    else {
        rhs_next8 = vec4<f16>();
    }
    rhs_at8 += 8192u;
    if (0u + rhs_row + 18u < 520u) {
        rhs_next9 = a1[rhs_at9];
    }
    else {
        rhs_next9 = vec4<f16>();
    }
    rhs_at9 += 8192u;
    if (0u + rhs_row + 20u < 520u) {
        rhs_next10 = a1[rhs_at10];
    }
    else {
        rhs_next10 = vec4<f16>();
    }
    rhs_at10 += 8192u;
    if (0u + rhs_row + 22u < 520u) {
        rhs_next11 = a1[rhs_at11];
    }
    else {
        rhs_next11 = vec4<f16>();
    }
    rhs_at11 += 8192u;
    if (0u + rhs_row + 24u < 520u) {
        rhs_next12 = a1[rhs_at12];
    }
    else {
        rhs_next12 = vec4<f16>();
    }
    rhs_at12 += 8192u;
    if (0u + rhs_row + 26u < 520u) {
        rhs_next13 = a1[rhs_at13];
    }
    else {
        rhs_next13 = vec4<f16>();
    }
    rhs_at13 += 8192u;
    if (0u + rhs_row + 28u < 520u) {
        rhs_next14 = a1[rhs_at14];
    }
    else {
        rhs_next14 = vec4<f16>();
    }
    rhs_at14 += 8192u;
    if (0u + rhs_row + 30u < 520u) {
        rhs_next15 = a1[rhs_at15];
    }
    else {
        rhs_next15 = vec4<f16>();
    }
    rhs_at15 += 8192u;
    for (var k = 0u; k < 520u; k += 32u) {
        lhs_tile[lhs_to + 0u] = lhs_next0;
        lhs_tile[lhs_to + 80u] = lhs_next1;
        lhs_tile[lhs_to + 160u] = lhs_next2;
        lhs_tile[lhs_to + 240u] = lhs_next3;
        lhs_tile[lhs_to + 320u] = lhs_next4;
        lhs_tile[lhs_to + 400u] = lhs_next5;
        lhs_tile[lhs_to + 480u] = lhs_next6;
        lhs_tile[lhs_to + 560u] = lhs_next7;
        rhs_tile[rhs_to + 0u] = rhs_next0;
        rhs_tile[rhs_to + 68u] = rhs_next1;
        rhs_tile[rhs_to + 136u] = rhs_next2;
        rhs_tile[rhs_to + 204u] = rhs_next3;
        rhs_tile[rhs_to + 272u] = rhs_next4;
        rhs_tile[rhs_to + 340u] = rhs_next5;
        rhs_tile[rhs_to + 408u] = rhs_next6;
        rhs_tile[rhs_to + 476u] = rhs_next7;
        rhs_tile[rhs_to + 544u] = rhs_next8;
        rhs_tile[rhs_to + 612u] = rhs_next9;
        rhs_tile[rhs_to + 680u] = rhs_next10;
        rhs_tile[rhs_to + 748u] = rhs_next11;
        rhs_tile[rhs_to + 816u] = rhs_next12;
        rhs_tile[rhs_to + 884u] = rhs_next13;
        rhs_tile[rhs_to + 952u] = rhs_next14;
        rhs_tile[rhs_to + 1020u] = rhs_next15;
        workgroupBarrier(); // publishes both tiles
        if (k + 32u < 520u) {
            if (k + 32u + lhs_quad * 4u < 520u) {
                lhs_next0 = a0[lhs_at0];
            }
            else {
                lhs_next0 = vec4<f16>();
            }
            lhs_at0 += 8u;
            if (k + 32u + lhs_quad * 4u < 520u) {
                lhs_next1 = a0[lhs_at1];
            }
            else {
                lhs_next1 = vec4<f16>();
            }
            lhs_at1 += 8u;
            if (k + 32u + lhs_quad * 4u < 520u) {
                lhs_next2 = a0[lhs_at2];
            }
            else {
                lhs_next2 = vec4<f16>();
            }
            lhs_at2 += 8u;
            if (k + 32u + lhs_quad * 4u < 520u) {
                lhs_next3 = a0[lhs_at3];
            }
            else {
                lhs_next3 = vec4<f16>();
            }
            lhs_at3 += 8u;
            if (k + 32u + lhs_quad * 4u < 520u) {
                lhs_next4 = a0[lhs_at4];
            }
            else {
                lhs_next4 = vec4<f16>();
            }
            lhs_at4 += 8u;
            if (k + 32u + lhs_quad * 4u < 520u) {
                lhs_next5 = a0[lhs_at5];
            }
            else {
                lhs_next5 = vec4<f16>();
            }
            lhs_at5 += 8u;
            if (k + 32u + lhs_quad * 4u < 520u) {
                lhs_next6 = a0[lhs_at6];
            }
            else {
                lhs_next6 = vec4<f16>();
            }
            lhs_at6 += 8u;
            if (k + 32u + lhs_quad * 4u < 520u) {
                lhs_next7 = a0[lhs_at7];
            }
            else {
                lhs_next7 = vec4<f16>();
            }
            lhs_at7 += 8u;
            if (k + 32u + rhs_row + 0u < 520u) {
                rhs_next0 = a1[rhs_at0];
            }
            else {
                rhs_next0 = vec4<f16>();
            }
            rhs_at0 += 8192u;
            if (k + 32u + rhs_row + 2u < 520u) {
                rhs_next1 = a1[rhs_at1];
            }
            else {
                rhs_next1 = vec4<f16>();
            }
            rhs_at1 += 8192u;
            if (k + 32u + rhs_row + 4u < 520u) {
                rhs_next2 = a1[rhs_at2];
            }
            else {
                rhs_next2 = vec4<f16>();
            }
            rhs_at2 += 8192u;
            if (k + 32u + rhs_row + 6u < 520u) {
                rhs_next3 = a1[rhs_at3];
            }
            else {
                rhs_next3 = vec4<f16>();
            }
            rhs_at3 += 8192u;
            if (k + 32u + rhs_row + 8u < 520u) {
                rhs_next4 = a1[rhs_at4];
            }
            else {
                rhs_next4 = vec4<f16>();
            }
            rhs_at4 += 8192u;
            if (k + 32u + rhs_row + 10u < 520u) {
                rhs_next5 = a1[rhs_at5];
            }
            else {
                rhs_next5 = vec4<f16>();
            }
            rhs_at5 += 8192u;
            if (k + 32u + rhs_row + 12u < 520u) {
                rhs_next6 = a1[rhs_at6];
            }
            else {
                rhs_next6 = vec4<f16>();
            }
            rhs_at6 += 8192u;
            if (k + 32u + rhs_row + 14u < 520u) {
                rhs_next7 = a1[rhs_at7];
            }
            else {
                rhs_next7 = vec4<f16>();
            }
            rhs_at7 += 8192u;
            if (k + 32u + rhs_row + 16u < 520u) {
                rhs_next8 = a1[rhs_at8];
            }
            else {
                rhs_next8 = vec4<f16>();
            }
            rhs_at8 += 8192u;
            if (k + 32u + rhs_row + 18u < 520u) {
                rhs_next9 = a1[rhs_at9];
            }
            else {
                rhs_next9 = vec4<f16>();
            }
            rhs_at9 += 8192u;
            if (k + 32u + rhs_row + 20u < 520u) {
                rhs_next10 = a1[rhs_at10];
            }
            else {
                rhs_next10 = vec4<f16>();
            }
            rhs_at10 += 8192u;
            if (k + 32u + rhs_row + 22u < 520u) {
                rhs_next11 = a1[rhs_at11];
            }
            else {
                rhs_next11 = vec4<f16>();
            }
            rhs_at11 += 8192u;
            if (k + 32u + rhs_row + 24u < 520u) {
                rhs_next12 = a1[rhs_at12];
            }
            else {
                rhs_next12 = vec4<f16>();
            }
            rhs_at12 += 8192u;
            if (k + 32u + rhs_row + 26u < 520u) {
                rhs_next13 = a1[rhs_at13];
            }
            else {
                rhs_next13 = vec4<f16>();
            }
            rhs_at13 += 8192u;
            if (k + 32u + rhs_row + 28u < 520u) {
                rhs_next14 = a1[rhs_at14];
            }
            else {
                rhs_next14 = vec4<f16>();
            }
            rhs_at14 += 8192u;
            if (k + 32u + rhs_row + 30u < 520u) {
                rhs_next15 = a1[rhs_at15];
            }
            else {
                rhs_next15 = vec4<f16>();
            }
            rhs_at15 += 8192u;
        }
        {
            let lhs0 = coopLoadT<coop_mat16x16<f16, A>>(&lhs_tile[lhs_from + 0u], 10u);
            let lhs1 = coopLoadT<coop_mat16x16<f16, A>>(&lhs_tile[lhs_from + 160u], 10u);
            let lhs2 = coopLoadT<coop_mat16x16<f16, A>>(&lhs_tile[lhs_from + 320u], 10u);
            let lhs3 = coopLoadT<coop_mat16x16<f16, A>>(&lhs_tile[lhs_from + 480u], 10u);
            let rhs0 = coopLoadT<coop_mat16x16<f16, B>>(&rhs_tile[rhs_from + 0u], 34u);
            acc0_0 = coopMultiplyAdd(lhs0, rhs0, acc0_0);
            acc1_0 = coopMultiplyAdd(lhs1, rhs0, acc1_0);
            acc2_0 = coopMultiplyAdd(lhs2, rhs0, acc2_0);
            acc3_0 = coopMultiplyAdd(lhs3, rhs0, acc3_0);
            let rhs1 = coopLoadT<coop_mat16x16<f16, B>>(&rhs_tile[rhs_from + 4u], 34u);
            acc0_1 = coopMultiplyAdd(lhs0, rhs1, acc0_1);
            acc1_1 = coopMultiplyAdd(lhs1, rhs1, acc1_1);
            acc2_1 = coopMultiplyAdd(lhs2, rhs1, acc2_1);
            acc3_1 = coopMultiplyAdd(lhs3, rhs1, acc3_1);
            let rhs2 = coopLoadT<coop_mat16x16<f16, B>>(&rhs_tile[rhs_from + 8u], 34u);
            acc0_2 = coopMultiplyAdd(lhs0, rhs2, acc0_2);
            acc1_2 = coopMultiplyAdd(lhs1, rhs2, acc1_2);
            acc2_2 = coopMultiplyAdd(lhs2, rhs2, acc2_2);
            acc3_2 = coopMultiplyAdd(lhs3, rhs2, acc3_2);
            let rhs3 = coopLoadT<coop_mat16x16<f16, B>>(&rhs_tile[rhs_from + 12u], 34u);
            acc0_3 = coopMultiplyAdd(lhs0, rhs3, acc0_3);
            acc1_3 = coopMultiplyAdd(lhs1, rhs3, acc1_3);
            acc2_3 = coopMultiplyAdd(lhs2, rhs3, acc2_3);
            acc3_3 = coopMultiplyAdd(lhs3, rhs3, acc3_3);
        }
        {
            let lhs0 = coopLoadT<coop_mat16x16<f16, A>>(&lhs_tile[lhs_from + 4u], 10u);
            let lhs1 = coopLoadT<coop_mat16x16<f16, A>>(&lhs_tile[lhs_from + 164u], 10u);
            let lhs2 = coopLoadT<coop_mat16x16<f16, A>>(&lhs_tile[lhs_from + 324u], 10u);
            let lhs3 = coopLoadT<coop_mat16x16<f16, A>>(&lhs_tile[lhs_from + 484u], 10u);
            let rhs0 = coopLoadT<coop_mat16x16<f16, B>>(&rhs_tile[rhs_from + 544u], 34u);
            acc0_0 = coopMultiplyAdd(lhs0, rhs0, acc0_0);
            acc1_0 = coopMultiplyAdd(lhs1, rhs0, acc1_0);
            acc2_0 = coopMultiplyAdd(lhs2, rhs0, acc2_0);
            acc3_0 = coopMultiplyAdd(lhs3, rhs0, acc3_0);
            let rhs1 = coopLoadT<coop_mat16x16<f16, B>>(&rhs_tile[rhs_from + 548u], 34u);
            acc0_1 = coopMultiplyAdd(lhs0, rhs1, acc0_1);
            acc1_1 = coopMultiplyAdd(lhs1, rhs1, acc1_1);
            acc2_1 = coopMultiplyAdd(lhs2, rhs1, acc2_1);
            acc3_1 = coopMultiplyAdd(lhs3, rhs1, acc3_1);
            let rhs2 = coopLoadT<coop_mat16x16<f16, B>>(&rhs_tile[rhs_from + 552u], 34u);
            acc0_2 = coopMultiplyAdd(lhs0, rhs2, acc0_2);
            acc1_2 = coopMultiplyAdd(lhs1, rhs2, acc1_2);
            acc2_2 = coopMultiplyAdd(lhs2, rhs2, acc2_2);
            acc3_2 = coopMultiplyAdd(lhs3, rhs2, acc3_2);
            let rhs3 = coopLoadT<coop_mat16x16<f16, B>>(&rhs_tile[rhs_from + 556u], 34u);
            acc0_3 = coopMultiplyAdd(lhs0, rhs3, acc0_3);
            acc1_3 = coopMultiplyAdd(lhs1, rhs3, acc1_3);
            acc2_3 = coopMultiplyAdd(lhs2, rhs3, acc2_3);
            acc3_3 = coopMultiplyAdd(lhs3, rhs3, acc3_3);
        }
        workgroupBarrier(); // all have read both tiles
    }
    let own = subgroup * 80u;
    let pitch = 5u;
    {
        let to0 = own + 0u;
        coopStoreT(acc0_0, &kept[to0], pitch);
        workgroupBarrier(); // publishes the sums
        for (var at = local % 32u; at < 64u; at += 32u) {
            let row = m + below + 0u + at / 4u;
            if (row < 1000u) {
                finish(b, row, n + beside + 0u + at % 4u * 4u, kept[own + at / 4u * pitch + at % 4u]);
            }
        }
        workgroupBarrier(); // all have read the sums
    }
    {
        let to0 = own + 0u;
        coopStoreT(acc0_1, &kept[to0], pitch);
        workgroupBarrier(); // publishes the sums
        for (var at = local % 32u; at < 64u; at += 32u) {
            let row = m + below + 0u + at / 4u;
            if (row < 1000u) {
                finish(b, row, n + beside + 16u + at % 4u * 4u, kept[own + at / 4u * pitch + at % 4u]);
            }
        }
        workgroupBarrier(); // all have read the sums
    }
    {
        let to0 = own + 0u;
        coopStoreT(acc0_2, &kept[to0], pitch);
        workgroupBarrier(); // publishes the sums
        for (var at = local % 32u; at < 64u; at += 32u) {
            let row = m + below + 0u + at / 4u;
            if (row < 1000u) {
                finish(b, row, n + beside + 32u + at % 4u * 4u, kept[own + at / 4u * pitch + at % 4u]);
            }
        }
        workgroupBarrier(); // all have read the sums
    }
    {
        let to0 = own + 0u;
        coopStoreT(acc0_3, &kept[to0], pitch);
        workgroupBarrier(); // publishes the sums
        for (var at = local % 32u; at < 64u; at += 32u) {
            let row = m + below + 0u + at / 4u;
            if (row < 1000u) {
                finish(b, row, n + beside + 48u + at % 4u * 4u, kept[own + at / 4u * pitch + at % 4u]);
            }
        }
        workgroupBarrier(); // all have read the sums
    }
    {
        let to0 = own + 0u;
        coopStoreT(acc1_0, &kept[to0], pitch);
        workgroupBarrier(); // publishes the sums
        for (var at = local % 32u; at < 64u; at += 32u) {
            let row = m + below + 16u + at / 4u;
            if (row < 1000u) {
                finish(b, row, n + beside + 0u + at % 4u * 4u, kept[own + at / 4u * pitch + at % 4u]);
            }
        }
        workgroupBarrier(); // all have read the sums
    }
    {
        let to0 = own + 0u;
        coopStoreT(acc1_1, &kept[to0], pitch);
        workgroupBarrier(); // publishes the sums
        for (var at = local % 32u; at < 64u; at += 32u) {
            let row = m + below + 16u + at / 4u;
            if (row < 1000u) {
                finish(b, row, n + beside + 16u + at % 4u * 4u, kept[own + at / 4u * pitch + at % 4u]);
            }
        }
        workgroupBarrier(); // all have read the sums
    }
    {
        let to0 = own + 0u;
        coopStoreT(acc1_2, &kept[to0], pitch);
        workgroupBarrier(); // publishes the sums
        for (var at = local % 32u; at < 64u; at += 32u) {
            let row = m + below + 16u + at / 4u;
            if (row < 1000u) {
                finish(b, row, n + beside + 32u + at % 4u * 4u, kept[own + at / 4u * pitch + at % 4u]);
            }
        }
        workgroupBarrier(); // all have read the sums
    }
    {
        let to0 = own + 0u;
        coopStoreT(acc1_3, &kept[to0], pitch);
        workgroupBarrier(); // publishes the sums
        for (var at = local % 32u; at < 64u; at += 32u) {
            let row = m + below + 16u + at / 4u;
            if (row < 1000u) {
                finish(b, row, n + beside + 48u + at % 4u * 4u, kept[own + at / 4u * pitch + at % 4u]);
            }
        }
        workgroupBarrier(); // all have read the sums
    }
    {
        let to0 = own + 0u;
        coopStoreT(acc2_0, &kept[to0], pitch);
        workgroupBarrier(); // publishes the sums
        for (var at = local % 32u; at < 64u; at += 32u) {
            let row = m + below + 32u + at / 4u;
            if (row < 1000u) {
                finish(b, row, n + beside + 0u + at % 4u * 4u, kept[own + at / 4u * pitch + at % 4u]);
            }
        }
        workgroupBarrier(); // all have read the sums
    }
    {
        let to0 = own + 0u;
        coopStoreT(acc2_1, &kept[to0], pitch);
        workgroupBarrier(); // publishes the sums
        for (var at = local % 32u; at < 64u; at += 32u) {
            let row = m + below + 32u + at / 4u;
            if (row < 1000u) {
                finish(b, row, n + beside + 16u + at % 4u * 4u, kept[own + at / 4u * pitch + at % 4u]);
            }
        }
        workgroupBarrier(); // all have read the sums
    }
    {
        let to0 = own + 0u;
        coopStoreT(acc2_2, &kept[to0], pitch);
        workgroupBarrier(); // publishes the sums
        for (var at = local % 32u; at < 64u; at += 32u) {
            let row = m + below + 32u + at / 4u;
            if (row < 1000u) {
                finish(b, row, n + beside + 32u + at % 4u * 4u, kept[own + at / 4u * pitch + at % 4u]);
            }
        }
        workgroupBarrier(); // all have read the sums
    }
    {
        let to0 = own + 0u;
        coopStoreT(acc2_3, &kept[to0], pitch);
        workgroupBarrier(); // publishes the sums
        for (var at = local % 32u; at < 64u; at += 32u) {
            let row = m + below + 32u + at / 4u;
            if (row < 1000u) {
                finish(b, row, n + beside + 48u + at % 4u * 4u, kept[own + at / 4u * pitch + at % 4u]);
            }
        }
        workgroupBarrier(); // all have read the sums
    }
    {
        let to0 = own + 0u;
        coopStoreT(acc3_0, &kept[to0], pitch);
        workgroupBarrier(); // publishes the sums
        for (var at = local % 32u; at < 64u; at += 32u) {
            let row = m + below + 48u + at / 4u;
            if (row < 1000u) {
                finish(b, row, n + beside + 0u + at % 4u * 4u, kept[own + at / 4u * pitch + at % 4u]);
            }
        }
        workgroupBarrier(); // all have read the sums
    }
    {
        let to0 = own + 0u;
        coopStoreT(acc3_1, &kept[to0], pitch);
        workgroupBarrier(); // publishes the sums
        for (var at = local % 32u; at < 64u; at += 32u) {
            let row = m + below + 48u + at / 4u;
            if (row < 1000u) {
                finish(b, row, n + beside + 16u + at % 4u * 4u, kept[own + at / 4u * pitch + at % 4u]);
            }
        }
        workgroupBarrier(); // all have read the sums
    }
    {
        let to0 = own + 0u;
        coopStoreT(acc3_2, &kept[to0], pitch);
        workgroupBarrier(); // publishes the sums
        for (var at = local % 32u; at < 64u; at += 32u) {
            let row = m + below + 48u + at / 4u;
            if (row < 1000u) {
                finish(b, row, n + beside + 32u + at % 4u * 4u, kept[own + at / 4u * pitch + at % 4u]);
            }
        }
        workgroupBarrier(); // all have read the sums
    }
    {
        let to0 = own + 0u;
        coopStoreT(acc3_3, &kept[to0], pitch);
        workgroupBarrier(); // publishes the sums
        for (var at = local % 32u; at < 64u; at += 32u) {
            let row = m + below + 48u + at / 4u;
            if (row < 1000u) {
                finish(b, row, n + beside + 48u + at % 4u * 4u, kept[own + at / 4u * pitch + at % 4u]);
            }
        }
        workgroupBarrier(); // all have read the sums
    }
}
