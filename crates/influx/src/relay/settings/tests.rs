use std::collections::BTreeSet;

use super::*;

const SHORT: &str = "[[nodes]]\nid = 1\nurl = \"http://127.0.0.1:8086\"\n[queue]\ndir = \"q\"\n";

fn read(text: &str) -> Settings {
    Settings::from_toml(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn error(text: &str) -> String {
    Settings::from_toml(text).unwrap_err().to_string()
}

/// The example with the lines in use that begin so.
fn example(marks: &[&str]) -> String {
    let used = Settings::EXAMPLE.lines().map(|line| {
        let key = |mark: &&str| {
            let rest = line.strip_prefix(*mark)?;
            let first = rest.chars().next()?;
            let is_table = first == '[';
            let is_key = rest
                .split_once(" = ")
                .is_some_and(|(key, _)| key.chars().all(|it| it.is_ascii_lowercase() || it == '_'));
            (is_table || is_key).then(|| rest.to_owned())
        };
        marks
            .iter()
            .find_map(key)
            .unwrap_or_else(|| line.to_owned())
    });
    used.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_example_has_each_setting_with_its_default() {
    let plain = read(Settings::EXAMPLE);
    let told = read(&example(&["# "]));
    assert_eq!(format!("{told:?}"), format!("{plain:?}"));
    let short = read(&SHORT.replace("\"q\"", "\"/var/lib/hh-relay\""));
    let mut nodes_apart = plain.clone();
    nodes_apart.nodes.truncate(1);
    assert_eq!(format!("{nodes_apart:?}"), format!("{short:?}"));
}

#[test]
fn the_example_names_every_setting() {
    let all = read(&example(&["## ", "# "]));
    assert_eq!((all.users.len(), all.udp.len(), all.nodes.len()), (1, 1, 2));
    assert_eq!(all.writer.answers.len(), 1);
    let text = example(&["## ", "# "]).replace("## # password_file", "password_file");
    let table: toml::Table = toml::from_str(&text).unwrap();
    let keys = |way: &[&str]| -> BTreeSet<String> {
        let mut at = toml::Value::Table(table.clone());
        for key in way {
            at = match at.get(key).unwrap() {
                toml::Value::Array(values) => values[0].clone(),
                value => value.clone(),
            };
        }
        at.as_table().unwrap().keys().cloned().collect()
    };
    let full = Config {
        max_hints_per_node: Some(1),
        max_bytes_per_node: Some(1),
        max_hints: Some(1),
        max_bytes: Some(1),
        max_disk_bytes: Some(1),
        ..Config::new("q")
    };
    let queue = toml::Table::try_from(&full).unwrap();
    assert_eq!(keys(&["queue"]), queue.keys().cloned().collect());
    // serde says itself which fields a table has.
    for (way, unknown) in [
        (&[][..], "x = 1\n"),
        (&["http"], "[http]\nx = 1\n"),
        (&["http", "tls"], "[http.tls]\nx = 1\n"),
        (&["users"], "[[users]]\nx = 1\n"),
        (&["udp"], "[[udp]]\nx = 1\n"),
        (&["nodes"], "[[nodes]]\nx = 1\n"),
        (&["writer"], "[writer]\nx = 1\n"),
        (&["writer", "answers"], "[[writer.answers]]\nx = 1\n"),
        (&["admin"], "[admin]\nx = 1\n"),
        (&["log"], "[log]\nx = 1\n"),
    ] {
        let told = error(unknown);
        let (_, wanted) = told.split_once("expected ").unwrap();
        let wanted: BTreeSet<String> = wanted
            .split('`')
            .skip(1)
            .step_by(2)
            .map(str::to_owned)
            .collect();
        assert_eq!(keys(way), wanted, "{unknown}");
    }
}

#[test]
fn a_relays_queue_is_strict_and_accounted_unless_it_is_told_otherwise() {
    let queue = read(SHORT).queue;
    assert_eq!(queue.ordering, WriteOrdering::Strict);
    assert_eq!(queue.answer, AnswerWhen::Accounted);
    assert_eq!(queue.hint_after, Duration::from_secs(1));
    let told = read(&format!(
        "{SHORT}ordering = \"bypass\"\nanswer = \"level\"\n"
    ))
    .queue;
    assert_eq!(told.ordering, WriteOrdering::Bypass);
    assert_eq!(told.answer, AnswerWhen::Level);
}

#[test]
fn what_is_wrong_is_told_with_its_line() {
    let node = "[[nodes]]\nid = 1\nurl = \"http://127.0.0.1:8086\"\n";
    for (text, told) in [
        ("[queue]\ndir = \"q\"\n".to_owned(), "there is no [[nodes]]"),
        (format!("{SHORT}{node}"), "line 7: two nodes have the id 1"),
        (
            format!("{SHORT}{}", node.replace("= 1", "= 2")),
            "line 8: two nodes have this url",
        ),
        (SHORT.replace("http://", "udp://"), "line 3: this is no url"),
        (
            SHORT.replace("http://127.0.0.1", "http://"),
            "line 3: this is no url",
        ),
        (
            SHORT.replace("id = 1", "id = \"a\""),
            "line 2: invalid type",
        ),
        (SHORT.replace("dir", "directory"), "line 5: unknown field"),
        (format!("consistency = \"two\"\n{SHORT}"), "line 1: "),
        (
            format!("{SHORT}max_sends = 0\n"),
            "line 6: config: max_sends = 0",
        ),
        (
            format!("[http]\nmax_body_bytes = \"25MB\"\nmax_bytes_under_way = \"1MiB\"\n{SHORT}"),
            "line 3: max_bytes_under_way: between",
        ),
        (
            format!("[http]\nmax_body_bytes = \"much\"\n{SHORT}"),
            "line 2: \"much\" is no size",
        ),
        (format!("[log]\nlevel = \"=x=\"\n{SHORT}"), "line 2: "),
        (
            format!("[admin]\n\nlisten = \"0.0.0.0:9097\"\n{SHORT}"),
            "line 3: 0.0.0.0:9097 can be reached from elsewhere",
        ),
        (
            format!("{SHORT}[[users]]\nname = \"a\"\npassword = \"s\"\npassword_file = \"f\"\n"),
            "line 8: give either password or password_file",
        ),
        (
            format!("{SHORT}[[users]]\nname = \"a\"\n"),
            "line 6: give either password",
        ),
        (
            format!("{SHORT}[[udp]]\nlisten = \"127.0.0.1:8089\"\ndatabase = \"\"\n"),
            "line 8: database: name one",
        ),
        ("[queue\n".to_owned(), "line 1: "),
    ] {
        let found = error(&text);
        assert!(found.starts_with(told), "{found} instead of {told}: {text}");
    }
}

#[test]
fn no_error_shows_a_line_that_may_hold_a_password() {
    for text in [
        format!("{SHORT}[[users]]\nname = \"a\"\npasword = \"secret\"\n"),
        format!("{SHORT}[[users]]\nname = \"a\"\npassword = \"secret\" oops\n"),
        format!("{SHORT}[[users]]\nname = \"a\"\npassword = \"secret\npassword_file = 1\n"),
    ] {
        let told = error(&text);
        assert!(
            told.starts_with("line ") && !told.contains("secret"),
            "{told}"
        );
    }
    let settings = read(&format!(
        "{SHORT}[[users]]\nname = \"a\"\npassword = \"secret\"\n"
    ));
    assert!(!format!("{settings:?}").contains("secret"));
}
