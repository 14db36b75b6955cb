//! The states of merchants, and the consequences of a change. Each change is one transaction that
//! locks the row of the merchant. So of two changes, or of a change and a new run, one sees the
//! result of the other.

use chrono::TimeDelta;
use sea_orm::{ConnectionTrait, DatabaseTransaction, DbErr, Value};
use serde_json::json;

use crate::{
    domain::{AppEventKind, Installation, MerchantId, MerchantState, MerchantStatus, Transition, UnknownValue},
    reconcile::ports::{Action, Actor, AppEvent, Applied, Audit, Changed, Registered, Registration, Sealed},
    store::{Store, connection::stamp::instant},
};

/// An authorization that is older was kept back by somebody, and its refresh token may have been used since. Salla's
/// stamps say no zone and may seem three hours older than they are.
const STALE_AFTER: TimeDelta = TimeDelta::hours(24);

/// A stamp may lie so far behind the database's clock for being read in the wrong zone.
const CLOCKS_APART: TimeDelta = TimeDelta::hours(3);

/// The name of a change in the audit.
fn action(change: Transition) -> Action {
    match change {
        Transition::Pause => Action::MerchantPause,
        Transition::Resume => Action::MerchantResume,
        Transition::Retire | Transition::Unsubscribe | Transition::Subscribe | Transition::RefuseTokens => {
            Action::WebhookApply
        }
    }
}

impl Store {
    pub(in crate::store) async fn register_once(
        &self,
        registration: &Registration<Sealed>,
        by: &Actor,
    ) -> Result<Registered, DbErr> {
        let id = registration.merchant_id;
        let txn = self.begin_write().await?;
        // An event that was made before, and comes only now, says nothing about the tokens that come with this.
        let mut installation = self.installation(&txn, id).await?;
        installation.app = installation.app.max(Some(self.database_now(&txn).await? - CLOCKS_APART));
        self.save_installation(&txn, id, installation).await?;
        let new = self.insert_merchant(&txn, id).await?;
        self.set_merchant_status(&txn, id, MerchantStatus::ACTIVE).await?;
        let sql = "UPDATE merchants SET name = COALESCE($1, name) WHERE merchant_id = $2";
        let values: [Value; 2] = [registration.name.clone().into(), id.0.into()];
        txn.execute_raw(self.statement(sql, values)).await?;
        self.put_tokens(&txn, id, &registration.tokens).await?;
        self.lift_pause(&txn, id).await?;
        let merchant = self.find_merchant(&txn, id).await?.ok_or(DbErr::RecordNotInserted)?;
        let audit = Audit::of_merchant(by, Action::MerchantRegister, id, json!({"new": new}));
        self.insert_audit(&txn, &audit).await?;
        failpoint!("import_before_commit", id.0);
        txn.commit().await?;
        failpoint!("import_after_commit", id.0);
        self.queue_position.forget();
        audit.tell();
        Ok(Registered { merchant, new })
    }

    pub(in crate::store) async fn change_once(
        &self,
        id: MerchantId,
        change: Transition,
        by: &Actor,
    ) -> Result<Changed, DbErr> {
        let txn = self.begin_write().await?;
        let Some(status) = self.lock_merchant_status(&txn, id).await? else {
            return Ok(Changed::Unknown);
        };
        match status.after(change) {
            Err(obstacle) => Ok(Changed::Impossible(obstacle)),
            Ok(after) => {
                self.change_merchant_status(&txn, id, status, after).await?;
                if change == Transition::Resume {
                    self.lift_pause(&txn, id).await?;
                }
                let merchant = self.find_merchant(&txn, id).await?;
                let audit = Audit::of_merchant(by, action(change), id, json!({"state": after.state()}));
                self.insert_audit(&txn, &audit).await?;
                failpoint!("pause_before_commit", id.0);
                txn.commit().await?;
                failpoint!("pause_after_commit", id.0);
                self.queue_position.forget();
                audit.tell();
                Ok(merchant.map_or(Changed::Unknown, Changed::Now))
            }
        }
    }

    /// The body's hash, the stamps and what follows, all or nothing. Of two deliveries of one body, the second waits
    /// for the first at the hash, and of two events of one merchant at its stamps.
    pub(in crate::store) async fn apply_once(&self, event: &AppEvent<Sealed>) -> Result<Applied, DbErr> {
        let txn = self.begin_write().await?;
        let sql =
            "INSERT INTO webhook_events (hash, event, merchant_id) VALUES ($1, $2, $3) ON CONFLICT (hash) DO NOTHING";
        let values: [Value; 3] = [event.hash.as_str().into(), event.name.into(), event.merchant.0.into()];
        if txn.execute_raw(self.statement(sql, values)).await?.rows_affected() == 0 {
            return Ok(Applied::Replayed);
        }
        let applied = self.take_notice(&txn, event).await?;
        let audit = if let Applied::Done(state) = applied {
            let detail = json!({"event": event.name, "state": state});
            let audit = Audit::of_merchant(&Actor::Salla, Action::WebhookApply, event.merchant, detail);
            self.insert_audit(&txn, &audit).await?;
            Some(audit)
        } else {
            None
        };
        failpoint!("webhook_before_commit", event.merchant.0);
        txn.commit().await?;
        failpoint!("webhook_after_commit", event.merchant.0);
        if let Some(audit) = audit {
            audit.tell();
        }
        Ok(applied)
    }

    async fn take_notice(&self, txn: &DatabaseTransaction, event: &AppEvent<Sealed>) -> Result<Applied, DbErr> {
        let id = event.merchant;
        let mut installation = self.installation(txn, id).await?;
        // Read when it is this event's turn: of two that waited for each other, the second is not the older one.
        let now = self.database_now(txn).await?;
        // A stamp from the future would outlive every event that follows.
        let made = event.made.map(|made| made.min(now));
        if event.kind == AppEventKind::Authorized && made.is_some_and(|made| now - made > STALE_AFTER) {
            return Ok(Applied::Stale);
        }
        if !installation.apply(event.kind, made) {
            return Ok(Applied::Outdated);
        }
        self.save_installation(txn, id, installation).await?;
        if let Some(tokens) = &event.tokens {
            self.insert_merchant(txn, id).await?;
            let status = self.lock_merchant_status(txn, id).await?.ok_or(DbErr::RecordNotInserted)?;
            let after = status.authorized();
            self.set_merchant_status(txn, id, after).await?;
            self.put_tokens(txn, id, tokens).await?;
            return Ok(Applied::Done(after.state()));
        }
        let Some(status) = self.lock_merchant_status(txn, id).await? else {
            return Ok(Applied::UnknownMerchant);
        };
        let after = installation.change(event.kind).and_then(|change| status.after(change).ok());
        let after = after.unwrap_or(status);
        self.change_merchant_status(txn, id, status, after).await?;
        Ok(Applied::Done(after.state()))
    }

    /// The event state of a merchant. Its next event waits until this transaction ends.
    async fn installation(&self, txn: &DatabaseTransaction, id: MerchantId) -> Result<Installation, DbErr> {
        let sql = "INSERT INTO installations (merchant_id) VALUES ($1) ON CONFLICT (merchant_id) DO NOTHING";
        txn.execute_raw(self.statement(sql, [id.0.into()])).await?;
        let sql = format!("SELECT * FROM installations WHERE merchant_id = $1 {}", self.dialect.for_update());
        let row = txn.query_one_raw(self.statement(&sql, [id.0.into()])).await?.ok_or(DbErr::RecordNotInserted)?;
        let stamp = |column| instant(&row, column);
        Ok(Installation {
            app: stamp("app_event_at"),
            subscription: stamp("subscription_event_at"),
            trial: stamp("trial_event_at"),
            subscribed: row.try_get("", "subscribed")?,
        })
    }

    async fn save_installation(
        &self,
        txn: &DatabaseTransaction,
        id: MerchantId,
        installation: Installation,
    ) -> Result<(), DbErr> {
        let sql = "UPDATE installations SET app_event_at = $1, subscription_event_at = $2, trial_event_at = $3, \
                   subscribed = $4 WHERE merchant_id = $5";
        let Installation { app, subscription, trial, subscribed } = installation;
        let values: [Value; 5] = [app.into(), subscription.into(), trial.into(), subscribed.into(), id.0.into()];
        txn.execute_raw(self.statement(sql, values)).await.map(drop)
    }

    /// True when it was not in the register.
    async fn insert_merchant(&self, txn: &DatabaseTransaction, id: MerchantId) -> Result<bool, DbErr> {
        let sql = "INSERT INTO merchants (merchant_id, state) VALUES ($1, $2) ON CONFLICT (merchant_id) DO NOTHING";
        let values: [Value; 2] = [id.0.into(), MerchantState::Active.as_str().into()];
        Ok(txn.execute_raw(self.statement(sql, values)).await?.rows_affected() == 1)
    }

    /// The state of a merchant, locked until the transaction ends.
    pub(in crate::store) async fn lock_merchant_status(
        &self,
        txn: &impl ConnectionTrait,
        id: MerchantId,
    ) -> Result<Option<MerchantStatus>, DbErr> {
        let lock = self.dialect.for_no_key_update();
        let sql = format!("SELECT state, state_before_pause FROM merchants WHERE merchant_id = $1 {lock}");
        let row = txn.query_one_raw(self.statement(&sql, [id.0.into()])).await?;
        row.map(|row| {
            let (state, state_before_pause): (String, Option<String>) =
                (row.try_get("", "state")?, row.try_get("", "state_before_pause")?);
            let word = |word: String| {
                word.parse::<MerchantState>().map_err(|error: UnknownValue| DbErr::Type(error.to_string()))
            };
            Ok(MerchantStatus::of(word(state)?, state_before_pause.map(word).transpose()?))
        })
        .transpose()
    }

    pub(in crate::store) async fn set_merchant_status(
        &self,
        txn: &DatabaseTransaction,
        id: MerchantId,
        status: MerchantStatus,
    ) -> Result<(), DbErr> {
        let sql = "UPDATE merchants SET state = $1, state_before_pause = $2 WHERE merchant_id = $3";
        let state_before_pause = status.state_before_pause().map(MerchantState::as_str);
        let values: [Value; 3] = [status.state().as_str().into(), state_before_pause.into(), id.0.into()];
        txn.execute_raw(self.statement(sql, values)).await.map(drop)
    }

    /// A change, and what follows from it for tokens and runs.
    pub(in crate::store) async fn change_merchant_status(
        &self,
        txn: &DatabaseTransaction,
        id: MerchantId,
        before: MerchantStatus,
        after: MerchantStatus,
    ) -> Result<(), DbErr> {
        self.set_merchant_status(txn, id, after).await?;
        match after.state() {
            MerchantState::Uninstalled => {
                let sql = "DELETE FROM credentials WHERE merchant_id = $1";
                txn.execute_raw(self.statement(sql, [id.0.into()])).await?;
                // A process that holds an ended run may write nothing more for it.
                self.cancel_runs(txn, id, "status IN ('queued', 'running')").await
            }
            MerchantState::Paused | MerchantState::SubscriptionExpired if before.state() != after.state() => {
                self.cancel_runs(txn, id, "status = 'queued' AND trigger IN ('schedule', 'catch_up')").await
            }
            _ => Ok(()),
        }
    }

    pub(in crate::store) async fn cancel_runs(
        &self,
        txn: &DatabaseTransaction,
        id: MerchantId,
        which: &str,
    ) -> Result<(), DbErr> {
        let sql = format!(
            "UPDATE runs SET status = 'cancelled', cancel_requested = $1, finished_at = {}, lease_expires_at = NULL \
             WHERE merchant_id = $2 AND {which}",
            self.dialect.now()
        );
        let done = txn.execute_raw(self.statement(&sql, [true.into(), id.0.into()])).await?;
        if done.rows_affected() > 0 {
            tracing::info!(merchant.id = id.0, runs = done.rows_affected(), "its runs are cancelled");
        }
        Ok(())
    }
}
