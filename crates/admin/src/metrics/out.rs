//! Writing metric families, in one form or the other.

use std::fmt;

use hinted_handoff::Durations;

#[cfg(feature = "metrics")]
use super::facade::Facade;
use super::text::Text;

/// Labels of a sample, and its value.
pub type Sample<'a, const LABELS: usize, V> = ([(&'static str, &'a str); LABELS], V);

/// Where families are written to.
pub enum Out<'a> {
    /// The text that a scrape gets.
    Text(Text<'a>),
    /// The recorder that the host installed.
    #[cfg(feature = "metrics")]
    Facade(&'a mut Facade),
}

/// What is measured, where it is no count of things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Bytes,
    Seconds,
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

impl Out<'_> {
    /// A family of gauges. The unit becomes the end of its name.
    pub fn gauge<'l, const LABELS: usize, V: Into<Value>>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        samples: impl IntoIterator<Item = Sample<'l, LABELS, V>>,
    ) -> fmt::Result {
        match self {
            Out::Text(text) => text.gauge(name, help, unit, samples),
            #[cfg(feature = "metrics")]
            Out::Facade(facade) => facade.gauge(name, help, unit, samples),
        }
    }

    /// A family of counters. Behind the unit the name gets `_total`.
    pub fn counter<'l, const LABELS: usize>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        samples: impl IntoIterator<Item = Sample<'l, LABELS, u64>>,
    ) -> fmt::Result {
        match self {
            Out::Text(text) => text.counter(name, help, unit, samples),
            #[cfg(feature = "metrics")]
            Out::Facade(facade) => facade.counter(name, help, unit, samples),
        }
    }

    /// A histogram of times, in seconds. The facade gets its sum and its count only.
    pub fn histogram(&mut self, name: &str, help: &str, times: &Durations) -> fmt::Result {
        match self {
            Out::Text(text) => text.histogram(name, help, times),
            #[cfg(feature = "metrics")]
            Out::Facade(facade) => facade.histogram(name, help, times),
        }
    }
}
