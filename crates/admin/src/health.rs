//! Health in words: what is the matter, and what to do.

use hinted_handoff::Health;

use crate::problem::with_causes;

/// The name of a state, as it is in JSON and in metrics.
pub const NAMES: [&str; 7] = [
    "serving",
    "replay_stopped",
    "failed",
    "reopen_required",
    "directory_gone",
    "restart_required",
    "shut_down",
];

/// The name of a state.
pub fn name(health: &Health) -> &'static str {
    match health {
        Health::Serving => "serving",
        Health::ReplayStopped(_) => "replay_stopped",
        Health::Failed(_) => "failed",
        Health::ReopenRequired(_) => "reopen_required",
        Health::DirectoryGone(_) => "directory_gone",
        Health::RestartRequired(_) => "restart_required",
        Health::ShutDown => "shut_down",
        _ => "unknown",
    }
}

/// What is the matter: the cause first, then what follows and what to do.
pub fn text(health: &Health) -> String {
    match health {
        Health::Serving => "It serves, and replay runs.".to_owned(),
        Health::ReplayStopped(why) => {
            format!("{}. Hints are stored and wait.", with_causes(why))
        }
        Health::Failed(cause) => format!(
            "{}. Nothing is accepted, sent or acknowledged. It opens itself again as soon as that works.",
            with_causes(cause)
        ),
        Health::ReopenRequired(cause) => format!(
            "{}. Nothing is accepted, sent or acknowledged. Shut it down, drop the database, and open both again.",
            with_causes(cause)
        ),
        Health::DirectoryGone(cause) => format!(
            "{}. Nothing is accepted, sent or acknowledged. Put the directory back, shut it down, and open it again.",
            with_causes(cause)
        ),
        Health::RestartRequired(cause) => format!(
            "{}. Nothing is accepted, sent or acknowledged. Restart the process.",
            with_causes(cause)
        ),
        Health::ShutDown => "It is shut down.".to_owned(),
        _ => "Its health has a name that this version does not know.".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use hinted_handoff::{Config, HintedHandoff, ReplayStopped};
    use hinted_handoff_testkit::{Reply, ScriptedWriter};

    use super::*;

    /// Only the library can make a cause of the store's, so one is brought about.
    #[tokio::test]
    async fn health_has_the_names_that_the_library_gives_it() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("hints");
        let config = Config {
            min_free_disk: 0,
            ..Config::new(&at)
        };
        let writer = ScriptedWriter::new(|_| Reply::Take);
        let opened = HintedHandoff::<Bytes>::open(config, writer).await;
        let handoff = opened.unwrap();
        std::fs::rename(&at, dir.path().join("moved")).unwrap();
        let cause = loop {
            match handoff.health() {
                Health::DirectoryGone(cause) => break cause,
                _ => tokio::time::sleep(std::time::Duration::from_millis(5)).await,
            }
        };
        let all = [
            Health::Serving,
            Health::ReplayStopped(ReplayStopped::RuntimeGone),
            Health::Failed(cause.clone()),
            Health::ReopenRequired(cause.clone()),
            Health::DirectoryGone(cause.clone()),
            Health::RestartRequired(cause),
            Health::ShutDown,
        ];
        for (health, listed) in all.iter().zip(NAMES) {
            let json = serde_json::to_value(health).unwrap();
            assert_eq!(json["health"], name(health));
            assert_eq!(listed, name(health));
        }
        assert_eq!(all.len(), NAMES.len());
    }
}
