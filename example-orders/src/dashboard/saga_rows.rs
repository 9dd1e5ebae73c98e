//! The rows of the checkouts page: the newest first, in parts that begin behind a row and not at a time, which others may share.

use annals::Tenant;
use annals::projections::QueryValue;
use annals::sagas::{SagaId, SagaInstance, SagaInstances, Status};
use futures::future::try_join_all;
use jiff::Timestamp;
use serde::Deserialize;

use crate::dashboard::visitor::{Visitor, escaped};
use crate::service::problem::Problem;

/// So many rows are on a page.
const ROWS: usize = 50;

/// Of all shops and of one, from the beginning and behind a row. One status at a time, so that an index has its rows in order.
const TEXTS: [[&str; 2]; 2] = [
    [
        "status = $1 ORDER BY updated_at DESC, tenant DESC, saga_id DESC LIMIT $2",
        "status = $1 AND updated_at <= $3 AND (updated_at < $3 OR tenant < $4 OR tenant = $4 AND saga_id < $5)
         ORDER BY updated_at DESC, tenant DESC, saga_id DESC LIMIT $2",
    ],
    [
        "status = $1 AND tenant = $3 ORDER BY updated_at DESC, tenant DESC, saga_id DESC LIMIT $2",
        "status = $1 AND tenant = $3 AND updated_at <= $4 AND (updated_at < $4 OR saga_id < $5)
         ORDER BY updated_at DESC, tenant DESC, saga_id DESC LIMIT $2",
    ],
];

/// Which of them.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Default)]
#[serde(rename_all = "lowercase")]
pub enum Which {
    #[default]
    Stuck,
    Running,
    Ended,
}

impl Which {
    pub const ALL: [Self; 3] = [Self::Stuck, Self::Running, Self::Ended];

    pub fn name(self) -> &'static str {
        match self {
            Self::Stuck => "stuck",
            Self::Running => "running",
            Self::Ended => "ended",
        }
    }

    fn statuses(self) -> &'static [Status] {
        match self {
            Self::Stuck => &[Status::Stuck],
            Self::Running => &[Status::Running, Status::Compensating],
            Self::Ended => &[Status::Completed, Status::Compensated],
        }
    }
}

/// What is asked for. A part of the list begins behind the row of which the last three are.
#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub struct SagasQuery {
    pub which: Which,
    before: Option<Timestamp>,
    shop: Option<String>,
    id: Option<String>,
    /// The name of an order or of its checkout, to find one.
    pub find: String,
}

impl SagasQuery {
    /// The row behind which the part begins, if it is not the first.
    fn place(&self) -> Result<Option<(Timestamp, Tenant, String)>, Problem> {
        match (self.before, &self.shop, &self.id) {
            (None, None, None) => Ok(None),
            (Some(before), Some(shop), Some(id)) => {
                Ok(Some((before, Tenant::new(shop)?, SagaId::new(id)?.to_string())))
            }
            _ => {
                Err(Problem::bad("query-invalid", "`before`, `shop` and `id` are of one row; send all of them or none"))
            }
        }
    }

    /// Whether it is the first part.
    pub fn is_first(&self) -> bool {
        self.before.is_none()
    }

    /// The rows of a shop, or of all, and where the next part begins, if there is one: as a query.
    pub async fn rows(
        &self,
        visitor: &Visitor,
        shop: Option<&Tenant>,
    ) -> Result<(Vec<SagaInstance>, Option<String>), Problem> {
        let place = self.place()?;
        let app = &visitor.dashboard.app;
        let sagas = app.checkouts.sagas.projections();
        let text = TEXTS[usize::from(shop.is_some())][usize::from(place.is_some())];
        let most = u32::try_from(ROWS).unwrap_or(u32::MAX) + 1;
        let of_statuses = self.which.statuses().iter().map(async |status| {
            let status = status.to_string();
            let mut values: Vec<&dyn QueryValue> = vec![&status, &most];
            values.extend(shop.map(|shop| shop as &dyn QueryValue));
            if let Some((before, of, id)) = &place {
                values.push(before);
                // Of one shop, the shop is known.
                values.extend(shop.is_none().then_some(of as &dyn QueryValue));
                values.push(id);
            }
            app.query(&visitor.caller().tenant, visitor.deadline(), || sagas.select::<SagaInstances>(text, &values))
                .await
        });
        let mut rows: Vec<SagaInstance> = try_join_all(of_statuses).await?.into_iter().flatten().collect();
        rows.sort_by(|one, other| key(other).cmp(&key(one)));
        let others_follow = rows.len() > ROWS;
        rows.truncate(ROWS);
        let next = rows.last().filter(|_| others_follow).map(|row| {
            let (before, shop, id) = key(row);
            format!("which={}&before={before}&shop={}&id={}", self.which.name(), escaped(shop), escaped(id))
        });
        Ok((rows, next))
    }
}

/// What the rows are sorted by. No two have the same.
fn key(row: &SagaInstance) -> (Timestamp, &str, &str) {
    (row.updated_at, row.tenant.as_str(), &row.saga_id)
}
