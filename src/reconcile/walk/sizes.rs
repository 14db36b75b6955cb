//! The page sizes of further readings. Each size puts the page boundaries at other places.

/// How many rows the pages of each further reading have less.
const SMALLER_BY: [u32; 8] = [1, 7, 13, 17, 19, 23, 5, 11];

/// Pages of fewer rows are made smaller by one row after the other.
const SMALL_PAGE: u32 = 30;

/// The page size of a further reading, which is at least 1. `usual`: the rows of page 1 in the first reading. `again`:
/// how many further readings there were before.
pub fn of_further_reading(usual: u32, again: u32) -> u32 {
    let smaller_by =
        if usual > SMALL_PAGE { SMALLER_BY[again as usize % SMALLER_BY.len()] } else { 1 + again % (usual / 2).max(1) };
    usual.saturating_sub(smaller_by).max(1)
}
