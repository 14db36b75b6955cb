//! From one page to the next.

use chrono::{DateTime, Utc};

use super::{
    Answer, EDGE_ROUNDS, ListWalk, NewRows, Phase, READINGS, READINGS_WITH_TIES, Round, STALE_READINGS, WalkError,
    reading::{CompletedScan, ScanInProgress, agree},
    sort_order::{Direction, changed_since},
};

impl ListWalk {
    /// Where the walk is after page `number`, which brought `news`; `began`: when the walk did, by Salla's clock.
    pub(super) fn onward(
        &mut self,
        number: u32,
        answer: Answer<'_>,
        news: NewRows,
        began: Option<DateTime<Utc>>,
    ) -> Result<Phase, WalkError> {
        if number == 1 && holds_all(answer) {
            return Ok(Phase::Whole);
        }
        if answer.rows.is_empty() && answer.total.is_none() && answer.total_pages.is_some_and(|pages| pages >= number) {
            // An empty page where rows are expected, without a total.
            return Err(self.unstable(answer));
        }
        Ok(match self.stage {
            Phase::Whole => Phase::Whole,
            Phase::First => match (answer.total_pages.filter(|&pages| pages > 1), self.order.candidate()) {
                (Some(last), Some(direction @ Direction::Ascending)) => Phase::Through { direction, next: last },
                (Some(_), Some(direction @ Direction::Descending)) if answer.total.is_some() => {
                    Phase::Through { direction, next: 2 }
                }
                _ => self.verified(number, answer)?,
            },
            Phase::Through { direction, .. } if !self.order.allows(direction) => self.read_again(answer),
            Phase::Through { direction: direction @ Direction::Ascending, .. } if number > 1 => {
                Phase::Through { direction, next: number - 1 }
            }
            Phase::Through { direction: direction @ Direction::Descending, .. } => {
                match self.rows_gone(answer.total) {
                    // Pages of unknown size cannot be counted back.
                    None => self.read_again(answer),
                    Some(_) if self.uneven => self.read_again(answer),
                    Some(gone @ 1..) => {
                        let pages = gone.div_ceil(self.page_rows.max(1) as u64);
                        let back = u32::try_from(pages).unwrap_or(u32::MAX);
                        Phase::Through { direction, next: number.saturating_sub(back).max(1) }
                    }
                    Some(0) if !is_last(number, answer) => Phase::Through { direction, next: number + 1 },
                    Some(0) => edge(direction, answer, 1),
                }
            }
            Phase::Through { direction, .. } => edge(direction, answer, 1),
            Phase::Edge { direction, round, .. } => self.at_the_edge(number, answer, direction, round, news, began),
            Phase::Verify { .. } => self.verified(number, answer)?,
        })
    }

    fn at_the_edge(
        &mut self,
        number: u32,
        answer: Answer<'_>,
        direction: Direction,
        mut round: Round,
        news: NewRows,
        began: Option<DateTime<Utc>>,
    ) -> Phase {
        round.total = round.total.or(answer.total);
        round.news = round.news.max(news);
        // Whatever changed since the walk began lies between the end and what did not.
        let (inner, is_over) = match direction {
            Direction::Ascending => (answer.rows.first(), number == 1),
            Direction::Descending => (answer.rows.last(), is_last(number, answer)),
        };
        if (news != NewRows::None || inner.is_some_and(|row| changed_since(row, began))) && !is_over {
            let next = if direction == Direction::Ascending { number - 1 } else { number + 1 };
            return Phase::Edge { direction, next, round };
        }
        let enough = round.total.is_none_or(|total| self.distinct >= total);
        match round.news {
            NewRows::None if enough && self.is_proved(direction) => Phase::Whole,
            NewRows::None if enough => self.read_again(answer),
            _ if round.number < EDGE_ROUNDS => edge(direction, answer, round.number + 1),
            // It changes faster than it can be read, in records that belong to the next run.
            NewRows::Recent if self.is_proved(direction) => Phase::Whole,
            // Old records that come to light, or do not: the order is not what it seemed.
            _ => self.read_again(answer),
        }
    }

    /// Whether a list that was read in one direction is known to be whole. It is if all records of one instant were
    /// counted, or if the order of the list proves it. The order says nothing about records with one time stamp.
    fn is_proved(&self, direction: Direction) -> bool {
        self.count.is_complete() || !self.has_ties && self.order.proves(direction)
    }

    /// Moves on in a list whose order is not known, and looks at its end whether all of it has been read.
    fn verified(&mut self, number: u32, answer: Answer<'_>) -> Result<Phase, WalkError> {
        if !is_last(number, answer) {
            return Ok(Phase::Verify { next: number + 1 });
        }
        self.readings.push(self.reading.ended(answer.total, self.by_id));
        if self.count.is_complete() || agree(&self.readings, self.distinct) {
            return Ok(Phase::Whole);
        }
        if !self.is_hopeless() {
            return Ok(self.begin());
        }
        let missing = answer.total.and_then(|total| total.checked_sub(self.distinct)).unwrap_or(0);
        if !self.has_ties || missing == 0 || missing > self.broken_answers {
            return Err(self.unstable(answer));
        }
        self.unread = missing;
        Ok(Phase::Whole)
    }

    /// Whether another reading is not likely to show what the earlier ones did not.
    fn is_hopeless(&self) -> bool {
        // Without stamps, a list that holds still and shows records twice is one in which others are lost.
        let has_ties = self.has_ties || self.readings.iter().any(CompletedScan::has_repeats);
        if !has_ties || self.readings.last().is_some_and(CompletedScan::is_moving) {
            return self.readings.len() >= READINGS;
        }
        let stale = self.readings.iter().rev().take_while(|reading| !reading.has_news()).count();
        self.readings.len() >= READINGS_WITH_TIES || stale >= STALE_READINGS
    }

    /// The pages that were read in one direction become the first reading of the count.
    fn read_again(&mut self, answer: Answer<'_>) -> Phase {
        self.readings = vec![CompletedScan::partial(answer.total)];
        self.begin()
    }

    /// Begins another reading, whose pages have another size.
    fn begin(&mut self) -> Phase {
        self.reading = ScanInProgress::default();
        self.first_total_pages = None;
        self.pass += 1;
        self.by_id = self.has_ties && !self.by_id;
        Phase::Verify { next: 1 }
    }

    /// How many rows fewer there are than at the last answer; `None`: the server does not say.
    fn rows_gone(&self, total: Option<u64>) -> Option<u64> {
        Some(self.total?.saturating_sub(total?))
    }

    pub(super) fn unstable(&self, answer: Answer<'_>) -> WalkError {
        WalkError::Unstable { passes: self.pass + 1 - self.first_pass, distinct: self.distinct, total: answer.total }
    }
}

/// The first page of the end where changes arrive.
fn edge(direction: Direction, answer: Answer<'_>, round: u8) -> Phase {
    let next = match direction {
        Direction::Ascending => answer.total_pages.unwrap_or(1).max(1),
        Direction::Descending => 1,
    };
    Phase::Edge { direction, next, round: Round { number: round, news: NewRows::None, total: None } }
}

/// The end is an empty page, or the last page by the newest answer's own account.
pub(super) fn is_last(number: u32, answer: Answer<'_>) -> bool {
    answer.rows.is_empty() || answer.total_pages.is_some_and(|pages| number >= pages)
}

/// Whether page 1 is the whole list: an answer of one instant.
fn holds_all(answer: Answer<'_>) -> bool {
    let rows = answer.rows.len() as u64;
    match (answer.total, answer.total_pages) {
        (Some(total), pages) => rows == total && pages.is_none_or(|pages| pages <= 1),
        (None, Some(pages)) => pages == u32::from(rows > 0),
        (None, None) => rows == 0,
    }
}
