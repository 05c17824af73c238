//! Defaults that are not those of their types.

use std::time::Duration;

use super::MIB;

pub fn retry_interval() -> Duration {
    Duration::from_secs(1)
}
pub fn retry_max_interval() -> Duration {
    Duration::from_secs(60)
}
pub fn batch_bytes() -> u64 {
    512_000
}
pub fn max_entry_bytes() -> u64 {
    16 * MIB
}
pub fn write_timeout() -> Duration {
    Duration::from_secs(10)
}
pub fn hint_after() -> Duration {
    Duration::from_millis(100)
}
pub fn max_outstanding() -> usize {
    1024
}
pub fn max_outstanding_bytes() -> u64 {
    8 * MIB
}
pub fn fail_early() -> bool {
    true
}
pub fn send_timeout() -> Duration {
    Duration::from_secs(10)
}
pub fn max_in_flight() -> usize {
    8
}
pub fn max_sends() -> usize {
    256
}
pub fn max_bytes_in_flight() -> u64 {
    64 * MIB
}
pub fn window_hints() -> usize {
    8192
}
pub fn window_bytes() -> u64 {
    8 * MIB
}
pub fn max_dead_letters() -> u64 {
    10_000
}
pub fn max_dead_letter_bytes() -> u64 {
    256 * MIB
}
pub fn shutdown_grace() -> Duration {
    Duration::from_secs(5)
}
pub fn expiry_grace() -> Duration {
    Duration::from_secs(60)
}
pub fn block_timeout() -> Duration {
    Duration::from_secs(10)
}
pub fn commit_timeout() -> Duration {
    Duration::from_secs(30)
}
pub fn min_free_disk() -> u64 {
    128 * MIB
}
pub fn purge_after() -> Duration {
    Duration::from_secs(7 * 86_400)
}
