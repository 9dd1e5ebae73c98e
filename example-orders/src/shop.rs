//! The setup: one store, its orders, and four read models beside the events in the same database.
//!
//! Only `open` depends on the database. The rest is the same for both.

use std::sync::Arc;
use std::time::Duration;

use annals::{EventStore, PostgresOptions, Projections, ProjectionsExt, Repository, prelude::*};

use crate::Fault;
use crate::analytics::DailySales;
use crate::credit::Credit;
use crate::detail::OrderDetail;
use crate::list::OrderList;
use crate::location::Location;
use crate::order::Order;
use crate::statement::CustomerStatement;

/// Everything that a scene needs.
pub struct Shop {
    /// The event store.
    pub store: Arc<dyn EventStore>,
    /// Executes commands on orders.
    pub orders: Repository<Order>,
    /// Executes commands on credits of customers.
    pub credits: Repository<Credit>,
    /// The runner that updates the read models, and reads them.
    pub views: Projections,
}

impl Shop {
    /// Opens the shop at `location`, or creates it.
    pub async fn open(location: &Location) -> Result<Self, Fault> {
        match location {
            Location::File(path) => Self::over(annals::sqlite(path).await?).await,
            Location::Postgres(url) => {
                // On a server, the schema is changed only on request. Where several processes share a database, a step of
                // the deployment should do it, and not each process.
                Self::over(PostgresOptions::new(url).migrate().open().await?).await
            }
        }
    }

    /// Starts the read models of an open store.
    pub async fn over(store: impl EventStore + ProjectionsExt + Clone) -> Result<Self, Fault> {
        let orders = store.aggregate::<Order>();
        let credits = store.aggregate::<Credit>();
        let views = store.projections().with(OrderDetail).with(OrderList).with(DailySales).with(CustomerStatement);
        let views = views.start().await?;
        let shop = Self { store: store.shared(), orders, credits, views };
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
