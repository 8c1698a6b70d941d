//! A replica that only listens: it takes what the server sends and forgets it, so that it costs nobody time but the server.
//!
//! It says SYNC, as the replicas of old did, and after that nothing more.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread::{self, JoinHandle};

use anyhow::{Result, ensure};

use crate::server::{Server, info, wait_for};

pub struct Replica {
    stream: TcpStream,
    reader: Option<JoinHandle<()>>,
}

impl Replica {
    /// Comes back when the server sends it what it writes.
    pub fn attach(server: &Server) -> Result<Self> {
        let mut stream = TcpStream::connect(("127.0.0.1", server.port()))?;
        stream.write_all(b"SYNC\r\n")?;
        let mut incoming = stream.try_clone()?;
        let reader = thread::spawn(move || {
            let mut buffer = vec![0; 1 << 20];
            while incoming.read(&mut buffer).is_ok_and(|bytes| bytes > 0) {}
        });
        let replica = Self { stream, reader: Some(reader) };
        wait_for("the replica to be fed", || is_fed(server))?;
        Ok(replica)
    }

    /// Fails where the server has lost it meanwhile.
    pub fn detach(self, server: &Server) -> Result<()> {
        ensure!(is_fed(server)?, "the replica was lost");
        Ok(())
    }
}

fn is_fed(server: &Server) -> Result<bool> {
    Ok(info(&mut server.connection()?, "replication")?.contains("state=online"))
}

impl Drop for Replica {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Both);
        let _ = self.reader.take().map(JoinHandle::join);
    }
}
