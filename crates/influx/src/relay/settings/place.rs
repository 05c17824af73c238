//! Where a setting stands in its file.

use std::ops::Range;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// A step on the way to a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Key(&'static str),
    Index(usize),
}

/// What stands where in a file that was read already.
pub struct Places<'t> {
    text: &'t str,
    table: Option<Spanned<DeTable<'t>>>,
}

impl<'t> Places<'t> {
    pub fn of(text: &'t str) -> Places<'t> {
        Places {
            text,
            table: DeTable::parse(text).ok(),
        }
    }

    /// Whether the file names this setting.
    pub fn has(&self, way: &[&'static str]) -> bool {
        let way: Vec<Step> = way.iter().map(|key| Step::Key(key)).collect();
        let (_, steps) = self.find(&way);
        steps == way.len()
    }

    /// The line of a setting; of what stands around it, if the file does not name it.
    pub fn line(&self, way: &[Step]) -> Option<usize> {
        let (span, _) = self.find(way);
        span.map(|span| line_at(self.text, span.start))
    }

    /// The last step that is there, and how many are.
    fn find(&self, way: &[Step]) -> (Option<Range<usize>>, usize) {
        let Some(root) = &self.table else {
            return (None, 0);
        };
        let (mut span, mut at) = (None, None::<&DeValue<'_>>);
        for (done, step) in way.iter().enumerate() {
            let next = match (step, at) {
                (Step::Key(key), None) => entry(root.get_ref(), key),
                (Step::Key(key), Some(DeValue::Table(table))) => entry(table, key),
                (Step::Index(index), Some(DeValue::Array(values))) => {
                    let value = values.get(*index);
                    value.map(|value| (value.span(), value.get_ref()))
                }
                _ => None,
            };
            let Some((found, value)) = next else {
                return (span, done);
            };
            (span, at) = (Some(found), Some(value));
        }
        (span, way.len())
    }
}

fn entry<'t>(table: &'t DeTable<'_>, key: &str) -> Option<(Range<usize>, &'t DeValue<'t>)> {
    let (name, value) = table.iter().find(|(name, _)| name.get_ref() == key)?;
    Some((name.span(), value.get_ref()))
}

/// The line, from 1, of a place in a text.
pub fn line_at(text: &str, place: usize) -> usize {
    let before = text.as_bytes().get(..place).unwrap_or(text.as_bytes());
    1 + before.iter().filter(|byte| **byte == b'\n').count()
}
