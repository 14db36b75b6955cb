//! The page sizes of further readings. Each size puts the page boundaries at other places.

/// Rows to subtract from the usual page size, one value for each further reading.
const SIZE_REDUCTIONS: [u32; 8] = [1, 7, 13, 17, 19, 23, 5, 11];

/// Pages of fewer rows are made smaller by one row after the other.
const SMALL_PAGE: u32 = 30;

/// The page size of a further reading, which is at least 1. `usual`: the rows of page 1 in the first reading. `again`:
/// how many further readings there were before.
pub fn page_size_for_reading(usual: u32, again: u32) -> u32 {
    let smaller_by = if usual > SMALL_PAGE {
        SIZE_REDUCTIONS[again as usize % SIZE_REDUCTIONS.len()]
    } else {
        1 + again % (usual / 2).max(1)
    };
    usual.saturating_sub(smaller_by).max(1)
}
