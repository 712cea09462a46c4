//! How a run goes, and what is printed of it.

use crate::Result;
use crate::data::Shape;
use crate::machine::version;
use crate::node;
use crate::options::Options;
use crate::peer::{CONNECTIONS, Name, Setup, Target};
use crate::pin::Processors;
use crate::process::Programs;
use crate::workload::{Backend, Durability, Workload};

/// Seconds that a peer runs before it is measured: connections are opened, statements are
/// prepared, caches fill.
const WARM_UP: f64 = 0.5;

/// The same on Node.js, which compiles what runs often only after a while.
const WARM_UP_NODE: f64 = 2.0;

/// How a run goes.
pub(crate) struct Plan<'a> {
    pub options: &'a Options,
    pub programs: Programs,
    pub peers: Vec<Name>,
    pub shape: Shape,
    pub seconds: f64,
    pub rounds: u32,
    /// Where PostgreSQL and the peers on it run, where that was chosen.
    pub processors: Option<Processors>,
}

impl<'a> Plan<'a> {
    /// Decides how what was asked for is measured.
    pub(crate) fn new(options: &'a Options) -> Result<Self> {
        let mut peers = options.peer.clone();
        if peers.is_empty() {
            peers.extend(Name::ALL);
        }
        let processors = options.pin.processors()?;
        let mut programs = Programs {
            own: std::env::current_exe()?,
            node: None,
            processor: processors.map(|processors| processors.peer),
        };
        if peers.iter().any(|peer| peer.node_folder().is_some()) {
            match node::script(!options.quick) {
                Ok(script) => programs.node = Some(script),
                Err(why) => {
                    terminal::aside(format_args!("the peers on Node.js are skipped: {why}"));
                    peers.retain(|peer| peer.node_folder().is_none());
                }
            }
        }
        let (shape, seconds, rounds) = if options.quick {
            (Shape::QUICK, 0.01, 1)
        } else {
            (Shape::FULL, options.seconds, options.rounds)
        };
        if !options.quick && cfg!(debug_assertions) {
            terminal::aside("this is not a release build: the figures say little");
        }
        Ok(Self {
            options,
            programs,
            peers,
            shape,
            seconds,
            rounds,
            processors,
        })
    }

    /// Returns how many seconds a peer runs before it is measured.
    pub(crate) fn warm_up(&self, peer: Name) -> f64 {
        match peer.node_folder() {
            _ if self.options.quick => 0.0,
            Some(_) => WARM_UP_NODE,
            None => WARM_UP,
        }
    }

    /// Returns what a peer opens.
    pub(crate) fn setup(&self, peer: Name, target: &Target, durability: Durability) -> Setup {
        Setup {
            peer,
            target: target.clone(),
            durability,
            connections: CONNECTIONS,
            shape: self.shape,
        }
    }

    /// Returns whether a workload was asked for.
    pub(crate) fn wants(&self, workload: Workload) -> bool {
        let only = &self.options.only;
        only.is_empty() || only.iter().any(|text| workload.key().contains(text))
    }

    /// Returns the peers that are measured on a backend.
    pub(crate) fn peers_on(&self, backend: Backend) -> Vec<Name> {
        let mut peers = self.peers.clone();
        peers.retain(|peer| peer.runs_on(backend));
        peers
    }

    /// Returns what is measured, by name.
    pub(crate) fn versions(&self) -> Vec<(String, String)> {
        let crates = [
            "sea-orm",
            "sqlx",
            "rusqlite",
            "tokio-postgres",
            "diesel",
            "diesel-async",
            "deadpool",
        ];
        let mut versions: Vec<_> = crates
            .into_iter()
            .map(|name| (name.to_owned(), version(name)))
            .collect();
        if self.programs.node.is_some() {
            versions.extend(node::versions());
        }
        versions
    }

    /// Returns how it is measured, by name.
    pub(crate) fn settings(&self) -> Vec<(String, String)> {
        let shape = self.shape;
        [
            ("rounds", format!("{} of {} s", self.rounds, self.seconds)),
            (
                "connections",
                format!("{CONNECTIONS} at the most for each peer"),
            ),
            (
                "rows",
                format!(
                    "{} users, {} sessions, {} workflows, {} plugins, {} log entries, {} deliveries",
                    shape.users,
                    shape.sessions,
                    shape.workflows,
                    shape.plugins,
                    shape.logs,
                    shape.deliveries
                ),
            ),
            (
                "SQLite",
                "one build for all peers in Rust, with the flags of .cargo/config.toml; better-sqlite3 brings its own".to_owned(),
            ),
            (
                "durability on SQLite",
                "WAL with synchronous = FULL for everybody, or NORMAL where it says so".to_owned(),
            ),
            (
                "durability on PostgreSQL",
                "synchronous_commit = on for everybody, no TLS".to_owned(),
            ),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }
}
