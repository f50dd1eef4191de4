//! [`History`]: named series over steps, kept in memory, saved as JSON, drawn as SVG.
//!
//! A run that diverged is the one whose history matters, and JSON has no NaN: values that are not finite are
//! written as the words `"NaN"`, `"inf"` and `"-inf"`, so that a loaded history equals the saved one.

use std::path::Path;

use kiln_ir::{Error, ErrorKind, Result, write_file};
use serde::{Deserialize, Serialize};

use crate::Plot;

/// The file's first field; another number follows a change that older readers would misread.
const FORMAT: &str = "kiln history 1";

/// A record of named series of `(step, value)`, in the order first pushed.
///
/// # Examples
/// ```
/// let mut history = kiln_train::History::new();
/// history.push("train loss", 1.0, 2.3);
/// history.push("train loss", 2.0, 1.7);
/// history.push("test loss", 2.0, 1.9);
/// assert_eq!(history.series("train loss"), [(1.0, 2.3), (2.0, 1.7)]);
/// assert_eq!(history.last("test loss"), Some(1.9));
/// assert_eq!(history.names().collect::<Vec<_>>(), ["train loss", "test loss"]);
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    series: Vec<(String, Vec<(f64, f64)>)>,
}

impl History {
    /// A record of nothing.
    pub fn new() -> History {
        History::default()
    }

    /// Appends a point to the series `name`, which begins with its first point.
    pub fn push(&mut self, name: &str, step: f64, value: f64) {
        match self.series.iter_mut().find(|(known, _)| known == name) {
            Some((_, points)) => points.push((step, value)),
            None => self.series.push((name.to_owned(), vec![(step, value)])),
        }
    }

    /// The points `(step, value)` of the series `name`, in the order pushed; none if there is no such series.
    pub fn series(&self, name: &str) -> &[(f64, f64)] {
        self.series.iter().find(|(known, _)| known == name).map_or(&[], |(_, points)| points)
    }

    /// The names of all series, in the order first pushed.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.series.iter().map(|(name, _)| name.as_str())
    }

    /// The value pushed last to the series `name`.
    pub fn last(&self, name: &str) -> Option<f64> {
        self.series(name).last().map(|&(_, value)| value)
    }

    /// True iff nothing was pushed.
    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }

    /// Writes the record as JSON, whole or not at all.
    ///
    /// Numerics: [`History::load`] gives every finite number back to the last bit.
    ///
    /// # Errors
    /// `ErrorKind::Io` naming `path`, with nothing left behind, if its directory is missing or not writable.
    ///
    /// # Examples
    /// ```
    /// # let dir = std::env::temp_dir().join(format!("kiln-history-{}", std::process::id()));
    /// # std::fs::create_dir_all(&dir).unwrap();
    /// let mut history = kiln_train::History::new();
    /// history.push("loss", 0.0, f64::INFINITY);
    /// history.save(dir.join("history.json")).unwrap();
    /// assert_eq!(kiln_train::History::load(dir.join("history.json")).unwrap(), history);
    /// # std::fs::remove_dir_all(&dir).unwrap();
    /// ```
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let series = self.series.iter().map(|(name, points)| FileSeries {
            name: name.clone(),
            points: points.iter().map(|&(step, value)| (step.into(), value.into())).collect(),
        });
        let file = File { format: FORMAT.to_owned(), series: series.collect() };
        let json = serde_json::to_vec(&file).expect("strings and numbers always have a JSON form");
        write_file(path.as_ref(), &json)
    }

    /// Reads what [`History::save`] wrote.
    ///
    /// # Errors
    /// Each names `path`. `ErrorKind::Io` if the file cannot be read; `ErrorKind::Format` if it is no history,
    /// or has one series twice.
    pub fn load(path: impl AsRef<Path>) -> Result<History> {
        let name = path.as_ref().display();
        let bytes = std::fs::read(&path)
            .map_err(|error| Error::caused_by(ErrorKind::Io, format!("cannot read {name}"), error))?;
        let file: File = serde_json::from_slice(&bytes)
            .map_err(|error| Error::caused_by(ErrorKind::Format, format!("{name} is not a history"), error))?;
        if file.format != FORMAT {
            let message = format!("{name}: expected format {FORMAT:?}, found {:?}", file.format);
            return Err(Error::new(ErrorKind::Format, message));
        }
        let mut history = History::new();
        for FileSeries { name: series, points } in file.series {
            if history.names().any(|known| known == series) {
                return Err(Error::new(ErrorKind::Format, format!("{name} has series {series:?} twice")));
            }
            let points = points.into_iter().map(|(step, value)| (step.into(), value.into())).collect();
            history.series.push((series, points));
        }
        Ok(history)
    }

    /// Draws all series in one chart over `step` and writes it as SVG; see [`Plot`] for other charts.
    ///
    /// The y axis is logarithmic iff all finite values are above zero and span more than three decades.
    ///
    /// # Errors
    /// `ErrorKind::Data` if no point is finite, as in an empty history; `ErrorKind::Io` as [`History::save`].
    ///
    /// # Examples
    /// ```
    /// let error = kiln_train::History::new().plot("loss.svg", "Digits").unwrap_err();
    /// assert_eq!(error.to_string(), "plot \"Digits\" has no finite point to draw");
    /// ```
    pub fn plot(&self, path: impl AsRef<Path>, title: &str) -> Result<()> {
        let values = || self.series.iter().flat_map(|(_, points)| points).map(|p| p.1).filter(|y| y.is_finite());
        let (low, high) = values().fold((f64::INFINITY, 0.0), |(low, high), y| (y.min(low), y.max(high)));
        let plot = Plot::new(title).x_label("step").log_y(low > 0.0 && high / low > 1e3);
        self.series.iter().fold(plot, |plot, (name, points)| plot.line(name, points)).write(path)
    }
}

#[derive(Serialize, Deserialize)]
struct File {
    format: String,
    series: Vec<FileSeries>,
}

#[derive(Serialize, Deserialize)]
struct FileSeries {
    name: String,
    points: Vec<(Number, Number)>,
}

/// An `f64` in JSON. True of every one written: `Finite` is finite.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Number {
    Finite(f64),
    Word(Word),
}

#[derive(Serialize, Deserialize)]
enum Word {
    NaN,
    #[serde(rename = "inf")]
    Infinity,
    #[serde(rename = "-inf")]
    MinusInfinity,
}

impl From<f64> for Number {
    fn from(value: f64) -> Number {
        match value {
            f64::INFINITY => Number::Word(Word::Infinity),
            f64::NEG_INFINITY => Number::Word(Word::MinusInfinity),
            value if value.is_nan() => Number::Word(Word::NaN),
            value => Number::Finite(value),
        }
    }
}

impl From<Number> for f64 {
    fn from(number: Number) -> f64 {
        match number {
            Number::Finite(value) => value,
            Number::Word(Word::NaN) => f64::NAN,
            Number::Word(Word::Infinity) => f64::INFINITY,
            Number::Word(Word::MinusInfinity) => f64::NEG_INFINITY,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The error of loading a file with this content, without its directory.
    fn load(content: &[u8]) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("h.json");
        std::fs::write(&path, content).unwrap();
        let error = History::load(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Format);
        error.to_string().replace(&format!("{}", path.display()), "h.json")
    }

    #[test]
    fn the_file_is_this_text() {
        let dir = tempfile::tempdir().unwrap();
        let mut history = History::new();
        history.push("b", 1.0, 0.5);
        history.push("a", 1.0, f64::NAN);
        history.push("b", 2.0, f64::NEG_INFINITY);
        history.save(dir.path().join("h.json")).unwrap();
        assert_eq!(
            std::fs::read_to_string(dir.path().join("h.json")).unwrap(),
            r#"{"format":"kiln history 1","series":[{"name":"b","points":[[1.0,0.5],[2.0,"-inf"]]},{"name":"a","points":[[1.0,"NaN"]]}]}"#
        );
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1);
    }

    #[test]
    fn every_bit_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("h.json");
        let mut history = History::new();
        let mut bits = 0x9e37_79b9_7f4a_7c15_u64;
        for step in 0..20_000 {
            bits ^= bits << 13;
            bits ^= bits >> 7;
            bits ^= bits << 17;
            history.push("a \"quoted\" näme", f64::from(step), f64::from_bits(bits));
        }
        for value in [0.0, -0.0, f64::MAX, f64::MIN_POSITIVE, 5e-324, f64::INFINITY, f64::NAN] {
            history.push("edges", 0.1, value);
        }
        history.save(&path).unwrap();
        let loaded = History::load(&path).unwrap();
        assert!(loaded.names().eq(history.names()));
        for name in history.names() {
            let (old, new) = (history.series(name), loaded.series(name));
            assert_eq!(old.len(), new.len());
            for (old, new) in old.iter().zip(new) {
                let same = old.1.to_bits() == new.1.to_bits() || old.1.is_nan() && new.1.is_nan();
                assert!(old.0 == new.0 && same, "{old:?} {new:?}");
            }
        }
    }

    #[test]
    fn an_empty_history_is_a_file_too() {
        let dir = tempfile::tempdir().unwrap();
        History::new().save(dir.path().join("h.json")).unwrap();
        let loaded = History::load(dir.path().join("h.json")).unwrap();
        assert!(loaded.is_empty() && loaded.series("x").is_empty() && loaded.last("x").is_none());
    }

    #[test]
    fn a_garbled_file_is_named() {
        assert_eq!(load(b""), "h.json is not a history: EOF while parsing a value at line 1 column 0");
        assert!(load(b"{\"format\":\"kiln history 1\",\"ser").starts_with("h.json is not a history: EOF"));
        assert!(load(b"\xff\xfe\x00").starts_with("h.json is not a history: "));
        assert!(load(b"{\"format\":\"kiln history 1\"}").contains("missing field `series`"));
        assert_eq!(
            load(b"{\"format\":\"kiln history 2\",\"series\":[]}"),
            "h.json: expected format \"kiln history 1\", found \"kiln history 2\""
        );
        let point = |point: &str| {
            let series = format!("{{\"name\":\"a\",\"points\":[{point}]}}");
            load(format!("{{\"format\":\"kiln history 1\",\"series\":[{series}]}}").as_bytes())
        };
        for bad in ["[1]", "[1,2,3]", "[1,null]", "[1,\"nan\"]", "[1,1e999]", "3"] {
            assert!(point(bad).starts_with("h.json is not a history: "), "{bad}: {}", point(bad));
        }
        let twice = "{\"name\":\"a\",\"points\":[]}";
        assert_eq!(
            load(format!("{{\"format\":\"kiln history 1\",\"series\":[{twice},{twice}]}}").as_bytes()),
            "h.json has series \"a\" twice"
        );
    }

    #[test]
    fn a_missing_file_or_directory_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("none").join("h.json");
        let (load, save) = (History::load(&path).unwrap_err(), History::new().save(&path).unwrap_err());
        assert_eq!((load.kind(), save.kind()), (ErrorKind::Io, ErrorKind::Io));
        assert!(load.to_string().starts_with(&format!("cannot read {}: ", path.display())), "{load}");
        assert!(save.to_string().starts_with(&format!("cannot write {}: ", path.display())), "{save}");
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0);
        assert_eq!(History::load(dir.path()).unwrap_err().kind(), ErrorKind::Io);
    }

    #[test]
    fn a_plot_has_every_series_and_a_log_axis_for_wide_values() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("h.svg");
        let svg = |history: &History| {
            history.plot(&path, "Digits").unwrap();
            std::fs::read_to_string(&path).unwrap()
        };
        let mut history = History::new();
        history.push("loss", 0.0, 2.0);
        history.push("loss", 1.0, f64::NAN);
        history.push("accuracy", 1.0, 0.5);
        let narrow = svg(&history);
        assert!(narrow.contains("\nloss\n") && narrow.contains("\naccuracy\n") && narrow.contains("\nDigits\n"));
        assert!(!narrow.contains("\n0.001\n"));
        history.push("lr", 1.0, 3e-4);
        assert!(svg(&history).contains("\n0.001\n"));
        history.push("lr", 2.0, 0.0);
        assert!(!svg(&history).contains("\n0.001\n"));
        assert_eq!(History::new().plot(&path, "x").unwrap_err().kind(), ErrorKind::Data);
    }
}
