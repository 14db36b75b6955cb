//! The page sizes of further readings. Each size puts the page boundaries at other places.

/// How much smaller than usual the pages of each further reading are, in sixtieths. First come sizes that cost few more
/// requests. Much smaller pages between them help where the order of a page depends on its number only.
const SIZE_REDUCTIONS: [u32; 15] = [1, 7, 13, 29, 41, 19, 43, 31, 23, 47, 37, 17, 39, 11, 45];

/// Pages of at most this many rows are made larger and smaller by turns: they have too few smaller sizes.
const TINY_PAGE: u32 = 8;

/// The page size of a further reading, which is at least 1. `usual`: the rows of page 1 in the first reading. `again`:
/// how many further readings there were before.
pub fn page_size_for_reading(usual: u32, again: u32) -> u32 {
    if usual > TINY_PAGE {
        let reduction = SIZE_REDUCTIONS[again as usize % SIZE_REDUCTIONS.len()];
        usual - (usual * reduction).div_ceil(60)
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
    fn pages_of_sixty_rows_get_smaller() {
        let sizes: Vec<u32> = (0..4).map(|again| page_size_for_reading(60, again)).collect();
        assert_eq!(sizes, [59, 53, 47, 31]);
    }

    #[test]
    fn every_page_has_enough_other_sizes() {
        for usual in 1..=200 {
            let sizes: Vec<u32> = (0..15).map(|again| page_size_for_reading(usual, again)).collect();
            let different: BTreeSet<_> = sizes.iter().filter(|size| **size != usual).collect();
            let enough = if usual <= TINY_PAGE { sizes.len() } else { 6 };
            assert!(different.len() >= enough && sizes.iter().all(|size| *size >= 1), "{usual}: {sizes:?}");
        }
    }
}
