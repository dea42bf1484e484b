//! Where every metric is named: the registry, and what it remembers of each for the documentation.

use prometheus::core::Collector;
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
};

/// A metric, as its documentation lists it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Definition {
    /// The whole name.
    pub name: &'static str,
    /// What kind of figure it is.
    pub kind: Kind,
    /// Names of its labels, in order.
    pub labels: &'static [&'static str],
    /// What it means, in a sentence.
    pub help: &'static str,
}

/// What kind of figure a metric is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts observations by size.
    Histogram,
}

impl Kind {
    /// Its name in the text format.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// Prometheus' registry, and the definitions of what is in it.
///
/// A part of the server that counts has a struct of its own, built by `fn new(registry: &mut Registry)`, and a
/// field of [`Metrics`](crate::metrics::Metrics).
#[derive(Debug, Default)]
pub struct Registry {
    registry: prometheus::Registry,
    definitions: Vec<Definition>,
}

/// A name that is registered twice or badly formed is a mistake of whoever names it.
const ONCE: &str = "every metric is named once, and well";

impl Registry {
    /// A counter without labels.
    pub fn counter(&mut self, name: &'static str, help: &'static str) -> IntCounter {
        let counter = IntCounter::new(name, help).expect(ONCE);
        self.add(Definition { name, kind: Kind::Counter, labels: &[], help }, counter)
    }

    /// Counters told apart by labels.
    pub fn counters(
        &mut self,
        name: &'static str,
        labels: &'static [&'static str],
        help: &'static str,
    ) -> IntCounterVec {
        let counters = IntCounterVec::new(Opts::new(name, help), labels).expect(ONCE);
        self.add(Definition { name, kind: Kind::Counter, labels, help }, counters)
    }

    /// A gauge without labels.
    pub fn gauge(&mut self, name: &'static str, help: &'static str) -> IntGauge {
        let gauge = IntGauge::new(name, help).expect(ONCE);
        self.add(Definition { name, kind: Kind::Gauge, labels: &[], help }, gauge)
    }

    /// Gauges told apart by labels.
    pub fn gauges(
        &mut self,
        name: &'static str,
        labels: &'static [&'static str],
        help: &'static str,
    ) -> IntGaugeVec {
        let gauges = IntGaugeVec::new(Opts::new(name, help), labels).expect(ONCE);
        self.add(Definition { name, kind: Kind::Gauge, labels, help }, gauges)
    }

    /// A histogram without labels, with these upper bounds.
    pub fn histogram(&mut self, name: &'static str, buckets: &[f64], help: &'static str) -> Histogram {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        let histogram = Histogram::with_opts(options).expect(ONCE);
        self.add(Definition { name, kind: Kind::Histogram, labels: &[], help }, histogram)
    }

    /// Histograms told apart by labels, with these upper bounds.
    pub fn histograms(
        &mut self,
        name: &'static str,
        labels: &'static [&'static str],
        buckets: &[f64],
        help: &'static str,
    ) -> HistogramVec {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        let histograms = HistogramVec::new(options, labels).expect(ONCE);
        self.add(Definition { name, kind: Kind::Histogram, labels, help }, histograms)
    }

    /// What is registered.
    pub fn definitions(&self) -> &[Definition] {
        &self.definitions
    }

    pub(super) fn gather(&self) -> Vec<MetricFamily> {
        self.registry.gather()
    }

    fn add<C: Collector + Clone + 'static>(&mut self, definition: Definition, collector: C) -> C {
        self.registry.register(Box::new(collector.clone())).expect(ONCE);
        self.definitions.push(definition);
        collector
    }
}

/// A value under the labels of its definition.
pub(super) type Sample = (Vec<String>, f64);

impl Definition {
    /// The figures of a metric that is computed when the page is asked for.
    pub(super) fn family(&self, samples: impl IntoIterator<Item = Sample>) -> MetricFamily {
        let mut family = MetricFamily::default();
        family.set_name(self.name.to_owned());
        family.set_help(self.help.to_owned());
        family.set_field_type(match self.kind {
            Kind::Counter => MetricType::COUNTER,
            Kind::Gauge => MetricType::GAUGE,
            Kind::Histogram => MetricType::HISTOGRAM,
        });
        family.set_metric(samples.into_iter().map(|sample| self.metric(sample)).collect());
        family
    }

    /// The figure of a metric without labels.
    pub(super) fn single(&self, value: f64) -> MetricFamily {
        self.family([(Vec::new(), value)])
    }

    fn metric(&self, (values, value): Sample) -> Metric {
        let label = |(name, value): (&&str, String)| {
            let mut label = LabelPair::default();
            label.set_name((*name).to_owned());
            label.set_value(value);
            label
        };
        let mut metric = Metric::from_label(self.labels.iter().zip(values).map(label).collect());
        if self.kind == Kind::Counter {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        } else {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        metric
    }
}
