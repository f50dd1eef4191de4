//! Counter-based random bits: the same integers on every device, in any order of evaluation.
//!
//! Threefry2x32 with 20 rounds (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").

/// Rotation distances of Threefry2x32, Table 2 of the paper.
pub const ROTATIONS: [u32; 8] = [13, 15, 26, 6, 17, 29, 16, 24];

/// The parity constant of the key schedule.
pub const PARITY: u32 = 0x1BD1_1BDA;

/// The two words of Threefry2x32-20 for this key and counter.
///
/// ```
/// // Known answers of the authors' Random123 library.
/// assert_eq!(kiln_ir::random::threefry2x32([0, 0], [0, 0]), [0x6b200159, 0x99ba4efe]);
/// assert_eq!(kiln_ir::random::threefry2x32([!0, !0], [!0, !0]), [0x1cb996fc, 0xbb002be7]);
/// ```
pub fn threefry2x32(key: [u32; 2], counter: [u32; 2]) -> [u32; 2] {
    let ks = [key[0], key[1], PARITY ^ key[0] ^ key[1]];
    let mut x = [counter[0].wrapping_add(ks[0]), counter[1].wrapping_add(ks[1])];
    for group in 0..5 {
        for round in 0..4 {
            x[0] = x[0].wrapping_add(x[1]);
            x[1] = x[1].rotate_left(ROTATIONS[(group % 2) * 4 + round]) ^ x[0];
        }
        x[0] = x[0].wrapping_add(ks[(group + 1) % 3]);
        x[1] = x[1].wrapping_add(ks[(group + 2) % 3]).wrapping_add(group as u32 + 1);
    }
    x
}
