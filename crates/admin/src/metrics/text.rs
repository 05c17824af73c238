//! The first form of the families: OpenMetrics text.

use std::fmt;

use hinted_handoff::Durations;
use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeGaugeValue, GaugeValueEncoder, NoLabelSet},
    metrics::MetricType,
    registry,
};

use super::out::{Sample, Unit, Value};

/// The text that a scrape gets. The encoder adds the prefix, the unit and `_total` to names.
pub struct Text<'a>(pub DescriptorEncoder<'a>);

fn named(unit: Unit) -> registry::Unit {
    match unit {
        Unit::Bytes => registry::Unit::Bytes,
        Unit::Seconds => registry::Unit::Seconds,
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

impl Text<'_> {
    pub fn gauge<'l, const LABELS: usize, V: Into<Value>>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        samples: impl IntoIterator<Item = Sample<'l, LABELS, V>>,
    ) -> fmt::Result {
        let Text(encoder) = self;
        let (unit, gauge) = (unit.map(named), MetricType::Gauge);
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

    pub fn counter<'l, const LABELS: usize>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        samples: impl IntoIterator<Item = Sample<'l, LABELS, u64>>,
    ) -> fmt::Result {
        let Text(encoder) = self;
        let (unit, counter) = (unit.map(named), MetricType::Counter);
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

    pub fn histogram(&mut self, name: &str, help: &str, times: &Durations) -> fmt::Result {
        let Text(encoder) = self;
        let (unit, histogram) = (named(Unit::Seconds), MetricType::Histogram);
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
