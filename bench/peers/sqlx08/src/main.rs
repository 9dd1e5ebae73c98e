//! One of the event stores on sqlx 0.8, at work.

mod cqrs_es;
mod disintegrate;
mod esrs;
mod eventcore;
mod factstr;
mod pools;

use annals_peers::{Fault, Options, Place, serve};
use clap::Parser;

fn main() -> Result<(), Fault> {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let setup = &options.setup;
    runtime.block_on(async {
        match (options.peer.as_str(), &setup.place) {
            ("cqrs-es", Place::Postgres(_)) => serve::<cqrs_es::OnPostgres>(setup).await,
            ("cqrs-es", Place::Sqlite(_)) => serve::<cqrs_es::OnSqlite>(setup).await,
            ("disintegrate", Place::Postgres(_)) => serve::<disintegrate::OnPostgres>(setup).await,
            ("esrs", Place::Postgres(_)) => serve::<esrs::OnPostgres>(setup).await,
            ("eventcore", Place::Postgres(_)) => serve::<eventcore::OnPostgres>(setup).await,
            ("eventcore", Place::Sqlite(_)) => serve::<eventcore::OnSqlite>(setup).await,
            ("eventcore-delivery", Place::Postgres(_)) => serve::<eventcore::Delivery>(setup).await,
            ("factstr", Place::Postgres(_)) => serve::<factstr::OnPostgres>(setup).await,
            ("factstr", Place::Sqlite(_)) => serve::<factstr::OnSqlite>(setup).await,
            (other, place) => Err(format!("there is no `{other}` for {place:?}").into()),
        }
    })
}
