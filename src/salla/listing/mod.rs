//! Lists of records: how their pages are asked for, divided and read.

pub mod divide;
pub mod page_query;
pub mod row_window;
pub mod search;
pub mod source;
