//! How the daemon's costs grow: with the orders of one store, with the number of stores, and with what the table holds
//! beside them.

use comfy_table::{CellAlignment, Table as Shown, presets::ASCII_MARKDOWN};

use crate::{
    contender::Contender,
    night::{Cost, Night, Shape},
    report::{Table, seconds},
};

/// The orders of a small store.
const FEW: usize = 3;

/// From this size on, costs must grow as the work does. Below it, most of the cost is the fixed cost of a process.
const FROM: usize = 10_000;

/// The cost limit of an order, or of a small store, at larger sizes: a multiple of the cost at [`FROM`].
const STRAIGHT: f64 = 1.3;

/// The cost limit of a run in a table with orders of other merchants.
const BESIDE: f64 = 1.2;

/// Measures one store with a thousand orders, and ten times as many, and so on up to `most`. Then measures small
/// stores, from one up to a tenth of `most`.
pub async fn measure(server: &str, most: usize) -> (Table, bool) {
    let sizes = |least: usize, most: usize| {
        std::iter::successors(Some(least), |size| size.checked_mul(10)).take_while(move |size| *size <= most)
    };
    let one = sizes(1_000, most).map(|orders| Shape { stores: 1, orders, sorts: true });
    let many = sizes(1, most / 10).map(|stores| Shape { stores, orders: FEW, sorts: true });
    let mut costs = Vec::new();
    for shape in one.chain(many) {
        costs.extend(Night::begin(server, shape, 0).await.measure(Contender::Daemon).await);
    }
    let table = Table::of(&costs);
    print(&table);
    let straight = is_straight(&table);
    (table, straight)
}

/// The number of units of work: orders, or stores if these are small.
pub fn units(shape: Shape) -> usize {
    if shape.stores > 1 || shape.is_small() { shape.stores } else { shape.orders }
}

fn print(table: &Table) {
    let mut shown = Shown::new();
    shown.load_preset(ASCII_MARKDOWN).set_header([
        "stores × orders",
        "news",
        "wall",
        "wall each",
        "CPU each",
        "database's CPU each",
        "peak MiB",
    ]);
    for line in &table.lines {
        let each = |time: std::time::Duration| format!("{:.0} µs", time.as_secs_f64() * 1e6 / units(line.shape) as f64);
        shown.add_row([
            format!("{} × {}", line.shape.stores, line.shape.orders),
            line.news.name().to_owned(),
            seconds(line.wall),
            each(line.wall),
            each(line.cpu),
            each(line.database_cpu),
            format!("{:.1}", line.peak_mib),
        ]);
    }
    for column in shown.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    println!("{shown}");
}

/// Whether an order costs at the end what it costs in the middle.
fn is_straight(table: &Table) -> bool {
    let mut straight = true;
    let each = |line: &Cost| line.wall.as_secs_f64() / units(line.shape) as f64;
    for line in table.lines.iter().filter(|line| units(line.shape) > FROM) {
        let same = |other: &&Cost| {
            other.news == line.news && units(other.shape) == FROM && other.shape.is_small() == line.shape.is_small()
        };
        let Some(ratio) = table.lines.iter().find(same).map(|middle| each(line) / each(middle)) else { continue };
        if ratio > STRAIGHT {
            straight = false;
            println!("NOT STRAIGHT: {} × {}, {}: {ratio:.2}", line.shape.stores, line.shape.orders, line.news.name());
        }
    }
    straight
}

/// The same night in an empty table, and in one that holds `rows` orders of other stores.
pub async fn beside(server: &str, shape: Shape, rows: u64, rounds: usize) -> bool {
    let mut both = [Vec::new(), Vec::new()];
    for _ in 0..rounds {
        for (costs, rows) in both.iter_mut().zip([0, rows]) {
            costs.extend(Night::begin(server, shape, rows).await.measure(Contender::Daemon).await);
        }
    }
    let [alone, crowded] = both.map(|costs| Table::of(&costs));
    let mut kept = true;
    for line in &crowded.lines {
        let Some(before) = alone.line(line.shape, line.news, line.contender) else { continue };
        let ratio = |of: fn(&Cost) -> f64| of(line) / of(before);
        let (wall, database) = (ratio(|cost| cost.wall.as_secs_f64()), ratio(|cost| cost.database_cpu.as_secs_f64()));
        println!(
            "beside {rows} orders, {}: {wall:.2} times the wall time, {database:.2} the database's",
            line.news.name()
        );
        kept &= wall <= BESIDE;
    }
    kept
}
