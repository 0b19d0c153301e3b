//! A server that is far away: a proxy that lets each request wait, and counts them.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// A running proxy on loopback; it ends with the process.
#[derive(Debug)]
pub struct Delay {
    port: u16,
    asked: Arc<AtomicUsize>,
}

impl Delay {
    /// Stands before the server at `url`, which speaks plain HTTP/1; every request gets there after `latency`.
    pub fn before(url: &str, latency: Duration) -> Self {
        let server: SocketAddr = url.trim_start_matches("http://").parse().expect("a server on loopback");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (client, server) = (client.unwrap(), TcpStream::connect(server).unwrap());
                for stream in [&client, &server] {
                    stream.set_nodelay(true).unwrap();
                }
                let (back, asked) =
                    ((server.try_clone().unwrap(), client.try_clone().unwrap()), Arc::clone(&counted));
                // Either side may break off, which is not this proxy's failure.
                std::thread::spawn(move || pass(client, server, latency, &asked).ok());
                std::thread::spawn(move || pass(back.0, back.1, Duration::ZERO, &AtomicUsize::new(0)).ok());
            }
        });
        Self { port, asked }
    }

    /// Its address, in the place of the server's.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// How many requests have come since the last time that this was asked.
    pub fn asked(&self) -> usize {
        self.asked.swap(0, Ordering::SeqCst)
    }
}

/// A request that comes in pieces waits once: what has come in the meantime goes with the first.
fn pass(
    mut from: TcpStream,
    mut to: TcpStream,
    latency: Duration,
    asked: &AtomicUsize,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 1 << 20];
    loop {
        let mut length = from.read(&mut buffer)?;
        if length == 0 {
            return to.shutdown(Shutdown::Write);
        }
        let requests = buffer[..length].windows(11).filter(|bytes| bytes == b" HTTP/1.1\r\n").count();
        if requests > 0 && !latency.is_zero() {
            asked.fetch_add(requests, Ordering::SeqCst);
            std::thread::sleep(latency);
            from.set_nonblocking(true)?;
            length += from.read(&mut buffer[length..]).unwrap_or_default();
            from.set_nonblocking(false)?;
        }
        to.write_all(&buffer[..length])?;
    }
}
