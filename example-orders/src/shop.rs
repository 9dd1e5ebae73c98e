//! The wiring: one store, its orders, and three read models beside them in the same file.

use std::time::Duration;

use annals::{Position, Projections, Repository, SqliteStore, prelude::*};

use crate::Fault;
use crate::analytics::DailySales;
use crate::detail::OrderDetail;
use crate::list::OrderList;
use crate::order::Order;

/// Everything that a scene needs.
pub struct Shop {
    /// The log.
    pub store: SqliteStore,
    /// Orders, by their commands.
    pub orders: Repository<Order>,
    /// The read models, kept up to date.
    pub views: Projections,
}

impl Shop {
    /// Starts the read models over a store that is open.
    pub async fn over(store: SqliteStore) -> Result<Self, Fault> {
        let orders = store.aggregate::<Order>();
        let views = store.projections().with(OrderDetail).with(OrderList).with(DailySales).start().await?;
        let shop = Self { store, orders, views };
        shop.caught_up(shop.store.head().await?.position).await?;
        Ok(shop)
    }

    /// Waits until the read models show everything up to `position`.
    pub async fn caught_up(&self, position: Position) -> Result<(), Fault> {
        Ok(self.views.wait_for(position, Duration::from_secs(60)).await?)
    }

    /// Finishes what is under way.
    pub async fn close(self) -> Result<(), Fault> {
        self.views.close().await;
        self.store.close().await;
        Ok(())
    }
}
