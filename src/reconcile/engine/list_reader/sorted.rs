//! The way into the sorted list, and out of it.

use super::ListReader;
use crate::{
    domain::{Listing, Scope},
    reconcile::{engine::sorted_list::MissedChange, ports::Seen},
};

impl ListReader {
    /// Begins to read the sorted list, and then the others.
    pub fn sort(&mut self, scopes: Vec<Scope>) {
        self.cursor.listing = Listing::Sort;
        self.cursor.scopes = scopes;
        self.start_list();
    }

    /// Notes changes that the sorted list should have shown.
    pub fn note_missed_changes(&mut self, missed: &[MissedChange]) {
        for MissedChange { id, stored, changed } in missed {
            tracing::warn!(
                salla.id = id,
                stored_at = ?stored,
                updated_at = ?changed,
                "the sorted list did not show a change of an order, tonight or on an earlier night"
            );
            self.cursor.missed_changes += 1;
        }
    }

    /// Whether the present list is the sorted one.
    pub fn is_at_sorted_list(&self) -> bool {
        self.cursor.scopes.last() == Some(&Scope::SortedByChange)
    }

    /// Notes orders that the sorted list showed.
    pub fn note_sorted(&mut self, ids: Vec<i64>) -> Seen {
        self.note_seen(self.cursor.walk.pass(), ids)
    }

    /// Goes on behind the sorted list.
    pub fn end_sorted_list(&mut self) {
        self.cursor.scopes.pop();
        self.start_list();
    }

    /// Begins to scan all records, and to read all their details.
    pub fn scan_all_details(&mut self) {
        self.scan();
        self.cursor.all_details = true;
    }

    /// Begins to scan all records.
    pub fn scan(&mut self) {
        self.cursor.listing = Listing::Scan;
        self.cursor.scopes = vec![Scope::EVERYTHING];
        self.cursor.missed_changes = 0;
        self.start_list();
    }
}
