//! Which database a shard is of: the old files do not say it.

use std::{collections::BTreeMap, fs, path::Path};

use serde::{Deserialize, Serialize};

use super::error::ImportFailure;
use crate::points::{Precision, Target};

/// Where the points of a shard go.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// The database.
    pub database: String,
    /// The retention policy; the default one of the database if it is left out.
    pub retention_policy: Option<String>,
}

impl Place {
    /// As what points are read for: old queues hold nanoseconds.
    pub fn target(&self) -> Target {
        Target {
            database: self.database.clone(),
            retention_policy: self.retention_policy.clone(),
            precision: Precision::Nanoseconds,
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.database)?;
        match &self.retention_policy {
            Some(policy) => write!(f, ".{policy}"),
            None => Ok(()),
        }
    }
}

/// What a file of shards says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Shards {
    rows: BTreeMap<u64, Place>,
    default: Option<Place>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Toml {
    #[serde(default)]
    shard: Vec<Row>,
    default: Option<Place>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    id: u64,
    database: String,
    retention_policy: Option<String>,
}

impl Shards {
    /// Reads a file: TOML as the module's documentation shows it, or what `SHOW SHARDS` printed as
    /// CSV or JSON.
    pub fn read(path: &Path) -> Result<Shards, ImportFailure> {
        let text = fs::read_to_string(path).map_err(ImportFailure::file("read", path))?;
        let read = Shards::parse(&text);
        read.map_err(|why| ImportFailure::Usage(format!("{}: {why}", path.display())))
    }

    fn parse(text: &str) -> Result<Shards, String> {
        if text.trim_start().starts_with('{') {
            return of_json(text);
        }
        let first = text.lines().find(|line| !line.trim().is_empty());
        let mut names = first.unwrap_or_default().split(',').map(str::trim);
        if names.clone().any(|name| name == "id") && names.any(|name| name == "database") {
            return of_csv(text);
        }
        let toml: Toml = toml::from_str(text).map_err(|error| error.to_string())?;
        let mut shards = Shards {
            default: toml.default,
            ..Shards::default()
        };
        for row in toml.shard {
            shards.add(row)?;
        }
        Ok(shards)
    }

    fn add(&mut self, row: Row) -> Result<(), String> {
        let place = Place {
            database: row.database,
            retention_policy: row.retention_policy,
        };
        if place.database.is_empty() {
            return Err(format!("shard {}: the database has no name", row.id));
        }
        match self.rows.insert(row.id, place.clone()) {
            Some(other) if other != place => Err(format!(
                "shard {} is said to be of {other} and of {place}",
                row.id
            )),
            _ => Ok(()),
        }
    }

    /// Where the points of a shard go; `None` if the file does not say it.
    pub fn place(&self, shard: u64) -> Option<&Place> {
        self.rows.get(&shard).or(self.default.as_ref())
    }
}

/// A row, by the names of its columns.
fn row<'a>(columns: &[String], value: impl Fn(usize) -> Option<&'a str>) -> Result<Row, String> {
    let named = |name: &str| {
        let at = columns.iter().position(|column| column == name)?;
        value(at)
    };
    let id = named("id").ok_or("a row has no id")?;
    let database = named("database").ok_or("a row has no database")?;
    let policy = named("retention_policy").filter(|name| !name.is_empty());
    Ok(Row {
        id: id
            .parse()
            .map_err(|_| format!("{id:?} is no id of a shard"))?,
        database: database.to_owned(),
        retention_policy: policy.map(str::to_owned),
    })
}

/// Each database may have a line of names of its own.
fn of_csv(text: &str) -> Result<Shards, String> {
    let mut shards = Shards::default();
    let mut columns = Vec::new();
    let mut reader = csv::ReaderBuilder::new();
    let mut reader = reader
        .has_headers(false)
        .flexible(true)
        .trim(csv::Trim::All)
        .from_reader(text.as_bytes());
    for record in reader.records() {
        let record = record.map_err(|error| error.to_string())?;
        if record.iter().any(|name| name == "id") && record.iter().any(|name| name == "database") {
            columns = record.iter().map(str::to_owned).collect();
        } else {
            shards.add(row(&columns, |at| record.get(at))?)?;
        }
    }
    Ok(shards)
}

#[derive(Deserialize)]
struct Json {
    results: Vec<JsonResult>,
}

#[derive(Deserialize)]
struct JsonResult {
    #[serde(default)]
    series: Vec<JsonSeries>,
}

#[derive(Deserialize)]
struct JsonSeries {
    columns: Vec<String>,
    #[serde(default)]
    values: Vec<Vec<serde_json::Value>>,
}

fn of_json(text: &str) -> Result<Shards, String> {
    let json: Json = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let mut shards = Shards::default();
    for series in json.results.into_iter().flat_map(|result| result.series) {
        for values in series.values {
            let values: Vec<String> = values
                .into_iter()
                .map(|value| match value {
                    serde_json::Value::String(text) => text,
                    other => other.to_string(),
                })
                .collect();
            let value = |at: usize| values.get(at).map(String::as_str);
            shards.add(row(&series.columns, value)?)?;
        }
    }
    Ok(shards)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(database: &str, policy: Option<&str>) -> Place {
        Place {
            database: database.to_owned(),
            retention_policy: policy.map(str::to_owned),
        }
    }

    #[test]
    fn toml_names_shards_and_a_default() {
        let text = "default = { database = \"rest\" }\n[[shard]]\nid = 7\ndatabase = \"metrics\"\n\
                    retention_policy = \"autogen\"\n";
        let shards = Shards::parse(text).unwrap();
        assert_eq!(shards.place(7), Some(&place("metrics", Some("autogen"))));
        assert_eq!(shards.place(8), Some(&place("rest", None)));
        assert_eq!(Shards::parse("").unwrap().place(7), None);
        assert!(Shards::parse("[[shard]]\nid = 7\ndb = \"x\"").is_err());
        let twice = "[[shard]]\nid=7\ndatabase='a'\n[[shard]]\nid=7\ndatabase='b'";
        assert!(Shards::parse(twice).unwrap_err().contains("of a and of b"));
    }

    #[test]
    fn what_show_shards_prints_is_a_file_of_shards() {
        let csv = "name,id,database,retention_policy,shard_group,start_time,end_time,expiry_time,\
                   owners\n_internal,1,_internal,monitor,1,a,b,c,\"2,3\"\n\nname,id,database,\
                   retention_policy,shard_group,start_time,end_time,expiry_time,owners\nmetrics,\
                   7,metrics,two weeks,2,a,b,c,\n";
        let json = r#"{"results":[{"series":[{"name":"_internal","columns":["id","database",
            "retention_policy","owners"],"values":[[1,"_internal","monitor","2,3"]]},
            {"name":"metrics","columns":["id","database","retention_policy","owners"],
            "values":[[7,"metrics","two weeks",""]]}]}]}"#;
        for text in [csv, json] {
            let shards = Shards::parse(text).unwrap();
            assert_eq!(shards.place(1), Some(&place("_internal", Some("monitor"))));
            assert_eq!(shards.place(7), Some(&place("metrics", Some("two weeks"))));
            assert_eq!(shards.place(2), None);
        }
    }
}
