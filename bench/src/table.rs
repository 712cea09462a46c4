//! Tables, for the terminal and for Markdown.

use std::fmt::Write;

/// Rows of cells under a header. The first column is text, the others figures.
#[derive(Debug, Default)]
pub(crate) struct Table {
    pub header: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// In columns, the figures to the right.
    pub(crate) fn text(&self) -> String {
        let mut widths = vec![0; self.header.len()];
        for row in std::iter::once(&self.header).chain(&self.rows) {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = Ord::max(*width, cell.chars().count());
            }
        }
        let mut text = String::new();
        for row in std::iter::once(&self.header).chain(&self.rows) {
            for (place, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let _ = match place {
                    0 => write!(text, "{cell:<width$}"),
                    _ => write!(text, "  {cell:>width$}"),
                };
            }
            text.truncate(text.trim_end().len());
            text.push('\n');
        }
        text
    }

    /// As GitHub shows it.
    pub(crate) fn markdown(&self) -> String {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let mut text = line(&self.header);
        let rule = self.header.iter().enumerate();
        let rule: Vec<_> = rule
            .map(|(place, _)| if place == 0 { "---" } else { "---:" }.to_owned())
            .collect();
        text.push_str(&line(&rule));
        for row in &self.rows {
            text.push_str(&line(row));
        }
        text
    }
}

/// A figure with three digits that matter: `12.3k`, `4.56`.
pub(crate) fn short(figure: f64) -> String {
    match figure.abs() {
        size if size >= 999_500.0 => format!("{:.2}M", figure / 1e6),
        size if size >= 99_950.0 => format!("{:.0}k", figure / 1e3),
        size if size >= 9_995.0 => format!("{:.1}k", figure / 1e3),
        size if size >= 999.5 => format!("{:.2}k", figure / 1e3),
        size if size >= 99.95 => format!("{figure:.0}"),
        size if size >= 9.995 => format!("{figure:.1}"),
        _ => format!("{figure:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_three_digits() {
        let cases = [
            (0.5, "0.50"),
            (9.996, "10.0"),
            (123.4, "123"),
            (999.7, "1.00k"),
            (12_345.0, "12.3k"),
            (99_960.0, "100k"),
            (2_345_678.0, "2.35M"),
        ];
        for (figure, text) in cases {
            assert_eq!(short(figure), text);
        }
    }

    #[test]
    fn columns_line_up() {
        let table = Table {
            header: vec!["a".into(), "b".into()],
            rows: vec![vec!["long".into(), "1".into()]],
        };
        assert_eq!(table.text(), "a     b\nlong  1\n");
        assert_eq!(
            table.markdown(),
            "| a | b |\n| --- | ---: |\n| long | 1 |\n"
        );
    }
}
