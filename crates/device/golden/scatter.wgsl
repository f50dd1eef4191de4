// scatter [1]·[700]·[40] into 2000
// a workgroup has a block of rows and reads the whole index

@group(0) @binding(0) var<storage, read> a0: array<i32>; // i32[700]
@group(0) @binding(1) var<storage, read> a1: array<f32>; // f32[28000]
@group(0) @binding(2) var<storage, read_write> a2: array<f32>; // f32[80000]

var<workgroup> places: array<vec4<u32>, 64>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let lane = local % 64u;
    for (var block = id.x; block < 250u; block += 250u) {
        let outer = block / 250u;
        let first = block % 250u * 8u + local / 64u * 2u;
        let result = outer * 80000u;
        for (var row = first; row < min(first + 2u, 2000u); row++) {
            for (var inner = lane; inner < 40u; inner += 64u) {
                a2[result + row * 40u + inner] = f32(0);
            }
        }
        for (var i = 0u; i < 700u; i += 256u) {
            if (local < 64u) {
                var four = vec4<u32>(0xffffffffu);
                if (i + local * 4u + 0u < 700u) {
                    four.x = u32(clamp(a0[i + local * 4u + 0u], 0i, 1999i));
                }
                if (i + local * 4u + 1u < 700u) {
                    four.y = u32(clamp(a0[i + local * 4u + 1u], 0i, 1999i));
                }
                if (i + local * 4u + 2u < 700u) {
                    four.z = u32(clamp(a0[i + local * 4u + 2u], 0i, 1999i));
                }
                if (i + local * 4u + 3u < 700u) {
                    four.w = u32(clamp(a0[i + local * 4u + 3u], 0i, 1999i));
                }
                places[local] = four;
            }
            workgroupBarrier(); // publishes the places
            for (var j = 0u; j < 64u; j++) {
                let own = places[j] - vec4<u32>(first);
                if (any(own < vec4<u32>(2u))) {
                    if (own.x < 2u) {
                        for (var inner = lane; inner < 40u; inner += 64u) {
                            a2[result + (first + own.x) * 40u + inner] += a1[(outer * 700u + i + j * 4u + 0u) * 40u + inner];
                        }
                    }
                    if (own.y < 2u) {
                        for (var inner = lane; inner < 40u; inner += 64u) {
                            a2[result + (first + own.y) * 40u + inner] += a1[(outer * 700u + i + j * 4u + 1u) * 40u + inner];
                        }
                    }
                    if (own.z < 2u) {
                        for (var inner = lane; inner < 40u; inner += 64u) {
                            a2[result + (first + own.z) * 40u + inner] += a1[(outer * 700u + i + j * 4u + 2u) * 40u + inner];
                        }
                    }
                    if (own.w < 2u) {
                        for (var inner = lane; inner < 40u; inner += 64u) {
                            a2[result + (first + own.w) * 40u + inner] += a1[(outer * 700u + i + j * 4u + 3u) * 40u + inner];
                        }
                    }
                }
            }
            workgroupBarrier(); // all have read the places
        }
    }
}
