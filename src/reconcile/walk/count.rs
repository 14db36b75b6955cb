//! The proof by count: how many of the records that a list contained at one instant were read.
//!
//! A record was in the list at an instant in each of these cases:
//!
//! - The answer of that instant showed it.
//! - Answers before and after that instant showed it.
//! - A later answer showed it with a time stamp from before that instant.
//!
//! If such records are as many as the rows of the list at that instant, no record is missing. The
//! order of the list and its changes do not matter. Rows that are shown twice do not count twice.

use serde::{Deserialize, Serialize};

/// The rows of the list at the first answer of a pass, and how many of them are accounted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Instant {
    pass: u32,
    rows: u64,
    counted: u64,
    /// The number of pages contradicts the number of rows.
    #[serde(default)]
    is_contradicted: bool,
}

/// The instants at which passes over one list began.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    instants: Vec<Instant>,
}

/// How a row was met.
#[derive(Debug, Clone, Copy)]
pub struct Met {
    /// The present pass.
    pub pass: u32,
    /// The pass over this list that met its record last.
    pub before: Option<u32>,
    /// It was in the list well before the run began, by its own stamp.
    pub is_settled: bool,
    /// Its answer is the first one of the pass.
    pub is_first_answer: bool,
}

impl Count {
    /// Starts a reading of a list with `total` rows. Without `total`, records cannot be counted.
    pub fn begin(&mut self, pass: u32, total: Option<u64>, is_contradicted: bool) {
        self.instants.extend(total.map(|rows| Instant { pass, rows, counted: 0, is_contradicted }));
    }

    /// Counts a record, once for each instant before which it had not been met.
    pub fn add(&mut self, met: Met) {
        for instant in self.instants.iter_mut().filter(|instant| met.before.is_none_or(|before| before < instant.pass))
        {
            let in_this_answer = met.is_first_answer && instant.pass == met.pass;
            instant.counted += u64::from(met.is_settled || met.before.is_some() || in_this_answer);
        }
    }

    /// Whether all records of one instant have been read.
    ///
    /// More records than rows at the instant before contradict `total`. Then an equal number may be there by chance.
    pub fn is_complete(&self) -> bool {
        let is_possible = |at: usize| self.instants[..at].last().is_none_or(|before| before.counted <= before.rows);
        let is_equal = |instant: &Instant| instant.counted == instant.rows && !instant.is_contradicted;
        self.instants.iter().enumerate().any(|(at, instant)| is_equal(instant) && is_possible(at))
    }
}
