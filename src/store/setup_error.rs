//! Why the database cannot be used at all: what is wrong with the address, the server or the schema, and what to do.

use sea_orm::DbErr;

use super::address::PERCENT_ENCODE;

/// Why the database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Neither PostgreSQL nor SQLite.
    #[error("database.url begins with neither postgres:// nor sqlite:")]
    Scheme,
    /// It does not answer.
    #[error("the database cannot be reached: {0}; check database.url, and that the server is up")]
    Unreachable(String),
    /// Another program has tables of our names.
    #[error(
        "the schema holds tables that this program did not make: {0}; give it a schema of its own, by ?options=-c%20search_path%3Dreconciler at the end of database.url (CREATE SCHEMA reconciler before), or a database"
    )]
    Occupied(String),
    /// It has room for one connection.
    #[error(
        "database.url: only one connection is available, and two are needed: {0}; raise the pooler's pool_size, the role's CONNECTION LIMIT or max_connections"
    )]
    Crowded(String),
    /// A pooler gives its sessions to others between transactions.
    #[error(
        "database.url: the pooler there does not keep sessions (transaction or statement pooling); set its pool_mode to session, or name PostgreSQL's own address"
    )]
    SharedSessions,
    /// The address cannot be read as it was meant. It is not quoted: a part of it is a password.
    #[error("database.url cannot be read as an address; {PERCENT_ENCODE}")]
    Address,
    /// It cannot hold the Arabic texts of Salla.
    #[error(
        "database.url: the encoding of the database is {0}, and this program needs UTF8; make another one: CREATE DATABASE name ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
    )]
    Encoding(String),
    /// PgBouncer takes few parameters of a session's start.
    #[error(
        "database.url: the pooler there refuses the parameter `options`; remove it, and set the schema for the role: ALTER ROLE name IN DATABASE name SET search_path = schema"
    )]
    StartupParameter,
    /// A pooler drops what the address says of the schema.
    #[error(
        "database.url: its options name the schema {wanted}, and the session has {found}; a pooler drops them: ALTER ROLE name IN DATABASE name SET search_path = {wanted}"
    )]
    SearchPath {
        /// By the address.
        wanted: String,
        /// By the session.
        found: String,
    },
    /// Another program's migrations, or those of a newer version, stand where ours do.
    #[error(
        "the table seaql_migrations holds migrations that this program does not know: {0}; another program or a newer version of this one keeps its own there: give this program a schema of its own, or run that version"
    )]
    ForeignMigrations(String),
    /// It answers, and refuses the schema.
    #[error(
        "the schema cannot be migrated: {0}; the database must be writable, its role may create tables, no table of another program may have the same name, and a schema that search_path names has to be there (CREATE SCHEMA)"
    )]
    Migration(DbErr),
    /// It waited for others, and they did not end.
    #[error(
        "the schema cannot be migrated while others hold what changes: {0}; a dump, a long query, a transaction that was left open or another process that migrates may be in the way: try again when it has ended (what was applied by then stays)"
    )]
    Held(DbErr),
    /// The schema is older than this program.
    #[error("the schema lacks {0} migration(s); run `salla-reconciler migrate up`")]
    Outdated(usize),
    /// The publication is not there, or not as it should be, and cannot be made so.
    #[error("cdc.publication: {0}")]
    Publication(String),
}
