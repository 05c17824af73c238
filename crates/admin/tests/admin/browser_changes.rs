//! What is changed on the page in a real browser.

use std::time::Duration;

use hinted_handoff::{BarrierState, Pause};

use crate::{
    browser::{busy, end, served},
    common::*,
    webdriver::Browser,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_that_is_clicked_holds_replay_and_a_refused_one_says_why() {
    let Some(browser) = Browser::start(true) else {
        return;
    };
    let host = busy().await;
    let (server, url) = served(&host, false).await;
    browser.go(&url);
    browser.click("#pause-3");
    assert!(browser.text("#question").contains("Pause node 3"));
    assert_eq!(host.node(WELL).paused, None, "it asks first");
    browser.click("#yes");
    assert!(browser.text("#done").contains("paused"));
    assert!(!browser.url().contains("done="), "it is told once");
    assert_eq!(host.node(WELL).paused, Some(Pause::UntilRestart));
    host.hint(WELL, &["held"]).await;
    let held = host
        .handoff
        .drain(WELL, Duration::from_millis(300))
        .await
        .unwrap();
    assert!(matches!(held, BarrierState::Waiting { .. }), "{held:?}");
    browser.click("#resume-3");
    browser.click("#yes");
    let drained = host
        .handoff
        .drain(WELL, Duration::from_secs(20))
        .await
        .unwrap();
    assert_eq!(drained, BarrierState::Delivered);
    assert_eq!(browser.console_errors(), [""; 0]);

    // There is no button for what is refused anyway; a page of a moment ago may have one.
    assert_eq!(browser.count("#pause-9"), 0);
    browser.go(&format!("{url}/confirm?do=pause&node=9"));
    browser.click("#yes");
    assert!(browser.text("#problem").contains("taken by hand"));
    assert!(browser.text(".cause").contains("Config::manual_nodes"));

    let letter = host
        .handoff
        .dead_letters(STRICT, None, 1)
        .await
        .unwrap()
        .remove(0)
        .id;
    browser.go(&url);
    browser.click(&format!("#discard-{}-{}", letter.queue, letter.sequence));
    assert!(browser.text("main").contains("cannot be undone"));
    browser.click("#yes");
    browser.text("#done");
    assert_eq!(host.node(STRICT).dead_letters.hints, 0);
    end(host, server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hinting_and_direct_writes_are_stopped_by_buttons_that_ask_first() {
    let Some(browser) = Browser::start(true) else {
        return;
    };
    let host = busy().await;
    let (server, url) = served(&host, false).await;
    browser.go(&format!("{url}/nodes/3"));
    browser.click("#stop-hinting-3");
    assert_eq!(
        browser.text("#question"),
        "Stop hinting for node 3 (eu-west-2b)?"
    );
    assert!(host.node(WELL).hinting, "it asks first");
    browser.click("#yes");
    assert!(browser.text("#done").contains("is stopped"));
    assert!(!host.node(WELL).hinting);
    let points = bytes::Bytes::from_static(b"a");
    let refused = host.handoff.write_shard(WELL, SHARD, &points).await;
    assert!(refused.unwrap_err().to_string().contains("start hinting"));
    browser.click("#start-hinting-3");
    browser.click("#yes");
    assert!(browser.text("#done").contains("is started"));
    host.hint(WELL, &["a"]).await;

    browser.click("#hold-direct-3");
    browser.click("#yes");
    assert!(browser.text("#done").contains("are held"));
    assert!(host.node(WELL).direct.held_since_unix_ms.is_some());
    browser.click("#release-direct-3");
    browser.click("#yes");
    assert!(browser.text("#done").contains("are released"));
    assert_eq!(host.node(WELL).direct.held_since_unix_ms, None);

    browser.go(&url);
    browser.click("#stop-hinting-all");
    browser.click("#yes");
    assert!(browser.text("#unhinted").contains("for all nodes"));
    assert!(!host.handoff.stats().hinting);
    browser.click("#start-hinting-all");
    browser.click("#yes");
    browser.text("#stop-hinting-all");
    assert!(host.handoff.stats().hinting);
    assert_eq!(browser.console_errors(), [""; 0]);
    end(host, server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_setting_that_is_typed_is_changed_and_a_refused_one_says_why() {
    let Some(browser) = Browser::start(true) else {
        return;
    };
    let host = busy().await;
    let (server, url) = served(&host, false).await;
    browser.go(&url);
    browser.click("#to-settings");
    browser.fill("#max_in_flight", "0");
    browser.fill("#max_age", "2h");
    browser.click("#save");
    assert_eq!(browser.text("#problem"), "Nothing was changed.");
    let why = browser.text(".cause");
    assert!(why.contains("max_in_flight = 0"), "{why}");
    assert_eq!(host.handoff.config().max_age, Duration::ZERO);
    // What was typed beside it is there still.
    browser.fill("#max_in_flight", "12");
    browser.click("#save");
    assert_eq!(browser.text("#done"), "Changed: max_age, max_in_flight.");
    let config = host.handoff.config();
    assert_eq!(config.max_in_flight, 12);
    assert_eq!(config.max_age, Duration::from_secs(7200));
    // The answer to what was refused is an error to the console, and none of the page's.
    let of_page = browser.console_errors().into_iter();
    let of_page: Vec<String> = of_page.filter(|it| !it.contains("400")).collect();
    assert_eq!(of_page, [""; 0]);
    end(host, server).await;
}
