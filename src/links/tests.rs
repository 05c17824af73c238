use super::*;
use tokio::sync::broadcast;

const SHARD: ShardId = ShardId(7);
const AFTER: Duration = Duration::from_millis(50);

fn links() -> (Links, broadcast::Receiver<Event>) {
    let events = Events::new();
    let told = events.listen();
    let config = Config {
        max_outstanding: 2,
        max_outstanding_bytes: 100,
        ..Config::new("unused")
    };
    let ageing = Ageing::new(&config, Clock::System, Vec::new());
    (Links::new(&config, Arc::new(ageing), events), told)
}

fn is_open(link: &Link) -> bool {
    link.seen().0 == Gate::Open
}

#[tokio::test(start_paused = true)]
async fn one_bad_shard_does_not_close_a_gate_and_two_without_an_answer_between_them_do() {
    let (links, mut told) = links();
    let link = links.of(NodeId(1));
    (0..10).for_each(|_| link.failed(SHARD, "full"));
    link.taken();
    link.failed(ShardId(8), "full");
    link.refused();
    link.failed(SHARD, "full");
    assert!(is_open(&link) && told.try_recv().is_err());
    link.failed(ShardId(8), "no route");
    let Gate::Closed { why, .. } = link.seen().0 else {
        panic!("open");
    };
    assert!(why.contains("no route"), "{why}");
    assert!(matches!(told.try_recv(), Ok(Event::GateClosed { .. })));
    link.failed(SHARD, "again");
    assert!(told.try_recv().is_err(), "it is told once");
    link.replayed();
    assert!(is_open(&link));
    assert!(matches!(told.try_recv(), Ok(Event::GateOpened { .. })));
    assert_eq!(link.seen().1.failed, 14);
}

#[tokio::test(start_paused = true)]
async fn a_write_that_is_not_answered_closes_the_gate_unless_the_node_answered_since_it_began() {
    let (links, _told) = links();
    let link = links.of(NodeId(1));
    let began = Instant::now();
    tokio::time::advance(Duration::from_millis(50)).await;
    link.taken();
    link.slow(began, AFTER);
    assert!(is_open(&link));
    link.slow(began + Duration::from_millis(51), AFTER);
    assert!(!is_open(&link));
    link.taken();
    link.ping_failed("refused");
    assert!(!is_open(&link));
}

#[tokio::test(start_paused = true)]
async fn a_closed_gate_lets_one_write_try_now_and_then_where_replay_does_not() {
    let (links, _told) = links();
    let link = links.of(NodeId(1));
    link.ping_failed("refused");
    assert_eq!(link.try_closed(1).err(), Some(Barred::Closed));
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(link.begin(1).err(), Some(Barred::Closed));
    assert!(link.try_closed(1).is_ok());
    assert_eq!(link.try_closed(1).err(), Some(Barred::Closed));
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(link.try_closed(1).is_ok());
    link.taken();
    assert!(link.begin(1).is_ok());
}

#[test]
fn so_many_are_outstanding_at_a_time_and_so_many_bytes_but_one_at_least() {
    let (links, _told) = links();
    let link = links.of(NodeId(1));
    let large = link.begin(1000).unwrap();
    assert_eq!(link.begin(1).err(), Some(Barred::Full));
    drop(large);
    let (first, second) = (link.begin(60).unwrap(), link.begin(40).unwrap());
    assert_eq!(link.begin(0).err(), Some(Barred::Full), "three");
    drop(second);
    assert_eq!(link.begin(41).err(), Some(Barred::Full), "101 bytes");
    drop(first);
    assert_eq!(link.seen().1.outstanding, Amount::default());
    assert!(links.of(NodeId(2)).begin(1).is_ok(), "another node");
}
