//! The 8×8 handwritten digits, embedded: a data set that needs no download.
//!
//! 1,797 images from "Optical Recognition of Handwritten Digits" by E. Alpaydin and C. Kaynak, UCI Machine
//! Learning Repository, CC BY 4.0 (see `CREDITS.md`). One line is one digit: 64 pixels in 0..=16, row by row,
//! then the label.

use std::io::{BufRead, BufReader, ErrorKind as IoKind, Read};

use flate2::read::GzDecoder;
use kiln_ir::{Error, ErrorKind, Result};

use crate::{Images, permutation};

const EMBEDDED: &[u8] = include_bytes!("../data/digits.csv.gz");
const SIDE: usize = 8;
const COLUMNS: usize = SIDE * SIDE + 1;
const MAX: u8 = 16;
const CLASSES: u8 = 10;
const N_TRAIN: usize = 1437; // 80 % of 1,797

/// The embedded digits, shuffled by `seed` and split into 1,437 for training and 360 for testing.
///
/// Shapes: images `[1, 8, 8]`, ten classes, pixels in 0..=16.
///
/// # Examples
/// ```
/// let (train, test) = kiln_data::digits(42);
/// assert_eq!((train.dims(), test.dims()), ([1437, 1, 8, 8], [360, 1, 8, 8]));
/// assert_eq!((train.classes(), train.max()), (10, 16));
/// ```
pub fn digits(seed: u64) -> (Images, Images) {
    let all = parse_csv(GzDecoder::new(EMBEDDED), "digits.csv")
        .expect("the embedded file is part of the crate and parsed by its tests");
    let order = permutation(all.len(), seed, 0);
    let (train, test) = order.split_at(N_TRAIN);
    (all.subset(train), all.subset(test))
}

/// Reads digits in the layout of the embedded file: 64 pixels in 0..=16, then a label in 0..=9, a line each.
///
/// `name` stands for the file in errors. A blank line is skipped.
///
/// # Errors
/// `ErrorKind::Format` for a wrong number of columns, something that is no number, or no digit at all;
/// `ErrorKind::Data` for a value out of range; `ErrorKind::Io` if reading fails. All name the line.
///
/// # Examples
/// ```
/// let error = kiln_data::digits::parse_csv("1,2,3\n".as_bytes(), "my.csv").unwrap_err();
/// assert_eq!(error.to_string(), "my.csv:1: expected 65 columns, found 3");
/// ```
pub fn parse_csv(reader: impl Read, name: &str) -> Result<Images> {
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    for (i, line) in BufReader::new(reader).lines().enumerate() {
        let place = format!("{name}:{}", i + 1);
        let line = line.map_err(|e| unreadable(&place, e))?;
        if line.trim().is_empty() {
            continue;
        }
        let found = line.split(',').count();
        if found != COLUMNS {
            let message = format!("{place}: expected {COLUMNS} columns, found {found}");
            return Err(Error::new(ErrorKind::Format, message));
        }
        for (column, text) in line.split(',').enumerate() {
            if column < COLUMNS - 1 {
                pixels.push(value(text, MAX, &place, column)?);
            } else {
                labels.push(value(text, CLASSES - 1, &place, column)?);
            }
        }
    }
    if labels.is_empty() {
        let message = format!("{name}: expected lines of {COLUMNS} columns, found none");
        return Err(Error::new(ErrorKind::Format, message));
    }
    Images::new(pixels, labels, [1, SIDE, SIDE], usize::from(CLASSES), MAX)
}

fn value(text: &str, max: u8, place: &str, column: usize) -> Result<u8> {
    let text = text.trim();
    let fail = |kind| {
        let column = column + 1;
        let message = format!("{place}: column {column}: expected 0..={max}, found `{text}`");
        Err(Error::new(kind, message))
    };
    match text.parse::<i64>() {
        Ok(v) if (0..=i64::from(max)).contains(&v) => Ok(v as u8),
        Ok(_) => fail(ErrorKind::Data),
        Err(_) => fail(ErrorKind::Format),
    }
}

fn unreadable(place: &str, error: std::io::Error) -> Error {
    let kind = match error.kind() {
        IoKind::InvalidData | IoKind::InvalidInput => ErrorKind::Format,
        _ => ErrorKind::Io,
    };
    Error::caused_by(kind, format!("{place}: cannot read the line"), error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fails(text: &str) -> (ErrorKind, String) {
        let error = parse_csv(text.as_bytes(), "d.csv").unwrap_err();
        (error.kind(), error.to_string())
    }

    #[test]
    fn the_embedded_file_is_whole() {
        let all = parse_csv(GzDecoder::new(EMBEDDED), "digits.csv").unwrap();
        assert_eq!(all.dims(), [1797, 1, 8, 8]);
        let mut counts = [0; 10];
        all.labels().iter().for_each(|&label| counts[usize::from(label)] += 1);
        // Class counts published with the data set.
        assert_eq!(counts, [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]);
        assert_eq!(&all.image(0)[..8], [0, 0, 5, 13, 9, 1, 0, 0]);
    }

    #[test]
    fn the_split_is_a_partition_and_seeded() {
        let (train, test) = digits(1);
        let sum = |set: &Images| set.pixels().iter().map(|&p| u64::from(p)).sum::<u64>();
        let (train2, test2) = digits(2);
        assert_eq!(sum(&train) + sum(&test), sum(&train2) + sum(&test2));
        assert_eq!(digits(1), (train.clone(), test));
        assert_ne!(train, train2);
    }

    #[test]
    fn bad_lines_are_named() {
        let good = vec!["0"; 65].join(",");
        let short = vec!["0"; 64].join(",");
        let with = |column: usize, text| {
            let mut columns = vec!["1"; 65];
            columns[column - 1] = text;
            columns.join(",")
        };
        use ErrorKind::{Data, Format};
        let cases = [
            (short, Format, "d.csv:2: expected 65 columns, found 64"),
            (with(3, "x"), Format, "d.csv:2: column 3: expected 0..=16, found `x`"),
            (with(64, "17"), Data, "d.csv:2: column 64: expected 0..=16, found `17`"),
            (with(65, "10"), Data, "d.csv:2: column 65: expected 0..=9, found `10`"),
            (with(1, "-1"), Data, "d.csv:2: column 1: expected 0..=16, found `-1`"),
        ];
        for (line, kind, expected) in cases {
            assert_eq!(fails(&format!("{good}\n{line}\n")), (kind, expected.to_string()));
        }
        assert_eq!(fails(""), (Format, "d.csv: expected lines of 65 columns, found none".into()));
    }

    #[test]
    fn a_damaged_archive_is_an_error() {
        let cut = parse_csv(GzDecoder::new(&EMBEDDED[..20_000]), "digits.csv").unwrap_err();
        assert_eq!(cut.kind(), ErrorKind::Io);
        let binary = parse_csv(&b"\xff\xfe\n"[..], "d.csv").unwrap_err();
        assert_eq!(binary.kind(), ErrorKind::Format);
    }
}
