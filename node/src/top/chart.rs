//! The curves of the loss.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Style};
use ratatui::symbols::Marker;
use ratatui::text::Line;
use ratatui::widgets::{Axis, Chart, Dataset, GraphType, Widget};

use super::look::Look;
use super::past::{Curve, Past};
use super::text::{count, loss};

/// Points of a curve that are drawn; of more, so many means.
const POINTS: usize = 400;
/// Space above and below the curves, as a share of their height.
const MARGIN: f64 = 0.05;

/// What the curves are called, each with its mark.
pub(super) fn legend(past: &Past) -> String {
    let marks = [
        ("training", "line", &past.training),
        ("validation", "v", &past.validation),
        ("own text: personal", "p", &past.personal),
        ("shared", "s", &past.shared),
    ];
    let known = marks.iter().filter(|(.., curve)| !curve.is_empty());
    let words: Vec<String> = known.map(|(name, mark, _)| format!("{mark} = {name}")).collect();
    words.join(", ")
}

/// Draws them.
pub(super) fn curves(past: &Past, look: Look, area: Rect, buffer: &mut Buffer) {
    // What is drawn later covers what was before.
    let all = [&past.training, &past.shared, &past.personal, &past.validation].map(points);
    let every = || all.iter().flatten();
    let range = |of: fn(&(f64, f64)) -> f64| {
        let low = every().map(of).fold(f64::INFINITY, f64::min);
        (low, every().map(of).fold(f64::NEG_INFINITY, f64::max))
    };
    let ((first, last), (low, high)) = (range(|point| point.0), range(|point| point.1));
    if every().count() < 2 {
        buffer.set_stringn(
            area.x,
            area.y,
            "a curve begins with the second round",
            area.width.into(),
            Style::new(),
        );
        return;
    }
    let margin = ((high - low) * MARGIN).max(1e-3);
    let (bottom, top) = (low - margin, high + margin);
    let style = |colour| if look.colour { Style::new().fg(colour) } else { Style::new() };
    let line = if look.unicode { Marker::Braille } else { Marker::Custom('*') };
    let kinds = [
        (line, GraphType::Line, Color::Cyan),
        (Marker::Custom('s'), GraphType::Scatter, Color::Green),
        (Marker::Custom('p'), GraphType::Scatter, Color::Magenta),
        (Marker::Custom('v'), GraphType::Scatter, Color::Yellow),
    ];
    let sets = all.iter().zip(kinds).filter(|(points, _)| !points.is_empty());
    let sets = sets.map(|(points, (marker, kind, colour))| {
        Dataset::default().data(points).marker(marker).graph_type(kind).style(style(colour))
    });
    let rounds = [first, last].map(|round| Line::from(count(round as u64)));
    let heights: Vec<Line<'_>> = if area.height >= 7 {
        vec![loss(bottom).into(), loss(bottom.midpoint(top)).into(), loss(top).into()]
    } else {
        vec![loss(bottom).into(), loss(top).into()]
    };
    Chart::new(sets.collect())
        .legend_position(None)
        .x_axis(Axis::default().bounds([first, last.max(first + 1.0)]).labels(rounds))
        .y_axis(Axis::default().bounds([bottom, top]).labels(heights))
        .render(area, buffer);
}

/// At most [`POINTS`] of a curve: means of as many rounds each.
fn points(curve: &Curve) -> Vec<(f64, f64)> {
    let all: Vec<(f64, f64)> = curve.iter().map(|(round, value)| (*round as f64, *value)).collect();
    let some = all.len().div_ceil(POINTS).max(1);
    let mean = |part: &[(f64, f64)], of: fn(&(f64, f64)) -> f64| {
        part.iter().map(of).sum::<f64>() / part.len() as f64
    };
    all.chunks(some).map(|part| (mean(part, |point| point.0), mean(part, |point| point.1))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_curve_is_thinned_to_means() {
        let curve: Curve = (0..1000).map(|round| (round, if round % 2 == 0 { 1.0 } else { 3.0 })).collect();
        let points = points(&curve);
        assert!(points.len() <= POINTS && points.len() > POINTS / 2);
        assert!((points.iter().map(|point| point.1).sum::<f64>() / points.len() as f64 - 2.0).abs() < 0.01);
        assert_eq!(points.first().map(|point| point.0), Some(1.0));
    }
}
