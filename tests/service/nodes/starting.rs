//! A service that opens with all replay paused.

use hinted_handoff::{Health, NodeId, NodeState, Pause, internals::CommitFault};
use hinted_handoff_testkit::ScriptedWriter;

use super::host::{Host, STOPS, a_while, texts};

const NODE: NodeId = NodeId(2);
const OTHER: NodeId = NodeId(3);

#[tokio::test]
async fn nothing_is_pinged_or_sent_until_it_is_resumed_and_the_next_life_knows_nothing_of_it() {
    for stop in STOPS {
        let mut host = Host::new(ScriptedWriter::down()).await;
        host.write(NODE, 1, "found at open").await;
        host.config.start_paused = true;
        let mut host = host.restart(stop, ScriptedWriter::taking()).await;
        assert_eq!(host.handoff.stats().paused_all, Some(Pause::UntilRestart));
        host.write(NODE, 1, "came later").await;
        host.write(OTHER, 1, "of a new node").await;
        a_while().await;
        assert!(host.writer.pings().is_empty(), "{stop:?}");
        assert!(host.writer.seen().is_empty(), "{stop:?}");
        let states = [NODE, OTHER].map(|node| host.state(node));
        assert_eq!(states, [NodeState::Paused; 2]);

        host.handoff.resume_all().await.unwrap();
        host.taken(3).await;
        assert_eq!(texts(&host.sent(NODE)), ["found at open", "came later"]);
        assert_eq!(texts(&host.sent(OTHER)), ["of a new node"]);
        host.config.start_paused = false;
        let host = host.restart(stop, ScriptedWriter::taking()).await;
        assert_eq!(host.handoff.stats().paused_all, None, "{stop:?}");
        host.handoff.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn a_pause_that_lasts_is_not_made_shorter_by_a_life_that_begins_paused() {
    let mut host = Host::new(ScriptedWriter::taking()).await;
    host.handoff.pause_all(Pause::Lasting).await.unwrap();
    for (stop, start_paused) in STOPS.into_iter().zip([true, false]) {
        host.config.start_paused = start_paused;
        host = host.restart(stop, ScriptedWriter::taking()).await;
        assert_eq!(host.handoff.stats().paused_all, Some(Pause::Lasting));
    }
    // And one that is resumed ends on disk, too.
    host.config.start_paused = true;
    host = host.restart(STOPS[0], ScriptedWriter::taking()).await;
    host.handoff.resume_all().await.unwrap();
    host.config.start_paused = false;
    host = host.restart(STOPS[1], ScriptedWriter::taking()).await;
    assert_eq!(host.handoff.stats().paused_all, None);
    host.handoff.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_failure_that_the_store_reopens_from_does_not_end_it() {
    let begin = |config: &mut hinted_handoff::Config| config.start_paused = true;
    let host = Host::with(ScriptedWriter::taking(), begin).await;
    host.write(NODE, 1, "before").await;
    host.handoff.inject(CommitFault::Fail);
    host.handoff.pause(NODE, Pause::Lasting).await.unwrap_err();
    host.handoff.disk_works_again();
    host.until("reopening", |it| {
        matches!(it.handoff.health(), Health::Serving)
    })
    .await;
    host.write(NODE, 1, "after").await;
    a_while().await;
    assert_eq!(host.handoff.stats().paused_all, Some(Pause::UntilRestart));
    assert!(host.writer.seen().is_empty());
    host.handoff.resume_all().await.unwrap();
    // The pause that failed may have come into effect.
    host.handoff.resume(NODE).await.unwrap();
    host.taken(2).await;
    host.handoff.shutdown().await.unwrap();
}
