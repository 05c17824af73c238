use super::*;

fn parsed(text: &str) -> Result<Config, toml::de::Error> {
    toml::from_str(text)
}

#[test]
fn a_config_file_of_one_line_gives_the_documented_defaults() {
    let config = parsed("dir = \"d\"").unwrap();
    assert_eq!(config, Config::new("d"));
    assert_eq!(config.durability, Durability::Sync);
    assert_eq!(config.retry_interval, Duration::from_secs(1));
    assert_eq!(config.retry_max_interval, Duration::from_secs(60));
    assert_eq!(config.retry_rate_limit, 0);
    assert_eq!(config.retry_rate_limit_total, 0);
    assert_eq!(config.max_sends, 256);
    assert_eq!(config.max_bytes_in_flight, 64 << 20);
    assert_eq!(config.batch_bytes, 512_000);
    assert_eq!(config.max_entry_bytes, 16 << 20);
    assert_eq!(config.write_timeout, Duration::from_secs(10));
    assert_eq!(config.hint_after, Duration::from_millis(100));
    assert_eq!(config.max_outstanding, 1024);
    assert_eq!(config.max_outstanding_bytes, 8 << 20);
    assert_eq!(config.answer, AnswerWhen::Level);
    assert_eq!(config.on_not_stored, OnNotStored::Report);
    assert!(config.fail_early);
    assert_eq!(config.send_timeout, Duration::from_secs(10));
    assert_eq!(config.max_in_flight, 8);
    assert_eq!(config.window_hints, 8192);
    assert_eq!(config.window_bytes, 8 << 20);
    assert_eq!(config.max_attempts, 0);
    assert_eq!(config.max_dead_letters, 10_000);
    assert_eq!(config.max_dead_letter_bytes, 256 << 20);
    assert_eq!(config.shutdown_grace, Duration::from_secs(5));
    assert_eq!(config.commit_timeout, Duration::from_secs(30));
    assert_eq!(config.min_free_disk, 128 << 20);
    assert_eq!(config.max_age, Duration::ZERO);
    assert_eq!(config.expiry_grace, Duration::from_secs(60));
    assert_eq!(config.max_hints_per_node, None);
    assert_eq!(config.max_bytes_per_node, None);
    assert_eq!(config.max_hints, None);
    assert_eq!(config.max_bytes, None);
    assert_eq!(config.max_disk_bytes, None);
    assert_eq!(config.when_full, WhenFull::Reject);
    assert_eq!(config.block_timeout, Duration::from_secs(10));
    assert!(config.manual_nodes.is_empty());
    assert_eq!(config.purge_after, Duration::from_secs(7 * 24 * 3600));
    assert_eq!(config.on_unopenable, OnUnopenable::Fail);
    assert_eq!(config.ordering, WriteOrdering::Bypass);
    assert!(!config.start_paused);
    assert!(!config.reset_identity);
    assert_eq!(config.validate(), Ok(()));
}

#[test]
fn every_key_is_read_and_written_back_the_same() {
    let text = r#"
        dir = "hints"
        durability = "buffered"
        retry_interval = "250ms"
        retry_max_interval = "2m"
        retry_rate_limit = 1000
        retry_rate_limit_total = 5000
        max_sends = 64
        max_bytes_in_flight = 1000000
        batch_bytes = 64000
        max_entry_bytes = 1000000
        write_timeout = "3s"
        hint_after = "20ms"
        max_outstanding = 64
        max_outstanding_bytes = 65536
        answer = "accounted"
        on_not_stored = "fail"
        fail_early = false
        send_timeout = "4s"
        max_in_flight = 32
        window_hints = 100
        window_bytes = 1000
        max_attempts = 5
        max_dead_letters = 7
        max_dead_letter_bytes = 7000
        shutdown_grace = "0s"
        commit_timeout = "1m"
        min_free_disk = 0
        max_age = "7days"
        expiry_grace = "0s"
        max_hints_per_node = 1000
        max_bytes_per_node = 1000000
        max_hints = 5000
        max_bytes = 5000000
        max_disk_bytes = 1073741824
        when_full = "drop_oldest"
        block_timeout = "2s"
        manual_nodes = [3, 9]
        purge_after = "2days"
        on_unopenable = "start_empty"
        ordering = "strict"
        start_paused = true
        reset_identity = true
    "#;
    let config = parsed(text).unwrap();
    assert_eq!(config.validate(), Ok(()));
    assert_eq!(config.retry_max_interval, Duration::from_secs(120));
    assert_eq!(config.manual_nodes, [NodeId(3), NodeId(9)].into());
    assert_eq!(config.on_unopenable, OnUnopenable::StartEmpty);
    assert_eq!(config.ordering, WriteOrdering::Strict);
    assert_eq!(config.max_age, Duration::from_secs(7 * 86_400));
    assert_eq!(config.max_hints, Some(5000));
    assert_eq!(config.when_full, WhenFull::DropOldest);
    assert!(config.start_paused);
    let again = parsed(&toml::to_string(&config).unwrap()).unwrap();
    assert_eq!(again, config);
}

#[test]
fn an_unknown_key_and_a_missing_directory_are_errors() {
    let typo = parsed("dir = \"d\"\nretry_intervall = \"1s\"").unwrap_err();
    assert!(typo.to_string().contains("retry_intervall"), "{typo}");
    assert!(parsed("retry_interval = \"1s\"").is_err());
    assert!(parsed("dir = \"d\"\nretry_interval = \"soon\"").is_err());
}

#[test]
fn sizes_are_text_or_numbers_of_bytes_and_written_as_text() {
    const SIZES: [&str; 12] = [
        "retry_rate_limit",
        "retry_rate_limit_total",
        "batch_bytes",
        "max_entry_bytes",
        "max_outstanding_bytes",
        "max_bytes_in_flight",
        "window_bytes",
        "max_dead_letter_bytes",
        "min_free_disk",
        "max_bytes_per_node",
        "max_bytes",
        "max_disk_bytes",
    ];
    for field in SIZES {
        let as_text = parsed(&format!("dir = \"d\"\n{field} = \"1GiB\"")).unwrap();
        let as_number = parsed(&format!("dir = \"d\"\n{field} = 1073741824")).unwrap();
        assert_eq!(as_text, as_number);
        assert_ne!(as_text, Config::new("d"), "{field}");
        let table = toml::Table::try_from(as_text).unwrap();
        assert_eq!(table[field].as_str(), Some("1GiB"), "{field}");
        for bad in ["\"64 potatoes\"", "-1"] {
            let error = parsed(&format!("dir = \"d\"\n{field} = {bad}")).unwrap_err();
            let said = format!("config: {field} = {bad} is no size: give ");
            assert!(error.to_string().contains(&said), "{error}");
        }
    }
    let table = toml::Table::try_from(Config::new("d")).unwrap();
    let of_bytes =
        |(field, _): &(&String, _)| field.contains("bytes") || SIZES.contains(&&***field);
    let missed: Vec<_> = table
        .iter()
        .filter(of_bytes)
        .filter(|(field, _)| !SIZES.contains(&&***field))
        .collect();
    assert!(
        missed.is_empty(),
        "sizes that are plain numbers: {missed:?}"
    );
}

#[test]
fn a_size_out_of_range_is_told_with_units() {
    let mut config = Config::new("d");
    config.max_entry_bytes = 65 << 20;
    let said = config.validate().unwrap_err().to_string();
    assert_eq!(
        said,
        "config: max_entry_bytes = 65MiB is not accepted: between 1 and 64MiB"
    );
}

#[test]
fn each_rule_names_its_field() {
    type Break = fn(&mut Config);
    let broken: &[(&str, Break)] = &[
        ("dir", |c| c.dir = PathBuf::new()),
        ("retry_interval", |c| c.retry_interval = Duration::ZERO),
        ("retry_interval", |c| {
            (c.retry_interval, c.retry_max_interval) = (Duration::MAX, Duration::MAX);
        }),
        ("retry_max_interval", |c| {
            c.retry_max_interval = Duration::from_millis(999);
        }),
        ("retry_max_interval", |c| {
            c.retry_max_interval = Duration::MAX
        }),
        ("retry_rate_limit", |c| c.retry_rate_limit = 1 << 32),
        ("retry_rate_limit_total", |c| {
            c.retry_rate_limit_total = 1 << 32;
        }),
        ("batch_bytes", |c| c.batch_bytes = 0),
        ("batch_bytes", |c| c.batch_bytes = (64 << 20) + 1),
        ("max_entry_bytes", |c| c.max_entry_bytes = 0),
        ("max_entry_bytes", |c| c.max_entry_bytes = (64 << 20) + 1),
        ("write_timeout", |c| c.write_timeout = Duration::ZERO),
        ("write_timeout", |c| c.write_timeout = Duration::MAX),
        ("hint_after", |c| c.hint_after = Duration::MAX),
        ("max_outstanding", |c| c.max_outstanding = 0),
        ("max_outstanding", |c| c.max_outstanding = 16_385),
        ("max_outstanding_bytes", |c| c.max_outstanding_bytes = 0),
        ("send_timeout", |c| c.send_timeout = Duration::ZERO),
        ("send_timeout", |c| c.send_timeout = Duration::MAX),
        ("max_in_flight", |c| c.max_in_flight = 0),
        ("max_in_flight", |c| c.max_in_flight = 1025),
        ("max_sends", |c| c.max_sends = 0),
        ("max_sends", |c| c.max_sends = 65_537),
        ("max_bytes_in_flight", |c| c.max_bytes_in_flight = 0),
        ("window_hints", |c| c.window_hints = 0),
        ("window_hints", |c| c.window_hints = 16_385),
        ("window_bytes", |c| c.window_bytes = 0),
        ("window_bytes", |c| c.window_bytes = (64 << 20) + 1),
        ("max_dead_letters", |c| c.max_dead_letters = 0),
        ("max_dead_letter_bytes", |c| c.max_dead_letter_bytes = 0),
        ("shutdown_grace", |c| c.shutdown_grace = Duration::MAX),
        ("commit_timeout", |c| {
            c.commit_timeout = Duration::from_millis(999);
        }),
        ("commit_timeout", |c| c.commit_timeout = Duration::MAX),
        ("max_age", |c| c.max_age = Duration::from_millis(999)),
        ("max_age", |c| c.max_age = Duration::MAX),
        ("expiry_grace", |c| c.expiry_grace = Duration::MAX),
        ("max_hints_per_node", |c| c.max_hints_per_node = Some(0)),
        ("max_bytes_per_node", |c| c.max_bytes_per_node = Some(0)),
        ("max_hints", |c| c.max_hints = Some(0)),
        ("max_bytes", |c| c.max_bytes = Some(0)),
        ("max_disk_bytes", |c| {
            c.max_disk_bytes = Some((256 << 20) - 1)
        }),
        ("block_timeout", |c| c.block_timeout = Duration::ZERO),
        ("block_timeout", |c| c.block_timeout = Duration::MAX),
        ("min_free_disk", |c| {
            c.min_free_disk = 1;
        }),
        ("min_free_disk", |c| {
            c.min_free_disk = (64 << 20) - 1;
        }),
        ("purge_after", |c| c.purge_after = Duration::from_secs(59)),
        ("purge_after", |c| c.purge_after = Duration::MAX),
    ];
    for &(field, break_it) in broken {
        let mut config = Config::new("d");
        break_it(&mut config);
        assert_eq!(config.validate().unwrap_err().field, field);
    }
}

/// A moment plus a duration that no clock has panics: each duration is kept away from that.
#[test]
fn every_duration_has_a_maximum() {
    let table = toml::Table::try_from(Config::new("d")).unwrap();
    let is_duration = |value: &toml::Value| {
        let text = value.as_str();
        text.is_some_and(|text| humantime::parse_duration(text).is_ok())
    };
    let durations: Vec<String> = (table.iter())
        .filter(|(_, value)| is_duration(value))
        .map(|(field, _)| field.clone())
        .collect();
    assert!(durations.len() >= 11, "{durations:?}");
    for field in durations {
        let mut table = table.clone();
        // Longer than the universe.
        table.insert(field.clone(), "500000000000years".into());
        if field == "retry_interval" {
            table.insert("retry_max_interval".to_owned(), "500000000000years".into());
        }
        let config: Config = table.try_into().unwrap();
        assert_eq!(config.validate().unwrap_err().field, field);
    }
}
