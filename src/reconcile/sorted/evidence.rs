//! The evidence that the server sorts by time of change. The known times of change must fall from
//! row to row. The rows must also contradict an order by creation and an order by id.

use std::collections::{HashMap, hash_map::Entry};

use super::{GRAIN, SortedWalk, Stamp};

/// So many falls are not there by chance.
const FALLS: usize = 20;

/// So many pairs contradict another order.
const PAIRS: usize = 3;

/// So many details are read again to confirm contradictions.
const MAX_RECHECKED: usize = 20;

/// What the rows of the first reading show.
pub enum Evidence {
    Enough,
    TooLittle,
    /// Rows contradict the order; these details must be read again.
    Recheck(Vec<i64>),
    /// Details that were read twice contradict the order.
    Contradiction {
        nearer: (i64, Stamp),
        further: (i64, Stamp),
    },
}

/// An order of the first reading with its known time of change.
#[derive(Clone, Copy)]
struct KnownRow {
    id: i64,
    page: u32,
    changed: Stamp,
    /// Its first and its last place in the reading: a row can move to the next page meanwhile.
    places: (usize, usize),
}

/// Two rows that contradict the order: the one further behind has the later change.
type Contradiction = (KnownRow, KnownRow);

impl SortedWalk {
    /// Judges the rows of the first reading.
    pub(super) fn evidence(&self) -> Evidence {
        let rows = self.known_rows();
        match self.contradiction(&rows) {
            Some((nearer, further)) if self.is_confirmed(nearer) && self.is_confirmed(further) => {
                return Evidence::Contradiction {
                    nearer: (nearer.id, nearer.changed),
                    further: (further.id, further.changed),
                };
            }
            Some((nearer, further)) if self.rechecked.len() < MAX_RECHECKED => {
                let again = [nearer, further].into_iter().filter(|row| !self.is_confirmed(*row));
                return Evidence::Recheck(again.map(|row| row.id).collect());
            }
            // Too many rows contradict the order to read each one again.
            Some(_) => return Evidence::TooLittle,
            None => {}
        }
        let falls = rows.windows(2).filter(|pair| pair[1].changed < pair[0].changed - GRAIN).count();
        if falls >= FALLS && self.contradicts_other_orders(&rows) { Evidence::Enough } else { Evidence::TooLittle }
    }

    /// The first pair of rows that contradicts the order.
    fn contradiction(&self, rows: &[KnownRow]) -> Option<Contradiction> {
        let mut by_last_place: Vec<&KnownRow> = rows.iter().collect();
        by_last_place.sort_by_key(|row| row.places.1);
        let mut passed = by_last_place.into_iter().peekable();
        let mut oldest: Option<KnownRow> = None;
        for further in rows {
            while let Some(row) = passed.next_if(|row| row.places.1 < further.places.0) {
                if oldest.is_none_or(|oldest| row.changed < oldest.changed) {
                    oldest = Some(*row);
                }
            }
            if let Some(nearer) = oldest.filter(|nearer| further.changed > nearer.changed + GRAIN) {
                return Some((nearer, *further));
            }
        }
        None
    }

    fn is_confirmed(&self, row: KnownRow) -> bool {
        !self.rules.rechecks || self.rechecked.contains(&row.id)
    }

    /// The orders of the first reading in the order of the list, without recent changes.
    fn known_rows(&self) -> Vec<KnownRow> {
        let first_reading = self.answers.iter().filter(|answer| answer.reading == 0);
        let rows = first_reading.flat_map(|answer| answer.ids.iter().map(move |id| (*id, answer.number)));
        let mut places: HashMap<i64, usize> = HashMap::new();
        let mut known: Vec<KnownRow> = Vec::new();
        for (place, (id, page)) in rows.enumerate() {
            let Some(changed) = self.known(id) else { continue };
            if self.rules.ignores_recent && changed >= self.bounds.recent_since {
                continue;
            }
            match places.entry(id) {
                Entry::Occupied(met) => known[*met.get()].places.1 = place,
                Entry::Vacant(new) => {
                    new.insert(known.len());
                    known.push(KnownRow { id, page, changed, places: (place, place) });
                }
            }
        }
        known
    }

    /// Whether enough pairs of rows contradict an order by creation, newest first, and an order by id.
    fn contradicts_other_orders(&self, rows: &[KnownRow]) -> bool {
        let is_apart = |near: &KnownRow, far: &KnownRow| near.page < far.page || !self.rules.pairs_across_pages;
        let (mut by_creation, mut by_id) = (0, 0);
        for (place, near) in rows.iter().enumerate() {
            for far in rows[place + 1..].iter().filter(|far| is_apart(near, far)) {
                let created = self.created.get(&near.id).zip(self.created.get(&far.id));
                by_creation += usize::from(created.is_some_and(|(near, far)| far > near));
                by_id += usize::from(far.id > near.id);
                if by_creation >= PAIRS && (by_id >= PAIRS || !self.rules.needs_id_pairs) {
                    return true;
                }
            }
        }
        false
    }
}
