//! The progress of a run, for a person who watches it.

use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;

use crate::domain::{Failure, MerchantId, Run, Wait};

/// How a run left this process.
#[derive(Debug, Clone)]
pub enum Ended {
    /// The run has ended, as stored.
    Run(Box<Run>),
    /// It could not be begun, or its end could not be written down.
    Unrecorded {
        /// The merchant.
        merchant: MerchantId,
        /// Why.
        failure: Failure,
    },
    /// It was released, or another process executes it.
    Elsewhere(MerchantId),
}

impl Ended {
    /// The run, if there is one.
    #[must_use]
    pub fn run(&self) -> Option<&Run> {
        match self {
            Self::Run(run) => Some(run),
            Self::Unrecorded { .. } | Self::Elsewhere(_) => None,
        }
    }
}

/// Something that happened.
#[derive(Debug, Clone)]
pub enum Progress {
    /// A page was read.
    Page {
        /// Of whose list.
        merchant: MerchantId,
        /// Counted from 1.
        number: u32,
        /// Of how many, if that is known.
        of: Option<u32>,
    },
    /// A run waits.
    Waiting {
        /// The merchant.
        merchant: MerchantId,
        /// For what.
        wait: Wait,
        /// For how long.
        pause: Duration,
    },
    /// A run ended.
    Ended(Box<Ended>),
}

/// Where progress is sent. It needs no receiver.
#[derive(Debug, Clone, Default)]
pub struct ProgressSender(Option<UnboundedSender<Progress>>);

impl ProgressSender {
    /// Tells `sender`.
    pub fn new(sender: UnboundedSender<Progress>) -> Self {
        Self(Some(sender))
    }

    /// A page was read.
    pub fn page(&self, merchant: MerchantId, number: u32, of: Option<u32>) {
        self.tell(|| Progress::Page { merchant, number, of });
    }

    /// A run waits.
    pub fn waiting(&self, merchant: MerchantId, wait: &Wait, pause: Duration) {
        self.tell(|| Progress::Waiting { merchant, wait: wait.clone(), pause });
    }

    /// A run ended.
    pub fn ended(&self, ended: &Ended) {
        self.tell(|| Progress::Ended(Box::new(ended.clone())));
    }

    fn tell(&self, what: impl FnOnce() -> Progress) {
        if let Some(sender) = &self.0 {
            // The run goes on even if the listener is gone.
            let _ = sender.send(what());
        }
    }
}
