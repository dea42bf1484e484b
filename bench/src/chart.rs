//! Horizontal bars as SVG: values in, text out.
//!
//! A length is a multiple of what the bars of its group are compared with, so groups of different units
//! share one axis and one reference line, at 1. The same [`Chart`] is always the same text.
//! Not here: which figures are drawn, and how they are worded (`report`).

/// Bars end here, so that one of twenty times the reference does not squeeze the others into nothing.
const LONGEST: f64 = 4.0;

const WIDTH: f64 = 880.0;
const MARGIN: f64 = 28.0;
/// Title, what the marks mean, axis.
const HEAD: f64 = 104.0;
const GROUP_HEAD: f64 = 32.0;
const GROUP_GAP: f64 = 16.0;
const ROW: f64 = 22.0;
const BAR: f64 = 14.0;
const LABEL: f64 = 100.0;

/// Groups of bars over one axis.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Chart {
    /// What is compared.
    pub(crate) title: String,
    /// What the line and the tick mean; one line.
    pub(crate) legend: String,
    /// Names the reference line, as in `floor`.
    pub(crate) reference: String,
    /// From top to bottom.
    pub(crate) groups: Vec<Group>,
}

/// The bars of one figure.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Group {
    /// What was measured.
    pub(crate) title: String,
    /// Stands opposite the title; may be empty.
    pub(crate) note: String,
    /// From top to bottom.
    pub(crate) rows: Vec<Row>,
}

/// One bar with its name on the left and its labels on the right.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    /// Whose bar it is.
    pub(crate) name: String,
    /// How it is coloured.
    pub(crate) tone: Tone,
    /// In multiples of the reference; finite.
    pub(crate) length: f64,
    /// Where a tick marks the limit, in multiples of the reference.
    pub(crate) tick: Option<f64>,
    /// One for each column; all rows of a chart have the same number.
    pub(crate) labels: Vec<String>,
}

/// Whose bar it is, as far as colour goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Tone {
    /// The one the chart is about.
    Ours,
    /// What it is compared with.
    Floor,
    /// Everyone else.
    Other,
}

impl Chart {
    /// The chart as an SVG document. It brings its own light card, so it reads on a dark page too.
    pub(crate) fn svg(&self) -> String {
        let plot = Plot::of(self);
        let mut y = HEAD;
        let mut groups = String::new();
        for group in &self.groups {
            groups += &group.svg(&plot, y);
            y += group.height();
        }
        let height = y + MARGIN - GROUP_GAP;
        format!(
            r##"<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" role="img">
<title>{title}</title>
{STYLE}
<rect x="0.5" y="0.5" width="{}" height="{}" rx="12" fill="#fcfcfd" stroke="#d0d7de"/>
<text x="{MARGIN}" y="40" class="title">{title}</text>
<text x="{MARGIN}" y="62" class="quiet">{}</text>
{}{groups}</svg>
"##,
            WIDTH - 1.0,
            height - 1.0,
            escaped(&self.legend),
            plot.axis(&self.reference),
            title = escaped(&self.title),
        )
    }

    fn rows(&self) -> impl Iterator<Item = &Row> {
        self.groups.iter().flat_map(|group| &group.rows)
    }
}

impl Group {
    fn height(&self) -> f64 {
        GROUP_HEAD + self.rows_height() + GROUP_GAP
    }

    fn rows_height(&self) -> f64 {
        ROW * as_f64(self.rows.len())
    }

    fn svg(&self, plot: &Plot, y: f64) -> String {
        let top = y + GROUP_HEAD;
        let mut rows = String::new();
        let mut row_y = top;
        for row in &self.rows {
            rows += &row.svg(plot, row_y);
            row_y += ROW;
        }
        // The reference goes over the bars, the grid under them.
        format!(
            "<text x=\"{MARGIN}\" y=\"{text_y:.1}\" class=\"group\">{}</text>\n\
             <text x=\"{:.1}\" y=\"{text_y:.1}\" class=\"quiet end\">{}</text>\n{}{rows}{}",
            escaped(&self.title),
            WIDTH - MARGIN,
            escaped(&self.note),
            plot.grid(top, self.rows_height()),
            upright("reference", plot.x(1.0), top, self.rows_height()),
            text_y = y + 20.0,
        )
    }
}

impl Row {
    fn svg(&self, plot: &Plot, y: f64) -> String {
        let text_y = y + 15.5;
        let bar_y = y + (ROW - BAR) / 2.0;
        let tone = self.tone.class();
        format!(
            "<text x=\"{:.1}\" y=\"{text_y:.1}\" class=\"end {tone}\">{}</text>\n\
             <rect x=\"{:.1}\" y=\"{bar_y:.1}\" width=\"{:.1}\" height=\"{BAR}\" rx=\"2\" class=\"{tone}\"/>\n\
             {}{}{}",
            plot.left - 10.0,
            escaped(&self.name),
            plot.left,
            plot.x(self.length) - plot.left,
            self.break_mark(plot, bar_y),
            self.tick_mark(plot, bar_y),
            self.label_texts(text_y),
        )
    }

    /// Two slanted cuts near the end of a bar that is longer than drawn.
    fn break_mark(&self, plot: &Plot, bar_y: f64) -> String {
        if self.length <= plot.end {
            return String::new();
        }
        let (x, bottom, rise) = (plot.right - 26.0, bar_y + BAR + 2.0, BAR + 4.0);
        format!(
            "<path d=\"M{x:.1} {bottom:.1}l7 -{rise}M{:.1} {bottom:.1}l7 -{rise}\" class=\"break\"/>\n",
            x + 7.0
        )
    }

    fn tick_mark(&self, plot: &Plot, bar_y: f64) -> String {
        let Some(tick) = self.tick.filter(|tick| *tick <= plot.end) else {
            return String::new();
        };
        let line = |class| upright(class, plot.x(tick), bar_y - 3.0, BAR + 6.0);
        line("halo") + &line("tick")
    }

    fn label_texts(&self, text_y: f64) -> String {
        let mut x = WIDTH - MARGIN;
        let mut texts = String::new();
        for label in self.labels.iter().rev() {
            let (tone, label) = (self.tone.class(), escaped(label));
            texts += &format!("<text x=\"{x:.1}\" y=\"{text_y:.1}\" class=\"end {tone}\">{label}</text>\n");
            x -= LABEL;
        }
        texts
    }
}

impl Tone {
    const fn class(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Floor => "floor",
            Self::Other => "other",
        }
    }
}

/// Where the bars are drawn: between `left` and `right`, which are 0 and `end` on the axis.
struct Plot {
    left: f64,
    right: f64,
    end: f64,
}

impl Plot {
    fn of(chart: &Chart) -> Self {
        let letters = chart.rows().map(|row| row.name.chars().count()).max().unwrap_or(0);
        let columns = chart.rows().map(|row| row.labels.len()).max().unwrap_or(0);
        let longest = chart.rows().flat_map(|row| [row.length, row.tick.unwrap_or(0.0)]).fold(1.0, f64::max);
        Self {
            left: MARGIN + 10.0 + 7.8 * as_f64(letters),
            right: WIDTH - MARGIN - LABEL * as_f64(columns),
            end: (longest * 2.0).ceil().mul_add(0.5, 0.5).min(LONGEST),
        }
    }

    /// Where a length ends: on the axis, however short or long it is.
    fn x(&self, length: f64) -> f64 {
        (self.right - self.left).mul_add(length.clamp(0.0, self.end) / self.end, self.left)
    }

    fn steps(&self) -> impl Iterator<Item = u8> {
        (0..=u8::MAX).take_while(|step| f64::from(*step) <= self.end)
    }

    fn axis(&self, reference: &str) -> String {
        let text = |step| match step {
            0 => "0".to_owned(),
            1 => format!("1 × {}", escaped(reference)),
            step => format!("{step} ×"),
        };
        let place = |step| self.x(f64::from(step));
        let y = HEAD - 10.0;
        self.steps()
            .map(|step| {
                format!("<text x=\"{:.1}\" y=\"{y}\" class=\"axis\">{}</text>\n", place(step), text(step))
            })
            .collect()
    }

    fn grid(&self, y: f64, height: f64) -> String {
        self.steps().map(|step| upright("grid", self.x(f64::from(step)), y, height)).collect()
    }
}

const STYLE: &str = "<style>
text { font: 13px system-ui, sans-serif; fill: #374151; font-variant-numeric: tabular-nums; }
text.title { font-size: 18px; font-weight: 600; fill: #111827; }
text.group { font-weight: 600; fill: #111827; }
text.quiet, text.axis { font-size: 12px; fill: #6b7280; }
text.axis { text-anchor: middle; }
text.end { text-anchor: end; }
text.ours { font-weight: 600; fill: #1d4ed8; }
rect.ours { fill: #2563eb; }
rect.floor { fill: #94a3b8; }
rect.other { fill: #f2b26b; }
line.grid { stroke: #e5e7eb; }
line.reference { stroke: #334155; stroke-dasharray: 3 2; }
line.halo { stroke: #fcfcfd; stroke-width: 5.5; }
line.tick { stroke: #dc2626; stroke-width: 2.5; }
path.break { stroke: #fcfcfd; stroke-width: 3; fill: none; }
</style>";

fn upright(class: &str, x: f64, y: f64, height: f64) -> String {
    let bottom = y + height;
    format!("<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{y:.1}\" y2=\"{bottom:.1}\" class=\"{class}\"/>\n")
}

/// Text as XML wants it, between tags and in attributes. What XML cannot say at all is left out.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for letter in text.chars() {
        match letter {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            control if control.is_control() => out.push(' '),
            letter => out.push(letter),
        }
    }
    out
}

/// A count of letters or columns, which a wide chart has few of.
fn as_f64(count: usize) -> f64 {
    f64::from(u16::try_from(count).unwrap_or(u16::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(length: f64) -> Row {
        Row { name: "a".into(), tone: Tone::Other, length, tick: None, labels: vec!["x".into()] }
    }

    fn chart(rows: Vec<Row>) -> Chart {
        let group = Group { title: "<b> & \"c\"".into(), note: String::new(), rows };
        Chart { title: "t".into(), legend: "l".into(), reference: "floor".into(), groups: vec![group] }
    }

    fn bar_widths(svg: &str) -> Vec<f64> {
        let bars = svg.lines().filter(|line| line.starts_with("<rect") && line.contains("class="));
        bars.map(|bar| bar.split('"').nth(5).unwrap().parse().unwrap()).collect()
    }

    #[test]
    fn lengths_are_to_scale() {
        let widths = bar_widths(&chart(vec![row(1.0), row(2.0), row(0.0)]).svg());

        assert!((widths[1] - 2.0 * widths[0]).abs() < 0.2, "{widths:?}");
        assert!(widths[2].abs() < 0.1, "{widths:?}");
    }

    #[test]
    fn bar_beyond_the_axis_is_cut_and_marked() {
        let svg = chart(vec![row(1.0), row(4.0), row(20.0)]).svg();
        let widths = bar_widths(&svg);

        assert!((widths[2] - widths[1]).abs() < 0.2, "{widths:?}");
        assert!((widths[2] - LONGEST * widths[0]).abs() < 0.5, "{widths:?}");
        assert_eq!(svg.matches("class=\"break\"").count(), 1);
    }

    #[test]
    fn tick_is_drawn_where_the_axis_reaches() {
        let ticks =
            |tick| chart(vec![Row { tick: Some(tick), ..row(1.0) }]).svg().matches("\"tick\"").count();

        assert_eq!(ticks(1.15), 1);
        assert_eq!(ticks(9.0), 0);
    }

    #[test]
    fn text_is_escaped() {
        let svg = chart(vec![row(1.0)]).svg();

        assert!(svg.contains("&lt;b&gt; &amp; &quot;c&quot;"), "{svg}");
        assert!(!svg.contains("<b>"), "{svg}");
    }
}
