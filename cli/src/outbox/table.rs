//! Columns for people.

use ceiba_core::log_line::printable;

/// Characters of a cell that is not the last.
const WIDEST: usize = 40;

/// A table that is written page by page.
#[derive(Debug)]
pub(super) struct Table {
    // Those whose end is at the right.
    numbers: &'static [&'static str],
    titles: &'static [&'static str],
    widths: Vec<usize>,
    begun: bool,
}

impl Table {
    pub(super) fn new(titles: &'static [&'static str], numbers: &'static [&'static str]) -> Table {
        let widths = titles.iter().map(|title| title.len()).collect();
        Table { numbers, titles, widths, begun: false }
    }

    /// The text of a page, under the titles if it is the first.
    pub(super) fn page(&mut self, rows: &[Vec<String>]) -> String {
        let rows: Vec<Vec<String>> = rows
            .iter()
            .map(|row| row.iter().enumerate().map(|(at, cell)| self.cell(at, cell)).collect())
            .collect();
        for row in &rows {
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut text = String::new();
        if !self.begun {
            self.begun = true;
            let titles: Vec<String> = self.titles.iter().map(|title| (*title).to_owned()).collect();
            self.line(&titles, &mut text);
        }
        for row in &rows {
            self.line(row, &mut text);
        }
        text
    }

    fn cell(&self, at: usize, text: &str) -> String {
        let text = printable(text);
        if at + 1 == self.titles.len() || text.chars().count() <= WIDEST {
            return text.into_owned();
        }
        text.chars().take(WIDEST - 1).chain(['…']).collect()
    }

    fn line(&self, cells: &[String], text: &mut String) {
        let mut line = String::new();
        for ((cell, width), title) in cells.iter().zip(&self.widths).zip(self.titles) {
            let gap = " ".repeat(width.saturating_sub(cell.chars().count()));
            if self.numbers.contains(title) {
                line.push_str(&format!("{gap}{cell}  "));
            } else {
                line.push_str(&format!("{cell}{gap}  "));
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_below_each_other_and_nothing_leaves_its_line() {
        let mut table = Table::new(&["ROW", "TOPIC", "ERROR"], &["ROW"]);
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        assert_eq!(
            table.page(&[row(["7", "a\nb", ""]), row(["12", "paid", "\u{1b}[2J"])]),
            "ROW  TOPIC  ERROR\n  7  a\\nb\n 12  paid   \\x1b[2J\n"
        );
        assert_eq!(
            table.page(&[row(["13", &"x".repeat(50), "e"])]),
            format!(" 13  {}…  e\n", "x".repeat(39))
        );
    }
}
