//! A record as people read it: a page of tables, and charts.
//!
//! The summary compares headlines and judges them; "All figures" repeats everything that was measured, so a
//! figure cannot be left out by not being a headline. The same record is always the same files.
//! Not here: how a chart is drawn (`chart`).

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use crate::chart::{Chart, Group, Row, Tone};
use crate::record::{About, Bar, Headline, Record, Setting};

const OURS: &str = "fanfare";
const FLOOR: &str = "floor";
const MISSING: &str = "–";

/// Draws a record into a folder: `README.md` with tables, and one SVG for each chart that has bars.
///
/// The folder is created if needed.
///
/// # Errors
/// When the folder or a file in it cannot be written.
pub(crate) fn write(record: &Record, folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let charts = charts(record);
    for (file, chart) in &charts {
        fs::write(folder.join(file), chart.svg())?;
    }
    fs::write(folder.join("README.md"), page(record, &charts))
}

fn page(record: &Record, charts: &[(&str, Chart)]) -> String {
    let sections = [setting(&record.setting), summary(record, charts), faults(record), all_figures(record)];
    format!("# Results\n\n{}", sections.join("\n"))
}

fn setting(setting: &Setting) -> String {
    let Setting { time, machine, commit, servers, rounds } = setting;
    let width = servers.keys().map(|name| name.chars().count()).max().unwrap_or(0);
    let commands: String =
        servers.iter().map(|(name, command)| format!("{name:width$}  {command}\n")).collect();
    format!(
        "- Time: {time}\n- Machine: {machine}\n- Commit: `{commit}`\n- Rounds: {rounds}; a figure is the \
         median of them\n\n```text\n{commands}```\n"
    )
}

fn summary(record: &Record, charts: &[(&str, Chart)]) -> String {
    let images: String =
        charts.iter().map(|(file, chart)| format!("![{}]({file})\n\n", chart.title)).collect();
    let servers = servers(record);
    let head = [&["scenario", "what"], servers.as_slice(), &["fanfare / floor", "bar", "met"]].concat();
    let rows = comparisons(record).map(|comparison| comparison.cells(&servers)).collect();
    let about = |about: &About| format!("- `{}`: {}\n", about.name, flat(&about.about));
    let abouts: String = record.scenarios.iter().map(about).collect();
    format!("## Summary\n\n{images}{}\n{abouts}", table(&head, 2, rows))
}

fn faults(record: &Record) -> String {
    let mut list = String::new();
    for run in &record.runs {
        for fault in &run.faults {
            list += &format!("- `{}`, {}, round {}: {}\n", run.scenario, run.server, run.round, flat(fault));
        }
    }
    if list.is_empty() {
        list = "None: nothing was lost, doubled or out of order.\n".to_owned();
    }
    format!("## Faults\n\n{list}")
}

fn all_figures(record: &Record) -> String {
    let servers = servers(record);
    let head = [&["figure"], servers.as_slice()].concat();
    let mut text = "## All figures\n".to_owned();
    for scenario in scenarios(record) {
        let of_scenario = record.runs.iter().filter(|run| run.scenario == scenario);
        let figures: BTreeSet<&String> = of_scenario.flat_map(|run| run.figures.keys()).collect();
        let row = |figure: &String| {
            let cells = servers.iter().map(|server| spread(record, scenario, server, figure));
            [format!("`{figure}`")].into_iter().chain(cells).collect()
        };
        text += &format!("\n### {scenario}\n\n{}", table(&head, 1, figures.into_iter().map(row).collect()));
    }
    text
}

/// Median and, if there is more than one value, lowest and highest.
fn spread(record: &Record, scenario: &str, server: &str, figure: &str) -> String {
    let runs = record.runs.iter().filter(|run| run.scenario == scenario && run.server == server);
    let values: Vec<f64> = runs.filter_map(|run| run.figures.get(figure).copied()).collect();
    let median = or_missing(record.median(scenario, server, figure), number);
    if values.len() < 2 {
        return median;
    }
    let lowest = values.iter().copied().fold(f64::INFINITY, f64::min);
    let highest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    format!("{median} ({}–{})", number(lowest), number(highest))
}

/// Ours, the floor, then the others by name. A server that never answered is among them.
fn servers(record: &Record) -> Vec<&str> {
    let ran = record.runs.iter().map(|run| &run.server);
    let names: BTreeSet<&String> = record.setting.servers.keys().chain(ran).collect();
    let mut names: Vec<&str> = names.into_iter().map(String::as_str).collect();
    names.sort_by_key(|name| match *name {
        OURS => 0,
        FLOOR => 1,
        _ => 2,
    });
    names
}

/// As described, then those that ran without a description.
fn scenarios(record: &Record) -> Vec<&str> {
    let mut names: Vec<&str> = record.scenarios.iter().map(|about| about.name.as_str()).collect();
    for run in &record.runs {
        if !names.contains(&run.scenario.as_str()) {
            names.push(&run.scenario);
        }
    }
    names
}

/// Every headline of every scenario, in the order they are described.
fn comparisons<'a>(record: &'a Record) -> impl Iterator<Item = Comparison<'a>> {
    let of_scenario =
        move |about: &'a About| about.headlines.iter().map(move |line| Comparison { record, about, line });
    record.scenarios.iter().flat_map(of_scenario)
}

/// One headline of one scenario, over all servers.
struct Comparison<'a> {
    record: &'a Record,
    about: &'a About,
    line: &'a Headline,
}

impl Comparison<'_> {
    /// Whether it is the headline that is charted.
    fn is_first(&self) -> bool {
        self.about.headlines.first() == Some(self.line)
    }

    /// Only of finite values, which is what can be compared and drawn.
    fn median(&self, server: &str) -> Option<f64> {
        self.record.median(&self.about.name, server, &self.line.figure).filter(|value| value.is_finite())
    }

    /// None without a floor, and with one of zero.
    fn times_floor(&self, server: &str) -> Option<f64> {
        let floor = self.median(FLOOR).filter(|floor| *floor > 0.0)?;
        Some(self.median(server)? / floor)
    }

    fn met(&self) -> Option<bool> {
        match self.line.bar? {
            Bar::TimesFloor(limit) => self.times_floor(OURS).map(|ratio| ratio <= limit),
            Bar::AtMost(limit) => self.median(OURS).map(|value| value <= limit),
        }
    }

    fn bar(&self) -> Option<String> {
        Some(match self.line.bar? {
            Bar::TimesFloor(limit) => format!("≤ {} × floor", grouped(&limit.to_string())),
            Bar::AtMost(limit) => with_unit(&format!("≤ {}", grouped(&limit.to_string())), &self.line.unit),
        })
    }

    fn cells(&self, servers: &[&str]) -> Vec<String> {
        let Headline { label, unit, .. } = self.line;
        let what = if unit.is_empty() { label.clone() } else { format!("{label} ({unit})") };
        let mut cells = vec![format!("`{}`", self.about.name), what];
        cells.extend(servers.iter().map(|server| or_missing(self.median(server), number)));
        cells.push(or_missing(self.times_floor(OURS), ratio));
        cells.push(or_missing(self.bar(), |bar| bar));
        cells.push(or_missing(self.met(), |met| if met { "yes" } else { "**no**" }.to_owned()));
        cells
    }

    fn group(&self, rows: Vec<Row>) -> Group {
        let note = self.bar().map_or_else(String::new, |bar| format!("limit: {bar}"));
        Group { title: format!("{} · {}", self.about.name, self.line.label), note, rows }
    }

    /// Bars in multiples of the floor. None unless we and the floor were measured.
    fn times_floor_group(&self) -> Option<Group> {
        self.times_floor(OURS)?;
        let limit = match self.line.bar {
            Some(Bar::TimesFloor(limit)) => Some(limit),
            _ => None,
        };
        let row = |server: &str| {
            let length = self.times_floor(server)?;
            let labels = vec![format!("{} ×", ratio(length)), self.amount(server)?];
            let tick = limit.filter(|_| server == OURS);
            Some(Row { name: server.to_owned(), tone: tone(server), length, tick, labels })
        };
        Some(self.group(servers(self.record).into_iter().filter_map(row).collect()))
    }

    /// Bars in multiples of the limit. None without one above zero, and when nobody was measured.
    fn absolute_group(&self) -> Option<Group> {
        let limit = match self.line.bar? {
            Bar::AtMost(limit) if limit > 0.0 => limit,
            _ => return None,
        };
        let row = |server: &str| {
            let length = self.median(server)? / limit;
            let labels = vec![self.amount(server)?];
            Some(Row { name: server.to_owned(), tone: tone(server), length, tick: None, labels })
        };
        let rows: Vec<Row> = servers(self.record).into_iter().filter_map(row).collect();
        (!rows.is_empty()).then(|| self.group(rows))
    }

    fn amount(&self, server: &str) -> Option<String> {
        Some(with_unit(&number(self.median(server)?), &self.line.unit))
    }
}

/// File names and charts; none without bars.
fn charts(record: &Record) -> Vec<(&'static str, Chart)> {
    let firsts = comparisons(record).filter(|comparison| comparison.is_first());
    let ratios = Chart {
        title: "Times the floor".to_owned(),
        legend: "Shorter is better. Dashed line: the floor, a bare epoll loop. Red tick: the most fanfare \
                 may take. Cut bars are longer than drawn."
            .to_owned(),
        reference: FLOOR.to_owned(),
        groups: firsts.filter_map(|comparison| comparison.times_floor_group()).collect(),
    };
    let absolute = Chart {
        title: "Against a fixed limit".to_owned(),
        legend: "Shorter is better. Dashed line: the most fanfare may take. Cut bars are longer than drawn."
            .to_owned(),
        reference: "limit".to_owned(),
        groups: comparisons(record).filter_map(|comparison| comparison.absolute_group()).collect(),
    };
    let mut charts = vec![("chart-ratios.svg", ratios), ("chart-absolute.svg", absolute)];
    charts.retain(|(_, chart)| !chart.groups.is_empty());
    charts
}

fn tone(server: &str) -> Tone {
    match server {
        OURS => Tone::Ours,
        FLOOR => Tone::Floor,
        _ => Tone::Other,
    }
}

/// A Markdown table. The first `words` columns are aligned left, the others, of numbers, right.
fn table(head: &[&str], words: usize, rows: Vec<Vec<String>>) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let names: Vec<String> = head.iter().map(|name| (*name).to_owned()).collect();
    let rule = |column| if column < words { "---" } else { "--:" }.to_owned();
    let rules: Vec<String> = (0..head.len()).map(rule).collect();
    let body: String = rows
        .iter()
        .map(|row| line(&row.iter().map(|cell| flat(cell).replace('|', "\\|")).collect::<Vec<_>>()))
        .collect();
    line(&names) + &line(&rules) + &body
}

/// Text on one line, and not taken for HTML.
fn flat(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('<', "&lt;")
}

fn or_missing<T>(value: Option<T>, text: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| MISSING.to_owned(), text)
}

fn ratio(value: f64) -> String {
    grouped(&format!("{value:.2}"))
}

fn with_unit(number: &str, unit: &str) -> String {
    format!("{number} {unit}").trim_end().to_owned()
}

/// Three significant digits, but never fewer than the whole number; a whole number has no decimals.
fn number(value: f64) -> String {
    // Rounded before the digits are counted: 9.996 is 10.0, not 10.00.
    let rounded = format!("{value:.2e}");
    let exponent: i32 = rounded.split_once('e').and_then(|(_, digits)| digits.parse().ok()).unwrap_or(0);
    let decimals = if value.fract() == 0.0 { 0 } else { usize::try_from(2 - exponent).unwrap_or(0) };
    grouped(&format!("{value:.decimals$}"))
}

/// A number with a comma between thousands.
fn grouped(number: &str) -> String {
    let (whole, decimals) = number.split_at(number.find('.').unwrap_or(number.len()));
    let mut out = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) && !out.ends_with('-') {
            out.push(',');
        }
        out.push(digit);
    }
    out + decimals
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Run;

    fn run(scenario: &str, server: &str, round: usize, figures: &[(&str, f64)]) -> Run {
        let figures = figures.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        Run { scenario: scenario.into(), server: server.into(), round, figures, faults: Vec::new() }
    }

    fn about(name: &str, figure: &str, unit: &str, bar: Option<Bar>) -> About {
        let headline = Headline { figure: figure.into(), label: "Cost".into(), unit: unit.into(), bar };
        About { name: name.into(), about: format!("Tries {name}."), headlines: vec![headline] }
    }

    fn record() -> Record {
        Record {
            setting: Setting { rounds: 2, ..Setting::default() },
            scenarios: vec![
                about("fan", "cpu", "µs", Some(Bar::TimesFloor(1.15))),
                about("idle", "bytes", "B", Some(Bar::AtMost(2500.0))),
            ],
            runs: vec![
                run("fan", "zeta", 1, &[("cpu", 40.0)]),
                run("fan", "alpha", 1, &[("cpu", 3.0)]),
                run("fan", "floor", 1, &[("cpu", 2.0)]),
                run("fan", "fanfare", 1, &[("cpu", 2.1)]),
                run("fan", "fanfare", 2, &[("cpu", 2.3), ("extra", 7.0)]),
                run("idle", "fanfare", 1, &[("bytes", 2600.0)]),
                run("idle", "zeta", 1, &[("bytes", 12345.6)]),
            ],
        }
    }

    fn text(record: &Record) -> String {
        page(record, &charts(record))
    }

    /// The line as it stands, alone.
    fn check_line(page: &str, line: &str) {
        assert!(page.lines().any(|found| found == line), "no line {line:?} in:\n{page}");
    }

    #[test]
    fn summary_compares_and_judges() {
        let page = text(&record());

        check_line(
            &page,
            "| scenario | what | fanfare | floor | alpha | zeta | fanfare / floor | bar | met |",
        );
        check_line(&page, "| `fan` | Cost (µs) | 2.20 | 2 | 3 | 40 | 1.10 | ≤ 1.15 × floor | yes |");
        check_line(&page, "- `fan`: Tries fan.");
    }

    #[test]
    fn ratio_above_the_bar_is_not_met_and_on_it_is() {
        let mut record = record();
        record.runs.push(run("fan", "fanfare", 3, &[("cpu", 2.31)]));
        let with_bar =
            |record: &mut Record, limit| record.scenarios[0].headlines[0].bar = Some(Bar::TimesFloor(limit));

        with_bar(&mut record, 1.15);
        assert!(text(&record).contains("| 1.15 | ≤ 1.15 × floor | yes |"));
        with_bar(&mut record, 1.1);
        assert!(text(&record).contains("| 1.15 | ≤ 1.1 × floor | **no** |"));
    }

    #[test]
    fn missing_floor_and_missing_figure_are_dashes() {
        let page = text(&record());

        check_line(&page, "| `idle` | Cost (B) | 2,600 | – | – | 12,346 | – | ≤ 2,500 B | **no** |");
    }

    #[test]
    fn without_bar_nothing_is_judged() {
        let mut record = record();
        record.scenarios[0].headlines[0].bar = None;

        check_line(&text(&record), "| `fan` | Cost (µs) | 2.20 | 2 | 3 | 40 | 1.10 | – | – |");
    }

    #[test]
    fn all_figures_has_the_spread_and_what_is_no_headline() {
        let mut record = record();
        record.runs.push(run("unknown", "floor", 1, &[("odd", 0.012_34)]));
        let page = text(&record);

        check_line(&page, "| `cpu` | 2.20 (2.10–2.30) | 2 | 3 | 40 |");
        check_line(&page, "| `extra` | 7 | – | – | – |");
        check_line(&page, "| `odd` | – | 0.0123 | – | – |");
    }

    #[test]
    fn every_fault_is_listed() {
        let mut record = record();
        assert!(text(&record).contains("## Faults\n\nNone: nothing was lost, doubled or out of order.\n"));

        record.runs[4].faults = vec!["3 lost".into(), "<x>\n2 doubled".into()];
        let page = text(&record);
        check_line(&page, "- `fan`, fanfare, round 2: 3 lost");
        check_line(&page, "- `fan`, fanfare, round 2: &lt;x> 2 doubled");
        assert!(!page.contains("None:"));
    }

    #[test]
    fn charts_have_bars_in_multiples_of_floor_and_limit() {
        let charts = charts(&record());
        let [("chart-ratios.svg", ratios), ("chart-absolute.svg", absolute)] = charts.as_slice() else {
            panic!("{charts:?}");
        };
        let names = |group: &Group| group.rows.iter().map(|row| row.name.clone()).collect::<Vec<_>>();

        assert_eq!(ratios.groups.len(), 1); // idle has no floor
        assert_eq!(names(&ratios.groups[0]), ["fanfare", "floor", "alpha", "zeta"]);
        assert_eq!(ratios.groups[0].rows[0].tick, Some(1.15));
        assert_eq!(ratios.groups[0].rows[3].tick, None);
        assert_eq!(ratios.groups[0].rows[3].labels, ["20.00 ×", "40 µs"]);
        assert_eq!(names(&absolute.groups[0]), ["fanfare", "zeta"]);
        assert!((absolute.groups[0].rows[0].length - 1.04).abs() < 1e-9);
        assert!(ratios.svg().contains("class=\"break\""));
    }

    #[test]
    fn numbers_have_three_digits_and_commas() {
        for (value, wanted) in [
            (0.0, "0"),
            (0.001_234, "0.00123"),
            (9.996, "10.0"),
            (99.95, "100"),
            (123.4, "123"),
            (-1234.5, "-1,234"),
            (-123.0, "-123"),
            (1_234_567.0, "1,234,567"),
        ] {
            assert_eq!(number(value), wanted);
        }
    }
}
