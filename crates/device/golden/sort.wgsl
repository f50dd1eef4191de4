// sort 9·100·1 ascending, first 100
// 128 invocations merge a row

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

var<workgroup> keys: array<u32, 400>;
var<workgroup> places: array<u32, 400>;

fn merge(lane: u32, runs: u32, merged: u32, run: u32) {
    for (var n = lane; n < 100u; n += 128u) {
        let key = keys[runs + n];
        let is_right = (n & run) != 0u;
        let right = (n | (2u * run - 1u)) + 1u - run;
        let other = runs + select(right, right - run, is_right);
        // How many of the other run there are, and how many come before: by powers of two, greatest first.
        let most = select(min(run, max(100u, right) - right), run, is_right);
        var count = 0u;
        for (var more = run; more > 0u; more /= 2u) {
            let probe = count + more;
            let before = keys[min(other + probe - 1u, 399u)];
            let is_less = before < key || (before == key && is_right);
            count = select(count, probe, probe <= most && is_less);
        }
        let place = merged + count + select(n, n - run, is_right);
        keys[place] = key;
        places[place] = places[runs + n];
    }
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let lane = local % 128u;
    let slot = local / 128u;
    let half0 = slot * 200u;
    let half1 = half0 + 100u;
    for (var item = id.x; item < 5u; item += 5u) {
        let live = item * 2u + slot < 9u;
        let row = min(item * 2u + slot, 8u);
        let base = row * 100u;
        let kept = base;
        for (var n = lane; n < 100u; n += 128u) {
            keys[half0 + n] = k_key_f32(a0[base + n]);
            places[half0 + n] = n;
        }
        workgroupBarrier(); // publishes the row
        merge(lane, half0, half1, 1u);
        workgroupBarrier(); // publishes the longer runs
        merge(lane, half1, half0, 2u);
        workgroupBarrier(); // publishes the longer runs
        merge(lane, half0, half1, 4u);
        workgroupBarrier(); // publishes the longer runs
        merge(lane, half1, half0, 8u);
        workgroupBarrier(); // publishes the longer runs
        merge(lane, half0, half1, 16u);
        workgroupBarrier(); // publishes the longer runs
        merge(lane, half1, half0, 32u);
        workgroupBarrier(); // publishes the longer runs
        merge(lane, half0, half1, 64u);
        workgroupBarrier(); // publishes the longer runs
        if (live) {
            for (var n = lane; n < 100u; n += 128u) {
                let place = places[half1 + n];
                a1[kept + n] = a0[base + place];
                a2[kept + n] = i32(place);
            }
        }
    }
}
