//! Cancel requests, each on a connection of its own.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_postgres::CancelToken;
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_postgres_rustls::MakeRustlsConnect;

/// What cancels the statements of a session.
#[derive(Clone)]
pub struct Canceller {
    token: CancelToken,
    server: Server,
}

/// Where a session is: another server of the same name doesn't know it.
#[derive(Clone, Debug)]
pub(crate) enum Server {
    Address(SocketAddr),
    #[cfg(unix)]
    Socket(std::path::PathBuf),
}

impl std::fmt::Debug for Canceller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The token is a secret of the session's.
        f.debug_struct("Canceller")
            .field("server", &self.server)
            .finish_non_exhaustive()
    }
}

impl Canceller {
    pub(crate) fn new(token: CancelToken, server: Server) -> Self {
        Self { token, server }
    }

    /// Sends the request, and waits until the server has closed the connection, as libpq
    /// does. `PgBouncer` 1.18 and 1.19 crash when the client of a request that they pass on
    /// goes first (<https://github.com/pgbouncer/pgbouncer/issues/801>), and all of them forget
    /// one that they haven't passed on yet.
    pub(crate) async fn request(&self, host: &str, mut tls: MakeRustlsConnect) -> io::Result<()> {
        match &self.server {
            Server::Address(address) => {
                let stream = TcpStream::connect(address).await?;
                self.send(stream, host, &mut tls).await
            }
            #[cfg(unix)]
            Server::Socket(path) => {
                let stream = tokio::net::UnixStream::connect(path).await?;
                self.send(stream, host, &mut tls).await
            }
        }
    }

    async fn send<S>(&self, stream: S, host: &str, tls: &mut MakeRustlsConnect) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let Ok(tls) = MakeTlsConnect::<UntilClosed<S>>::make_tls_connect(tls, host);
        let request = self.token.cancel_query_raw(UntilClosed(stream), Tls(tls));
        request.await.map_err(io::Error::other)
    }
}

/// A stream whose shutdown is the other side's: it reads on until that has closed it.
struct UntilClosed<S>(S);

impl<S: AsyncRead + Unpin> AsyncRead for UntilClosed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for UntilClosed<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut unread = [0; 64];
            let mut unread = ReadBuf::new(&mut unread);
            let read = ready!(Pin::new(&mut self.0).poll_read(context, &mut unread));
            // A reset is an end too, and so is a TLS connection that ends without a word.
            if read.is_err() || unread.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: TlsStream + Unpin> TlsStream for UntilClosed<S> {
    fn channel_binding(&self) -> ChannelBinding {
        self.0.channel_binding()
    }
}

/// TLS whose streams are shut down by the other side.
struct Tls<T>(T);

impl<S, T> TlsConnect<S> for Tls<T>
where
    S: Send + 'static,
    T: TlsConnect<S, Future: Send> + Send + 'static,
{
    type Stream = UntilClosed<T::Stream>;
    type Error = T::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Stream, T::Error>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        Box::pin(async move { self.0.connect(stream).await.map(UntilClosed) })
    }
}
