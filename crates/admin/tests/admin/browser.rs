//! The page in a real browser. Where Chromium is missing these say SKIPPED; in CI they fail.
//!
//! Pictures of it are written to `HH_PICTURES`, or to a folder of the target directory.

use std::{path::PathBuf, sync::Arc, time::Duration};

use hinted_handoff::Pause;
use hinted_handoff_admin::{Address, Server, Settings, serve};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::{common::*, webdriver::Browser};

const TAB: char = '\u{e004}';
const ENTER: char = '\u{e007}';

pub async fn served(host: &Host, read_only: bool) -> (Server, String) {
    let settings = Settings {
        read_only,
        title: Some("coordinator-1".to_owned()),
        node_names: Some(Arc::new(|node| match node {
            AWAY => Some("eu-west-2a".to_owned()),
            WELL => Some("eu-west-2b".to_owned()),
            _ => None,
        })),
        ..Settings::default()
    };
    let at = Address::Tcp("127.0.0.1:0".parse().unwrap());
    let server = serve(&host.handoff, settings, at).await.unwrap();
    let url = server.address().to_string();
    (server, url)
}

/// How many hints wait for the node that is away, and their bytes.
const WAITS_FOR_AWAY: &str = "#node-2 td[data-is=Waits]";

/// A host with a bit of everything.
pub async fn busy() -> Host {
    let host = Host::start().await;
    host.hint(
        AWAY,
        &[
            "cpu,host=a usage=0.64",
            "cpu,host=a usage=0.65",
            "cpu,host=b usage=0.1",
        ],
    )
    .await;
    host.hint(WELL, &["cpu,host=a usage=0.64"]).await;
    host.hint(BY_HAND, &["to ada"]).await;
    host.with_letter("mem,host=a used=oops").await;
    host.until(|it| {
        it.nodes
            .iter()
            .any(|it| it.node == AWAY && it.last_error.is_some())
    })
    .await;
    host.until(|it| {
        it.nodes
            .iter()
            .any(|it| it.node == WELL && it.delivered.hints == 1)
    })
    .await;
    host
}

pub async fn end(host: Host, server: Server) {
    let _ = server.shutdown(Duration::from_secs(20)).await;
    host.handoff.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_says_what_stats_says_and_keeps_saying_it() {
    let Some(browser) = Browser::start(true) else {
        return;
    };
    let host = busy().await;
    let (server, url) = served(&host, false).await;
    browser.go(&url);
    assert_eq!(browser.text("#health"), "Serving");
    let stats = host.handoff.stats();
    assert_eq!(browser.count("table.nodes tbody tr"), stats.nodes.len());
    for it in &stats.nodes {
        let waits = browser.text(&format!("#node-{} td[data-is=Waits]", it.node));
        let pending = format!("{} ", it.pending.hints);
        assert!(waits.starts_with(&pending), "{waits}");
    }
    let row = browser.text("#node-2");
    let away = host.node(AWAY);
    assert!(row.contains("eu-west-2a"), "{row}");
    assert!(browser.text(WAITS_FOR_AWAY).starts_with("3 "));
    let verdict = browser.text("#verdict");
    let error = away.last_error.unwrap();
    assert!(error.ends_with(WHY) && verdict.contains(WHY), "{verdict}");
    assert!(
        browser
            .text("#letters")
            .contains("scripted: field type conflict"),
        "{}",
        browser.text("#letters")
    );
    // It refreshes itself: nobody reloads it.
    host.hint(AWAY, &["one more"; 39]).await;
    browser.until_text(WAITS_FOR_AWAY, |waits| waits.starts_with("42 "));
    browser.click("#sort-pending");
    assert!(browser.url().contains("sort=pending"));
    assert_eq!(browser.console_errors(), [""; 0]);
    let asked = browser.requests(&url);
    assert!(asked.len() > 2, "{asked:?}");
    for address in asked {
        let is_own = address.starts_with(&url) || address.starts_with("data:");
        assert!(is_own, "the page asked for {address}");
    }
    end(host, server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_works_without_scripts() {
    let Some(browser) = Browser::start(false) else {
        return;
    };
    browser.go("data:text/html,<p id=p>off</p><script>p.textContent='on'</script>");
    assert_eq!(browser.text("#p"), "off", "scripts do not run here");
    let host = busy().await;
    let (server, url) = served(&host, false).await;
    browser.go(&url);
    assert!(browser.text(WAITS_FOR_AWAY).starts_with("3 "));
    // By itself, after a while; nobody reloads it.
    host.hint(AWAY, &["one more"; 39]).await;
    browser.until_text(WAITS_FOR_AWAY, |waits| waits.starts_with("42 "));
    browser.click("#sort-node");
    browser.click("#pause-2");
    browser.click("#yes");
    assert!(browser.text("#done").contains("paused"));
    assert_eq!(host.node(AWAY).paused, Some(Pause::UntilRestart));
    browser.click("#to-2");
    browser.click("#peek");
    assert!(browser.text("#hints").contains("cpu,host=a usage=0.64"));
    end(host, server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_used_by_keyboard_alone() {
    let Some(browser) = Browser::start(true) else {
        return;
    };
    let host = busy().await;
    let (server, url) = served(&host, false).await;
    browser.go(&url);
    let tab_to = |wished: &str| {
        let reached = (0..60).any(|_| browser.key(TAB) == wished);
        assert!(reached, "no way to {wished}");
    };
    tab_to("pause-2");
    browser.key(ENTER);
    browser.text("#question");
    tab_to("yes");
    browser.key(ENTER);
    assert!(browser.text("#done").contains("paused"));
    assert_eq!(host.node(AWAY).paused, Some(Pause::UntilRestart));
    end(host, server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_read_only_has_no_buttons() {
    let Some(browser) = Browser::start(true) else {
        return;
    };
    let host = busy().await;
    let (server, url) = served(&host, true).await;
    browser.go(&url);
    assert!(browser.text("header").contains("read-only"));
    for page in ["/", "/nodes/2", "/nodes/4", "/settings"] {
        browser.go(&format!("{url}{page}"));
        browser.text("main");
        assert_eq!(browser.count("button, form"), 0, "{page}");
    }
    browser.go(&format!("{url}/confirm?do=pause&node=2"));
    assert!(browser.text("#problem").contains("read-only"));
    end(host, server).await;
}

/// A server of another origin, which answers every request with this page.
async fn foreign(page: String) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let page = page.clone();
            tokio::spawn(async move {
                let _ = stream.read(&mut [0; 4096]).await;
                let length = page.len();
                let head = format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
                );
                let _ = stream.write_all(format!("{head}{page}").as_bytes()).await;
            });
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_from_elsewhere_pauses_nothing() {
    let Some(browser) = Browser::start(true) else {
        return;
    };
    let host = busy().await;
    let (server, url) = served(&host, false).await;
    // All that such a page can try: with and without the header, by script and by form, in a frame.
    let page = format!(
        "<title>elsewhere</title><p id=p>trying</p>
        <form id=f method=post action='{url}/do'><input name=token value=guess><input name=do value=pause></form>
        <form id=g method=post enctype=text/plain action='{url}/v1/pause'><input name='{{}}'></form>
        <iframe id=i src='{url}/confirm?do=pause'></iframe>
        <script>
        const tried = [
          fetch('{url}/v1/pause', {{method: 'POST', mode: 'no-cors', credentials: 'include'}}),
          fetch('{url}/v1/pause', {{method: 'POST', headers: {{'x-hinted-handoff': '1'}}}}),
          fetch('{url}/confirm?do=pause').then(it => it.text()),
        ];
        Promise.allSettled(tried).then(all => p.textContent = all.map(it => it.status).join(' '));
        </script>"
    );
    let port = foreign(page).await;
    let nothing_paused = || {
        let stats = host.handoff.stats();
        stats.paused_all.is_none() && stats.nodes.iter().all(|it| it.paused.is_none())
    };
    // Of the same site and of another one.
    for name in ["127.0.0.1", "localhost", "evil.example"] {
        let elsewhere = format!("http://{name}:{port}/");
        browser.go(&elsewhere);
        // Of none it is given the answer. The first goes out all the same, and is refused there.
        browser.until_text("#p", |it| it == "rejected rejected rejected");
        assert!(nothing_paused(), "by script from {name}");
        for form in ["f", "g"] {
            browser.go(&elsewhere);
            browser.run(&format!("document.getElementById('{form}').submit()"));
            browser.until_text("body", |it| !it.starts_with("trying") && !it.is_empty());
            assert!(browser.url().starts_with(&url), "the form was sent");
            assert!(nothing_paused(), "by form {form} from {name}");
        }
    }
    // A name of the foreign page's that leads here.
    let port = url.rsplit_once(':').unwrap().1;
    browser.go(&format!("http://evil.example:{port}/v1/status"));
    assert!(browser.text("body").contains("foreign-host"));
    end(host, server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pictures_are_taken_and_nothing_is_wider_than_the_screen() {
    let Some(browser) = Browser::start(true) else {
        return;
    };
    let host = busy().await;
    let (server, url) = served(&host, false).await;
    let folder = std::env::var_os("HH_PICTURES").map(PathBuf::from);
    let folder =
        folder.unwrap_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("pictures"));
    browser.go(&url);
    for (name, width, scheme) in [
        ("light", 1280, "light"),
        ("dark", 1280, "dark"),
        ("narrow", 390, "light"),
    ] {
        browser.picture(&folder.join(format!("{name}.png")), width, scheme);
    }
    browser.go(&format!("{url}/settings"));
    browser.picture(&folder.join("settings.png"), 1280, "light");
    for page in [
        "/",
        "/nodes/2?hints=true",
        "/nodes/4",
        "/confirm?do=discard&node=4",
        "/settings",
    ] {
        browser.go(&format!("{url}{page}"));
        for width in [360, 600, 800, 1280] {
            let metrics = serde_json::json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false});
            browser.devtools("Emulation.setDeviceMetricsOverride", metrics);
            let wide = browser.run("return document.documentElement.scrollWidth");
            assert!(
                wide.as_u64().unwrap() <= width,
                "{page} is {wide} wide on {width}"
            );
        }
    }
    end(host, server).await;
}
