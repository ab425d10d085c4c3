//! Tables as Docker's tools print them: columns of at least ten, three blanks between them.

use unicode_width::UnicodeWidthStr;

/// Smallest width of a column with the blanks after it. Source: observed from Docker Compose 2.40.
const MIN_WIDTH: usize = 10;
/// Blanks between columns.
const GAP: usize = 3;

/// Lays out `rows` under `header`, with a line end after each line. The last column is not filled up.
pub(crate) fn render<const N: usize>(header: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = header.map(UnicodeWidthStr::width);
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.width());
        }
    }
    let mut text = String::new();
    let mut line = |cells: [&str; N]| {
        for (at, (cell, width)) in cells.iter().zip(widths).enumerate() {
            text.push_str(cell);
            if at + 1 < N {
                let column = (width + GAP).max(MIN_WIDTH);
                text.push_str(&" ".repeat(column - cell.width()));
            }
        }
        text.truncate(text.trim_end_matches(' ').len());
        text.push('\n');
    };
    line(header);
    for row in rows {
        line(row.each_ref().map(String::as_str));
    }
    text
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
    }
}
