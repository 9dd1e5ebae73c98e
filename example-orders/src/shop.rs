//! The setup: one store, its orders, and three read models beside the events in the same database.
//!
//! Only `open` depends on the database. The rest is the same for both.

use std::sync::Arc;
use std::time::Duration;

use annals::{EventStore, PostgresOptions, Projections, ProjectionsExt, Repository, prelude::*};

use crate::Fault;
use crate::analytics::DailySales;
use crate::detail::OrderDetail;
use crate::list::OrderList;
use crate::location::Location;
use crate::order::Order;
use crate::tables::Tables;

/// Everything that a scene needs.
pub struct Shop {
    /// The event store.
    pub store: Arc<dyn EventStore>,
    /// Executes commands on orders.
    pub orders: Repository<Order>,
    /// The runner that updates the read models.
    pub views: Projections,
    /// Queries on the tables of the read models.
    pub tables: Tables,
}

impl Shop {
    /// Opens the shop at `location`, or creates it.
    pub async fn open(location: &Location) -> Result<Self, Fault> {
        match location {
            Location::File(path) => {
                let store = annals::sqlite(path).await?;
                let tables = Tables::Sqlite(store.database().clone());
                Self::over(store, tables).await
            }
            Location::Postgres(url) => {
                // On a server, the schema is changed only on request. Where several processes share a database, a step of
                // the deployment should do it, and not each process.
                let store = PostgresOptions::new(url).migrate().open().await?;
                let tables = Tables::Postgres(store.database().clone());
                Self::over(store, tables).await
            }
        }
    }

    /// Starts the read models of an open store.
    pub async fn over(store: impl EventStore + ProjectionsExt + Clone, tables: Tables) -> Result<Self, Fault> {
        let orders = store.aggregate::<Order>();
        let views = store.projections().with(OrderDetail).with(OrderList).with(DailySales).start().await?;
        let shop = Self { store: store.shared(), orders, views, tables };
        shop.caught_up(shop.store.head().await?.position).await?;
        Ok(shop)
    }

    /// Waits until the read models show everything up to `position`.
    pub async fn caught_up(&self, position: annals::Position) -> Result<(), Fault> {
        Ok(self.views.wait_for(position, Duration::from_secs(60)).await?)
    }

    /// Finishes running work.
    pub async fn close(self) -> Result<(), Fault> {
        self.views.close().await;
        self.store.close().await;
        Ok(())
    }
}
