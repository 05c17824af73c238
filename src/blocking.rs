//! Waiting on a thread that no runtime drives.

use tokio::sync::oneshot;

/// Blocks the thread until `work` is done. What all `_blocking` twins have in common.
///
/// # Panics
/// On a thread that drives a tokio runtime, as all of tokio's own blocking calls do: what it waited
/// for might need that very thread. `spawn_blocking` and `block_in_place` give one that may wait.
#[track_caller]
pub fn block_on<T>(work: impl Future<Output = T>) -> T {
    refuse_within_runtime();
    pollster::block_on(work)
}

/// Tokio tells nobody which threads it drives; but it refuses to block one.
#[track_caller]
fn refuse_within_runtime() {
    let (tell, told) = oneshot::channel();
    // Nobody has to wait for what is there already.
    let _ = tell.send(());
    let _ = told.blocking_recv();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_may_block_unless_it_drives_a_runtime() {
        assert_eq!(block_on(async { 7 }), 7);
        let runtime = tokio::runtime::Runtime::new().unwrap();
        {
            let _entered = runtime.enter();
            assert_eq!(block_on(async { 7 }), 7);
        }
        let blocks = || block_on(async { 7 });
        let spawned = runtime.block_on(async { tokio::task::spawn_blocking(blocks).await });
        assert_eq!(spawned.unwrap(), 7);
        let in_place = async { tokio::task::block_in_place(blocks) };
        assert_eq!(runtime.block_on(in_place), 7);
        let driving = async { tokio::spawn(async move { blocks() }).await };
        assert!(runtime.block_on(driving).unwrap_err().is_panic());
    }
}
