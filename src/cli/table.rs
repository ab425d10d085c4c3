//! Tables as Docker's tools print them: columns of at least ten, three blanks between them.

use unicode_width::UnicodeWidthStr;

/// How wide columns are, at least.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spacing {
    /// Smallest width of a column with the blanks after it.
    pub least: usize,
    /// Blanks between columns.
    pub gap: usize,
}

/// Source: observed from Docker Compose 2.40.
pub(crate) const USUAL: Spacing = Spacing { least: 10, gap: 3 };

/// Lays out `rows` under `header`, with a line end after each line. The last column is not filled up.
pub(crate) fn render<const N: usize>(header: [&str; N], rows: &[[String; N]]) -> String {
    let rows = rows.iter().map(|row| row.to_vec()).collect::<Vec<_>>();
    render_spaced(&header.map(str::to_owned), &rows, USUAL)
}

/// Lays out rows of any number of columns, each as long as the header.
pub(crate) fn render_spaced(header: &[String], rows: &[Vec<String>], spacing: Spacing) -> String {
    let widths = widths(header, rows.iter().map(Vec::as_slice));
    let mut text = String::new();
    for cells in std::iter::once(header).chain(rows.iter().map(Vec::as_slice)) {
        for (at, (cell, width)) in cells.iter().zip(&widths).enumerate() {
            text.push_str(cell);
            if at + 1 < widths.len() {
                let column = (width + spacing.gap).max(spacing.least);
                text.push_str(&" ".repeat(column - cell.width()));
            }
        }
        text.truncate(text.trim_end_matches(' ').len());
        text.push('\n');
    }
    text
}

/// Returns how many columns of the terminal the rows take without what is in the column number `at`, which is not the last.
pub(crate) fn width_without<const N: usize>(header: [&str; N], rows: &[[String; N]], at: usize) -> usize {
    let widths = widths(&header.map(str::to_owned), rows.iter().map(<[String; N]>::as_slice));
    let filled = |(number, width): (usize, &usize)| match number {
        _ if number == at => USUAL.gap,
        _ if number + 1 < N => (width + USUAL.gap).max(USUAL.least),
        _ => *width,
    };
    widths.iter().enumerate().map(filled).sum()
}

/// The widest cell of each column.
fn widths<'a>(header: &[String], rows: impl Iterator<Item = &'a [String]>) -> Vec<usize> {
    let mut widths: Vec<usize> = header.iter().map(|cell| cell.width()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.width());
        }
    }
    widths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_not_less_than_ten() {
        let rows = [
            ["shop-web-1".to_owned(), "local".to_owned(), "80/tcp".to_owned()],
            ["ü".to_owned(), String::new(), String::new()],
        ];
        insta::assert_snapshot!(render(["NAME", "HOST", "PORTS"], &rows), @"
        NAME         HOST      PORTS
        shop-web-1   local     80/tcp
        ü
        ");
        assert_eq!(width_without(["NAME", "HOST", "PORTS"], &rows, 0), 3 + 10 + 6);
    }
}
