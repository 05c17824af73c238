//! Goal: settings are read from TOML, and wrong ones are refused with what is wrong.
//! Method: texts of settings, as people write them.

use std::time::Duration;

use hinted_handoff_influx::{AnswerRule, InfluxWriter, NodeSettings, Then, WriterSettings};

use crate::plain;

#[test]
fn all_settings_are_read() {
    let node: NodeSettings = toml::from_str(
        "id = 3\nurl = \"https://influx-3:8086\"\nname = \"cellar\"\nusername = \"u\"\n\
         password = \"p\"\npassword_file = \"/run/p\"\ntimeout = \"2s 500ms\"\nca_file = \"/etc/ca.pem\"",
    )
    .unwrap();
    assert_eq!((node.id, node.url.as_str()), (3, "https://influx-3:8086"));
    assert_eq!(node.name.as_deref(), Some("cellar"));
    assert_eq!(node.password, Some("p".to_owned().into()));
    assert_eq!(node.timeout, Duration::from_millis(2500));
    assert_eq!(node.ca_file, Some("/etc/ca.pem".into()));
    let least: NodeSettings = toml::from_str("id = 3\nurl = \"http://a\"").unwrap();
    assert_eq!(least, NodeSettings::new(3, "http://a"));
    assert_eq!(least.timeout, Duration::from_secs(10));

    let writer: WriterSettings = toml::from_str(
        "max_body_bytes = \"2MiB\"\ngzip = false\nmissing_database_max_age = \"1day\"\n\
         [[answers]]\nstatus = 400\ncontains = \"limit\"\nthen = \"retry\"",
    )
    .unwrap();
    let rule = AnswerRule {
        status: Some(400),
        contains: Some("limit".to_owned()),
        then: Then::Retry,
    };
    assert_eq!(writer.answers, [rule]);
    assert_eq!((writer.max_body_bytes, writer.gzip), (2 << 20, false));
    assert_eq!(
        writer.missing_database_max_age,
        Duration::from_secs(24 * 3600)
    );
    let default: WriterSettings = toml::from_str("").unwrap();
    assert_eq!(default, WriterSettings::default());
    assert_eq!((default.max_body_bytes, default.gzip), (1 << 20, true));
}

#[test]
fn what_does_not_read_is_told() {
    for (text, told) in [
        ("max_body_bytes = \"much\"", "\"much\" is no size"),
        ("max_body_bytes = -1", "a size such as \"1MiB\""),
        ("body = 1", "unknown field `body`"),
        ("[[answers]]\nthen = \"drop\"", "unknown variant `drop`"),
    ] {
        let error = toml::from_str::<WriterSettings>(text)
            .unwrap_err()
            .to_string();
        assert!(error.contains(told), "{error}");
    }
    let error = toml::from_str::<NodeSettings>("id = 1\nurl = \"http://a\"\npasswd = \"p4ss\"");
    assert!(
        error
            .unwrap_err()
            .to_string()
            .contains("unknown field `passwd`")
    );
}

#[test]
fn settings_that_make_no_writer_are_refused() {
    let node = |change: fn(&mut NodeSettings)| {
        let mut node = NodeSettings::new(1, "http://127.0.0.1:8086");
        change(&mut node);
        InfluxWriter::new(&[node], plain()).map(|_| ())
    };
    let all = |change: fn(&mut WriterSettings)| {
        let mut settings = plain();
        change(&mut settings);
        InfluxWriter::new(&[], settings).map(|_| ())
    };
    let twice = InfluxWriter::new(&[(); 2].map(|()| NodeSettings::new(4, "http://a")), plain());
    let both = "node 1: credentials are username (without a colon), and password or password_file: \
                give both or neither";
    for (result, told) in [
        (node(|_| ()), ""),
        (node(|it| it.url = "https://h/path/".to_owned()), ""),
        (
            node(|it| it.url = "influx-1:8086".to_owned()),
            "it does not begin with http:// or https://",
        ),
        (
            node(|it| it.url = "ftp://a".to_owned()),
            "it does not begin with http:// or https://",
        ),
        (
            node(|it| it.url = "http://a b".to_owned()),
            "it does not parse",
        ),
        (
            node(|it| it.url = "http://a/?db=b".to_owned()),
            "it has a query",
        ),
        (
            node(|it| it.timeout = Duration::ZERO),
            "node 1: timeout is too small: give at least 1ms",
        ),
        (node(|it| it.username = Some("u".to_owned())), both),
        (node(|it| it.password_file = Some("/".into())), both),
        (
            node(|it| {
                (it.username, it.password) = (Some("u:v".to_owned()), Some("p".to_owned().into()))
            }),
            both,
        ),
        (
            node(|it| {
                (it.username, it.password_file) = (Some("u".to_owned()), Some("/nowhere".into()))
            }),
            "node 1: cannot read /nowhere",
        ),
        (
            node(|it| it.ca_file = Some("/nowhere".into())),
            "node 1: no certificate to check the server's one against: give ca_file",
        ),
        (
            node(|it| it.ca_file = Some("/dev/null".into())),
            "node 1: no certificate to check the server's one against: give ca_file",
        ),
        (twice.map(|_| ()), "nodes: id = 4 is there twice"),
        (
            all(|it| it.max_body_bytes = 0),
            "writer: max_body_bytes is too small: give at least 1",
        ),
        (
            all(|it| {
                it.answers = vec![AnswerRule {
                    status: None,
                    contains: None,
                    then: Then::Retry,
                }]
            }),
            "rule 1 has neither status nor contains",
        ),
    ] {
        match result {
            Ok(()) => assert_eq!(told, ""),
            Err(error) => assert!(
                !told.is_empty() && error.to_string().contains(told),
                "{error}"
            ),
        }
    }
}
