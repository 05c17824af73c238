//! The page without a browser: what it says, what it lets through, and what it does not.

use std::{
    future::{Future, poll_fn},
    sync::Arc,
    task::Poll,
};

use axum::{Router, http::StatusCode};
use bytes::Bytes;
use hinted_handoff::{Pause, internals::CommitFault};
use hinted_handoff_admin::Settings;

use crate::common::*;

#[tokio::test]
async fn the_cause_comes_first_and_whole_and_as_text() {
    let host = Host::start().await;
    host.hint(AWAY, &["a"]).await;
    host.with_letter("poison").await;
    host.until(|it| {
        it.nodes
            .iter()
            .any(|it| it.node == AWAY && it.last_error.is_some())
    })
    .await;
    let router = host.router(Settings {
        title: Some("<script>alert(1)</script>".to_owned()),
        node_names: Some(Arc::new(|_| Some("<img src=x>".to_owned()))),
        ..Settings::default()
    });
    let page = get(&router, "/").await;
    assert_eq!(page.status, StatusCode::OK);
    let text = page.text();
    assert!(text.find(WHY).unwrap() < text.find("The last hour").unwrap());
    assert!(!text.contains("<script>alert") && !text.contains("<img"));
    assert!(!text.contains("<button"), "read-only has no buttons");
    assert!(
        !text.contains("http://")
            || text.matches("http://").count() == text.matches("http://www.w3.org").count()
    );
    let policy = page.headers["content-security-policy"].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none';") && !policy.contains("unsafe"));
    let node = get(&router, "/nodes/2?hints=true").await;
    assert!(node.text().contains("<pre>a</pre>"), "{}", node.text());
    host.handoff.shutdown().await.unwrap();
    let page = get(&router, "/").await;
    assert!(page.text().contains("Shut down"));
}

#[tokio::test]
async fn the_page_is_sorted_by_links_and_mounted_anywhere() {
    let host = Host::start().await;
    host.hint(AWAY, &["a", "b"]).await;
    host.handoff.pause_all(Pause::UntilRestart).await.unwrap();
    host.hint(WELL, &["a", "b", "c"]).await;
    let mounted = Router::new().nest("/x/handoff", host.router(Settings::default()));
    let order = |page: &Answer| {
        let text = page.text().to_owned();
        text.find("id=\"node-2\"").unwrap() < text.find("id=\"node-3\"").unwrap()
    };
    let page = get(&mounted, "/x/handoff?sort=pending").await;
    assert!(!order(&page), "most first");
    assert!(page.text().contains("href=\"/x/handoff/nodes/2\""));
    assert!(!page.text().contains("href=\"/nodes"));
    assert!(order(
        &get(&mounted, "/x/handoff?sort=pending&reverse=true").await
    ));
    assert!(order(&get(&mounted, "/x/handoff?sort=node").await));
    assert!(!order(
        &get(&mounted, "/x/handoff?sort=node&reverse=true").await
    ));
    assert!(
        get(&mounted, "/x/handoff?sort=colour")
            .await
            .status
            .is_client_error()
    );
    assert_eq!(
        get(&mounted, "/x/handoff/nodes/2").await.status,
        StatusCode::OK
    );
    host.handoff.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_form_does_what_it_asked_for_and_a_foreign_one_does_not() {
    let host = Host::start().await;
    host.hint(AWAY, &["a"]).await;
    let router = host.writable();
    let token = token(&router).await;
    let form = format!("token={token}&do=pause&node=2&pause=lasting");
    for foreign in [
        [("origin", "http://evil.example")],
        [("origin", "null")],
        [("sec-fetch-site", "cross-site")],
        [("sec-fetch-site", "same-site")],
    ] {
        let refused = send_form(&router, "/do", &foreign, &form).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{foreign:?}");
    }
    for wrong in [
        "do=pause&node=2",
        "token=&do=pause&node=2",
        "token=0123&do=pause&node=2",
    ] {
        let refused = send_form(&router, "/do", &[], wrong).await;
        assert!(refused.status.is_client_error(), "{wrong}: {refused:?}");
    }
    assert_eq!(host.handoff.stats().nodes[0].paused, None);
    let own = [
        ("origin", "http://localhost"),
        ("sec-fetch-site", "same-origin"),
    ];
    let done = send_form(&router, "/do", &own, &form).await;
    assert_eq!(done.status, StatusCode::SEE_OTHER);
    assert_eq!(done.headers["location"], "/?done=pause&node=2");
    assert_eq!(host.handoff.stats().nodes[0].paused, Some(Pause::Lasting));

    // The token of a server that may not change anything.
    let read_only = host.router(Settings::default());
    assert_eq!(
        get(&read_only, "/confirm?do=resume&node=2").await.status,
        StatusCode::FORBIDDEN
    );
    let refused = send_form(&read_only, "/do", &own, &form).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert!(
        refused.text().contains("This interface is read-only"),
        "{}",
        refused.text()
    );
    host.hint(BY_HAND, &["a"]).await;
    let refused = send_form(
        &router,
        "/do",
        &own,
        &format!("token={token}&do=pause&node=9"),
    )
    .await;
    assert_eq!(refused.status, StatusCode::CONFLICT);
    assert!(refused.text().contains("manual_nodes"));
    host.handoff.shutdown().await.unwrap();
}

#[tokio::test]
async fn of_a_store_that_hangs_the_rest_of_the_page_is_shown() {
    let host = Host::start().await;
    host.hint(AWAY, &["a"]).await;
    host.handoff.inject(CommitFault::Hang);
    let (handoff, points) = (host.handoff.clone(), Bytes::from_static(b"b"));
    let mut write = Box::pin(async move { handoff.write_shard(AWAY, SHARD, &points).await });
    // It is in the pipeline by then, before the page asks what was lost.
    let handed_in = poll_fn(|context| Poll::Ready(write.as_mut().poll(context).is_pending()));
    assert!(handed_in.await);
    let page = get(&host.router(Settings::default()), "/").await;
    host.handoff.inject(CommitFault::None);
    assert_eq!(page.status, StatusCode::OK);
    assert!(page.text().contains("id=\"node-2\""), "{}", page.text());
    assert!(
        page.text().contains("did not say in time what was lost"),
        "{}",
        page.text()
    );
    write.await.unwrap();
    host.handoff.shutdown().await.unwrap();
}

#[tokio::test]
async fn what_was_done_is_not_told_again_by_a_refresh_and_the_disk_not_read_by_one() {
    let host = Host::start().await;
    host.hint(AWAY, &["a"]).await;
    let pausing = host.handoff.pause(AWAY, Pause::UntilRestart);
    pausing.await.unwrap();
    let router = host.router(Settings::default());
    for (path, refresh) in [
        ("/?done=pause&node=2", "?"),
        (
            "/?sort=age&done=pause&node=2&skip=1",
            "?sort=age&amp;skip=1",
        ),
        ("/nodes/2?done=redrive&node=2", "?"),
        ("/nodes/2", "?"),
    ] {
        let page = get(&router, path).await;
        let refresh = format!("content=\"10; url={refresh}\"");
        assert!(page.text().contains(&refresh), "{path}: {}", page.text());
        assert!(page.text().contains("<script"), "{path}");
        assert_eq!(page.text().contains("id=\"done\""), path.contains("done"));
    }
    let peeked = get(&router, "/nodes/2?hints=true").await;
    assert_eq!(peeked.status, StatusCode::OK);
    assert!(!peeked.text().contains("<script"));
    assert!(!peeked.text().contains("http-equiv"));
    host.handoff.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_question_that_does_not_read_is_answered_with_a_page() {
    let host = Host::start().await;
    let router = host.writable();
    for path in ["/confirm", "/confirm?do=dance", "/nodes/2?hints=perhaps"] {
        let page = get(&router, path).await;
        assert_eq!(page.status, StatusCode::BAD_REQUEST, "{path}");
        assert!(
            page.text().contains("id=\"problem\""),
            "{path}: {}",
            page.text()
        );
    }
    host.handoff.shutdown().await.unwrap();
}

#[tokio::test]
async fn dead_letters_of_a_node_are_counted_and_its_losses_told_together() {
    let host = Host::start().await;
    let router = host.writable();
    for text in ["poison 1", "poison 2", "poison 3"] {
        host.with_letter(text).await;
    }
    host.until(|it| it.nodes[0].dead_letters.hints == 3).await;
    let page = get(&router, "/nodes/4?done=discard&node=4").await;
    assert!(page.text().contains("Node 4 has 3 dead letters now."));
    for letter in host.handoff.dead_letters(STRICT, None, 3).await.unwrap() {
        // As `hh letters` takes it.
        let page = get(&router, "/").await;
        let id = format!("<code>{}</code>", letter.id);
        assert!(page.text().contains(&id), "{}", page.text());
        host.handoff.discard(STRICT, &[letter.id]).await.unwrap();
    }
    for _ in 0..2_000 {
        let page = get(&router, "/").await;
        if page.text().contains("3 hints (24 B) for node 4 lost") {
            assert_eq!(page.text().matches("for node 4 lost").count(), 1);
            assert!(page.text().contains("discarded"));
            host.handoff.shutdown().await.unwrap();
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    panic!("{}", get(&router, "/").await.text());
}

#[tokio::test]
async fn what_a_link_says_was_done_is_told_only_while_it_is_so() {
    let host = Host::start().await;
    host.hint(AWAY, &["a"]).await;
    let router = host.router(Settings::default());
    for (path, is_so) in [
        ("/?done=pause&node=2", false),
        ("/?done=pause", false),
        ("/?done=stop-hinting", false),
        ("/?done=pause&node=77", false),
        ("/?done=discard", false),
        ("/nodes/2?done=hold-direct&node=2", false),
        ("/?done=resume&node=2", true),
        ("/?done=start-hinting", true),
    ] {
        let page = get(&router, path).await;
        assert_eq!(page.text().contains("id=\"done\""), is_so, "{path}");
    }
    let pausing = host.handoff.pause_all(Pause::UntilRestart);
    pausing.await.unwrap();
    let page = get(&router, "/?done=pause").await;
    assert!(page.text().contains("Replay of all nodes is paused."));
    host.handoff.shutdown().await.unwrap();
}
