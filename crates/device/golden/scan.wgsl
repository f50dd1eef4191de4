// scan sum 9·300·1
// 128 invocations a row, 512 elements at a time

@group(0) @binding(0) var<storage, read> a0: array<f32>; // f32[2700]
@group(0) @binding(1) var<storage, read_write> a1: array<f32>; // f32[2700]

var<workgroup> tile: array<f32, 1280>;
var<workgroup> part: array<f32, 512>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let lane = local % 128u;
    let own = local * 5u;
    let slot = local / 128u;
    for (var item = id.x; item < 5u; item += 5u) {
        let live = item * 2u + slot < 9u;
        let row = min(item * 2u + slot, 8u);
        let base = row * 300u;
        var before = 0.0f;
        for (var first = 0u; first < 300u; first += 512u) {
            let n0 = first + lane;
            let e0 = slot * 640u + lane + lane / 4u;
            let n1 = n0 + 128u;
            let e1 = e0 + 160u;
            let n2 = n0 + 256u;
            let e2 = e0 + 320u;
            let n3 = n0 + 384u;
            let e3 = e0 + 480u;
            if (n0 < 300u) {
                tile[e0] = a0[base + n0];
            }
            if (n1 < 300u) {
                tile[e1] = a0[base + n1];
            }
            if (n2 < 300u) {
                tile[e2] = a0[base + n2];
            }
            if (n3 < 300u) {
                tile[e3] = a0[base + n3];
            }
            workgroupBarrier(); // publishes the tile
            let own0 = tile[own];
            let own1 = own0 + tile[own + 1u];
            let own2 = own1 + tile[own + 2u];
            let own3 = own2 + tile[own + 3u];
            part[local] = own3;
            workgroupBarrier(); // publishes what each invocation has
            var half = 0u;
            for (var reach = 1u; reach < 128u; reach *= 2u) {
                var sum = part[half + local];
                if (lane >= reach) {
                    sum = part[half + local - reach] + sum;
                }
                half = 256u - half;
                part[half + local] = sum;
                workgroupBarrier(); // publishes what reaches twice as far
            }
            var until = before;
            if (lane > 0u) {
                until = before + part[half + local - 1u];
            }
            before = before + part[half + slot * 128u + 127u];
            tile[own] = until + own0;
            tile[own + 1u] = until + own1;
            tile[own + 2u] = until + own2;
            tile[own + 3u] = until + own3;
            workgroupBarrier(); // publishes the results
            if (live) {
                if (n0 < 300u) {
                    a1[base + n0] = tile[e0];
                }
                if (n1 < 300u) {
                    a1[base + n1] = tile[e1];
                }
                if (n2 < 300u) {
                    a1[base + n2] = tile[e2];
                }
                if (n3 < 300u) {
                    a1[base + n3] = tile[e3];
                }
            }
        }
    }
}
