//! The wiring: one store, its orders, and three read models beside the events in the same database.
//!
//! Only opening knows which store it is. Whatever comes after it is the same for all.

use std::sync::Arc;
use std::time::Duration;

use annals::{EventStore, PostgresOptions, Projections, ProjectionsExt, Repository, prelude::*};

use crate::Fault;
use crate::analytics::DailySales;
use crate::detail::OrderDetail;
use crate::list::OrderList;
use crate::order::Order;
use crate::place::Place;
use crate::tables::Tables;

/// Everything that a scene needs.
pub struct Shop {
    /// The log.
    pub store: Arc<dyn EventStore>,
    /// Orders, by their commands.
    pub orders: Repository<Order>,
    /// The read models, kept up to date.
    pub views: Projections,
    /// The tables of the read models, for reading.
    pub tables: Tables,
}

impl Shop {
    /// Opens the shop that is kept at `place`, or begins one there.
    pub async fn open(place: &Place) -> Result<Self, Fault> {
        match place {
            Place::File(path) => {
                let store = annals::sqlite(path).await?;
                let tables = Tables::Sqlite(store.database().clone());
                Self::over(store, tables).await
            }
            Place::Postgres(url) => {
                // A server's schema is changed only by those who ask for it. Where several processes share a database, a
                // step of the deployment should, and not each of them.
                let store = PostgresOptions::new(url).migrate().open().await?;
                let tables = Tables::Postgres(store.database().clone());
                Self::over(store, tables).await
            }
        }
    }

    /// Starts the read models over a store that is open.
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

    /// Finishes what is under way.
    pub async fn close(self) -> Result<(), Fault> {
        self.views.close().await;
        self.store.close().await;
        Ok(())
    }
}
