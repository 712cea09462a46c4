//! Notifications, on a connection of their own.

use std::future::poll_fn;
use std::time::Duration;

use connection::Connector;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_postgres::{AsyncMessage, Client};

use super::error::Error;

/// The most notifications that wait to be received. Any more are dropped: the
/// listener has enough to do.
const MAX_WAITING: usize = 1_024;

/// How long to wait for the end of a connection that is closed.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Receives the notifications of a channel, on a connection of its own, which `DB_POOL_MAX`
/// doesn't count. Dropped, the connection is cut off.
#[derive(Debug)]
pub struct Listener {
    client: Option<Client>,
    received: mpsc::Receiver<String>,
    /// Polls the connection, and ends with it.
    connection: JoinHandle<()>,
}

impl Listener {
    pub(super) async fn open(
        connector: &Connector,
        channel: &'static str,
        timeout: Duration,
    ) -> Result<Self, Error> {
        let connected = connector.connect(timeout).await;
        let opened = connected.map_err(|error| Error::of_connect(connector, error))?;
        let (client, mut connection) = (opened.client, opened.connection);
        let (send, received) = mpsc::channel(MAX_WAITING);
        let connection = tokio::spawn(async move {
            while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await
            {
                if let AsyncMessage::Notification(notification) = message {
                    let _ = send.try_send(notification.payload().to_owned());
                }
            }
        });
        let listener = Self {
            client: Some(client),
            received,
            connection,
        };
        if let Some(client) = &listener.client {
            let sql = format!("LISTEN {channel}");
            let listen = tokio::time::timeout(timeout, client.batch_execute(&sql)).await;
            listen.map_err(|_| Error::TimedOut(timeout))??;
        }
        Ok(listener)
    }

    /// Waits for the next notification, and returns its text; `None` when the connection has
    /// ended.
    pub async fn next(&mut self) -> Option<String> {
        self.received.recv().await
    }

    /// Closes the connection, and waits up to 5 seconds for its end.
    pub async fn close(mut self) {
        self.client = None;
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, &mut self.connection).await;
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.connection.abort();
    }
}
