//! The setup: one store, its orders, and six read models beside the events in the same database.
//!
//! Only `open` depends on the database. The rest is the same for both.

use std::sync::Arc;
use std::time::{Duration, Instant};

use annals::projections::ProjectionStatus;
use annals::{EventStore, PostgresOptions, Projections, ProjectionsBuilder, ProjectionsExt, Repository, prelude::*};

use crate::Fault;
use crate::domain::credit::Credit;
use crate::domain::customer::Customer;
use crate::domain::order::Order;
use crate::location::Location;
use crate::read_models::analytics::{DailySales, ShopSales};
use crate::read_models::customers::Customers;
use crate::read_models::detail::OrderDetail;
use crate::read_models::list::OrderList;
use crate::read_models::statement::CustomerStatement;

/// An order that the list cannot show is set aside, and the others go on.
pub fn with_list(views: ProjectionsBuilder) -> ProjectionsBuilder {
    views.with(OrderList.dead_letter())
}

/// Everything that a scene needs.
pub struct Shop {
    /// The event store.
    pub store: Arc<dyn EventStore>,
    /// Executes commands on orders.
    pub orders: Repository<Order>,
    /// Executes commands on credits of customers.
    pub credits: Repository<Credit>,
    /// Executes commands on customers.
    pub customers: Repository<Customer>,
    /// The runner that updates the read models, and reads them.
    pub views: Projections,
}

impl Shop {
    /// Opens the shop at `location`, or creates it, and waits until its read models show all that is stored.
    pub async fn open(location: &Location) -> Result<Self, Fault> {
        Self::open_with(location, with_list).await
    }

    /// The same, where `more` says which list of orders there is and how all of it is run.
    pub async fn open_with(
        location: &Location,
        more: impl FnOnce(ProjectionsBuilder) -> ProjectionsBuilder,
    ) -> Result<Self, Fault> {
        let shop = match location {
            Location::File(path) => Self::over_with(annals::sqlite(path).await?, more).await?,
            Location::Postgres(url) => {
                // On a server, the schema is changed only on request. Where several processes share a database, a step of
                // the deployment should do it, and not each process.
                Self::over_with(PostgresOptions::new(url).migrate().open().await?, more).await?
            }
        };
        shop.caught_up(shop.store.head().await?.position).await?;
        Ok(shop)
    }

    /// Starts the read models of an open store. They catch up in the background, however long that takes.
    #[cfg(test)]
    pub async fn over(store: impl EventStore + ProjectionsExt + Clone) -> Result<Self, Fault> {
        Self::over_with(store, with_list).await
    }

    /// The same, where `more` says which list of orders there is and how all of it is run.
    pub async fn over_with(
        store: impl EventStore + ProjectionsExt + Clone,
        more: impl FnOnce(ProjectionsBuilder) -> ProjectionsBuilder,
    ) -> Result<Self, Fault> {
        let orders = store.aggregate::<Order>();
        let credits = store.aggregate::<Credit>();
        let customers = store.aggregate::<Customer>();
        let views = store.projections().with(OrderDetail).with(DailySales).with(ShopSales);
        let views = views.with(CustomerStatement).with(Customers);
        let views = more(views).start().await?;
        Ok(Self { store: store.shared(), orders, credits, customers, views })
    }

    /// Waits until the read models show everything up to `position`.
    pub async fn caught_up(&self, position: annals::Position) -> Result<(), Fault> {
        Ok(self.views.wait_for(position, Duration::from_secs(60)).await?)
    }

    /// Waits until the states of the read models are as `wanted`, and returns them.
    pub async fn until(&self, wanted: impl Fn(&[ProjectionStatus]) -> bool) -> Result<Vec<ProjectionStatus>, Fault> {
        let end = Instant::now() + Duration::from_secs(60);
        while Instant::now() < end {
            let all = self.views.status();
            if wanted(&all) {
                return Ok(all);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Err(format!("after a minute the read models are {:?}", self.views.status()).into())
    }

    /// Finishes running work.
    pub async fn close(&self) -> Result<(), Fault> {
        self.views.close().await;
        self.store.close().await;
        Ok(())
    }
}
