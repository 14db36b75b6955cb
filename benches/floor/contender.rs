//! The programs that do the work.

use std::time::Duration;

use clap::{Args, ValueEnum};
use futures::{StreamExt, stream};
use reqwest::Client;
use sea_orm::sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use crate::{
    floor,
    night::{AT_ONCE, TOKEN},
    pages::PAGE_SIZE,
    rows,
    site::SCHEMA,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Contender {
    /// This one.
    Daemon,
    /// The same, which also reconciles a table of the platform, as Prisma makes it.
    Target,
    /// The same without the column of the payload in the view and the function.
    TargetWithoutPayload,
    /// Nothing but the work.
    Floor,
    /// Each order looked up, and then inserted or updated.
    RowByRow,
    /// The pages, and nothing is done with them.
    Download,
}

impl Contender {
    pub const ALL: &'static [Self] = &[Self::Download, Self::Floor, Self::Daemon, Self::RowByRow];

    /// Those whose overhead is measured against the daemon without a target.
    pub const TARGETS: &'static [Self] = &[Self::Daemon, Self::Target, Self::TargetWithoutPayload];

    pub fn is_daemon(self) -> bool {
        Self::TARGETS.contains(&self)
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Daemon => "daemon",
            Self::Target => "with a target",
            Self::TargetWithoutPayload => "without payload",
            Self::Floor => "floor",
            Self::RowByRow => "row by row",
            Self::Download => "download",
        }
    }
}

/// The arguments of the programs that are compared with the daemon.
#[derive(Debug, Args)]
pub struct Work {
    #[arg(long)]
    pub contender: Contender,
    #[arg(long)]
    pub database: String,
    #[arg(long)]
    pub salla: String,
    #[arg(long)]
    pub stores: i64,
}

/// A store's work.
pub struct Job {
    pub pool: PgPool,
    client: Client,
    address: String,
    pub merchant: i64,
}

impl Work {
    /// Does it, so many stores at a time.
    pub async fn go(&self) {
        let pool = PgPoolOptions::new().max_connections(AT_ONCE).acquire_timeout(Duration::from_secs(60));
        let (pool, client) = (pool.connect_with(in_schema(&self.database)).await.unwrap(), Client::new());
        let jobs = (1..=self.stores).map(|merchant| {
            let address = format!("{}/admin/v2/orders?per_page={PAGE_SIZE}&page=", self.salla);
            Job { pool: pool.clone(), client: client.clone(), address, merchant }
        });
        let contender = self.contender;
        stream::iter(jobs).for_each_concurrent(AT_ONCE as usize, |job| run(job, contender)).await;
    }
}

/// Finds the program's tables.
fn in_schema(database: &str) -> PgConnectOptions {
    let options: PgConnectOptions = database.parse().unwrap();
    options.options([("search_path", SCHEMA)])
}

async fn run(job: Job, contender: Contender) {
    let done = tokio::spawn(async move {
        match contender {
            Contender::Daemon | Contender::Target | Contender::TargetWithoutPayload => {
                unreachable!("it is a separate program")
            }
            Contender::Floor => floor::work(&job).await,
            Contender::RowByRow => rows::work(&job).await,
            Contender::Download => {
                let mut number = 1;
                while !is_last(&job.page(number).await) {
                    number += 1;
                }
            }
        }
    });
    done.await.unwrap();
}

impl Job {
    pub async fn page(&self, number: usize) -> bytes::Bytes {
        let request = self.client.get(format!("{}{number}", self.address));
        let answer = request.bearer_auth(format!("{TOKEN}{}", self.merchant)).send().await.unwrap();
        answer.error_for_status().unwrap().bytes().await.unwrap()
    }
}

/// What a page says of itself at its end, which need not be taken apart.
fn is_last(page: &[u8]) -> bool {
    let end = &page[page.len().saturating_sub(200)..];
    String::from_utf8_lossy(end).contains(r#""links":[]"#)
}
