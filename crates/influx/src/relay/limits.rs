//! What the system allows this process.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors beside those of clients: servers, the queue, the log.
const OTHER_FILES: u64 = 256;

/// Asks for as many open files as the system allows, and tells if those are too few: each
/// connection is one.
pub fn allow_files(connections: usize) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    let files = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => maximum,
        Err(_) => current,
    };
    let needed = connections as u64 + OTHER_FILES;
    if let Some(files) = files
        && files < needed
    {
        tracing::warn!(
            files,
            needed,
            "so many open files are allowed, and max_connections needs more: raise the limit \
             (LimitNOFILE of systemd), or lower the setting"
        );
    }
}
