//! Points around every commit at which a test ends the process, as `kill -9` does.
//!
//! The environment variable `FAILPOINTS` selects the points. With `page_before_commit=3*off->return`, the process ends
//! at the fourth page. With `page_before_commit=return(1001)`, it ends at the first page of merchant 1001. Without the
//! feature `failpoints`, the program has no such points.

#[cfg(all(feature = "failpoints", not(debug_assertions)))]
compile_error!("the feature failpoints is for tests: a release must not be built with it");

/// `failpoint!("name")`, or `failpoint!("name", merchant)` where the point belongs to one.
macro_rules! failpoint {
    ($name:literal) => {
        #[cfg(feature = "failpoints")]
        $crate::failpoint::reach($name, None);
    };
    ($name:literal, $merchant:expr) => {
        #[cfg(feature = "failpoints")]
        $crate::failpoint::reach($name, Some($merchant));
    };
}

/// Makes the points heed the environment; once, before anything else.
#[cfg(feature = "failpoints")]
pub fn heed_environment() {
    // Dropped, it would forget them again.
    std::mem::forget(fail::FailScenario::setup());
}

/// Without the feature there is nothing to heed.
#[cfg(not(feature = "failpoints"))]
pub fn heed_environment() {}

/// Ends the process if the point is to, for any merchant or for this one.
#[cfg(feature = "failpoints")]
pub(crate) fn reach(name: &str, merchant: Option<i64>) {
    let dies = || {
        fail::fail_point!(name, |of: Option<String>| {
            of.is_none_or(|of| merchant.is_some_and(|id| of == id.to_string()))
        });
        false
    };
    if dies() {
        // Nothing that would be done at an orderly end is done.
        let _ = nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::Signal::SIGKILL);
        std::process::abort();
    }
}
