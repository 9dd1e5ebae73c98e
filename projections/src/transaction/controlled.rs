//! Naming a projection of any kind.

use std::marker::PhantomData;

use super::projection::TransactionProjection;
use crate::projection::Projection;

/// A projection of any kind, where a method of [`Projections`](crate::Projections) asks for one by its type: each
/// [`Projection`], and so each [`StreamProjection`](crate::StreamProjection), and [`InTransaction`] for a
/// [`TransactionProjection`]. Implemented here and sealed.
#[diagnostic::on_unimplemented(
    message = "`{Self}` names no projection",
    label = "no projection",
    note = "a `TransactionProjection` is named by `InTransaction<{Self}>`"
)]
pub trait Controlled: sealed::Sealed {
    /// Its name.
    #[doc(hidden)]
    const __NAME: &'static str;

    /// Whether it is a transaction projection.
    #[doc(hidden)]
    const __IN_TRANSACTION: bool;
}

mod sealed {
    /// Only this crate implements it.
    pub trait Sealed {}
}

impl<P: Projection> sealed::Sealed for P {}

impl<P: Projection> Controlled for P {
    const __NAME: &'static str = P::NAME;
    const __IN_TRANSACTION: bool = false;
}

/// Names the [`TransactionProjection`] `T` where a projection is asked for by its type:
/// `views.pause::<InTransaction<CustomerTotals>>("the night's backup")`. It is never made.
pub struct InTransaction<T>(PhantomData<fn() -> T>);

impl<T> std::fmt::Debug for InTransaction<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("InTransaction")
    }
}

impl<T: TransactionProjection> sealed::Sealed for InTransaction<T> {}

impl<T: TransactionProjection> Controlled for InTransaction<T> {
    const __NAME: &'static str = T::NAME;
    const __IN_TRANSACTION: bool = true;
}
