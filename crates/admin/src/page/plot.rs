//! Backlog and rate over the last hour, as a drawing.

use std::fmt::Write;

use maud::{Markup, html};

use super::words;
use crate::watch::{EVERY, Sample};

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 120.0;
/// The last hour.
const SECONDS: f64 = 3600.0;
/// Samples further apart than so many times of what they should be are not joined.
const GAP: f64 = 3.0;

/// A value over time, each at so many seconds before the last one.
struct Curve {
    /// Runs of samples that are near enough.
    runs: Vec<Vec<(f64, f64)>>,
    highest: f64,
}

impl Curve {
    fn new(samples: &[Sample], value: impl Fn(&Sample) -> f64) -> Curve {
        let Some(last) = samples.last() else {
            return Curve {
                runs: Vec::new(),
                highest: 0.0,
            };
        };
        let gap = EVERY.as_secs_f64() * GAP;
        let mut runs: Vec<Vec<(f64, f64)>> = Vec::new();
        let mut before = f64::INFINITY;
        for sample in samples {
            let ago = last.at.duration_since(sample.at).as_secs_f64();
            if ago > SECONDS {
                continue;
            }
            if before - ago > gap {
                runs.push(Vec::new());
            }
            before = ago;
            if let Some(run) = runs.last_mut() {
                run.push((ago, value(sample)));
            }
        }
        let values = runs.iter().flatten().map(|(_, value)| *value);
        Curve {
            highest: values.fold(0.0, f64::max),
            runs,
        }
    }

    fn place(&self, (ago, value): (f64, f64)) -> (f64, f64) {
        let highest = if self.highest > 0.0 {
            self.highest
        } else {
            1.0
        };
        let x = WIDTH * (1.0 - ago / SECONDS);
        let y = (HEIGHT - 2.0) * (1.0 - value / highest) + 1.0;
        (x, y)
    }

    /// The line, and the area below it.
    fn paths(&self) -> (String, String) {
        let (mut line, mut area) = (String::new(), String::new());
        for run in &self.runs {
            let mut edge = String::new();
            let mut ends: Option<(f64, f64)> = None;
            for point in run {
                let (x, y) = self.place(*point);
                let step = if ends.is_none() { 'M' } else { 'L' };
                // Writing to a string does not fail.
                let _ = write!(edge, "{step}{x:.1} {y:.1}");
                ends = Some((ends.map_or(x, |(first, _)| first), x));
            }
            if let Some((first, last)) = ends {
                let _ = write!(area, "{edge}L{last:.1} {HEIGHT}L{first:.1} {HEIGHT}Z");
            }
            line += &edge;
            // A single sample is a dot.
            if run.len() == 1 {
                line += "h0.1";
            }
        }
        (line, area)
    }
}

fn drawing(name: &str, class: &str, curve: &Curve, now: &str, highest: &str) -> Markup {
    let (line, area) = curve.paths();
    html! {
        figure.plot {
            figcaption { span { (name) } " " strong { (now) } " " span.dim { "highest " (highest) } }
            svg.(class) viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } preserveAspectRatio="none" role="img"
                aria-label={ (name) ": now " (now) ", in the last hour at most " (highest) } {
                @for quarter in [1.0, 2.0, 3.0] {
                    @let x = WIDTH * quarter / 4.0;
                    line.grid x1=(x) x2=(x) y1="0" y2=(HEIGHT) {}
                }
                path.area d=(area) {}
                path.line d=(line) {}
            }
            div.axis aria-hidden="true" {
                span { "1 h ago" } span { "45 min" } span { "30 min" } span { "15 min" } span { "now" }
            }
        }
    }
}

/// Both drawings.
pub fn plots(samples: &[Sample]) -> Markup {
    let backlog = Curve::new(samples, |it| it.pending as f64);
    let rate = Curve::new(samples, |it| it.rate);
    let (hints, speed) = samples.last().map_or((0, 0.0), |it| (it.pending, it.rate));
    let highest = words::count(backlog.highest as u64);
    html! {
        div.plots {
            (drawing("Pending hints", "backlog", &backlog, &words::count(hints), &highest))
            (drawing("Delivered", "rate", &rate, &words::rate(speed), &words::rate(rate.highest)))
        }
    }
}
