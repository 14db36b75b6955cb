//! `simulate`: serves only the simulated Salla, to test a database, a webhook consumer and a real `serve` without an
//! app.

use std::{net::SocketAddr, str::FromStr, time::Duration};

use anyhow::Context as _;
use chrono::Utc;
use tokio::time::interval;
use url::Url;

use super::{Exit, signal};
use crate::simulator::{Delivery, Limit, LimitKind, ListOrder, Shop, Simulator, Webhook, WebhookSender, World};

/// The id of the app, and the secret that it shares with the simulated Salla.
const CLIENT_ID: &str = "simulated";
const SECRET: &str = "simulated-secret";

/// The requests per minute of a store, as Salla documents them.
const REQUESTS_PER_MINUTE: u32 = 120;

/// What `simulate` takes.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  salla-reconciler simulate\n  salla-reconciler simulate --stores 5 --orders 2000 --webhooks http://localhost:3000/salla --lose 10%\n\n\
    Environment: none. The command prints the settings for a daemon."
)]
pub struct Args {
    /// Address of the simulated Salla. Port 0 selects a free port.
    #[arg(long, default_value = "127.0.0.1:8090", value_name = "ADDR")]
    listen: SocketAddr,
    /// Number of stores.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=1000))]
    stores: u16,
    /// Orders per store at the start.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    orders: u32,
    /// The same seed gives the same stores, changes and losses.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How the lists of the stores can be read.
    #[arg(long, default_value = "filter", value_enum)]
    listing: Listing,
    /// Each store changes one order in this time.
    #[arg(long, default_value = "5s", value_name = "TIME", value_parser = humantime::parse_duration)]
    every: Duration,
    /// Address that gets a signed webhook for each change. Without it, all webhooks are lost.
    #[arg(long, value_name = "URL")]
    webhooks: Option<Url>,
    /// Share of the webhooks that is lost.
    #[arg(long, default_value = "5%", value_name = "P%")]
    lose: Percentage,
}

/// How the lists of a store can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Listing {
    /// Filtered by time of change, with complete orders.
    Filter,
    /// Sorted by time of change, with summaries.
    Sort,
    /// Neither: summaries by time of creation.
    Scan,
}

/// A share, written as `5%` or `5`.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Percentage(f64);

impl FromStr for Percentage {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number: f64 = text.trim_end_matches('%').trim().parse().map_err(|_| "not a percentage, such as 5%")?;
        if (0.0..=100.0).contains(&number) { Ok(Self(number / 100.0)) } else { Err("not between 0% and 100%") }
    }
}

/// How many webhooks were delivered, lost and refused.
#[derive(Debug, Default)]
struct Counts {
    delivered: u64,
    lost: u64,
    refused: u64,
}

/// Serves the simulated Salla until a signal.
pub async fn simulate(args: Args) -> anyhow::Result<Exit> {
    let mut stop = Box::pin(signal::termination()?);
    let simulator = Simulator::start_at(args.listen, world(&args)).await;
    let simulator = simulator.with_context(|| format!("{} cannot be listened on", args.listen))?;
    say!("{}", introduction(&simulator, &args));
    let sender =
        args.webhooks.clone().map(|url| WebhookSender::new(url, SECRET, args.lose.0, args.seed)).transpose()?;
    let mut counts = Counts::default();
    tokio::select! {
        () = trade(&simulator, &args, sender, &mut counts) => {}
        () = &mut stop => {}
    }
    let Counts { delivered, lost, refused } = counts;
    say!("Webhooks: {delivered} delivered, {lost} lost, {refused} refused.");
    Ok(Exit::Success)
}

fn world(args: &Args) -> World {
    let now = Utc::now();
    let shop = |id: i64| {
        let seed = args.seed.wrapping_mul(1_000_003).wrapping_add(id.unsigned_abs());
        Shop::with_seed(id, args.orders as usize, now, seed)
    };
    let mut world = World::new((1001..).take(usize::from(args.stores)).map(shop));
    world.limit = Some(Limit::a_minute(REQUESTS_PER_MINUTE).of(LimitKind::Leaky));
    args.listing.apply(&mut world);
    world
}

impl Listing {
    /// Makes the lists of all stores readable in this way.
    pub(super) fn apply(self, world: &mut World) {
        world.documented = self != Self::Filter;
        world.honours_sort = self == Self::Sort;
        if world.documented {
            world.list_order = ListOrder::CreatedDescending;
        }
    }
}

/// The settings for a daemon, and how to register the stores.
fn introduction(simulator: &Simulator, args: &Args) -> String {
    let (url, stores, orders) = (simulator.url(), args.stores, args.orders);
    let webhooks = args.webhooks.as_ref().map_or_else(
        || "All webhooks are lost; --webhooks URL sends them.".to_owned(),
        |to| format!("Webhooks go to {to}; {}% are lost.", args.lose.0 * 100.0),
    );
    format!(
        "A simulated Salla with {stores} store(s) of {orders} orders each, on {url}. {webhooks}\n\n\
         export SALLA_RECONCILER__SALLA__API_URL={}\n\
         export SALLA_RECONCILER__SALLA__TOKEN_URL={}\n\
         export SALLA_RECONCILER__SALLA__CLIENT_ID={CLIENT_ID}\n\
         export SALLA_RECONCILER__SALLA__CLIENT_SECRET={SECRET}\n\
         curl -fsS {url}/merchants.jsonl | salla-reconciler merchants import -\n",
        simulator.api_url(),
        simulator.token_url()
    )
}

/// Lets the stores sell, and sends webhooks about it.
async fn trade(simulator: &Simulator, args: &Args, mut sender: Option<WebhookSender>, counts: &mut Counts) {
    if let Some(sender) = &mut sender {
        let installations: Vec<Webhook> =
            simulator.world().shops.values().map(|shop| Webhook::installation(shop, Utc::now())).collect();
        for webhook in &installations {
            counts.count(webhook, sender.send(webhook).await);
        }
    }
    let mut ticks = interval(args.every.max(Duration::from_millis(10)));
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let webhooks = simulator.world().trade(Utc::now());
        for webhook in &webhooks {
            let delivery = match &mut sender {
                Some(sender) => sender.send(webhook).await,
                None => Delivery::Lost,
            };
            counts.count(webhook, delivery);
        }
    }
}

impl Counts {
    /// Counts a webhook, and names one that did not arrive.
    fn count(&mut self, webhook: &Webhook, delivery: Delivery) {
        let (count, word) = match delivery {
            Delivery::Delivered => {
                self.delivered += 1;
                return;
            }
            Delivery::Lost => (&mut self.lost, "lost"),
            Delivery::Refused => (&mut self.refused, "refused"),
        };
        *count += 1;
        let record = webhook.record.map_or_else(String::new, |id| format!(" of order {id}"));
        let at = Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
        say!("{at} {word}: {}{record}, merchant {}", webhook.event, webhook.merchant_id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages() {
        for (text, share) in [("5%", Some(0.05)), ("5", Some(0.05)), ("0%", Some(0.0)), ("100 %", Some(1.0))] {
            assert_eq!(text.parse().ok(), share.map(Percentage), "{text}");
        }
        for text in ["", "%", "x", "-1%", "101%", "NaN"] {
            assert!(text.parse::<Percentage>().is_err(), "{text}");
        }
    }
}
