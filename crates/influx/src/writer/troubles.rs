//! What a server said last of its databases and of our credentials.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use http::StatusCode;
use parking_lot::Mutex;

use super::answer::{Answer, Meaning};

/// Of so many databases of a server it is known that there is something wrong.
const DATABASES: usize = 10_000;

/// An event tells when something begins to be wrong, and one when it ends.
#[derive(Debug)]
pub struct Troubles {
    node: u64,
    unauthorized: AtomicBool,
    databases: Mutex<HashMap<String, Trouble>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    Missing,
    Forbidden,
}

impl Troubles {
    pub fn new(node: u64) -> Troubles {
        Troubles {
            node,
            unauthorized: AtomicBool::new(false),
            databases: Mutex::default(),
        }
    }

    /// Whether the server said last that it does not have the database.
    pub fn is_missing(&self, database: &str) -> bool {
        self.databases.lock().get(database) == Some(&Trouble::Missing)
    }

    /// The server answered a write to a database.
    pub fn heard(&self, database: &str, answer: &Answer, meaning: Meaning) {
        let (is_unauthorized, trouble) = match (answer.status, meaning) {
            (StatusCode::UNAUTHORIZED, _) => return self.set_unauthorized(true, &answer.text),
            (StatusCode::FORBIDDEN, _) => (false, Some(Trouble::Forbidden)),
            _ if answer.is_no_database() => (false, Some(Trouble::Missing)),
            // The server came as far as the points, or the retention policy.
            (_, Meaning::Taken | Meaning::Reject | Meaning::Missing) => (false, None),
            _ => return,
        };
        self.set_unauthorized(is_unauthorized, &answer.text);
        self.set(database, trouble, &answer.text);
    }

    fn set_unauthorized(&self, now: bool, text: &str) {
        let node = self.node;
        match (self.unauthorized.swap(now, Relaxed), now) {
            (false, true) => tracing::error!(node, error = text, "a server refuses credentials"),
            (true, false) => tracing::info!(node, "a server takes credentials again"),
            _ => {}
        }
    }

    fn set(&self, database: &str, now: Option<Trouble>, text: &str) {
        let before = {
            let mut databases = self.databases.lock();
            match now {
                None => databases.remove(database),
                Some(now) if databases.len() < DATABASES || databases.contains_key(database) => {
                    databases.insert(database.to_owned(), now)
                }
                // It is not told of: nobody would remember that it was.
                Some(_) => return,
            }
        };
        let node = self.node;
        if before == now {
            return;
        }
        match before {
            Some(Trouble::Forbidden) => {
                tracing::info!(node, database, "a server allows writes to a database again");
            }
            Some(Trouble::Missing) => {
                tracing::info!(node, database, "a server has a database again")
            }
            None => {}
        }
        match now {
            Some(Trouble::Forbidden) => {
                tracing::error!(
                    node,
                    database,
                    error = text,
                    "a server forbids writes to a database"
                );
            }
            Some(Trouble::Missing) => tracing::warn!(node, database, "a server lacks a database"),
            None => {}
        }
    }
}
