//! The services that a checkout calls, and the one that sends messages. Each runs in this process, on a free port, unless the settings say where it is.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::Fault;
use crate::services::{ClientSettings, Clients, Kind, Server};

/// Where the services are.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PartnerSettings {
    /// Where those of this process keep their files; beside the shop's, if nothing is said.
    pub folder: Option<PathBuf>,
    /// The address of the payment service, such as `http://127.0.0.1:4101`.
    pub payment: Option<String>,
    /// The address of the warehouse.
    pub stock: Option<String>,
    /// The address of the carrier.
    pub shipping: Option<String>,
    /// The address of the service that sends messages to customers.
    pub notification: Option<String>,
    /// How those of a checkout are called.
    pub clients: ClientSettings,
}

/// The services of this process.
#[derive(Default)]
pub struct Partners(Vec<(Kind, Server)>);

impl Partners {
    /// Starts those whose addresses are not set; gives the clients of those that a checkout calls, and the address of the notification
    /// service.
    ///
    /// # Errors
    /// An address is none, or a service cannot be started.
    pub async fn start(settings: &PartnerSettings, folder: &Path) -> Result<(Self, Clients, String), Fault> {
        let mut all = Self::default();
        let payment = all.address(Kind::Payment, settings.payment.as_deref(), folder).await?;
        let stock = all.address(Kind::Stock, settings.stock.as_deref(), folder).await?;
        let shipping = all.address(Kind::Shipping, settings.shipping.as_deref(), folder).await?;
        let notification = all.address(Kind::Notification, settings.notification.as_deref(), folder).await?;
        let clients = Clients::new([&payment, &stock, &shipping], settings.clients.clone())?;
        Ok((all, clients, notification))
    }

    async fn address(&mut self, kind: Kind, set: Option<&str>, folder: &Path) -> Result<String, Fault> {
        if let Some(url) = set {
            let wrong =
                |problem| format!("`services.{}` is no address, as http://127.0.0.1:4101 is: {problem}", kind.name());
            let parsed = reqwest::Url::parse(url).map_err(|e| wrong(e.to_string()))?;
            if parsed.scheme() != "http" {
                return Err(wrong("it does not begin with `http://`".to_owned()).into());
            }
            return Ok(url.trim_end_matches('/').to_owned());
        }
        let server = Server::start(kind, folder, 0).await?;
        let url = server.url.clone();
        self.0.push((kind, server));
        Ok(url)
    }

    /// The names and addresses of those of this process.
    pub fn here(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.0.iter().map(|(kind, server)| (kind.name(), &*server.url))
    }

    /// Stops those of this process.
    pub async fn stop(self) {
        futures::future::join_all(self.0.into_iter().map(|(_, server)| server.stop())).await;
    }
}
