//! NameInterner that recur from row to row, for the stores that read rows.

use std::sync::Arc;

use crate::stream::Tenant;

/// NameInterner repeat from event to event; each is kept once per reader of rows.
#[derive(Default)]
pub(crate) struct NameInterner {
    tenant: Option<Tenant>,
    aggregate_id: Option<Arc<str>>,
    others: Vec<Arc<str>>,
}

impl NameInterner {
    pub(crate) fn tenant(&mut self, name: &str) -> Tenant {
        match &self.tenant {
            Some(last) if last.as_str() == name => last.clone(),
            _ => self.tenant.insert(Tenant::stored(name.into())).clone(),
        }
    }

    pub(crate) fn aggregate_id(&mut self, id: &str) -> Arc<str> {
        match &self.aggregate_id {
            Some(last) if **last == *id => Arc::clone(last),
            _ => Arc::clone(self.aggregate_id.insert(id.into())),
        }
    }

    pub(crate) fn other(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.others.iter().find(|known| ***known == *name) {
            return Arc::clone(known);
        }
        let new: Arc<str> = name.into();
        if self.others.len() < 32 {
            self.others.push(Arc::clone(&new));
        }
        new
    }
}
