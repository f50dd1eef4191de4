// scatter [1]·[700]·[40] into 2000
// a workgroup has a block of rows and looks for its slices

@group(0) @binding(0) var<storage, read> a0: array<i32>; // i32[700]
@group(0) @binding(1) var<storage, read> a1: array<vec4<f32>>; // f32[28000]
@group(0) @binding(2) var<storage, read_write> a2: array<vec4<f32>>; // f32[80000]

var<workgroup> n_found: atomic<u32>;
var<workgroup> found: array<u32, 1024>;
var<workgroup> sorted: array<u32, 1024>;

// How many of the words that were found are below this one.
fn place_of(word: u32, count: u32) -> u32 {
    var start = 0u;
    for (var end = count; start < end; ) {
        let middle = (start + end) / 2u;
        let before = sorted[middle] < word;
        start = select(start, middle + 1u, before);
        end = select(middle, end, before);
    }
    return start;
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    for (var block = id.x; block < 1000u; block += 1000u) {
        let outer = block / 1000u;
        let first = block % 1000u * 2u;
        for (var piece = 0u; piece < 700u; piece += 1024u) {
            if (local == 0u) {
                atomicStore(&n_found, 0u);
            }
            workgroupBarrier(); // publishes the count, and all have read the last piece
            for (var at = local; at < 1024u; at += 1024u) {
                let own_0 = u32(clamp(a0[min(piece + at, 699u)], 0i, 1999i)) - first;
                let own_1 = u32(clamp(a0[min(piece + at + 256u, 699u)], 0i, 1999i)) - first;
                let own_2 = u32(clamp(a0[min(piece + at + 512u, 699u)], 0i, 1999i)) - first;
                let own_3 = u32(clamp(a0[min(piece + at + 768u, 699u)], 0i, 1999i)) - first;
                if (own_0 < 2u && piece + at < 700u) {
                    found[atomicAdd(&n_found, 1u)] = (own_0 << 16u) | (at);
                }
                if (own_1 < 2u && piece + at + 256u < 700u) {
                    found[atomicAdd(&n_found, 1u)] = (own_1 << 16u) | (at + 256u);
                }
                if (own_2 < 2u && piece + at + 512u < 700u) {
                    found[atomicAdd(&n_found, 1u)] = (own_2 << 16u) | (at + 512u);
                }
                if (own_3 < 2u && piece + at + 768u < 700u) {
                    found[atomicAdd(&n_found, 1u)] = (own_3 << 16u) | (at + 768u);
                }
            }
            workgroupBarrier(); // publishes what was found
            let count = atomicLoad(&n_found);
            for (var n = local; n < count; n += 256u) {
                let own = found[n];
                var rank = 0u;
                for (var other = 0u; other < count; other++) {
                    rank += select(0u, 1u, found[other] < own);
                }
                sorted[rank] = own;
            }
            workgroupBarrier(); // publishes the order
            for (var row = local / 16u; row < min(2u, 2000u - first); row += 16u) {
                let start = place_of(row << 16u, count);
                let end = place_of((row + 1u) << 16u, count);
                for (var inner = local % 16u; inner < 10u; inner += 16u) {
                    var sum = vec4<f32>();
                    var n = start;
                    for (; n + 8u <= end; n += 8u) {
                        let slice_0 = a1[(outer * 700u + piece + (sorted[n + 0u] & 0xffffu)) * 10u + inner];
                        let slice_1 = a1[(outer * 700u + piece + (sorted[n + 1u] & 0xffffu)) * 10u + inner];
                        let slice_2 = a1[(outer * 700u + piece + (sorted[n + 2u] & 0xffffu)) * 10u + inner];
                        let slice_3 = a1[(outer * 700u + piece + (sorted[n + 3u] & 0xffffu)) * 10u + inner];
                        let slice_4 = a1[(outer * 700u + piece + (sorted[n + 4u] & 0xffffu)) * 10u + inner];
                        let slice_5 = a1[(outer * 700u + piece + (sorted[n + 5u] & 0xffffu)) * 10u + inner];
                        let slice_6 = a1[(outer * 700u + piece + (sorted[n + 6u] & 0xffffu)) * 10u + inner];
                        let slice_7 = a1[(outer * 700u + piece + (sorted[n + 7u] & 0xffffu)) * 10u + inner];
                        sum += slice_0;
                        sum += slice_1;
                        sum += slice_2;
                        sum += slice_3;
                        sum += slice_4;
                        sum += slice_5;
                        sum += slice_6;
                        sum += slice_7;
                    }
                    for (; n < end; n++) {
                        sum += a1[(outer * 700u + piece + (sorted[n] & 0xffffu)) * 10u + inner];
                    }
                    a2[(outer * 2000u + first + row) * 10u + inner] = sum;
                }
            }
        }
    }
}
