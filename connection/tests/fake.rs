//! Servers that misbehave, on loopback only.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A server that treats each connection as its handler says, until dropped.
pub(crate) struct Fake {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Fake {
    /// The handler gets the number of the connection, from 1.
    pub(crate) fn start(handler: impl Fn(usize, TcpStream) + Send + Sync + 'static) -> Self {
        Self::start_on(Ipv4Addr::LOCALHOST, handler)
    }

    pub(crate) fn start_on(
        host: Ipv4Addr,
        handler: impl Fn(usize, TcpStream) + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(SocketAddrV4::new(host, 0)).expect("a free port");
        let address = listener.local_addr().expect("its address");
        let connections = Arc::new(AtomicUsize::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let handler = Arc::new(handler);
        let thread = std::thread::spawn({
            let (connections, stop) = (Arc::clone(&connections), Arc::clone(&stop));
            move || {
                for stream in listener.incoming() {
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    let number = 1 + connections.fetch_add(1, Ordering::SeqCst);
                    let handler = Arc::clone(&handler);
                    std::thread::spawn(move || handler(number, stream.expect("a connection")));
                }
            }
        });
        Self {
            address,
            connections,
            stop,
            thread: Some(thread),
        }
    }

    pub(crate) fn host(&self) -> String {
        self.address.ip().to_string()
    }

    pub(crate) fn port(&self) -> String {
        self.address.port().to_string()
    }

    /// How many connections there were so far.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the thread, which waits for a connection.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A port that nobody listens on.
pub(crate) fn closed_port() -> (String, String) {
    // Not the address that the other servers take their ports from.
    let listener = TcpListener::bind((Ipv4Addr::new(127, 0, 0, 77), 0)).expect("a free port");
    let address = listener.local_addr().expect("its address");
    (address.ip().to_string(), address.port().to_string())
}

/// Reads whatever comes and answers nothing.
pub(crate) fn stay_silent(mut stream: TcpStream) {
    let _ = std::io::copy(&mut stream, &mut std::io::sink());
}

/// Declines encryption, if it is asked for.
pub(crate) fn decline_tls(stream: &mut TcpStream) {
    let mut request = [0; 8];
    let read = stream.peek(&mut request).unwrap_or(0);
    if read == 8 && request[4..] == 80_877_103_u32.to_be_bytes() {
        let _ = stream.read_exact(&mut request);
        let _ = stream.write_all(b"N");
    }
}

/// Reads the client's first message: who it is, and which database it wants.
fn read_startup(stream: &mut TcpStream) {
    decline_tls(stream);
    let mut length = [0; 4];
    if stream.read_exact(&mut length).is_ok() {
        let mut rest = vec![0; u32::from_be_bytes(length).saturating_sub(4) as usize];
        let _ = stream.read_exact(&mut rest);
    }
}

/// Refuses the login with this SQLSTATE.
pub(crate) fn refuse_login(mut stream: TcpStream, sqlstate: &str, message: &str) {
    read_startup(&mut stream);
    let body = format!("SFATAL\0VFATAL\0C{sqlstate}\0M{message}\0\0");
    let length = u32::try_from(body.len() + 4).expect("a short message");
    let _ = stream.write_all(b"E");
    let _ = stream.write_all(&length.to_be_bytes());
    let _ = stream.write_all(body.as_bytes());
}

/// Lets anyone in, and then answers nothing.
pub(crate) fn welcome_and_stay_silent(mut stream: TcpStream) {
    read_startup(&mut stream);
    let _ = stream.write_all(b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I");
    stay_silent(stream);
}

/// Passes everything on to the test server, and back.
pub(crate) fn pass_on(stream: &TcpStream, port: u16) {
    let server = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("the test server");
    let copy = |mut from: &TcpStream, mut to: &TcpStream| {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Both);
    };
    std::thread::scope(|scope| {
        scope.spawn(|| copy(stream, &server));
        copy(&server, stream);
    });
}

/// Passes everything on, but what the server says last, and its end, a while later. Returns
/// whether the client stayed until then.
pub(crate) fn pass_on_and_outstay(stream: &TcpStream, port: u16) -> bool {
    let server = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("the test server");
    let pause = Duration::from_millis(200);
    server.set_read_timeout(Some(pause)).expect("a limit");
    std::thread::scope(|scope| {
        let client_ends = scope.spawn(|| {
            let _ = std::io::copy(&mut &*stream, &mut &server);
            Instant::now()
        });
        let (mut held, mut buffer) = (Vec::new(), [0; 4096]);
        loop {
            match (&server).read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => held.extend_from_slice(&buffer[..read]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let _ = (&*stream).write_all(&std::mem::take(&mut held));
                }
                Err(_) => break,
            }
        }
        std::thread::sleep(pause);
        let server_ends = Instant::now();
        let _ = (&*stream).write_all(&held);
        let _ = stream.shutdown(Shutdown::Both);
        client_ends.join().expect("no panic") >= server_ends
    })
}
