//! annals, or one of the event stores on sqlx 0.9, at work.

mod evento;
mod ours;

use annals_peers::{Fault, Options, Place, serve};
use clap::Parser;

fn main() -> Result<(), Fault> {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let setup = &options.setup;
    runtime.block_on(async {
        match (options.peer.as_str(), &setup.place) {
            ("annals", Place::Postgres(_)) => serve::<ours::OnPostgres>(setup).await,
            ("annals", Place::Sqlite(_)) => serve::<ours::OnSqlite>(setup).await,
            ("evento", Place::Postgres(_)) => serve::<evento::OnPostgres>(setup).await,
            ("evento", Place::Sqlite(_)) => serve::<evento::OnSqlite>(setup).await,
            (other, place) => Err(format!("there is no `{other}` for {place:?}").into()),
        }
    })
}
