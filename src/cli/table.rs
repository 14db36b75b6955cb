//! Tables for people: at most as wide as the terminal, and unabridged without one.

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};

/// A table with a head. Numbers are aligned to the right.
pub fn table(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic).set_header(head);
    // A terminal that does not know its width says that it has none.
    if table.width() == Some(0) {
        table.set_content_arrangement(ContentArrangement::Disabled);
    }
    for row in rows {
        table.add_row(row.into_iter().map(|text| {
            let number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            let alignment = if number { CellAlignment::Right } else { CellAlignment::Left };
            Cell::new(text).set_alignment(alignment)
        }));
    }
    table.column_iter_mut().for_each(|column| {
        column.set_padding((0, 1));
    });
    table.trim_fmt()
}
