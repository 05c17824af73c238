//! The second form of the families: gauges and counters of the recorder that the host installed.
//!
//! Names are those of the text to the letter. An exporter that adds units and `_total` finds them
//! there, and adds none.

use std::{collections::HashMap, fmt};

use ::metrics::{Key, Label, Level, Metadata, Recorder, Unit as FacadeUnit, with_recorder};
use hinted_handoff::Durations;

use super::{
    PREFIX,
    out::{Sample, Unit, Value},
};

static METADATA: Metadata<'static> =
    Metadata::new(module_path!(), Level::INFO, Some(module_path!()));

/// What was told of a counter.
#[derive(Debug, Default)]
struct Counted {
    /// Before it last began anew.
    before: u64,
    /// Since then.
    since: u64,
}

/// What was told to the recorder: a counter of it never falls, and nothing can be taken from it.
#[derive(Debug, Default)]
pub struct Facade {
    counters: HashMap<Key, Counted>,
    /// Gauges of this report. `true` where one that is gone is 0: what counts things, of a node,
    /// say. A limit of 0 would be a limit, and an age of 0 an age.
    told: HashMap<Key, bool>,
    /// Gauges of the report before that are not in this one so far.
    left: HashMap<Key, bool>,
}

fn full_name(name: &str, unit: Option<Unit>, end: &str) -> String {
    match unit {
        None => format!("{PREFIX}_{name}{end}"),
        Some(Unit::Bytes) => format!("{PREFIX}_{name}_bytes{end}"),
        Some(Unit::Seconds) => format!("{PREFIX}_{name}_seconds{end}"),
    }
}

fn facade_unit(unit: Unit) -> FacadeUnit {
    match unit {
        Unit::Bytes => FacadeUnit::Bytes,
        Unit::Seconds => FacadeUnit::Seconds,
    }
}

fn key<const LABELS: usize>(name: &str, labels: [(&'static str, &str); LABELS]) -> Key {
    let labels = labels.map(|(label, value)| Label::new(label, value.to_owned()));
    Key::from_parts(name.to_owned(), labels.to_vec())
}

impl Facade {
    pub fn gauge<'l, const LABELS: usize, V: Into<Value>>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        samples: impl IntoIterator<Item = Sample<'l, LABELS, V>>,
    ) -> fmt::Result {
        let name = full_name(name, unit, "");
        with_recorder(|recorder| {
            // Each time, for a recorder that was installed since.
            let unit = unit.map(facade_unit);
            recorder.describe_gauge(name.clone().into(), unit, help.to_owned().into());
            for (labels, value) in samples {
                self.set(recorder, key(&name, labels), value.into());
            }
        });
        Ok(())
    }

    fn set(&mut self, recorder: &dyn Recorder, key: Key, value: Value) {
        let (number, is_whole) = match value {
            Value::Whole(value) => (value as f64, true),
            Value::Real(value) => (value, false),
        };
        recorder.register_gauge(&key, &METADATA).set(number);
        self.left.remove(&key);
        let is_0_when_gone = is_whole && key.labels().len() > 0;
        self.told.insert(key, is_0_when_gone);
    }

    pub fn counter<'l, const LABELS: usize>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        samples: impl IntoIterator<Item = Sample<'l, LABELS, u64>>,
    ) -> fmt::Result {
        let name = full_name(name, unit, "_total");
        with_recorder(|recorder| {
            let unit = unit.map(facade_unit);
            recorder.describe_counter(name.clone().into(), unit, help.to_owned().into());
            for (labels, value) in samples {
                let key = key(&name, labels);
                let counter = recorder.register_counter(&key, &METADATA);
                counter.absolute(self.counters.entry(key).or_default().now(value));
            }
        });
        Ok(())
    }

    /// Of a histogram what can be set: the facade takes its samples one by one only.
    pub fn histogram(&mut self, name: &str, help: &str, times: &Durations) -> fmt::Result {
        let count = format!("{name}_seconds_count");
        let sum = full_name(name, Some(Unit::Seconds), "_sum");
        // A gauge, since an exporter may add `_total` to the name of a counter.
        self.gauge(&count, help, None, [([], times.count)])?;
        with_recorder(|recorder| {
            let unit = Some(FacadeUnit::Seconds);
            recorder.describe_gauge(sum.clone().into(), unit, help.to_owned().into());
            let seconds = Value::Real(times.sum_us as f64 / 1e6);
            self.set(recorder, key(&sum, []), seconds);
        });
        Ok(())
    }

    /// Ends a report: what was told before and is not there any more does not keep its value.
    pub fn end(&mut self, is_up: bool) {
        with_recorder(|recorder| {
            for (key, is_0) in self.left.drain() {
                let value = if is_0 && is_up { 0.0 } else { f64::NAN };
                recorder.register_gauge(&key, &METADATA).set(value);
            }
        });
        std::mem::swap(&mut self.left, &mut self.told);
    }

    /// From now on counters are those of another handoff, and begin anew.
    pub fn begin_anew(&mut self) {
        self.counters.values_mut().for_each(Counted::begin_anew);
    }
}

impl Counted {
    fn begin_anew(&mut self) {
        self.before = self.before.saturating_add(self.since);
        self.since = 0;
    }

    /// What to tell of a count. If it is less than it was, it began anew.
    fn now(&mut self, count: u64) -> u64 {
        if count < self.since {
            self.begin_anew();
        }
        self.since = count;
        self.before.saturating_add(count)
    }
}
