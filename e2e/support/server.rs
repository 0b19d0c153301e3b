//! A server on loopback that lives no longer than the test process, and a folder that lives as long as the server.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// No server takes longer to start, even when other builds use the machine.
const START: Duration = Duration::from_secs(90);

/// Ends the server when its standard input ends, which happens when the test drops the [`Server`] and also when the
/// test process dies, and removes its folder: what a test shares in a static is never dropped.
const LIFELINE: &str = r#""$@" </dev/null & server=$!; cat >/dev/null; kill "$server"; wait "$server"; rm -rf -- "$STRONGROOM_HOME""#;

/// A running server.
#[derive(Debug)]
pub struct Server {
    lifeline: Child,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its folder, which is gone once it has ended.
    pub home: PathBuf,
}

impl Server {
    /// Starts `program` and waits until `listening` finds in its output, which goes to the file `log` of its folder `home`,
    /// where it listens. Let the server choose a free port itself (port 0): one chosen for it can be taken in between.
    pub fn start(
        program: &Path,
        arguments: &[&str],
        home: TempDir,
        listening: fn(&str) -> Option<SocketAddr>,
    ) -> Self {
        let home = home.keep();
        let log = home.join("log");
        let output = std::fs::File::create(&log).unwrap();
        let mut lifeline = Command::new("/bin/sh")
            .args(["-c", LIFELINE, "server"])
            .arg(program)
            .args(arguments)
            .env("STRONGROOM_HOME", &home)
            .stdin(Stdio::piped())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap();
        let address = wait_until_listening(&log, listening).unwrap_or_else(|said| {
            lifeline.stdin.take();
            lifeline.wait().unwrap();
            panic!("{} did not start:\n{said}", program.display())
        });
        Self { lifeline, address, home }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.lifeline.stdin.take();
        self.lifeline.wait().unwrap();
    }
}

fn wait_until_listening(log: &Path, listening: fn(&str) -> Option<SocketAddr>) -> Result<SocketAddr, String> {
    let end = Instant::now() + START;
    loop {
        let said = std::fs::read_to_string(log).unwrap();
        match listening(&said) {
            Some(address) if TcpStream::connect(address).is_ok() => return Ok(address),
            _ if Instant::now() > end => return Err(said),
            _ => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// An address on loopback that nobody listens on now, for a server that cannot choose one.
pub fn free_address() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}
