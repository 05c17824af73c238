//! Writing metric families.

use std::fmt;

use hinted_handoff::Durations;
use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeGaugeValue, GaugeValueEncoder, NoLabelSet},
    metrics::MetricType,
    registry,
};

/// Labels of a sample, and its value.
type Sample<'a, const LABELS: usize, V> = ([(&'static str, &'a str); LABELS], V);

/// The text that a scrape gets.
pub struct Out<'a>(DescriptorEncoder<'a>);

/// What is measured, where it is no count of things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Bytes,
    Seconds,
}

impl Unit {
    fn named(self) -> registry::Unit {
        match self {
            Unit::Bytes => registry::Unit::Bytes,
            Unit::Seconds => registry::Unit::Seconds,
        }
    }
}

/// A value of a gauge.
#[derive(Debug, Clone, Copy)]
pub enum Value {
    Whole(u64),
    Real(f64),
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Value::Whole(value)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Value::Real(value)
    }
}

impl EncodeGaugeValue for Value {
    fn encode(&self, encoder: &mut GaugeValueEncoder<'_>) -> fmt::Result {
        match self {
            Value::Whole(value) => value.encode(encoder),
            Value::Real(value) => value.encode(encoder),
        }
    }
}

impl<'a> Out<'a> {
    pub fn new(encoder: DescriptorEncoder<'a>) -> Self {
        Out(encoder)
    }

    /// A family of gauges. The unit becomes the end of its name.
    pub fn gauge<'l, const LABELS: usize, V: Into<Value>>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        samples: impl IntoIterator<Item = Sample<'l, LABELS, V>>,
    ) -> fmt::Result {
        let Out(encoder) = self;
        let (unit, gauge) = (unit.map(Unit::named), MetricType::Gauge);
        let mut family = encoder.encode_descriptor(name, help, unit.as_ref(), gauge)?;
        for (labels, value) in samples {
            let value: Value = value.into();
            match LABELS {
                0 => family.encode_gauge(&value)?,
                _ => family.encode_family(&labels)?.encode_gauge(&value)?,
            }
        }
        Ok(())
    }

    /// A family of counters. Behind the unit the name gets `_total`.
    pub fn counter<'l, const LABELS: usize>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        samples: impl IntoIterator<Item = Sample<'l, LABELS, u64>>,
    ) -> fmt::Result {
        let Out(encoder) = self;
        let (unit, counter) = (unit.map(Unit::named), MetricType::Counter);
        let mut family = encoder.encode_descriptor(name, help, unit.as_ref(), counter)?;
        for (labels, value) in samples {
            match LABELS {
                0 => family.encode_counter::<NoLabelSet, u64, u64>(&value, None)?,
                _ => {
                    let mut of = family.encode_family(&labels)?;
                    of.encode_counter::<NoLabelSet, u64, u64>(&value, None)?;
                }
            }
        }
        Ok(())
    }

    /// A histogram of times, in seconds.
    pub fn histogram(&mut self, name: &str, help: &str, times: &Durations) -> fmt::Result {
        let Out(encoder) = self;
        let (unit, histogram) = (Unit::Seconds.named(), MetricType::Histogram);
        let mut family = encoder.encode_descriptor(name, help, Some(&unit), histogram)?;
        let seconds = |us: u64| us as f64 / 1e6;
        let buckets = times.buckets.iter().map(|bucket| {
            (
                bucket.at_most_us.map_or(f64::INFINITY, seconds),
                bucket.count,
            )
        });
        let buckets: Vec<(f64, u64)> = buckets.collect();
        family.encode_histogram::<NoLabelSet>(seconds(times.sum_us), times.count, &buckets, None)
    }
}
