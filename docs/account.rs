// The account that the how-to pages share: what can happen, the state that follows, and its commands.

use annals::{Aggregate, Decide, Event, Evolve};
use serde::{Deserialize, Serialize};

annals::text_id! {
    /// The number of an account.
    pub struct AccountId;
}

#[derive(Event, Serialize, Deserialize, Clone, Debug)]
pub enum AccountEvent {
    #[event(name = "account.deposited")]
    Deposited { cents: u64 },
    #[event(name = "account.withdrawn")]
    Withdrawn { cents: u64 },
}

#[derive(Aggregate, Default, Clone)]
#[aggregate(name = "account", id = AccountId, event = AccountEvent)]
pub struct Account {
    pub cents: u64,
}

impl Evolve for Account {
    fn evolve(&mut self, event: &AccountEvent) {
        match event {
            AccountEvent::Deposited { cents } => self.cents += cents,
            AccountEvent::Withdrawn { cents } => self.cents -= cents,
        }
    }
}

#[derive(Debug, PartialEq, thiserror::Error)]
#[error("only {left} cents are left")]
pub struct TooLittle {
    pub left: u64,
}

#[derive(Serialize)]
pub struct Deposit {
    pub cents: u64,
}

#[derive(Serialize)]
pub struct Withdraw {
    pub cents: u64,
}

impl Decide<Deposit> for Account {
    type Rejection = TooLittle;

    fn decide(&self, &Deposit { cents }: &Deposit) -> Result<Vec<AccountEvent>, TooLittle> {
        Ok(vec![AccountEvent::Deposited { cents }])
    }
}

impl Decide<Withdraw> for Account {
    type Rejection = TooLittle;

    fn decide(&self, &Withdraw { cents }: &Withdraw) -> Result<Vec<AccountEvent>, TooLittle> {
        if cents > self.cents {
            return Err(TooLittle { left: self.cents });
        }
        Ok(vec![AccountEvent::Withdrawn { cents }])
    }
}
