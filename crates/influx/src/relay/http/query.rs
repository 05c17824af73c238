//! The parameters of a write.

use std::{borrow::Cow, collections::HashMap};

/// The first value of each name, as influxd takes it.
#[derive(Debug, Default)]
pub struct Parameters<'q>(HashMap<Cow<'q, str>, Cow<'q, str>>);

impl<'q> Parameters<'q> {
    pub fn of(query: Option<&'q str>) -> Parameters<'q> {
        let mut values = HashMap::new();
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            values.entry(name).or_insert(value);
        }
        Parameters(values)
    }

    /// The value, which is not empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        let value = self.0.get(name).map(Cow::as_ref);
        value.filter(|value| !value.is_empty())
    }

    /// The value, or an empty text.
    pub fn text(&self, name: &str) -> &str {
        self.get(name).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_unescaped_and_the_first_one_of_a_name_counts() {
        let parameters = Parameters::of(Some("db=a%20b+c&db=d&rp=&precision=s"));
        assert_eq!(parameters.get("db"), Some("a b c"));
        assert_eq!(parameters.get("rp"), None);
        assert_eq!(parameters.text("u"), "");
        assert_eq!(Parameters::of(None).get("db"), None);
    }
}
