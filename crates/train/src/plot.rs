//! [`Plot`]: one chart of lines, as a pure function from points to the text of an SVG.
//!
//! Text stays text, so the file can be searched and needs no font here; that is why nothing is measured, and
//! the legend has a column of its own, where no estimate of a width can hide a line.

use std::path::Path;

use kiln_ir::{Error, ErrorKind, Result, write_file};
use plotters::coord::Shift;
use plotters::prelude::*;

use crate::axis::Axis;
use crate::text::plain;
use crate::thin::thin;

/// Pixels; the height grows where the legend needs more.
const SIZE: (u32, u32) = (900, 500);
/// Points drawn of one line, two for each of the chart's pixels across, and of all lines together: 16,000 points
/// of about 8 bytes keep the file well below 200 kB.
const POINTS: (usize, usize) = (1400, 16_000);
/// A line with at most this many points has them marked, unless there are more lines than colours.
const MARKED: usize = 40;
/// A line with more points than this is thin, else a noisy one becomes a band that hides the others.
const DENSE: usize = 400;
/// Height of a legend's row, and the longest name in it, in characters.
const LEGEND: (i32, usize) = (22, 32);
const FONT: &str = "sans-serif";
const GRID: RGBColor = RGBColor(225, 225, 225);
const INK: RGBColor = RGBColor(60, 60, 60);

/// Told apart by colour-blind readers too: Okabe & Ito 2008, "Color Universal Design", without the yellow, which
/// is faint on white.
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    RGBColor(0, 0, 0),
];

/// A chart of lines over one pair of axes.
///
/// Defaults: no axis labels, a linear y axis. A point that is not finite is left out, and the line goes on to
/// the next; so is one that is not above zero on a logarithmic axis. A long line is drawn from the lowest and
/// the highest point of each of some hundred buckets.
///
/// # Examples
/// ```
/// use kiln_train::Plot;
/// let loss = [(1.0, 2.3), (2.0, 0.4), (3.0, f64::NAN), (4.0, 0.02)];
/// let plot = Plot::new("Digits").line("train loss", &loss).x_label("epoch").y_label("loss").log_y(true);
/// let svg = plot.svg().unwrap();
/// for text in ["Digits", "train loss", "epoch", "loss", "0.1"] {
///     assert!(svg.contains(&format!("\n{text}\n")), "{text}");
/// }
/// ```
#[derive(Clone, Debug)]
#[must_use = "nothing is drawn before `write` or `svg`"]
pub struct Plot {
    title: String,
    x_label: String,
    y_label: String,
    log_y: bool,
    lines: Vec<(String, Vec<(f64, f64)>)>,
}

impl Plot {
    /// A chart without lines.
    pub fn new(title: impl Into<String>) -> Plot {
        let (x_label, y_label) = (String::new(), String::new());
        Plot { title: title.into(), x_label, y_label, log_y: false, lines: Vec::new() }
    }

    /// Adds a line through `points`, in their order, named in the legend (its first 32 characters).
    pub fn line(mut self, name: impl Into<String>, points: &[(f64, f64)]) -> Plot {
        self.lines.push((name.into(), points.to_vec()));
        self
    }

    /// What the x axis shows.
    pub fn x_label(self, label: impl Into<String>) -> Plot {
        Plot { x_label: label.into(), ..self }
    }

    /// What the y axis shows.
    pub fn y_label(self, label: impl Into<String>) -> Plot {
        Plot { y_label: label.into(), ..self }
    }

    /// Whether the y axis is logarithmic.
    pub fn log_y(self, log_y: bool) -> Plot {
        Plot { log_y, ..self }
    }

    /// Writes the chart as SVG, whole or not at all.
    ///
    /// # Errors
    /// `ErrorKind::Data` as [`Plot::svg`]. `ErrorKind::Io` naming `path`, with nothing left behind, if its
    /// directory is missing or not writable.
    ///
    /// # Examples
    /// ```
    /// let plot = kiln_train::Plot::new("t").line("a", &[(0.0, 1.0)]);
    /// let error = plot.write("no/such/directory/a.svg").unwrap_err();
    /// assert_eq!(error.kind(), kiln_ir::ErrorKind::Io);
    /// assert!(error.to_string().starts_with("cannot write no/such/directory/a.svg: "));
    /// ```
    pub fn write(&self, path: impl AsRef<Path>) -> Result<()> {
        write_file(path.as_ref(), self.svg()?.as_bytes())
    }

    /// The chart as the text of an SVG; the same chart gives the same bytes.
    ///
    /// # Errors
    /// `ErrorKind::Data` if no line has a point that can be drawn.
    pub fn svg(&self) -> Result<String> {
        let limit = POINTS.0.min(POINTS.1 / self.lines.len().max(1));
        let drawn = |&(x, y): &(f64, f64)| x.is_finite() && y.is_finite() && (y >= f64::MIN_POSITIVE || !self.log_y);
        let lines = self.lines.iter().map(|(name, points)| {
            let points: Vec<_> = points.iter().copied().filter(drawn).collect();
            (name.as_str(), thin(&points, limit))
        });
        let lines: Vec<_> = lines.collect();
        if lines.iter().all(|(_, points)| points.is_empty()) {
            let domain = if self.log_y { "finite point above zero" } else { "finite point" };
            return Err(Error::new(ErrorKind::Data, format!("plot {:?} has no {domain} to draw", self.title)));
        }
        let mut svg = String::new();
        self.draw(&lines, &mut svg).expect("drawing into a string cannot fail");
        Ok(svg)
    }

    fn draw(&self, lines: &[(&str, Vec<(f64, f64)>)], svg: &mut String) -> Drawn {
        let legend_height = LEGEND.0 as u32 * lines.len() as u32 + 80;
        let root = SVGBackend::with_string(svg, (SIZE.0, SIZE.1.max(legend_height))).into_drawing_area();
        root.fill(&WHITE)?;
        let below = root.margin(10, 0, 0, 0).titled(&plain(&self.title), (FONT, 22).into_font().color(&INK))?;
        let longest = lines.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        let legend_width = 50 + 8 * longest.min(LEGEND.1) as i32;
        let (chart, legend) = below.split_horizontally(SIZE.0 as i32 - legend_width);
        self.draw_chart(lines, &chart)?;
        draw_legend(lines, &legend)?;
        root.present()
    }

    fn draw_chart(&self, lines: &[(&str, Vec<(f64, f64)>)], area: &Area<'_>) -> Drawn {
        let points = || lines.iter().flat_map(|(_, points)| points);
        let x = Axis::new(points().map(|p| p.0), 0.01, false);
        let y = Axis::new(points().map(|p| p.1), 0.04, self.log_y);
        let mut chart =
            ChartBuilder::on(area).margin(12).x_label_area_size(48).y_label_area_size(78).build_cartesian_2d(x, y)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .axis_style(INK)
            .label_style((FONT, 14).into_font().color(&INK))
            .axis_desc_style((FONT, 16).into_font().color(&INK))
            .x_desc(plain(&self.x_label))
            .y_desc(plain(&self.y_label))
            .draw()?;
        for (i, (_, points)) in lines.iter().enumerate() {
            // A single point would not be seen without its mark.
            let marked = points.len() == 1 || points.len() <= MARKED && lines.len() <= COLOURS.len();
            let marker = if marked { 3 } else { 0 };
            let width = if points.len() <= DENSE { 2 } else { 1 };
            let line = LineSeries::new(points.iter().copied(), colour(i).filled().stroke_width(width));
            chart.draw_series(line.point_size(marker))?;
        }
        Ok(())
    }
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = std::result::Result<(), DrawingAreaErrorKind<std::io::Error>>;

fn draw_legend(lines: &[(&str, Vec<(f64, f64)>)], area: &Area<'_>) -> Drawn {
    for (i, (name, _)) in lines.iter().enumerate() {
        let y = 22 + LEGEND.0 * i as i32;
        area.draw(&PathElement::new([(0, y), (22, y)], colour(i).stroke_width(3)))?;
        let mut text = plain(name);
        if let Some((cut, _)) = text.char_indices().nth(LEGEND.1) {
            text.replace_range(cut.., "…");
        }
        area.draw(&Text::new(text, (30, y - 5), (FONT, 14).into_font().color(&INK)))?;
    }
    Ok(())
}

/// The colour of line `i`: the palette first, then hues a golden angle apart.
fn colour(i: usize) -> RGBAColor {
    match COLOURS.get(i) {
        Some(colour) => colour.to_rgba(),
        None => HSLColor((i as f64 * 0.618_034).fract(), 0.7, 0.4).to_rgba(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The points of each line of a drawing; the other polylines are the axes, in ink.
    fn polylines(svg: &str) -> Vec<Vec<(i32, i32)>> {
        let tags = svg.split("<polyline").skip(1).map(|part| part.split("/>").next().unwrap());
        let lists = tags.filter(|tag| !tag.contains("stroke=\"#3C3C3C\""));
        let list = |part: &str| {
            let points = part.split("points=\"").nth(1).unwrap().split('"').next().unwrap();
            let pair = |p: &str| p.split_once(',').map(|(x, y)| (x.parse().unwrap(), y.parse().unwrap())).unwrap();
            points.split_whitespace().map(pair).collect()
        };
        lists.map(list).collect()
    }

    #[test]
    fn every_text_is_there_and_escaped() {
        let plot = Plot::new("a < b & \"c\"\u{1}").line("träin", &[(0.0, 1.0), (1.0, 2.0)]).line("x".repeat(40), &[]);
        let svg = plot.x_label("epoch").y_label("loss, nats").svg().unwrap();
        let cut = "x".repeat(32) + "…";
        for text in ["a &lt; b &amp; &quot;c&quot; ", "träin", &cut, "epoch", "loss, nats", "0.2", "2.0"] {
            assert!(svg.contains(&format!("\n{text}\n")), "{text} not in {svg}");
        }
        assert!(svg.starts_with("<svg width=\"900\" height=\"500\"") && svg.ends_with("</svg>\n"));
    }

    #[test]
    fn a_point_that_cannot_be_drawn_is_skipped() {
        let points = [(0.0, 1.0), (1.0, f64::NAN), (f64::INFINITY, 1.0), (2.0, 0.0), (3.0, -1.0), (4.0, 10.0)];
        let plot = Plot::new("t").line("a", &points);
        assert_eq!(polylines(&plot.svg().unwrap())[0].len(), 4);
        let log = polylines(&plot.log_y(true).svg().unwrap());
        assert_eq!(log[0].len(), 2);
        let [(x0, y0), (x1, y1)] = log[0][..] else { unreachable!() };
        assert!(x0 < x1 && y0 > y1, "{log:?}"); // up is less in SVG
    }

    #[test]
    fn nothing_to_draw_is_an_error() {
        let message = |plot: Plot| {
            let error = plot.svg().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Data);
            error.to_string()
        };
        assert_eq!(message(Plot::new("t")), "plot \"t\" has no finite point to draw");
        assert_eq!(message(Plot::new("t").line("a", &[(0.0, f64::NAN)])), "plot \"t\" has no finite point to draw");
        let negative = Plot::new("t").line("a", &[(0.0, -1.0)]).log_y(true);
        assert_eq!(message(negative), "plot \"t\" has no finite point above zero to draw");
    }

    #[test]
    fn a_missing_directory_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let plot = Plot::new("t").line("a", &[(0.0, 1.0)]);
        let error = plot.write(dir.path().join("none/a.svg")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(error.to_string().contains("none/a.svg"), "{error}");
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0);
    }

    #[test]
    fn long_and_many_lines_stay_small_and_keep_the_spike() {
        let mut points: Vec<_> = (0..200_000).map(|i| (f64::from(i), (f64::from(i) * 0.37).sin())).collect();
        points[77_777].1 = 9.0;
        let one = Plot::new("t").line("a", &points).svg().unwrap();
        let top = polylines(&one)[0].iter().map(|p| p.1).min().unwrap();
        assert_eq!(polylines(&one)[0].iter().filter(|p| p.1 == top).count(), 1);
        let many = (0..60).fold(Plot::new("t"), |plot, i| plot.line(format!("layer {i}"), &points)).svg().unwrap();
        assert!(one.len() < 20_000 && many.len() < 200_000, "{} {}", one.len(), many.len());
        let crowd = (0..400).fold(Plot::new("t"), |plot, i| plot.line(format!("{i}"), &points)).svg().unwrap();
        assert!(crowd.len() < 400_000, "{}", crowd.len());
        assert!(many.contains("\nlayer 59\n") && many.contains("height=\"1400\""));
    }

    #[test]
    fn a_single_point_and_extreme_values_are_drawn() {
        let svg = Plot::new("t").line("a", &[(3.0, 5.0)]).svg().unwrap();
        assert!(svg.contains("<circle"), "{svg}");
        let extreme = [(f64::MIN, f64::MAX), (f64::MAX, f64::MIN), (0.0, 5e-324)];
        for plot in [Plot::new("t").line("a", &extreme), Plot::new("t").line("a", &extreme).log_y(true)] {
            let points = polylines(&plot.svg().unwrap()).concat();
            assert!(points.iter().all(|&(x, y)| (0..900).contains(&x) && (0..500).contains(&y)), "{points:?}");
        }
    }

    #[test]
    fn colours_are_distinct() {
        let colours: std::collections::HashSet<_> = (0..30).map(|i| colour(i).rgb()).collect();
        assert_eq!(colours.len(), 30);
    }

    #[test]
    fn the_same_chart_gives_the_same_bytes() {
        let plot = Plot::new("t").line("a", &[(0.0, 1.0), (1.0, 3.0)]);
        assert_eq!(plot.svg().unwrap(), plot.svg().unwrap());
    }
}
