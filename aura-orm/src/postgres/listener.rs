//! Notifications, on a connection of their own.

use std::future::poll_fn;
use std::time::Duration;

use connection::Connector;
use tokio::sync::mpsc;
use tokio_postgres::{AsyncMessage, Client};

use super::error::Error;

/// The most notifications that wait to be received. What more there is, is lost: who listens has
/// enough to do.
const MAX_WAITING: usize = 1_024;

/// Receives the notifications of a channel, on a connection of its own, which `DB_POOL_MAX`
/// doesn't count. Dropped, the connection is closed.
#[derive(Debug)]
pub struct Listener {
    /// Keeps the connection open.
    _client: Client,
    received: mpsc::Receiver<String>,
}

impl Listener {
    pub(super) async fn open(
        connector: &Connector,
        channel: &'static str,
        timeout: Duration,
    ) -> Result<Self, Error> {
        let connected = connector.connect(timeout).await;
        let (client, mut connection) =
            connected.map_err(|error| Error::of_connect(connector, error))?;
        let (send, received) = mpsc::channel(MAX_WAITING);
        // Ends with the connection, which ends with its client.
        tokio::spawn(async move {
            while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await
            {
                if let AsyncMessage::Notification(notification) = message {
                    let _ = send.try_send(notification.payload().to_owned());
                }
            }
        });
        let sql = format!("LISTEN {channel}");
        let listen = client.batch_execute(&sql);
        match tokio::time::timeout(timeout, listen).await {
            Ok(Ok(())) => Ok(Self {
                _client: client,
                received,
            }),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(Error::TimedOut(timeout)),
        }
    }

    /// Waits for the next notification, and returns its text; `None` when the connection has
    /// ended.
    pub async fn next(&mut self) -> Option<String> {
        self.received.recv().await
    }
}
