//! Counters and gauges with labels, and their Prometheus text.
//!
//! A metric exists from the moment it is asked for: a gauge reads 0, it is not missing. It is gone when
//! the scope that it was asked for in is over: what a dead attempt of a job showed of itself would be
//! added to what its successor shows.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use parking_lot::Mutex;

/// A number that only rises.
#[derive(Clone, Debug, Default)]
pub struct Counter(Arc<AtomicU64>);

impl Counter {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The number.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that rises and falls.
#[derive(Clone, Debug, Default)]
pub struct Gauge(Arc<AtomicI64>);

impl Gauge {
    /// Sets it.
    pub fn set(&self, value: i64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Adds to it; `n` may be negative.
    pub fn add(&self, n: i64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The number.
    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Clone)]
enum Value {
    Counter(Counter),
    Gauge(Gauge),
    /// A gauge that is computed when it is read.
    Computed(Arc<dyn Fn() -> i64 + Send + Sync>),
}

impl std::fmt::Debug for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", read(self))
    }
}

type Labels = Vec<(&'static str, String)>;

#[derive(Debug, Default)]
struct Family {
    help: &'static str,
    series: BTreeMap<Labels, Value>,
}

/// All metrics of a process.
#[derive(Clone, Debug, Default)]
pub struct Registry(Arc<Mutex<BTreeMap<&'static str, Family>>>);

impl Registry {
    /// A group whose metrics carry `labels`.
    pub fn group(&self, labels: Vec<(&'static str, String)>) -> MetricGroup {
        MetricGroup { registry: self.clone(), scope: None, labels }
    }

    /// A scope whose metrics end together.
    pub fn scope(&self) -> MetricScope {
        MetricScope { registry: self.clone(), members: Arc::new(Mutex::new(Some(Vec::new()))) }
    }

    /// The sum of a counter or gauge over all its series; 0 when nobody has asked for it.
    pub fn total(&self, name: &str) -> i64 {
        let families = self.0.lock();
        let series = families.get(name).map(|family| family.series.values());
        series.into_iter().flatten().map(read).sum()
    }

    /// The series of one name with their labels.
    pub fn series(&self, name: &str) -> Vec<(Vec<(&'static str, String)>, i64)> {
        let families = self.0.lock();
        let series = families.get(name).map(|family| family.series.iter());
        series.into_iter().flatten().map(|(labels, value)| (labels.clone(), read(value))).collect()
    }

    /// The Prometheus text exposition format, version 0.0.4.
    pub fn prometheus_text(&self) -> String {
        let mut text = String::new();
        for (name, family) in self.0.lock().iter() {
            let kind = match family.series.values().next() {
                Some(Value::Counter(_)) => "counter",
                _ => "gauge",
            };
            let _ = writeln!(text, "# HELP thalweg_{name} {}\n# TYPE thalweg_{name} {kind}", family.help);
            for (labels, value) in &family.series {
                let labels: Vec<_> =
                    labels.iter().map(|(key, value)| format!("{key}=\"{}\"", escape(value))).collect();
                let _ = writeln!(text, "thalweg_{name}{{{}}} {}", labels.join(","), read(value));
            }
        }
        text
    }
}

fn read(value: &Value) -> i64 {
    match value {
        Value::Counter(counter) => i64::try_from(counter.get()).unwrap_or(i64::MAX),
        Value::Gauge(gauge) => gauge.get(),
        Value::Computed(compute) => compute(),
    }
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// Names and labels of metrics; `None` once they are over.
type Members = Arc<Mutex<Option<Vec<(&'static str, Labels)>>>>;

/// Metrics that end together: those of one attempt.
#[derive(Clone, Debug)]
pub struct MetricScope {
    registry: Registry,
    members: Members,
}

impl MetricScope {
    /// A group in this scope whose metrics carry `labels`.
    pub fn group(&self, labels: Vec<(&'static str, String)>) -> MetricGroup {
        MetricGroup { registry: self.registry.clone(), scope: Some(self.members.clone()), labels }
    }

    /// Ends it: its metrics are gone. Who still holds one counts for itself, and so does who asks
    /// for a new one.
    pub fn end(&self) {
        let Some(members) = self.members.lock().take() else { return };
        let mut families = self.registry.0.lock();
        for (name, labels) in members {
            if let Some(family) = families.get_mut(name) {
                family.series.remove(&labels);
            }
        }
    }
}

/// Makes metrics that carry a fixed set of labels.
#[derive(Clone, Debug, Default)]
pub struct MetricGroup {
    registry: Registry,
    scope: Option<Members>,
    labels: Labels,
}

impl MetricGroup {
    /// The same group with one more label.
    #[must_use]
    pub fn with(&self, label: &'static str, value: impl Into<String>) -> MetricGroup {
        let mut labels = self.labels.clone();
        labels.push((label, value.into()));
        MetricGroup { registry: self.registry.clone(), scope: self.scope.clone(), labels }
    }

    /// The counter of this name and these labels. Asking twice gives the same one. A name that is
    /// already a gauge gives a counter that nobody reads.
    pub fn counter(&self, name: &'static str, help: &'static str) -> Counter {
        match self.series(name, help, || Value::Counter(Counter::default())) {
            Value::Counter(counter) => counter,
            Value::Gauge(_) | Value::Computed(_) => Counter::default(),
        }
    }

    /// The gauge of this name and these labels, as [`MetricGroup::counter`].
    pub fn gauge(&self, name: &'static str, help: &'static str) -> Gauge {
        match self.series(name, help, || Value::Gauge(Gauge::default())) {
            Value::Gauge(gauge) => gauge,
            Value::Counter(_) | Value::Computed(_) => Gauge::default(),
        }
    }

    /// A gauge of this name and these labels that `compute` reads whenever somebody looks: an age.
    /// It takes the place of one that is there.
    pub fn computed_gauge(
        &self,
        name: &'static str,
        help: &'static str,
        compute: impl Fn() -> i64 + Send + Sync + 'static,
    ) {
        self.within_scope(name, || {
            let mut families = self.registry.0.lock();
            let family = families.entry(name).or_insert_with(|| Family { help, series: BTreeMap::new() });
            family.series.insert(self.labels.clone(), Value::Computed(Arc::new(compute)));
        });
    }

    fn series(&self, name: &'static str, help: &'static str, make: impl FnOnce() -> Value) -> Value {
        let mut make = Some(make);
        let found = self.within_scope(name, || {
            let mut families = self.registry.0.lock();
            let family = families.entry(name).or_insert_with(|| Family { help, series: BTreeMap::new() });
            let make = make.take()?;
            Some(family.series.entry(self.labels.clone()).or_insert_with(make).clone())
        });
        match (found.flatten(), make) {
            (Some(value), _) => value,
            (None, Some(make)) => make(),
            (None, None) => Value::Counter(Counter::default()),
        }
    }

    /// Does `act`, which adds the metric, unless the scope is over: then nobody is to see it.
    fn within_scope<T>(&self, name: &'static str, act: impl FnOnce() -> T) -> Option<T> {
        let Some(members) = &self.scope else { return Some(act()) };
        let mut members = members.lock();
        let members = members.as_mut()?;
        members.push((name, self.labels.clone()));
        Some(act())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gauge_reads_zero_from_the_start_and_text_is_escaped() {
        let registry = Registry::default();
        let group = registry.group(vec![("job", "a \"b\"".into())]);
        group.gauge("lag_records", "Records not yet read.");
        group.counter("rows_in_total", "Rows read.").add(3);
        let text = registry.prometheus_text();
        assert!(text.contains("thalweg_lag_records{job=\"a \\\"b\\\"\"} 0\n"), "{text}");
        assert!(text.contains("# TYPE thalweg_rows_in_total counter\n"), "{text}");
        assert_eq!(registry.total("rows_in_total"), 3);
    }

    #[test]
    fn what_a_dead_attempt_showed_is_gone_and_does_not_come_back() {
        let registry = Registry::default();
        let group_of = |scope: &MetricScope, attempt: &str| {
            scope.group(vec![("uid", "sink".into()), ("attempt", attempt.into())])
        };
        let (first, second) = (registry.scope(), registry.scope());
        let dead = group_of(&first, "1");
        let rows = dead.counter("rows_in_total", "Rows.");
        rows.add(5);
        dead.gauge("stalled", "Whether it stands still.").set(1);
        group_of(&second, "2").counter("rows_in_total", "Rows.").add(5);
        assert_eq!(registry.total("rows_in_total"), 10);
        first.end();
        assert_eq!((registry.total("rows_in_total"), registry.total("stalled")), (5, 0));
        // A thread of the dead attempt counts on, and asks for more.
        rows.add(1);
        dead.with("cluster", "east").counter("rows_in_total", "Rows.").add(7);
        dead.gauge("stalled", "Whether it stands still.").set(1);
        assert_eq!((registry.total("rows_in_total"), registry.total("stalled")), (5, 0));
        assert!(!registry.prometheus_text().contains("attempt=\"1\""));
    }
}
