//! The page sizes of further readings. Each size puts the page boundaries at other places.

/// Rows to subtract from the usual page size, one value for each further reading.
const SIZE_REDUCTIONS: [u32; 8] = [1, 7, 13, 17, 19, 23, 5, 11];

/// Pages of at most this many rows are made smaller by one row after the other.
const SMALL_PAGE: u32 = 30;

/// Pages of at most this many rows are made larger and smaller by turns: they have too few smaller sizes.
const TINY_PAGE: u32 = 8;

/// The page size of a further reading, which is at least 1. `usual`: the rows of page 1 in the first reading. `again`:
/// how many further readings there were before.
pub fn page_size_for_reading(usual: u32, again: u32) -> u32 {
    if usual > SMALL_PAGE {
        usual - SIZE_REDUCTIONS[again as usize % SIZE_REDUCTIONS.len()]
    } else if usual > TINY_PAGE {
        usual - 1 - again % (usual / 2)
    } else {
        let around = (1..).flat_map(|step| [usual + step, usual.saturating_sub(step)]);
        around.filter(|size| *size > 0).nth(again as usize).unwrap_or(usual)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_page_has_enough_other_sizes() {
        for usual in 1..=200 {
            let sizes: Vec<u32> = (0..8).map(|again| page_size_for_reading(usual, again)).collect();
            let different: BTreeSet<_> = sizes.iter().filter(|size| **size != usual).collect();
            let enough = if usual <= TINY_PAGE { sizes.len() } else { 4 };
            assert!(different.len() >= enough && sizes.iter().all(|size| *size >= 1), "{usual}: {sizes:?}");
        }
    }
}
