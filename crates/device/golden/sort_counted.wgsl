// sort 2·17·3 descending, first 5
// each element counts those before it

@group(0) @binding(0) var<storage, read> a0: array<i32>; // i32[102]
@group(0) @binding(1) var<storage, read_write> a1: array<i32>; // i32[30]
@group(0) @binding(2) var<storage, read_write> a2: array<i32>; // i32[30]

fn k_key_i32(x: i32) -> u32 {
    return bitcast<u32>(x) ^ 0x80000000u;
}

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    for (var item = id.x; item < 102u; item += 256u) {
        let place = item / 3u % 17u;
        let row = item / 51u * 3u + item % 3u;
        let base = row / 3u * 51u + row % 3u;
        let kept = row / 3u * 15u + row % 3u;
        let key = ~k_key_i32(a0[base + place * 3u]);
        var before = 0u;
        for (var n = 0u; n < 17u; n++) {
            let other = ~k_key_i32(a0[base + n * 3u]);
            before += select(0u, 1u, other < key || (other == key && n < place));
        }
        if (before < 5u) {
            a1[kept + before * 3u] = a0[base + place * 3u];
            a2[kept + before * 3u] = i32(place);
        }
    }
}
