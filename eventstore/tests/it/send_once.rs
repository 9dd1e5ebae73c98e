//! A command with a request key: one effect, and never that of another command.

use annals_eventstore::{AggregateStore, AppendError, Decide, ExecuteError, MemoryStore};
use serde::Serialize;

use crate::order::{Order, OrderError, OrderEvent, OrderId, Pay};

/// The same JSON as [`Pay`].
#[derive(Serialize)]
struct Place {
    amount: u64,
}

impl Decide<Place> for Order {
    type Rejection = OrderError;

    fn decide(&self, command: &Place) -> Result<Vec<OrderEvent>, OrderError> {
        self.place(command.amount).map(|event| event.into_iter().collect())
    }
}

#[tokio::test]
async fn a_key_belongs_to_one_command_with_its_content_and_one_aggregate() {
    let orders = MemoryStore::new().aggregate::<Order>();
    let [id, other] = ["o-1", "o-2"].map(|id| OrderId::new(id).unwrap());
    let first = orders.send_once(&id, "r-1", Place { amount: 5 }).await.unwrap();
    let again = orders.send_once(&id, "r-1", Place { amount: 5 }).await.unwrap();
    assert_eq!(
        (first.version, first.repeated, again.version, again.repeated),
        (again.version, false, first.version, true)
    );
    assert_eq!(again.events, 1);
    for error in [
        orders.send_once(&id, "r-1", Place { amount: 6 }).await.unwrap_err(),
        orders.send_once(&id, "r-1", Pay { amount: 5 }).await.unwrap_err(),
        orders.send_once(&other, "r-1", Place { amount: 5 }).await.unwrap_err(),
    ] {
        assert!(matches!(error, ExecuteError::Append(AppendError::RequestKeyReused { .. })), "{error:?}");
    }
    orders.send_once(&id, "r-2", Pay { amount: 5 }).await.unwrap();
    let error = orders.send_once(&id, "", Pay { amount: 5 }).await.unwrap_err();
    assert!(matches!(&error, ExecuteError::Invalid(e) if e.field == "request_key"), "{error:?}");
    assert_eq!(orders.load(&id).await.unwrap().version.get(), 2);
}
