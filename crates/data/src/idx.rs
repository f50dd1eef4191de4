//! IDX files, the format of MNIST: a magic number, the dims, then bytes; plain or gzip.
//!
//! The magic is `00 00 08 r`: unsigned bytes of rank `r`, followed by `r` big-endian `u32` dims (LeCun,
//! Cortes, Burges, "The MNIST database"). Compression is told by content, not by name, for browsers unzip
//! files and keep the suffix. A header is not trusted: memory grows with what is read, not what is claimed.

use std::fs::File;
use std::io::{self, BufReader, ErrorKind as IoKind, Read};
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use kiln_ir::{Error, ErrorKind, Result};

use crate::Images;

/// The two bytes that open every gzip stream, RFC 1952 section 2.3.1.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// IDX's code for unsigned bytes, the only one MNIST uses.
const UNSIGNED_BYTE: u8 = 0x08;

/// A `u8` tensor read from an IDX file.
///
/// True of every value: `bytes.len()` is the product of `dims`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idx {
    /// The dims, outermost first.
    pub dims: Vec<usize>,
    /// The values, row-major.
    pub bytes: Vec<u8>,
}

/// MNIST, or a set with the same files (Fashion-MNIST), from directory `dir`: training and test images.
///
/// Looks for `train-images-idx3-ubyte`, `train-labels-idx1-ubyte` and the `t10k-` pair, each also as
/// `train-images.idx3-ubyte`, each plain or with `.gz`.
///
/// Shapes: images `[1, h, w]`, `[1, 28, 28]` for MNIST; ten classes, pixels in 0..=255.
///
/// # Errors
/// `ErrorKind::Io` if a file is missing or unreadable, `ErrorKind::Format` if it is no IDX file, truncated,
/// too long or of the wrong rank, `ErrorKind::Data` if a label is not in 0..=9 or two files disagree.
///
/// # Examples
/// ```
/// let error = kiln_data::mnist("no/such/folder").unwrap_err();
/// assert!(error.to_string().starts_with("no/such/folder: expected a directory"));
/// ```
pub fn mnist(dir: impl AsRef<Path>) -> Result<(Images, Images)> {
    let dir = dir.as_ref();
    if !dir.is_dir() {
        let message = format!("{}: expected a directory with the MNIST files", dir.display());
        return Err(Error::new(ErrorKind::Io, message));
    }
    let (train, test) = (split(dir, "train")?, split(dir, "t10k")?);
    if train.dims()[1..] != test.dims()[1..] {
        let message = format!(
            "{}: training images are {:?}, test images {:?}, expected equal dims",
            dir.display(),
            &train.dims()[1..],
            &test.dims()[1..]
        );
        return Err(Error::new(ErrorKind::Data, message));
    }
    Ok((train, test))
}

/// Reads one IDX file of unsigned bytes, plain or gzip, of the given rank.
///
/// # Errors
/// `ErrorKind::Io` if the file cannot be read; `ErrorKind::Format` for a wrong magic number or rank, or when
/// the bytes do not match the dims; the message names the file, the expected and the found.
///
/// # Examples
/// ```no_run
/// let labels = kiln_data::idx::read("mnist/train-labels-idx1-ubyte.gz", 1)?;
/// assert_eq!(labels.dims, [60_000]);
/// # Ok::<(), kiln_ir::Error>(())
/// ```
pub fn read(path: impl AsRef<Path>, rank: usize) -> Result<Idx> {
    let path = path.as_ref();
    let name = path.display().to_string();
    let open = || -> io::Result<Box<dyn Read>> {
        let mut start = Vec::new();
        File::open(path)?.take(GZIP.len() as u64).read_to_end(&mut start)?;
        let file = BufReader::new(File::open(path)?);
        Ok(if start == GZIP { Box::new(GzDecoder::new(file)) } else { Box::new(file) })
    };
    let reader = open().map_err(|e| Error::caused_by(ErrorKind::Io, format!("{name}: cannot open"), e))?;
    parse(reader, rank, &name)
}

/// Reads IDX bytes from `reader`; `name` stands for the file in errors, which are those of [`read`].
///
/// # Errors
/// As [`read`].
///
/// # Examples
/// ```
/// let idx = kiln_data::idx::parse(&[0, 0, 8, 1, 0, 0, 0, 2, 7, 9][..], 1, "labels").unwrap();
/// assert_eq!((idx.dims, idx.bytes), (vec![2], vec![7, 9]));
///
/// let cut = kiln_data::idx::parse(&[0, 0, 8, 1, 0, 0, 0, 2, 7][..], 1, "labels").unwrap_err();
/// assert_eq!(cut.to_string(), "labels: truncated: expected 10 bytes, found 9");
/// ```
pub fn parse(mut reader: impl Read, rank: usize, name: &str) -> Result<Idx> {
    let format = |message: String| Error::new(ErrorKind::Format, format!("{name}: {message}"));
    let n_header = 4 + 4 * rank;
    let header = read_up_to(&mut reader, n_header as u64, name)?;
    let truncated = |expected, found| format(format!("truncated: expected {expected} bytes, found {found}"));
    if header.len() < 4 {
        return Err(truncated(n_header, header.len()));
    }
    if header[..3] != [0, 0, UNSIGNED_BYTE] || usize::from(header[3]) != rank {
        let found = u32::from_be_bytes([header[0], header[1], header[2], header[3]]);
        let expected = u32::from_be_bytes([0, 0, UNSIGNED_BYTE, rank as u8]);
        let message = format!("expected magic {expected:#010x} (rank {rank}), found {found:#010x}");
        return Err(format(message));
    }
    if header.len() < n_header {
        return Err(truncated(n_header, header.len()));
    }
    let dims: Vec<usize> =
        header[4..].chunks_exact(4).map(|d| u32::from_be_bytes([d[0], d[1], d[2], d[3]]) as usize).collect();
    let numel = dims.iter().try_fold(1usize, |product, &dim| product.checked_mul(dim));
    let Some(total) = numel.and_then(|numel| numel.checked_add(n_header + 1)) else {
        return Err(format(format!("dims {dims:?} are too large")));
    };
    let (numel, total) = (total - n_header - 1, total - 1);
    // One byte more than expected: it tells a file that is too long, and reaches gzip's checksum.
    let bytes = read_up_to(&mut reader, numel as u64 + 1, name)?;
    if bytes.len() < numel {
        return Err(truncated(total, n_header + bytes.len()));
    }
    if bytes.len() > numel {
        return Err(format(format!("expected {total} bytes for dims {dims:?}, found more")));
    }
    Ok(Idx { dims, bytes })
}

/// At most `limit` bytes; fewer iff the stream, or the gzip stream inside it, ends early.
fn read_up_to(reader: &mut impl Read, limit: u64, name: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    match reader.take(limit).read_to_end(&mut bytes) {
        Ok(_) => Ok(bytes),
        // A cut gzip file ends in the middle of a block. The caller counts the bytes and says so, unless
        // only the checksum behind the data is gone.
        Err(e) if e.kind() == IoKind::UnexpectedEof && (bytes.len() as u64) + 1 < limit => Ok(bytes),
        Err(e) => {
            let kind = match e.kind() {
                IoKind::InvalidData | IoKind::InvalidInput | IoKind::UnexpectedEof => ErrorKind::Format,
                _ => ErrorKind::Io,
            };
            Err(Error::caused_by(kind, format!("{name}: cannot read"), e))
        }
    }
}

fn split(dir: &Path, prefix: &str) -> Result<Images> {
    let images_path = find(dir, &format!("{prefix}-images"), "idx3-ubyte")?;
    let labels_path = find(dir, &format!("{prefix}-labels"), "idx1-ubyte")?;
    let (images, labels) = (read(&images_path, 3)?, read(&labels_path, 1)?);
    let (n_images, n_labels) = (images.dims[0], labels.dims[0]);
    if n_images != n_labels {
        let message = format!("{}: expected {n_images} labels for the images, found {n_labels}", labels_path.display());
        return Err(Error::new(ErrorKind::Data, message));
    }
    let dims = [1, images.dims[1], images.dims[2]];
    Images::new(images.bytes, labels.bytes, dims, 10, 255).map_err(|e| {
        let message = format!("{} with {}", images_path.display(), labels_path.display());
        Error::caused_by(e.kind(), message, e)
    })
}

fn find(dir: &Path, stem: &str, kind: &str) -> Result<PathBuf> {
    let names = ["-", "."].map(|dot| ["", ".gz"].map(|suffix| format!("{stem}{dot}{kind}{suffix}")));
    let found = names.iter().flatten().map(|name| dir.join(name)).find(|path| path.is_file());
    found.ok_or_else(|| {
        let message = format!("{}: expected a file {}", dir.display(), names.concat().join(" or "));
        Error::new(ErrorKind::Io, message)
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use flate2::{Compression, write::GzEncoder};

    use super::*;

    /// A directory of its own for each test, removed at its end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(test: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("kiln-idx-{test}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Folder(path)
        }

        fn put(&self, name: &str, bytes: &[u8]) {
            fs::write(self.0.join(name), bytes).unwrap();
        }

        fn fails(&self) -> (ErrorKind, String) {
            let error = mnist(&self.0).unwrap_err();
            let dir = format!("{}{}", self.0.display(), std::path::MAIN_SEPARATOR);
            (error.kind(), error.to_string().replace(&dir, ""))
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn idx(dims: &[u32], bytes: &[u8]) -> Vec<u8> {
        let mut file = vec![0, 0, 8, dims.len() as u8];
        dims.iter().for_each(|dim| file.extend(dim.to_be_bytes()));
        file.extend(bytes);
        file
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// Three training and one test image of 2×2, in every spelling.
    fn whole(test: &str) -> Folder {
        let folder = Folder::new(test);
        folder.put("train-images-idx3-ubyte.gz", &gzip(&idx(&[3, 2, 2], &[9; 12])));
        folder.put("train-labels.idx1-ubyte", &idx(&[3], &[0, 5, 9]));
        folder.put("t10k-images-idx3-ubyte", &idx(&[1, 2, 2], &[1, 2, 3, 255]));
        folder.put("t10k-labels.idx1-ubyte.gz", &gzip(&idx(&[1], &[7])));
        folder
    }

    #[test]
    fn every_spelling_is_found_and_read() {
        let folder = whole("whole");
        let (train, test) = mnist(&folder.0).unwrap();
        assert_eq!((train.dims(), train.labels()), ([3, 1, 2, 2], &[0, 5, 9][..]));
        assert_eq!((test.image(0), test.labels()), (&[1, 2, 3, 255][..], &[7][..]));
        assert_eq!((train.classes(), train.max()), (10, 255));
    }

    #[test]
    fn a_plain_file_named_gz_is_read_by_its_content() {
        let folder = whole("content");
        folder.put("train-images-idx3-ubyte.gz", &idx(&[3, 2, 2], &[4; 12]));
        assert_eq!(mnist(&folder.0).unwrap().0.pixels(), [4; 12]);
    }

    #[test]
    fn missing_files_are_named() {
        let folder = whole("missing");
        fs::remove_file(folder.0.join("t10k-images-idx3-ubyte")).unwrap();
        let (kind, message) = folder.fails();
        assert_eq!(kind, ErrorKind::Io);
        assert!(message.contains("expected a file t10k-images-idx3-ubyte or "), "{message}");
        assert_eq!(read(folder.0.join("none"), 1).unwrap_err().kind(), ErrorKind::Io);
    }

    #[test]
    fn broken_files_name_expected_and_found() {
        let images = idx(&[3, 2, 2], &[9; 12]);
        let name = "train-images-idx3-ubyte.gz";
        let mut long = images.clone();
        long.push(0);
        let cases = [
            (images[..20].to_vec(), "truncated: expected 28 bytes, found 20"),
            (images[..10].to_vec(), "truncated: expected 16 bytes, found 10"),
            (vec![], "truncated: expected 16 bytes, found 0"),
            (gzip(&images[..27]), "truncated: expected 28 bytes, found 27"),
            (long, "expected 28 bytes for dims [3, 2, 2], found more"),
            (idx(&[3], &[0; 3]), "expected magic 0x00000803 (rank 3), found 0x00000801"),
            (b"PK\x03\x04....".to_vec(), "expected magic 0x00000803 (rank 3), found 0x504b0304"),
            (idx(&[u32::MAX; 3], &[]), "dims [4294967295, 4294967295, 4294967295] are too large"),
            (idx(&[u32::MAX, 9, 9], &[0]), "truncated: expected 347892350911 bytes, found 17"),
        ];
        for (bytes, expected) in cases {
            let folder = whole("broken");
            folder.put(name, &bytes);
            assert_eq!(folder.fails(), (ErrorKind::Format, format!("{name}: {expected}")));
        }
    }

    #[test]
    fn a_cut_or_corrupt_archive_is_a_format_error() {
        let noise: Vec<u8> = (0..4000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let whole = gzip(&idx(&[4000], &noise));
        assert_eq!(parse(GzDecoder::new(&whole[..]), 1, "f").unwrap().bytes, noise);
        for cut in [15, 500, whole.len() - 1] {
            let error = parse(GzDecoder::new(&whole[..cut]), 1, "f").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Format, "{error}");
        }
        let mut checksum = whole.clone();
        let n = checksum.len();
        checksum[n - 6] ^= 1;
        let error = parse(GzDecoder::new(&checksum[..]), 1, "f").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Format, "{error}");
    }

    #[test]
    fn labels_are_checked_against_images_and_range() {
        let folder = whole("labels");
        folder.put("train-labels.idx1-ubyte", &idx(&[2], &[0, 5]));
        let expected = "train-labels.idx1-ubyte: expected 3 labels for the images, found 2";
        assert_eq!(folder.fails(), (ErrorKind::Data, expected.into()));
        folder.put("train-labels.idx1-ubyte", &idx(&[3], &[0, 10, 5]));
        let (kind, message) = folder.fails();
        assert_eq!(kind, ErrorKind::Data);
        assert!(message.contains("train-labels.idx1-ubyte: sample 1 has label 10"), "{message}");
    }

    #[test]
    fn splits_of_different_sizes_are_refused() {
        let folder = whole("sizes");
        folder.put("t10k-images-idx3-ubyte", &idx(&[1, 1, 4], &[1, 2, 3, 4]));
        let (kind, message) = folder.fails();
        assert_eq!(kind, ErrorKind::Data);
        assert!(message.ends_with("are [1, 2, 2], test images [1, 1, 4], expected equal dims"), "{message}");
    }
}
