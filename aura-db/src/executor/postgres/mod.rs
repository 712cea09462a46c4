//! The connections to a PostgreSQL server.
//!
//! The driver's pool pings the server at each return of a connection, which costs as
//! much as a query. So a connection that was just used is kept in [`pool`] for the next
//! statement. It returns to the driver's pool when it is idle for longer, when it needs a
//! check, and now and then.

mod connection;
mod pool;

pub(crate) use connection::PooledConnection;
pub(crate) use pool::PostgresPool;
