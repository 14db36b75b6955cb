//! What the walk demands before it believes a list.

/// The rules of the walk. Tests break each one, to show that it is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// The prefix is read again.
    pub reads_again: bool,
    /// The orders before the boundary must be counted; otherwise a reading without a new order is enough.
    pub counts: bool,
    /// Only orders that are known to be newer than the threshold count.
    pub counts_changed_only: bool,
    /// Pairs of rows are evidence only across pages.
    pub pairs_across_pages: bool,
    /// The list must also contradict an order by id.
    pub needs_id_pairs: bool,
    /// A contradiction counts only when details that are read again confirm it.
    pub rechecks: bool,
    /// Recent changes prove nothing.
    pub ignores_recent: bool,
    /// An empty page where rows are expected is not the end of the list.
    pub distrusts_empty_pages: bool,
    /// Only details that were read after an answer show where the boundary stood in it.
    pub confirms_boundary: bool,
    /// So many old rows in succession end the first reading: the details of one row may be stale.
    pub old_rows: usize,
}

impl Rules {
    /// The rules that the guarantee needs.
    pub const SOUND: Self = Self {
        reads_again: true,
        counts: true,
        counts_changed_only: true,
        pairs_across_pages: true,
        needs_id_pairs: true,
        rechecks: true,
        ignores_recent: true,
        distrusts_empty_pages: true,
        confirms_boundary: true,
        old_rows: 3,
    };
}
