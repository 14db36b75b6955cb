//! Rows that break their pages, and whose ids are therefore not known.

use std::collections::HashSet;

use super::{ListWalk, RowKey, SeenIds};

impl ListWalk {
    /// Numbers rows that break their pages, beginning with the number of their place: their ids are not known. A further
    /// reading counts each as one of those that the earlier readings met, wherever it stands now.
    pub fn number_failed_rows<'a>(&mut self, rows: impl Iterator<Item = &'a mut RowKey>, seen: &SeenIds) {
        let is_further = self.pass > self.first_pass;
        let of_this_pass = |id: &i64| is_further && seen.get(id) == Some(&self.pass);
        let mut met: HashSet<i64> = self.failed_rows.iter().copied().filter(of_this_pass).collect();
        let of_other_list = |id: &i64| seen.get(id).is_some_and(|pass| *pass < self.first_pass);
        for row in rows {
            if is_further && (met.contains(&row.id) || !self.failed_rows.contains(&row.id)) {
                row.id = self.failed_rows.iter().copied().find(|id| !met.contains(id)).unwrap_or(row.id);
            }
            while met.contains(&row.id) || of_other_list(&row.id) {
                row.id = row.id.checked_add(1).filter(|id| *id < 0).unwrap_or(i64::MIN);
            }
            met.insert(row.id);
            if !self.failed_rows.contains(&row.id) {
                self.failed_rows.push(row.id);
            }
        }
    }
}
