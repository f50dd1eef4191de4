//! How a contraction is cut into tasks, from its sizes alone.
//!
//! One operand is packed once for all tasks of a *wave*, whose share of it the outer cache holds; the other is cut into
//! *blocks* of lines, each packed by the task that computes with it. Blocks are whole rows of the result where there are
//! enough of them, since what becomes of the sums then goes along memory; else they are lines of the larger operand.
//! Where rows need no packing, each thread packs for itself the columns that its tasks share, if those are not many.
//! Small results over long sums are cut along `k` instead, into *groups* whose sums are added in order; a
//! batch of small products is cut by its elements only.

use super::lie::{COLUMNS, ROWS};

/// Elements of an operand that a wave packs: 32 MiB of `f32`.
const WAVE: usize = 1 << 23;

/// Rows that are enough for blocks of rows: a dozen of them, each as high as three strips.
const MANY: usize = 12 * 3 * ROWS;

/// The same where sums are more than stored: fifteen as high as one. In a block of columns, an epilogue reads and writes
/// all that it goes over in pieces of a few cache lines (AdamW's step of 128 × 512 took 230 µs instead of 80).
const MANY_FINISHED: usize = 15 * ROWS;

/// Sums of a task that packs both operands: the nearer caches hold them.
const SUMS: usize = 1 << 17;

/// Sums of a block, and elements of an operand that its task packs at a time. Longer sums are written and read less
/// often, which counts for more than that either comes from a nearer cache: asked for early enough, both come in time.
const ROOM: usize = 1 << 18;
const PANEL: usize = 1 << 17;

/// Tasks that keep all threads busy.
pub(super) const TASKS: usize = 16;

/// Multiply-adds that are worth a task.
const SMALL: usize = 1 << 18;

/// Steps along `k` at a time, and in a group.
const DEPTH: [usize; 2] = [128, 1024];
const GROUP: usize = 512;

/// Sums of all groups together: 8 MiB of `f32`.
const PARTIALS: usize = 1 << 21;

/// Columns of a part of them are whole vectors of the longest kind: parts of equal width are worth more than whole strips.
const VECTOR: usize = 16;

/// Lines of a block.
const LINES: usize = 256;

/// Which packed operands tasks share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sharing {
    /// None: each task packs both.
    Nothing,
    /// That of this role, as far as a wave goes.
    Wave(usize),
    /// Columns, those of one thread.
    Columns,
}

/// How a contraction is cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    pub(super) shared: Sharing,
    /// Elements of the batch in a wave.
    pub(super) batch: usize,
    /// Lines of either operand: of the shared one in a wave, of another one in a block.
    pub(super) lines: [usize; 2],
    /// Steps along `k` in a group.
    pub(super) group: usize,
    /// Steps along `k` that are packed at a time.
    pub(super) depth: usize,
}

/// Lines of a strip of either operand, or of a few strips.
const WIDTH: [usize; 2] = [ROWS, COLUMNS];

impl Cut {
    /// For a batch of products of `lines[0]` rows and `lines[1]` columns, each a sum of `k`; `finished` iff the sums are
    /// more than stored.
    pub(super) fn new(batch: usize, lines: [usize; 2], k: usize, finished: bool) -> Cut {
        let [m, n] = lines;
        let alone = Cut { shared: Sharing::Nothing, batch: 1, lines, group: k, depth: depth(m + n, k) };
        if m * n <= SUMS && (batch >= TASKS || batch * m * n * k <= SMALL) {
            return alone;
        }
        let groups = (TASKS.div_ceil(batch)).min(k / GROUP).min(PARTIALS / (batch * m * n));
        if m * n <= 2 * SUMS && k >= m.min(n) && groups > TASKS.div_ceil(batch) / 2 {
            let group = k.div_ceil(groups);
            return Cut { group, depth: depth(m + n, group), ..alone };
        }
        let many = if finished { MANY_FINISHED } else { MANY };
        let shared = usize::from(n <= m || batch * m >= many);
        let own = 1 - shared;
        let most = (WAVE / k).max(LINES);
        let of_wave = lines[shared].div_ceil(lines[shared].div_ceil(most));
        let of_wave = of_wave.next_multiple_of(WIDTH[shared]).min(lines[shared]);
        let (in_tasks, in_room) = (lines[own].div_ceil(TASKS.div_ceil(batch)), ROOM / of_wave);
        let worth = SMALL / (of_wave * k);
        let block = match own {
            1 if n < 4 * COLUMNS => parted(lines, k).max(worth.next_multiple_of(VECTOR)),
            _ => in_tasks.min(in_room).max(worth).min(LINES).next_multiple_of(WIDTH[own]),
        };
        let block = block.min(lines[own]);
        let mut cut = [block; 2];
        cut[shared] = of_wave;
        let batch = if of_wave < lines[shared] { 1 } else { (WAVE / (of_wave * k)).clamp(1, batch) };
        Cut { shared: Sharing::Wave(shared), batch, lines: cut, group: k, depth: depth(block, k) }
    }
}

/// Elements of an operand that a thread packs for itself: half of what the outer cache of a core holds.
const OWN: usize = 1 << 18;

/// Elements of an operand that threads pack for themselves, at most.
const MOST: usize = 1 << 20;

impl Cut {
    /// The same where rows are read where they lie: a thread then packs no more than the columns of its own tasks, and reads
    /// nothing that another one has written. Of 128 rows, products with 784 × 512 take 600 µs so, and 840 where a wave
    /// packs; with more rows packing costs little, and with more columns they are better packed once. Fewer rows are one
    /// block, and no columns are packed twice: 64 × 1000 by 1000 × 64 takes 54 µs so, and 83 where a wave packs.
    pub(super) fn by_columns(&self, batch: usize, [m, n]: [usize; 2], k: usize) -> Option<Cut> {
        if self.shared != Sharing::Nothing && m < MANY_FINISHED && OWN / k >= COLUMNS {
            let wide = parted([m, n], k).min(LINES).min(OWN / k / VECTOR * VECTOR).min(n);
            return Some(Cut { shared: Sharing::Columns, batch: 1, lines: [m, wide], group: k, depth: depth(m, k) });
        }
        let few = n * k <= MOST && (MANY_FINISHED..=LINES).contains(&m);
        if self.shared == Sharing::Nothing || !few || OWN / k < 4 * COLUMNS {
            return None;
        }
        let parts = n.div_ceil((OWN / k).min(LINES));
        let wide = n.div_ceil(parts).next_multiple_of(VECTOR).min(n);
        let blocks = (4 * TASKS).div_ceil(batch * parts);
        let high = m.div_ceil(blocks).min(LINES).next_multiple_of(ROWS).min(m);
        Some(Cut { shared: Sharing::Columns, batch: 1, lines: [high, wide], group: k, depth: depth(high, k) })
    }
}

/// Columns of a task of few rows: whole strips, if there are enough of them, else equal parts, of which an even number
/// leaves no thread waiting.
fn parted([m, n]: [usize; 2], k: usize) -> usize {
    let tasks = (m * n * k / (2 * SMALL)).clamp(4, TASKS);
    if n >= 4 * COLUMNS {
        return n.div_ceil(tasks).next_multiple_of(COLUMNS);
    }
    let mut equal = [4, 2].into_iter().map(|parts| n.div_ceil(parts).next_multiple_of(VECTOR));
    equal.find(|wide| n.div_ceil(*wide) % 2 == 0).unwrap_or(n)
}

/// Equal parts of `k`, as long as that many lines leave room for.
fn depth(lines: usize, k: usize) -> usize {
    let most = (PANEL / lines).clamp(DEPTH[0], DEPTH[1]);
    k.div_ceil(k.div_ceil(most).max(1)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_out_and_sizes_are_bounded() {
        for [m, n, k] in [[4096, 4096, 4096], [16, 4096, 4096], [2048, 50257, 768], [64, 50176, 576], [2, 3, 9]] {
            for batch in [1, 5, 96] {
                let cut = Cut::new(batch, [m, n], k, false);
                assert!(cut.depth <= cut.group && cut.group <= k && cut.batch <= batch, "{cut:?}");
                assert!((1..=m).contains(&cut.lines[0]) && (1..=n).contains(&cut.lines[1]), "{cut:?}");
                let Sharing::Wave(shared) = cut.shared else { continue };
                let shared = cut.lines[shared] * cut.batch * k;
                assert!(shared <= (WAVE + WIDTH[1] * k).max(LINES * k), "{cut:?}");
            }
        }
    }

    #[test]
    fn long_sums_of_few_are_cut_along_them() {
        let cut = Cut::new(1, [64, 576], 50176, false);
        assert_eq!((cut.shared, cut.lines, cut.group), (Sharing::Nothing, [64, 576], 50176 / 16));
        assert_eq!(Cut::new(1, [768, 768], 2048, false).group, 2048);
    }

    #[test]
    fn rows_are_blocks_where_there_are_many() {
        assert_eq!(Cut::new(1, [128, 512], 784, false).shared, Sharing::Wave(0));
        assert_eq!(Cut::new(1, [128, 512], 784, true).lines, [8, 512]);
        assert_eq!(Cut::new(1, [64, 512], 784, true).shared, Sharing::Wave(0));
        assert_eq!(Cut::new(1, [512, 4608], 512, false).shared, Sharing::Wave(1));
        assert_eq!(Cut::new(1, [512, 512], 4608, false).lines, [32, 512]);
        assert_eq!(Cut::new(1, [2048, 384], 384, false).shared, Sharing::Wave(1));
        assert_eq!(Cut::new(96, [64, 64], 32, false).shared, Sharing::Nothing);
    }

    #[test]
    fn threads_pack_columns_for_rows_that_lie() {
        let by_columns = |lines, k| Cut::new(1, lines, k, true).by_columns(1, lines, k);
        let cut = by_columns([128, 512], 784).expect("few rows and columns");
        assert_eq!((cut.shared, cut.lines, cut.group, cut.depth), (Sharing::Columns, [8, 256], 784, 784));
        for (lines, k) in [([768, 512], 784), ([256, 2048], 2048), ([128, 128], 4096), ([64, 512], 8192)] {
            assert_eq!(by_columns(lines, k), None, "{lines:?} {k}");
        }
    }

    #[test]
    fn few_rows_share_out_their_columns() {
        let wide = |lines: [usize; 2], k| {
            let cut = Cut::new(1, lines, k, true);
            let own = cut.by_columns(1, lines, k).map(|own| own.lines);
            (cut.lines, own)
        };
        for (lines, k, equal) in [([32, 128], 512, 32), ([64, 112], 784, 32), ([64, 96], 784, 48), ([32, 64], 784, 16)]
        {
            assert_eq!(wide(lines, k), ([lines[0], equal], Some([lines[0], equal])), "{lines:?} {k}");
        }
        // Strips are whole where they are many, and a thread holds what it packs.
        assert_eq!(wide([32, 512], 128).1, Some([32, 144]));
        assert_eq!(wide([48, 3072], 768).1, Some([48, 192]));
        assert_eq!(wide([48, 3072], 4096).1, Some([48, 64]));
        // Rows are read where they lie by so many columns at most.
        assert_eq!(wide([32, 50257], 768).1, Some([32, LINES]));
    }
}
