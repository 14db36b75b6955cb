//! Why the database cannot be used at all: the problem of the address, the server or the schema, and the fix.

use sea_orm::DbErr;

use super::address::PERCENT_ENCODE;
use crate::domain::Resource;

/// Why the database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Neither PostgreSQL nor SQLite.
    #[error("database.url must begin with postgres:// or sqlite:")]
    Scheme,
    /// It does not answer.
    #[error(
        "the database cannot be used: {0}; check address, user and password in database.url, and that the server runs"
    )]
    Unreachable(String),
    /// Another program has tables of our names.
    #[error(
        "the schema contains tables of another program: {0}; set database.schema to a separate schema, such as salla, or use another database"
    )]
    TableNameConflict(String),
    /// It has room for one connection.
    #[error(
        "database.url: only one connection is available, and two are needed: {0}; raise pool_size of the pooler, CONNECTION LIMIT of the role, or max_connections"
    )]
    NoSpareConnections(String),
    /// A pooler gives its sessions to others between transactions.
    #[error(
        "database.url: the pooler uses transaction or statement pooling; set its pool_mode to session, or use the address of PostgreSQL"
    )]
    SharedSessions,
    /// The address cannot be read as it was meant. It is not quoted: a part of it is a password.
    #[error("database.url is not an address; {PERCENT_ENCODE}")]
    Address,
    /// It cannot hold the Arabic texts of Salla.
    #[error(
        "database.url: the encoding of the database is {0}, and this program needs UTF8; make another one: CREATE DATABASE name ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
    )]
    Encoding(String),
    /// PgBouncer takes few parameters of a session's start.
    #[error("database.url: the pooler refuses the parameter `options`; remove it, and set database.schema")]
    StartupParameter,
    /// A newer version of this program has migrated the schema.
    #[error(
        "the table salla_reconciler_migrations has unknown migrations: {0}; a newer version migrated the schema: run that version"
    )]
    UnknownMigrations(String),
    /// The role may not use the schema.
    #[error("the role lacks USAGE on the schema {0}; apply the output of `salla-reconciler migrate grants ROLE`")]
    SchemaDenied(String),
    /// It answers, and refuses the schema.
    #[error(
        "the schema cannot be migrated: {0}; the role must be able to create the schema and its tables, and no other program may have tables of the same names"
    )]
    Migration(DbErr),
    /// Other objects depend on the tables.
    #[error("nothing was removed, because other objects depend on the tables: {0}; drop these first")]
    Dependents(String),
    /// It waited for others, and they did not end.
    #[error(
        "the schema cannot be migrated, because other sessions hold locks: {0}; try again when the dump, long query or open transaction has ended; applied migrations stay"
    )]
    Held(DbErr),
    /// The schema is older than this program.
    #[error("the schema lacks {0} migration(s); run `salla-reconciler migrate up`")]
    Outdated(usize),
    /// The publication is not there, or not as it should be, and cannot be made so.
    #[error("cdc.publication: {0}")]
    Publication(String),
    /// A view or a function of the platform cannot be used.
    #[error("target.{0}: {1}")]
    Target(Resource, String),
}
