// dot f16 [1]·[1000]x[520]·[1024]
// tiles of 64 x 64, 32 deep; 32 x 32 a subgroup, in matrices of 16 x 16

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

// Which quad of a0; k counts quads.
fn lhs_at(b: u32, m: u32, k: u32) -> u32 {
    let i0 = m;
    let i1 = k;
    return i0 * 130u + i1;
}

fn lhs_quad(at: u32, inside: bool) -> vec4<f16> {
    if (inside) {
        return a0[at];
    }
    return vec4<f16>();
}

// Which quad of a1; n counts quads.
fn rhs_at(b: u32, n: u32, k: u32) -> u32 {
    let i0 = k;
    let i1 = n;
    return i0 * 256u + i1;
}

fn rhs_quad(at: u32, inside: bool) -> vec4<f16> {
    if (inside) {
        return a1[at];
    }
    return vec4<f16>();
}

fn finish(b: u32, m: u32, first: u32, sums: vec4<f32>) {
    let i0 = m;
    let i1 = (first / 4u);
    var w2 = vec2<u32>();
    {
        let t0 = sums[0];
        w2.x = k_to_f16(t0);
    }
    {
        let t0 = sums[1];
        w2.x |= (k_to_f16(t0)) << 16u;
    }
    {
        let t0 = sums[2];
        w2.y = k_to_f16(t0);
    }
    {
        let t0 = sums[3];
        w2.y |= (k_to_f16(t0)) << 16u;
    }
    a2[i0 * 256u + i1] = w2;
}

var<workgroup> lhs_tile: array<vec4<f16>, 640>;
var<workgroup> rhs_tile: array<vec4<f16>, 576>;
var<workgroup> kept: array<vec4<f32>, 320>; // sums on their way to the epilogue

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let subgroup = local / 32u;
    let below = subgroup / 2u * 32u; // where its part of the tile begins
    let beside = subgroup % 2u * 32u;
    let lhs_row = local / 8u;
    let lhs_column = local % 8u;
    let lhs_to = lhs_row * 10u + lhs_column;
    let lhs_from = below * 10u;
    let rhs_row = local / 16u;
    let rhs_column = local % 16u;
    let rhs_to = rhs_row * 18u + rhs_column;
    let rhs_from = beside / 4u;
    let tile = id.x;
    let b = tile / 256u;
    let band = tile % 256u / 128u * 8u;
    let high = 8u; // tiles of the band below each other
    let within = tile % 256u % 128u;
    let m = (band + within % high) * 64u;
    let n = within / high * 64u;
    var acc0_0 = coop_mat16x16<f32, C>();
    var acc0_1 = coop_mat16x16<f32, C>();
    var acc1_0 = coop_mat16x16<f32, C>();
    var acc1_1 = coop_mat16x16<f32, C>();
    var lhs_next0 = vec4<f16>();
    var lhs_next1 = vec4<f16>();
    var lhs_next2 = vec4<f16>();
    var lhs_next3 = vec4<f16>();
    var lhs_at0 = lhs_at(b, min(m + lhs_row, 999u), lhs_column);
    var lhs_at1 = lhs_at(b, min(m + lhs_row + 16u, 999u), lhs_column);
    var lhs_at2 = lhs_at(b, min(m + lhs_row + 32u, 999u), lhs_column);
    var lhs_at3 = lhs_at(b, min(m + lhs_row + 48u, 999u), lhs_column);
    var rhs_next0 = vec4<f16>();
    var rhs_next1 = vec4<f16>();
    var rhs_next2 = vec4<f16>();
    var rhs_next3 = vec4<f16>();
    var rhs_at0 = rhs_at(b, n / 4u + rhs_column, rhs_row);
    lhs_next0 = lhs_quad(lhs_at0, 0u + lhs_column * 4u < 520u);
    lhs_next1 = lhs_quad(lhs_at1, 0u + lhs_column * 4u < 520u);
    lhs_next2 = lhs_quad(lhs_at2, 0u + lhs_column * 4u < 520u);
    lhs_next3 = lhs_quad(lhs_at3, 0u + lhs_column * 4u < 520u);
    lhs_at0 += 8u;
    lhs_at1 += 8u;
    lhs_at2 += 8u;
    lhs_at3 += 8u;
    rhs_next0 = rhs_quad(rhs_at0 + 0u, 0u + rhs_row + 0u < 520u);
    rhs_next1 = rhs_quad(rhs_at0 + 2048u, 0u + rhs_row + 8u < 520u);
    rhs_next2 = rhs_quad(rhs_at0 + 4096u, 0u + rhs_row + 16u < 520u);
    rhs_next3 = rhs_quad(rhs_at0 + 6144u, 0u + rhs_row + 24u < 520u);
    rhs_at0 += 8192u;
    for (var k = 0u; k < 520u; k += 32u) {
        lhs_tile[lhs_to + 0u] = lhs_next0;
        lhs_tile[lhs_to + 160u] = lhs_next1;
        lhs_tile[lhs_to + 320u] = lhs_next2;
        lhs_tile[lhs_to + 480u] = lhs_next3;
        rhs_tile[rhs_to + 0u] = rhs_next0;
        rhs_tile[rhs_to + 144u] = rhs_next1;
        rhs_tile[rhs_to + 288u] = rhs_next2;
        rhs_tile[rhs_to + 432u] = rhs_next3;
        workgroupBarrier(); // publishes both tiles
        if (k + 32u < 520u) {
            lhs_next0 = lhs_quad(lhs_at0, k + 32u + lhs_column * 4u < 520u);
            lhs_next1 = lhs_quad(lhs_at1, k + 32u + lhs_column * 4u < 520u);
            lhs_next2 = lhs_quad(lhs_at2, k + 32u + lhs_column * 4u < 520u);
            lhs_next3 = lhs_quad(lhs_at3, k + 32u + lhs_column * 4u < 520u);
            lhs_at0 += 8u;
            lhs_at1 += 8u;
            lhs_at2 += 8u;
            lhs_at3 += 8u;
            rhs_next0 = rhs_quad(rhs_at0 + 0u, k + 32u + rhs_row + 0u < 520u);
            rhs_next1 = rhs_quad(rhs_at0 + 2048u, k + 32u + rhs_row + 8u < 520u);
            rhs_next2 = rhs_quad(rhs_at0 + 4096u, k + 32u + rhs_row + 16u < 520u);
            rhs_next3 = rhs_quad(rhs_at0 + 6144u, k + 32u + rhs_row + 24u < 520u);
            rhs_at0 += 8192u;
        }
        {
            let lhs0 = coopLoadT<coop_mat16x16<f16, A>>(&lhs_tile[lhs_from + 0u], 10u);
            let lhs1 = coopLoadT<coop_mat16x16<f16, A>>(&lhs_tile[lhs_from + 160u], 10u);
            let rhs0 = coopLoadT<coop_mat16x16<f16, B>>(&rhs_tile[rhs_from + 0u], 18u);
            acc0_0 = coopMultiplyAdd(lhs0, rhs0, acc0_0);
            acc1_0 = coopMultiplyAdd(lhs1, rhs0, acc1_0);
            let rhs1 = coopLoadT<coop_mat16x16<f16, B>>(&rhs_tile[rhs_from + 4u], 18u);
            acc0_1 = coopMultiplyAdd(lhs0, rhs1, acc0_1);
            acc1_1 = coopMultiplyAdd(lhs1, rhs1, acc1_1);
        }
        {
            let lhs0 = coopLoadT<coop_mat16x16<f16, A>>(&lhs_tile[lhs_from + 4u], 10u);
            let lhs1 = coopLoadT<coop_mat16x16<f16, A>>(&lhs_tile[lhs_from + 164u], 10u);
            let rhs0 = coopLoadT<coop_mat16x16<f16, B>>(&rhs_tile[rhs_from + 288u], 18u);
            acc0_0 = coopMultiplyAdd(lhs0, rhs0, acc0_0);
            acc1_0 = coopMultiplyAdd(lhs1, rhs0, acc1_0);
            let rhs1 = coopLoadT<coop_mat16x16<f16, B>>(&rhs_tile[rhs_from + 292u], 18u);
            acc0_1 = coopMultiplyAdd(lhs0, rhs1, acc0_1);
            acc1_1 = coopMultiplyAdd(lhs1, rhs1, acc1_1);
        }
        workgroupBarrier(); // all have read both tiles
    }
    let own = subgroup * 80u;
    let pitch = 5u;
    for (var part = 0u; part < 4u; part++) {
        switch (part) {
            case 0u: {
                coopStoreT(acc0_0, &kept[own], pitch);
            }
            case 1u: {
                coopStoreT(acc0_1, &kept[own], pitch);
            }
            case 2u: {
                coopStoreT(acc1_0, &kept[own], pitch);
            }
            default: {
                coopStoreT(acc1_1, &kept[own], pitch);
            }
        }
        workgroupBarrier(); // publishes the sums
        for (var at = local % 32u; at < 64u; at += 32u) {
            let row = m + below + part / 2u * 16u + at / 4u;
            let column = n + beside + part % 2u * 16u + at % 4u * 4u;
            if (row < 1000u) {
                finish(b, row, column, kept[own + at / 4u * pitch + at % 4u]);
            }
        }
        workgroupBarrier(); // all have read the sums
    }
}
