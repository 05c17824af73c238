//! Medians, and Markdown tables.

/// The middle of several figures, with the lowest and the highest.
#[derive(Clone, Copy, Default)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    pub fn of(figures: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = figures.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let at = |place: usize| sorted.get(place).copied().unwrap_or(f64::NAN);
        Spread {
            median: match sorted.len() % 2 {
                0 => (at(middle.wrapping_sub(1)) + at(middle)) / 2.0,
                _ => at(middle),
            },
            min: at(0),
            max: at(sorted.len().wrapping_sub(1)),
        }
    }

    pub fn ratio(&self) -> String {
        if self.min == self.max {
            return format!("{:.2}", self.median);
        }
        format!("{:.2} ({:.2}..{:.2})", self.median, self.min, self.max)
    }

    pub fn rate(&self) -> String {
        let [median, min, max] = [self.median, self.min, self.max].map(thousands);
        format!("{median} ({min}..{max})")
    }

    pub fn seconds(&self) -> String {
        format!("{:.3} ({:.3}..{:.3})", self.median, self.min, self.max)
    }
}

/// `12345.6` as `12,346`.
pub fn thousands(figure: f64) -> String {
    let digits = format!("{figure:.0}");
    let length = digits.len();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (length - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Two decimals, or a dash where there is no figure.
pub fn ratio(figure: Option<f64>) -> String {
    figure.map_or("-".to_owned(), |figure| format!("{figure:.2}"))
}

pub fn mib(bytes: Option<u64>) -> String {
    bytes.map_or("-".to_owned(), |bytes| {
        format!("{:.0}", bytes as f64 / (1024.0 * 1024.0))
    })
}

/// A Markdown table: the first column is text, the others are figures.
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(headers: &[&str]) -> Self {
        let mut table = Table { rows: Vec::new() };
        table.row(headers.iter().map(|header| (*header).to_owned()));
        table
    }

    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Prints it to the standard error: details.
    pub fn print(&self, title: &str) {
        eprintln!("\n### {title}\n\n{}", self.markdown());
    }

    pub fn markdown(&self) -> String {
        let mut text = String::new();
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns)
            .map(|column| {
                let cells = self.rows.iter().filter_map(|row| row.get(column));
                cells
                    .map(|cell| cell.chars().count())
                    .max()
                    .unwrap_or(0)
                    .max(4)
            })
            .collect();
        for (number, row) in self.rows.iter().enumerate() {
            let cells: Vec<String> = row
                .iter()
                .zip(&widths)
                .enumerate()
                .map(|(column, (cell, width))| match column {
                    0 => format!("{cell:width$}"),
                    _ => format!("{cell:>width$}"),
                })
                .collect();
            text.push_str(&format!("| {} |\n", cells.join(" | ")));
            if number == 0 {
                let rules: Vec<String> = widths
                    .iter()
                    .enumerate()
                    .map(|(column, width)| match column {
                        0 => "-".repeat(*width),
                        _ => format!("{}:", "-".repeat(width - 1)),
                    })
                    .collect();
                text.push_str(&format!("| {} |\n", rules.join(" | ")));
            }
        }
        text
    }
}
