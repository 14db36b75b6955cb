//! The lines of `check` about what this program shares with other programs in the database.

use super::report::Report;
use crate::{
    app::event_settings,
    config::Config,
    reconcile::ports::Outbox,
    store::{Store, Trial, published},
};

/// Checks what this program shares with other programs in the database.
pub async fn check(config: &Config, store: &Store, report: &mut Report) {
    check_target(config, store, report).await;
    check_cdc(config, store, report).await;
}

/// Checks the publication, the slot and the event receiver, if they are configured.
async fn check_cdc(config: &Config, store: &Store, report: &mut Report) {
    let cdc = &config.cdc;
    match store.publications_of_tokens().await {
        Err(error) => report.line("publication", Err(error.to_string())),
        Ok(names) => {
            for name in names {
                let fix = "publish the tables of the platform by name";
                report.warn(
                    "publication",
                    &format!("{name} publishes credentials, the table of the sealed tokens; {fix}"),
                );
            }
        }
    }
    if !cdc.publication.is_empty() {
        let kept = store.require_publication(&cdc.publication).await;
        let shown = || format!("{} publishes {}", cdc.publication, published().join(", "));
        report.line("publication", kept.map(|()| shown()).map_err(|error| error.to_string()));
    }
    if !cdc.slot.is_empty() {
        let problem = store.clone().with_events(event_settings(cdc)).slot_problem().await;
        report.line(
            "replication slot",
            match problem {
                Ok(None) => Ok(format!("{} exists", cdc.slot)),
                Ok(Some(problem)) => Err(format!("cdc.slot: {problem}")),
                Err(error) => Err(error.to_string()),
            },
        );
    }
}

/// Tries the view and the function of each table of the platform, without leaving anything.
async fn check_target(config: &Config, store: &Store, report: &mut Report) {
    let names = config.platform_names();
    if names.is_empty() {
        report.line("target", Ok("the tables of this program; no setting of target is set".to_owned()));
        return;
    }
    match store.clone().with_platform_tables(names).await {
        Err(error) => report.line("target", Err(error.to_string())),
        Ok(store) => {
            for (resource, trial) in store.try_platform_tables().await {
                match trial {
                    Trial::Usable(found) => report.line("target", Ok(format!("target.{resource}: {found}"))),
                    Trial::Suspicious(found) => report.warn("target", &format!("target.{resource}: {found}")),
                    Trial::Refused(problem) | Trial::Failed(problem) => {
                        report.line("target", Err(format!("target.{resource}: {problem}")));
                    }
                }
            }
        }
    }
}
