//! The business, pure: what a merchant, an order, a window and a run are, and what it means for a
//! local row to be missing or stale. No I/O, no clock, no database, no shape of Salla's.

mod assess;
mod budget;
mod check;
mod customer;
mod discrepancy;
mod drift;
mod fingerprint;
mod installation;
mod merchant;
mod order;
mod order_status;
mod part;
mod period;
mod privacy;
mod product;
mod record;
mod resource;
mod run;
mod scope;
mod totals;
mod window;
mod words;

pub use assess::{Held, Verdict, assess};
pub use budget::Budget;
pub use check::{Check, DEEP_CHECK_NIGHTS, DeepCheck, Summary, needs_detail};
pub use customer::{Customer, CustomerColumns};
pub use discrepancy::{Discrepancy, DiscrepancyKind, Found};
pub use drift::{Drift, EndedRuns, Lateness, Tally, lost_webhook};
pub use fingerprint::Fingerprint;
pub use installation::{Installation, Notice};
pub use merchant::{Change, Merchant, MerchantId, MerchantState, Obstacle, Standing};
pub use order::{Order, OrderColumns};
pub use order_status::{OrderStatus, OrderStatusColumns};
pub use part::Part;
pub use period::{InvalidPeriod, Period};
pub use privacy::CustomerFields;
pub use product::{Product, ProductColumns};
pub use record::{Columns, Record, Remote, Unreadable};
pub(crate) use resource::with_resources;
pub use resource::{Resource, Resources};
pub use run::{Failure, FailureKind, Listing, Run, RunId, RunStatus, Trigger};
pub use scope::Scope;
pub use totals::{Outcome, Totals};
pub use window::{Covered, InvalidWindow, Request, Window, WindowPolicy};
pub use words::UnknownWord;
