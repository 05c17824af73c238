//! How long a durable append takes at half the maximal rate: an open loop, in which entries are due
//! at moments fixed beforehand, and the time of each counts from when it was due.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::{
    Settings,
    common::{
        Outcome,
        entries::{Entries, POINTS},
        machine::Place,
        ours::{Appender, check_pending, open_down},
        producers::{Done, Target, Until},
        raw::Log,
        report::{Spread, Table, ratio, thousands},
        rounds::our_round,
    },
    figures::Figures,
};

const ROUNDS: usize = 9;
const SEARCH: Duration = Duration::from_millis(700);
const ROUND: Duration = Duration::from_millis(1500);
const PRODUCERS: usize = 64;
const ENTRIES: usize = 20_000;

/// Milliseconds.
struct Times {
    median: f64,
    p99: f64,
    longest: f64,
    /// How late the producers were told that an entry is due, which is in all the others.
    late_p99: f64,
}

pub async fn run(settings: &Settings, place: &Place, figures: &mut Figures) -> Outcome<()> {
    let entries = Arc::new(Entries::line_protocol(ENTRIES, POINTS)?);
    let search = Until::Elapsed(SEARCH.mul_f64(settings.scale));
    let round = ROUND.mul_f64(settings.scale);
    let mut table = Table::new(&[
        "round",
        "entries/s, half of ours at most",
        "raw median, p99, longest ms",
        "ours median, p99, longest ms",
        "p99 of raw",
        "told late p99 ms: raw, ours",
    ]);
    let mut ratios = Vec::new();
    // So that the disk does not discard the files of one round in the next.
    let (_kept, place) = &place.keeping()?;
    for number in 1..=ROUNDS {
        let maximal = our_round(place, &entries, PRODUCERS, search, 1, false).await?;
        let rate = maximal.done.per_second() / 2.0;
        let raw = raw_times(place, &entries, rate, round).await?;
        let ours = our_times(place, &entries, rate, round).await?;
        let of_raw = ours.p99 / raw.p99;
        let times = |it: &Times| format!("{:.2}, {:.2}, {:.1}", it.median, it.p99, it.longest);
        table.row([
            number.to_string(),
            thousands(rate),
            times(&raw),
            times(&ours),
            ratio(Some(of_raw)),
            format!("{:.2}, {:.2}", raw.late_p99, ours.late_p99),
        ]);
        ratios.push(of_raw);
    }
    table.print("Time of a durable append at half the maximal rate of ours, 64 producers");
    figures.note("append_p99_ratio", Spread::of(ratios));
    Ok(())
}

async fn raw_times(
    place: &Place,
    entries: &Arc<Entries>,
    rate: f64,
    round: Duration,
) -> Outcome<Times> {
    let dir = place.fresh_dir()?;
    place.settle()?;
    let log = Log::create(dir.path())?;
    let (times, _) = at_rate(&log.writer(), entries, rate, round).await?;
    log.close()?;
    Ok(times)
}

async fn our_times(
    place: &Place,
    entries: &Arc<Entries>,
    rate: f64,
    round: Duration,
) -> Outcome<Times> {
    let dir = place.fresh_dir()?;
    place.settle()?;
    let handoff = open_down(&dir.path().join("store")).await?;
    let (times, done) = at_rate(&Appender::new(&handoff, 1), entries, rate, round).await?;
    check_pending(&handoff, &done)?;
    handoff.shutdown().await?;
    Ok(times)
}

/// Appends `rate` entries a second for as long as `round`.
async fn at_rate<T: Target>(
    target: &T,
    entries: &Arc<Entries>,
    rate: f64,
    round: Duration,
) -> Outcome<(Times, Done)> {
    let (tell, tasks): (Vec<_>, Vec<_>) = (0..PRODUCERS)
        .map(|number| {
            let (tell, due) = unbounded_channel();
            let target = target.of_producer(number as u64);
            (
                tell,
                tokio::spawn(produce_due(target, Arc::clone(entries), due)),
            )
        })
        .unzip();
    let pacing = thread::Builder::new()
        .name("pacer".to_owned())
        .spawn(move || pace(&tell, rate, round))?;
    let (mut done, mut took) = (Done::default(), Vec::new());
    for task in tasks {
        let (one, times) = task.await??;
        done.entries += one.entries;
        done.bytes += one.bytes;
        took.extend(times);
    }
    let mut late = pacing.join().map_err(|_| "the pacer panicked")?;
    took.sort_unstable();
    late.sort_unstable();
    let times = Times {
        median: at(&took, 0.5),
        p99: at(&took, 0.99),
        longest: at(&took, 1.0),
        late_p99: at(&late, 0.99),
    };
    Ok((times, done))
}

/// A producer: appends when an entry is due, or as soon after it as the one before is durable.
async fn produce_due<T: Target>(
    target: T,
    entries: Arc<Entries>,
    mut due: UnboundedReceiver<Instant>,
) -> Outcome<(Done, Vec<Duration>)> {
    let (mut done, mut took) = (Done::default(), Vec::new());
    while let Some(due) = due.recv().await {
        let entry = entries.next();
        done.bytes += entry.len() as u64;
        target.append(entry).await?;
        done.entries += 1;
        took.push(due.elapsed());
    }
    Ok((done, took))
}

/// Tells the producers in turn when an entry is due, on a thread of its own, since the runtime's
/// timers are no finer than a millisecond. Returns how late each was told.
fn pace(tell: &[UnboundedSender<Instant>], rate: f64, round: Duration) -> Vec<Duration> {
    let started = Instant::now();
    let count = (rate * round.as_secs_f64()) as u64;
    let mut late = Vec::new();
    for (number, producer) in (0..count).zip(tell.iter().cycle()) {
        let due = started + Duration::from_secs_f64(number as f64 / rate);
        thread::sleep(due.saturating_duration_since(Instant::now()));
        late.push(due.elapsed());
        // A producer that failed is found when it is joined.
        let _ = producer.send(due);
    }
    late
}

/// Milliseconds that `part` of the times do not exceed.
fn at(sorted: &[Duration], part: f64) -> f64 {
    let place = (sorted.len() as f64 * part) as usize;
    let time = sorted.get(place.min(sorted.len().saturating_sub(1)));
    time.map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
}
