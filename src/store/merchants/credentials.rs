//! Sealed tokens, and the mark that keeps a refresh token from being used twice.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sea_orm::{ConnectionTrait, FromQueryResult, QueryResult, Value};

use tokio::time::timeout;
use uuid::Uuid;

use super::registry::sealed;
use crate::{
    domain::MerchantId,
    reconcile::ports::{CredentialError, CredentialStore, Credentials, DatabaseError, Sealed, Tokens},
    store::{
        Store,
        connection::{
            error::{CALL_TIMEOUT, database_error},
            stamp::or_epoch,
        },
        entity::credential,
    },
};

impl CredentialStore<Sealed> for Store {
    async fn load(&self, merchant: MerchantId) -> Result<Option<Credentials<Sealed>>, CredentialError> {
        let sql = format!(
            "SELECT *, {} AS refreshing_for FROM credentials WHERE merchant_id = $1",
            self.dialect.seconds_between("refresh_started_at", self.dialect.now())
        );
        let sql = sql.as_str();
        let credentials = self
            .call(|| async move {
                let statement = self.statement(sql, [merchant.0.into()]);
                let Some(row) = self.db.query_one_raw(statement).await? else {
                    return Ok(None);
                };
                let refreshing_for: Option<f64> = row.try_get("", "refreshing_for")?;
                let row = credential::Model::from_query_result(&row, "")?;
                Ok(Some(Credentials {
                    tokens: sealed(&row),
                    issued_at: or_epoch(row.issued_at),
                    version: row.version,
                    refreshing_for: refreshing_for.map(|seconds| Duration::from_secs_f64(seconds.max(0.0))),
                    refused: row.revoked_at.is_some(),
                }))
            })
            .await?;
        Ok(credentials)
    }

    async fn begin_refresh(&self, merchant: MerchantId, version: i64, attempt: Uuid) -> Result<bool, CredentialError> {
        let sql = format!(
            "UPDATE credentials SET refresh_started_at = {}, refresh_attempt = $3 \
             WHERE merchant_id = $1 AND version = $2 AND refresh_started_at IS NULL",
            self.dialect.now()
        );
        // Repeated only while another process holds the lock, when nothing was written: a process that finds the mark waits
        // for the result of another.
        let values = || [merchant.0.into(), version.into(), attempt.into()];
        let mark = || self.db.execute_raw(self.statement(&sql, values()));
        failpoint!("refresh_mark_before_commit", merchant.0);
        let marked = timeout(CALL_TIMEOUT, self.wait_for_lock(mark)).await;
        failpoint!("refresh_mark_after_commit", merchant.0);
        let marked = marked.map_err(|_| DatabaseError::Unavailable("no answer within 40 s".into()))?;
        Ok(marked.map_err(database_error)?.rows_affected() == 1)
    }

    async fn complete_refresh(
        &self,
        merchant: MerchantId,
        version: i64,
        tokens: &Tokens<Sealed>,
    ) -> Result<(), CredentialError> {
        Ok(self.renew_tokens(merchant, version, tokens).await?)
    }

    async fn confirm_owner(&self, merchant: MerchantId, version: i64) -> Result<(), CredentialError> {
        let sql = "UPDATE credentials SET owner_confirmed = TRUE WHERE merchant_id = $1 AND version = $2";
        self.call(|| async move {
            self.db.execute_raw(self.statement(sql, [merchant.0.into(), version.into()])).await?;
            Ok(())
        })
        .await?;
        Ok(())
    }

    async fn abandon_refresh(&self, merchant: MerchantId, attempt: Uuid) -> Result<(), CredentialError> {
        let sql = "UPDATE credentials SET refresh_started_at = NULL, refresh_attempt = NULL \
                   WHERE merchant_id = $1 AND refresh_attempt = $2";
        self.call(|| async move {
            self.db.execute_raw(self.statement(sql, [merchant.0.into(), attempt.into()])).await?;
            Ok(())
        })
        .await?;
        Ok(())
    }

    async fn revoked(&self, merchant: MerchantId, version: i64) -> Result<(), CredentialError> {
        Ok(self.refuse_tokens(merchant, version).await?)
    }

    async fn doubt(&self, merchant: Option<MerchantId>) -> Result<Vec<MerchantId>, CredentialError> {
        Ok(self.doubt_tokens(merchant).await?)
    }

    async fn ending_within(
        &self,
        span: Duration,
        after: Option<(DateTime<Utc>, MerchantId)>,
        limit: u64,
    ) -> Result<Vec<(DateTime<Utc>, MerchantId)>, CredentialError> {
        let behind = if after.is_some() { "AND (c.expires_at, c.merchant_id) > ($1, $2)" } else { "" };
        let sql = format!(
            "SELECT c.expires_at, c.merchant_id FROM credentials c JOIN merchants m ON m.merchant_id = c.merchant_id \
             WHERE c.expires_at < {} AND c.refresh_token IS NOT NULL AND c.refresh_started_at IS NULL \
             AND c.revoked_at IS NULL AND m.state IN ('active', 'paused', 'subscription_expired') {behind} \
             ORDER BY c.expires_at, c.merchant_id LIMIT {limit}",
            self.dialect.now_plus(span)
        );
        let sql = sql.as_str();
        let ending = self
            .call(|| async move {
                let behind = after.map(|(at, merchant)| [Value::from(at), merchant.0.into()]);
                let rows = self.db.query_all_raw(self.statement(sql, behind.into_iter().flatten())).await?;
                let one = |row: &QueryResult| {
                    Ok((row.try_get("", "expires_at")?, MerchantId(row.try_get("", "merchant_id")?)))
                };
                rows.iter().map(one).collect()
            })
            .await?;
        Ok(ending)
    }
}
