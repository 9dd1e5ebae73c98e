//! The stores that are compared.

use std::path::PathBuf;

use annals_peers::Fault;

use crate::place::Engine;

/// A store, and the program that its adapter is in.
#[derive(Clone, Copy)]
pub struct Peer {
    pub name: &'static str,
    program: &'static str,
    engines: &'static [Engine],
}

/// The name of ours.
pub const OURS: &str = "annals";

const SQLX08: &str = "annals-peers-sqlx08";
const SQLX09: &str = "annals-peers-sqlx09";
const BOTH: &[Engine] = &[Engine::Postgres, Engine::Sqlite];

const PEERS: &[Peer] = &[
    Peer { name: OURS, program: SQLX09, engines: BOTH },
    Peer { name: "cqrs-es", program: SQLX08, engines: BOTH },
    Peer { name: "disintegrate", program: SQLX08, engines: &[Engine::Postgres] },
    Peer { name: "esrs", program: SQLX08, engines: &[Engine::Postgres] },
    Peer { name: "eventcore", program: SQLX08, engines: BOTH },
    Peer { name: "eventcore-delivery", program: SQLX08, engines: &[Engine::Postgres] },
    Peer { name: "evento", program: SQLX09, engines: BOTH },
    Peer { name: "factstr", program: SQLX08, engines: BOTH },
];

/// Those that run on the engine; of the others only what is asked for, if anything is.
pub fn peers(engine: Engine, only: &[String]) -> Vec<Peer> {
    let wanted = |peer: &Peer| only.is_empty() || peer.name == OURS || only.iter().any(|name| name == peer.name);
    PEERS.iter().filter(|peer| peer.engines.contains(&engine) && wanted(peer)).copied().collect()
}

impl Peer {
    /// Where its program is: beside this one.
    pub fn program(&self) -> Result<PathBuf, Fault> {
        let program = std::env::current_exe()?.with_file_name(self.program);
        if program.is_file() { Ok(program) } else { Err(format!("build `{}` first", self.program).into()) }
    }
}
