//! All that a running relay has open.

use std::{sync::Arc, time::Duration};

use hinted_handoff::{HintedHandoff, NodeId};
use hinted_handoff_admin::{Address, Hosts, NodeNames, Server, Settings as Admin, router, serve};
use tokio::{
    net::TcpListener,
    task::{JoinHandle, spawn_blocking},
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::RunError;
use crate::{
    InfluxWriter, LinePoints, import,
    relay::{
        body::Bounds,
        budget::Budget,
        counts::Counts,
        http::{self, Shared},
        listen::Serving,
        plan::PlanError,
        settings::Settings,
        shown::shown,
        tls::server_config,
        udp,
        users::Users,
        write::Writes,
    },
};

/// How long operators' requests may take to end.
const ADMIN_GRACE: Duration = Duration::from_secs(2);

/// A relay that runs.
pub struct Opened {
    handoff: HintedHandoff<LinePoints>,
    stop_timeout: Duration,
    /// Cancelled to take nothing new.
    stop: CancellationToken,
    /// Cancelled to cut off what is under way.
    cut: CancellationToken,
    serving: JoinHandle<usize>,
    udp: Vec<JoinHandle<()>>,
    admin: Vec<Server>,
}

impl Opened {
    pub async fn open(settings: Settings) -> Result<Opened, RunError> {
        // What can be wrong by itself comes before what is shared with others.
        let users = Users::new(&settings.users).map_err(PlanError::from)?;
        let tls = settings.http.tls.as_ref().map(server_config).transpose();
        let tls = tls.map_err(PlanError::from)?;
        let servers = InfluxWriter::new(&settings.nodes, settings.writer.clone());
        let servers = Arc::new(servers.map_err(PlanError::from)?);
        let at = settings.http.listen;
        let listener = TcpListener::bind(at).await;
        let listener = listener.map_err(|source| listen("tcp", at, source))?;
        let intakes = settings.udp.iter().map(|table| {
            let intake = udp::bind(table);
            intake.map_err(|source| listen("udp", table.listen, source))
        });
        let intakes = intakes.collect::<Result<Vec<_>, _>>()?;

        let queue = settings.queue.clone();
        // What an import that was killed has put there cannot be counted once it is delivered.
        let dir = queue.dir.clone();
        spawn_blocking(move || import::settle(&dir)).await??;
        let handoff = HintedHandoff::open(queue, Arc::clone(&servers)).await?;
        let nodes = settings.node_ids();
        let retained = handoff.retain_only_nodes(&nodes).await;
        let retained = retained.map_err(RunError::Queue)?;
        for node in &retained.parked {
            tracing::warn!(%node, "hints wait for a server that is not among the [[nodes]]");
        }
        let admin = operators(&settings, &handoff).await?;

        let counts = Arc::new(Counts::new());
        let body_bytes = settings.writer.max_body_bytes;
        let writes = Writes::new(handoff.clone(), servers, nodes, body_bytes);
        let (stop, cut) = (CancellationToken::new(), CancellationToken::new());
        let udp = intakes.into_iter().map(|intake| {
            if let Ok(address) = intake.address() {
                tracing::info!(%address, "lines are taken by UDP");
            }
            let (writes, counts) = (writes.clone(), Arc::clone(&counts));
            tokio::spawn(intake.run(writes, settings.consistency, counts, stop.clone()))
        });
        let udp = udp.collect();
        if let Ok(address) = listener.local_addr() {
            tracing::info!(%address, tls = tls.is_some(), "writes are taken");
        }
        let shared = shared(&settings, writes, users, Arc::clone(&counts), stop.clone())?;
        let serving = Serving::new(&settings.http, http::router(shared), tls, counts);
        Ok(Opened {
            handoff,
            stop_timeout: settings.stop_timeout,
            serving: tokio::spawn(serving.run(listener, stop.clone(), cut.clone())),
            stop,
            cut,
            udp,
            admin,
        })
    }

    /// Takes nothing new, waits for what is under way, and closes the queue.
    pub async fn close(mut self) -> Result<(), RunError> {
        self.stop.cancel();
        let until = Instant::now() + self.stop_timeout;
        let ended = match timeout_at(until, &mut self.serving).await {
            Ok(ended) => ended,
            Err(_) => {
                self.cut.cancel();
                self.serving.await
            }
        };
        match ended {
            Ok(0) => {}
            Ok(connections) => tracing::warn!(connections, "connections were cut off"),
            Err(error) => tracing::error!(%error, "connections were not served to their end"),
        }
        for mut intake in self.udp {
            if timeout_at(until, &mut intake).await.is_err() {
                intake.abort();
                tracing::warn!("lines by UDP were under way, and are not all written");
            }
        }
        for server in self.admin {
            if let Err(error) = server.shutdown(ADMIN_GRACE).await {
                tracing::warn!(%error, "the interface for operators did not end well");
            }
        }
        let closed = self.handoff.shutdown().await;
        closed.map_err(RunError::Queue)?;
        tracing::info!("stopped; all hints are on disk");
        Ok(())
    }
}

fn listen(what: &'static str, address: std::net::SocketAddr, source: std::io::Error) -> RunError {
    RunError::Listen {
        what,
        address,
        source,
    }
}

/// What operators use.
async fn operators(
    settings: &Settings,
    handoff: &HintedHandoff<LinePoints>,
) -> Result<Vec<Server>, RunError> {
    let socket = settings.admin.socket.clone().map(Address::Unix);
    let mut servers = Vec::new();
    for at in socket
        .into_iter()
        .chain(settings.admin.listen.map(Address::Tcp))
    {
        servers.push(serve(handoff, admin(settings), at).await?);
    }
    Ok(servers)
}

fn admin(settings: &Settings) -> Admin {
    let nodes = settings.nodes.iter();
    let names = nodes.filter_map(|node| Some((NodeId(node.id), node.name.clone()?)));
    let names: std::collections::BTreeMap<NodeId, String> = names.collect();
    let names: NodeNames = Arc::new(move |node| names.get(&node).cloned());
    Admin {
        read_only: settings.admin.read_only,
        title: Some("hh-relay".to_owned()),
        node_names: Some(names),
        decoder: Some(Arc::new(|format, bytes| {
            Ok(shown(format, bytes.to_vec().into())?)
        })),
        ..Admin::default()
    }
}

fn shared(
    settings: &Settings,
    writes: Writes,
    users: Users,
    counts: Arc<Counts>,
    stop: CancellationToken,
) -> Result<Shared, RunError> {
    let http = &settings.http;
    let own = Admin {
        read_only: true,
        // It is asked by the relay alone.
        hosts: Hosts::Any,
        ..admin(settings)
    };
    let nodes = settings.nodes.iter();
    Ok(Shared {
        admin: router(writes.handoff(), own)?,
        writes,
        users,
        bounds: Bounds {
            bytes: usize::try_from(http.max_body_bytes).unwrap_or(usize::MAX),
            time: http.body_timeout,
            budget: Budget::new(http.max_bytes_under_way),
        },
        counts,
        consistency: settings.consistency,
        database: http.database.clone(),
        retention_policy: http.retention_policy.clone().filter(|it| !it.is_empty()),
        names: nodes
            .map(|node| (NodeId(node.id), node.name.clone()))
            .collect(),
        stop,
    })
}
