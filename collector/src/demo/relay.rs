//! A branch's WAN in the demo: a TCP relay to the broker that can be cut.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A relay; it ends when this is dropped.
pub struct Relay {
    address: SocketAddr,
    is_cut: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Relay {
    /// Relays from a free port of this machine to `target`.
    ///
    /// # Errors
    /// When no port is free.
    pub async fn start(target: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("listening for a relay")?;
        let address = listener.local_addr().context("listening for a relay")?;
        let (is_cut, seen) = watch::channel(false);
        let task = tokio::spawn(accept(listener, target, seen));
        Ok(Self { address, is_cut, task })
    }

    /// Where to connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts all connections and lets no new one through, or lets them through again.
    pub fn cut(&self, cut: bool) {
        self.is_cut.send_if_modified(|is_cut| std::mem::replace(is_cut, cut) != cut);
    }
}

async fn accept(listener: TcpListener, target: SocketAddr, is_cut: watch::Receiver<bool>) {
    while let Ok((near, _)) = listener.accept().await {
        if *is_cut.borrow() {
            continue;
        }
        tokio::spawn(relay(near, target, is_cut.clone()));
    }
}

async fn relay(mut near: TcpStream, target: SocketAddr, mut is_cut: watch::Receiver<bool>) {
    let Ok(mut far) = TcpStream::connect(target).await else { return };
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
        _ = is_cut.wait_for(|cut| *cut) => {}
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_cut_ends_what_is_open_and_lets_nothing_new_through() {
        let server = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let relay = Relay::start(server.local_addr().expect("an address")).await.expect("a relay");
        let echo = tokio::spawn(async move {
            while let Ok((mut stream, _)) = server.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                });
            }
        });
        let mut stream = TcpStream::connect(relay.address()).await.expect("connected");
        let mut byte = [0];
        stream.write_all(b"a").await.expect("sent");
        stream.read_exact(&mut byte).await.expect("echoed");
        relay.cut(true);
        assert_eq!(stream.read(&mut byte).await.unwrap_or(0), 0);
        let mut stream = TcpStream::connect(relay.address()).await.expect("accepted, then dropped");
        assert_eq!(stream.read(&mut byte).await.unwrap_or(0), 0);
        relay.cut(false);
        let mut stream = TcpStream::connect(relay.address()).await.expect("connected");
        stream.write_all(b"b").await.expect("sent");
        stream.read_exact(&mut byte).await.expect("echoed");
        echo.abort();
    }
}
