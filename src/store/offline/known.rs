//! The small records of a store: its own, its nodes', its loss journal.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

use crate::{
    error::{OpenError, UnopenableReason},
    store::{
        engine::{
            generation::unopenable, log_scan, log_tree::LogTree, meta, migrate::SCHEMA_VERSION,
        },
        format::{
            gone_letters::{GONE_LETTERS, GoneLetters},
            node_record::NodeRecord,
            node_status::Status,
        },
        offline::place::{ClosedPlace, unread},
    },
    types::{NodeId, QueueId, StoreId},
};

/// What is known without a look at any hint.
#[derive(Debug)]
pub struct Known {
    pub schema: u32,
    pub store: StoreId,
    pub is_paused: bool,
    pub records: HashMap<NodeId, NodeRecord>,
    pub statuses: HashMap<NodeId, Status>,
    /// By key, damaged ones too.
    pub losses: BTreeMap<Vec<u8>, Bytes>,
    /// Which dead letters are gone, whatever stands in the log of them.
    pub gone_letters: HashMap<QueueId, GoneLetters>,
    /// Nodes whose record does not read, and why.
    pub damaged_records: Vec<(NodeId, String)>,
    /// Whether the records that everything depends on are only in older places of the log.
    pub is_from_older_copies: bool,
}

impl Known {
    pub fn read(place: &ClosedPlace, tree: &LogTree) -> Result<Known, OpenError> {
        let mut meta = BTreeMap::new();
        let mut known = Known {
            schema: 0,
            store: StoreId([0; 16]),
            is_paused: false,
            records: HashMap::new(),
            statuses: HashMap::new(),
            losses: BTreeMap::new(),
            gone_letters: HashMap::new(),
            damaged_records: Vec::new(),
            is_from_older_copies: false,
        };
        let mut damaged = BTreeMap::new();
        tree.others(|key, value| known.see(key, value, &mut meta, &mut damaged))
            .map_err(unread)?;
        // In a host's database anything may stand under keys of this length.
        if !place.may_be_shared {
            damaged.retain(|node, _| !known.records.contains_key(node));
            known.damaged_records.extend(damaged);
        }
        known.identify(place, meta)?;
        Ok(known)
    }

    fn see(
        &mut self,
        key: &[u8],
        value: &Bytes,
        meta: &mut BTreeMap<Vec<u8>, Bytes>,
        damaged: &mut BTreeMap<NodeId, String>,
    ) {
        let losses = |key: &[u8]| key.first().is_some_and(|kind| *kind < GONE_LETTERS);
        if meta::is_record(key, value) {
            meta.insert(key.to_vec(), value.clone());
        } else if let Ok(node) = key.try_into().map(u64::from_be_bytes).map(NodeId) {
            match NodeRecord::decode(node, value) {
                Ok(record) => drop(self.records.insert(node, record)),
                Err(error) => drop(damaged.insert(node, error.to_string())),
            }
        } else if let Some(node) = Status::node_of(key)
            && let Ok(status) = Status::decode(node, value)
        {
            self.statuses.insert(node, status);
        } else if let Some(queue) = GoneLetters::queue_of(key) {
            if let Ok(gone) = GoneLetters::decode(queue, value) {
                self.gone_letters.insert(queue, gone);
            }
        } else if losses(key) && matches!(key.len(), 1 | 9) {
            self.losses.insert(key.to_vec(), value.clone());
        }
    }

    /// Whose store it is, by whatever copy is intact: a rebuild takes it, too.
    fn identify(
        &mut self,
        place: &ClosedPlace,
        mut meta: BTreeMap<Vec<u8>, Bytes>,
    ) -> Result<(), OpenError> {
        let has =
            |meta: &BTreeMap<Vec<u8>, Bytes>, record: &str| meta.contains_key(record.as_bytes());
        if !has(&meta, meta::SCHEMA) || !has(&meta, meta::STORE) {
            self.is_from_older_copies = true;
            log_scan::scan(&place.log(), |key, value| {
                if meta::is_record(key, value) {
                    let copy = || Bytes::copy_from_slice(value);
                    meta.entry(key.to_vec()).or_insert_with(copy);
                }
                Ok(())
            })?;
        }
        let damaged = |record, detail: String| {
            let reason = UnopenableReason::Damaged { record, detail };
            unopenable(&place.generation, reason)
        };
        let get = |record: &'static str| {
            let missing = || {
                let missing = "no copy of it is intact in the log";
                damaged(
                    record,
                    match place.may_be_shared {
                        true => format!("{missing}; if no host ever had a store there, it is none"),
                        false => missing.to_owned(),
                    },
                )
            };
            meta.get(record.as_bytes()).ok_or_else(missing)
        };
        let schema = meta::decode(meta::SCHEMA, get(meta::SCHEMA)?);
        let store = meta::decode(meta::STORE, get(meta::STORE)?);
        let schema = schema.map_err(|error| damaged(meta::SCHEMA, error.to_string()))?;
        self.schema = u32::from_be_bytes(schema);
        if self.schema > SCHEMA_VERSION {
            return Err(OpenError::NewerSchema {
                path: place.dir.clone(),
                found: self.schema,
                supported: SCHEMA_VERSION,
            });
        }
        let store = store.map_err(|error| damaged(meta::STORE, error.to_string()))?;
        self.store = StoreId(store);
        let paused = meta.get(meta::PAUSED.as_bytes());
        let paused = paused.and_then(|value| meta::decode(meta::PAUSED, value).ok());
        self.is_paused = paused == Some([1]);
        Ok(())
    }
}
