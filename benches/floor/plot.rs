//! The table as a picture: a panel a figure, a group a night, a bar a program; each beside the floor's.

use std::path::Path;

use plotters::{coord::CoordTranslate, prelude::*};

use crate::{
    contender::Contender,
    growth::units,
    night::{Cost, News, Shape},
    report::Table,
};

const SHOWN: [(Contender, RGBColor); 3] = [
    (Contender::Floor, RGBColor(0x9a, 0xa5, 0xb1)),
    (Contender::Daemon, RGBColor(0x1f, 0x6f, 0xb2)),
    (Contender::RowByRow, RGBColor(0xd9, 0x8a, 0x29)),
];

type Figure = (&'static str, fn(&Cost) -> f64);

const FIGURES: [Figure; 4] = [
    ("wall time ÷ floor", |cost| cost.wall.as_secs_f64()),
    ("processor time of the program ÷ floor", |cost| cost.cpu.as_secs_f64()),
    ("processor time of the database ÷ floor", |cost| cost.database_cpu.as_secs_f64()),
    ("peak memory ÷ floor", |cost| cost.peak_mib),
];

/// Draws an SVG.
pub fn draw(table: &Table, path: &Path) {
    let root = SVGBackend::new(path, (1200, 880)).into_drawing_area();
    root.fill(&WHITE).unwrap();
    let nights = nights(table);
    for (area, figure) in root.split_evenly((2, 2)).iter().zip(FIGURES) {
        panel(table, &nights, figure, area);
    }
    root.present().unwrap();
}

fn legend<'a, C: CoordTranslate>(chart: &mut ChartContext<'a, SVGBackend<'a>, C>) {
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .border_style(BLACK.mix(0.2))
        .background_style(WHITE)
        .draw()
        .unwrap();
}

fn nights(table: &Table) -> Vec<(Shape, News)> {
    let mut nights = Vec::new();
    for line in table.lines.iter().filter(|line| line.contender == Contender::Daemon) {
        if !nights.contains(&(line.shape, line.news)) {
            nights.push((line.shape, line.news));
        }
    }
    nights
}

fn panel(
    table: &Table,
    nights: &[(Shape, News)],
    (name, of): Figure,
    area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
) {
    let ratio = |night: &(Shape, News), contender| {
        let (line, floor) = (table.line(night.0, night.1, contender)?, table.line(night.0, night.1, Contender::Floor)?);
        (of(floor) > 0.0).then(|| of(line) / of(floor))
    };
    let most = nights.iter().flat_map(|night| SHOWN.map(|(contender, _)| ratio(night, contender).unwrap_or(1.0)));
    let most = most.fold(2.0, f64::max) * 3.0;
    let mut chart = ChartBuilder::on(area)
        .caption(name, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(48)
        .y_label_area_size(48)
        .build_cartesian_2d(0.0..nights.len() as f64, (0.5..most).log_scale())
        .unwrap();
    chart
        .configure_mesh()
        .disable_x_mesh()
        .max_light_lines(0)
        .x_labels(0)
        .y_label_formatter(&|value| format!("{value}"))
        .draw()
        .unwrap();
    for (at, (contender, colour)) in SHOWN.into_iter().enumerate() {
        let bar = |(number, night)| {
            let (left, height) = (number as f64 + 0.14 + 0.24 * at as f64, ratio(night, contender)?);
            Some((left, height))
        };
        let bars: Vec<(f64, f64)> = nights.iter().enumerate().filter_map(bar).collect();
        let drawn =
            bars.iter().map(|&(left, height)| Rectangle::new([(left, 0.5), (left + 0.22, height)], colour.filled()));
        chart
            .draw_series(drawn)
            .unwrap()
            .label(contender.name())
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 12, y + 5)], colour.filled()));
        let figures = bars
            .iter()
            .map(|&(left, height)| Text::new(format!("{height:.1}"), (left + 0.02, height * 1.16), ("sans-serif", 12)));
        chart.draw_series(figures).unwrap();
    }
    legend(&mut chart);
    let width = f64::from(area.dim_in_pixel().0) - 84.0;
    for (number, (shape, news)) in nights.iter().enumerate() {
        let middle = 60.0 + width * (number as f64 + 0.5) / nights.len() as f64;
        let bottom = i32::try_from(area.dim_in_pixel().1).unwrap();
        let style = TextStyle::from(("sans-serif", 12).into_font()).pos(plotters::style::text_anchor::Pos::new(
            plotters::style::text_anchor::HPos::Center,
            plotters::style::text_anchor::VPos::Top,
        ));
        let stores = format!("{} × {}", shape.stores, shape.orders);
        for (line, text) in [news.name(), &stores].into_iter().enumerate() {
            area.draw_text(text, &style, (middle as i32, bottom - 54 + 16 * line as i32)).unwrap();
        }
    }
}

const COLOURS: [(News, RGBColor); 3] = [
    (News::All, RGBColor(0x1f, 0x6f, 0xb2)),
    (News::Nothing, RGBColor(0x2e, 0x8b, 0x57)),
    (News::Some, RGBColor(0xd9, 0x8a, 0x29)),
];

/// A figure: its name, whether it is of small stores, and what it is.
type Grown = (&'static str, bool, fn(&Cost) -> f64);

/// How costs grow: on the left with the orders of one store, on the right with the number of small ones.
pub fn draw_growth(table: &Table, path: &Path) {
    let root = SVGBackend::new(path, (1200, 880)).into_drawing_area();
    root.fill(&WHITE).unwrap();
    let each: fn(&Cost) -> f64 = |cost| cost.wall.as_secs_f64() * 1e3 / units(cost.shape) as f64;
    let panels: [Grown; 4] = [
        ("one store: milliseconds an order", false, each),
        ("small stores: milliseconds a store", true, each),
        ("one store: peak MiB", false, |cost| cost.peak_mib),
        ("small stores: peak MiB", true, |cost| cost.peak_mib),
    ];
    for (area, panel) in root.split_evenly((2, 2)).iter().zip(panels) {
        growth_panel(table, panel, area);
    }
    root.present().unwrap();
}

fn growth_panel(table: &Table, (name, small, of): Grown, area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>) {
    let lines: Vec<&Cost> = table.lines.iter().filter(|line| line.shape.is_small() == small).collect();
    let (mut sizes, mut most): ((f64, f64), f64) = ((f64::MAX, 1.0), 0.0);
    for line in &lines {
        let size = units(line.shape) as f64;
        sizes = (sizes.0.min(size), sizes.1.max(size));
        most = most.max(of(line));
    }
    if lines.is_empty() {
        return;
    }
    let least = lines.iter().map(|line| of(line)).fold(f64::MAX, f64::min);
    let mut chart = ChartBuilder::on(area)
        .caption(name, ("sans-serif", 18))
        .margin(12)
        .margin_right(28)
        .x_label_area_size(36)
        .y_label_area_size(56)
        .build_cartesian_2d((sizes.0..sizes.1.max(sizes.0 * 10.0)).log_scale(), (least / 3.0..most * 3.0).log_scale())
        .unwrap();
    chart
        .configure_mesh()
        .max_light_lines(0)
        .x_desc(if small { "stores" } else { "orders" })
        .x_label_formatter(&|size| format!("{size}"))
        .y_label_formatter(&|value| format!("{}", (value * 1e6).round() / 1e6))
        .draw()
        .unwrap();
    for (news, colour) in COLOURS {
        let points: Vec<(f64, f64)> =
            lines.iter().filter(|line| line.news == news).map(|line| (units(line.shape) as f64, of(line))).collect();
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(2)).point_size(3))
            .unwrap()
            .label(news.name())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
    }
    legend(&mut chart);
}
