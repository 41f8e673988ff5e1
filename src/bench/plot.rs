//! Plots for people, as SVG.

use std::path::{Path, PathBuf};

use plotters::prelude::*;

use super::BenchError;
use super::figure::Figure;

const SIZE: (u32, u32) = (800, 400);
const COLOURS: [RGBColor; 4] = [RGBColor(31, 119, 180), RGBColor(214, 39, 40), RGBColor(44, 160, 44), BLACK];

/// A plot of lines.
#[derive(Debug, Clone)]
pub(super) struct Plot {
    /// The name of the file, without its end.
    pub file: &'static str,
    /// What it shows.
    pub title: &'static str,
    /// The horizontal axis.
    pub x: &'static str,
    /// The vertical axis.
    pub y: &'static str,
    /// The lines.
    pub lines: Vec<Line>,
}

/// One line.
#[derive(Debug, Clone)]
pub(super) struct Line {
    /// What it shows.
    pub name: &'static str,
    /// Its points from left to right.
    pub points: Vec<(f64, f64)>,
}

/// Writes all plots into a folder, which is made if it is missing.
pub(super) fn write(folder: &Path, plots: &[Plot], figures: &[Figure]) -> Result<(), BenchError> {
    let failed = |file: PathBuf| move |source| BenchError::Write { file, source };
    std::fs::create_dir_all(folder).map_err(failed(folder.to_owned()))?;
    let rates: Vec<&Figure> = figures.iter().filter(|figure| figure.unit.ends_with("/s")).collect();
    let drawn =
        plots.iter().map(|plot| (plot.file, lines(plot))).chain([("throughput", bars("Throughput", &rates))]);
    for (name, text) in drawn {
        let file = folder.join(name).with_extension("svg");
        let text = text.map_err(|why| failed(file.clone())(std::io::Error::other(why)))?;
        std::fs::write(&file, text).map_err(failed(file.clone()))?;
    }
    Ok(())
}

/// Why a plot could not be drawn; drawing into a text has no reason to fail.
type Undrawn = String;

fn lines(plot: &Plot) -> Result<String, Undrawn> {
    let all = || plot.lines.iter().flat_map(|line| &line.points);
    let most = |values: &mut dyn Iterator<Item = f64>| values.fold(f64::MIN_POSITIVE, f64::max);
    let (left, right) =
        (all().map(|point| point.0).fold(f64::MAX, f64::min), most(&mut all().map(|point| point.0)));
    let top = most(&mut all().map(|point| point.1)) * 1.1;
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        area.fill(&WHITE).map_err(|error| error.to_string())?;
        let mut chart = ChartBuilder::on(&area)
            .caption(plot.title, ("sans-serif", 18))
            .margin(12)
            .x_label_area_size(40)
            .y_label_area_size(64)
            .build_cartesian_2d(left.min(right)..right, 0.0..top)
            .map_err(|error| error.to_string())?;
        chart
            .configure_mesh()
            .x_desc(plot.x)
            .y_desc(plot.y)
            .light_line_style(WHITE)
            .draw()
            .map_err(|error| error.to_string())?;
        for (line, colour) in plot.lines.iter().zip(COLOURS.iter().cycle()) {
            chart
                .draw_series(LineSeries::new(line.points.iter().copied(), colour.stroke_width(2)))
                .map_err(|error| error.to_string())?
                .label(line.name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
        }
        chart
            .configure_series_labels()
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK)
            .draw()
            .map_err(|error| error.to_string())?;
        area.present().map_err(|error| error.to_string())?;
    }
    Ok(text)
}

/// Horizontal bars with the name before and the figure behind each.
fn bars(title: &str, figures: &[&Figure]) -> Result<String, Undrawn> {
    const ROW: i32 = 26;
    const NAMES: i32 = 320;
    const LONGEST: f64 = 360.0;
    let most = figures.iter().map(|figure| figure.value).fold(f64::MIN_POSITIVE, f64::max);
    let height = 56 + ROW * figures.len() as i32;
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, (SIZE.0, height as u32)).into_drawing_area();
        let failed = |error: DrawingAreaErrorKind<_>| -> Undrawn {
            std::io::Error::to_string(&std::io::Error::other(error))
        };
        area.fill(&WHITE).map_err(failed)?;
        area.draw(&Text::new(title.to_owned(), (12, 12), ("sans-serif", 18))).map_err(failed)?;
        for (at, figure) in figures.iter().enumerate() {
            let top = 44 + ROW * at as i32;
            let right = NAMES + (figure.value / most * LONGEST) as i32;
            let bar = Rectangle::new([(NAMES, top), (right, top + ROW - 8)], COLOURS[0].filled());
            area.draw(&Text::new(figure.name.clone(), (12, top + 2), ("sans-serif", 13))).map_err(failed)?;
            area.draw(&bar).map_err(failed)?;
            let value = format!("{} {}", figure.value, figure.unit);
            area.draw(&Text::new(value, (right + 6, top + 2), ("sans-serif", 13))).map_err(failed)?;
        }
        area.present().map_err(failed)?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_is_svg_with_its_words_in_it_even_without_a_point() {
        let plot = |points| Plot {
            file: "a",
            title: "how long",
            x: "size",
            y: "ms",
            lines: vec![Line { name: "p50", points }],
        };
        for points in [vec![(1.0, 2.0), (2.0, 3.0)], vec![(1.0, 1.0)], Vec::new()] {
            let text = lines(&plot(points)).unwrap_or_default();
            assert!(text.starts_with("<svg") && text.contains("how long") && text.contains("p50"), "{text}");
        }
        let figure = Figure::new("enqueue", 12.0, "jobs/s");
        let text = bars("Throughput", &[&figure]).unwrap_or_default();
        assert!(text.contains("enqueue") && text.contains("12 jobs/s"), "{text}");
    }
}
