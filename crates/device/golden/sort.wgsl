// sort 9·100·1 ascending, first 100
// 64 invocations a row, a network of 128 elements

@group(0) @binding(0) var<storage, read> a0: array<f32>; // f32[900]
@group(0) @binding(1) var<storage, read_write> a1: array<f32>; // f32[900]
@group(0) @binding(2) var<storage, read_write> a2: array<i32>; // i32[900]

// A number as bits in order: both zeros are one, and NaN is the greatest.
fn k_key_f32(x: f32) -> u32 {
    let bits = bitcast<u32>(x);
    let magnitude = bits & 0x7fffffffu;
    if (magnitude == 0u || magnitude > 0x7f800000u) {
        return select(0x80000000u, 0xffffffffu, magnitude > 0u);
    }
    return select(bits | 0x80000000u, ~bits, bits > 0x80000000u);
}

// Keys and places.
var<workgroup> pairs: array<vec2<u32>, 512>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let lane = local % 64u;
    let slot = local / 64u;
    let own = slot * 128u;
    for (var item = id.x; item < 3u; item += 3u) {
        let live = item * 4u + slot < 9u;
        let row = min(item * 4u + slot, 8u);
        let base = row * 100u;
        let kept = base;
        for (var n = lane; n < 128u; n += 64u) {
            var key = 0xffffffffu;
            if (n < 100u) {
                key = k_key_f32(a0[base + n]);
            }
            pairs[own + n] = vec2<u32>(key, n);
        }
        workgroupBarrier(); // publishes the row
        for (var run = 2u; run <= 128u; run *= 2u) {
            for (var half = run / 2u; half > 0u; half /= 2u) {
                let across = select(half, run - 1u, half * 2u == run);
                let n = lane;
                let low = 2u * n - (n & (half - 1u));
                let a = pairs[own + low];
                let b = pairs[own + (low ^ across)];
                if (b.x < a.x || (b.x == a.x && b.y < a.y)) {
                    pairs[own + low] = b;
                    pairs[own + (low ^ across)] = a;
                }
                workgroupBarrier(); // publishes what was exchanged
            }
        }
        if (live) {
            for (var n = lane; n < 100u; n += 64u) {
                let place = pairs[own + n].y;
                a1[kept + n] = a0[base + place];
                a2[kept + n] = i32(place);
            }
        }
    }
}
