//! A proxy between the program and a server, which fails as networks do.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

/// What becomes of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Pass,
    /// They are taken, and nothing is forwarded.
    Silent,
    /// They are ended as soon as they are taken.
    Refuse,
}

/// When a connection is cut in a COMMIT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// The server never gets it.
    Before,
    /// The client never gets the answer.
    After,
}

#[derive(Debug)]
struct State {
    mode: Mode,
    /// Connections with lower numbers are reset.
    reset_below: u64,
    /// Connections with lower numbers are silent for ever.
    silent_below: u64,
    cut: Option<Cut>,
}

/// A listener that forwards to one address.
pub struct Proxy {
    pub port: u16,
    state: watch::Sender<State>,
    task: tokio::task::JoinHandle<()>,
}

static NEXT: AtomicU64 = AtomicU64::new(1);

impl Proxy {
    pub async fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = watch::Sender::new(State { mode: Mode::Pass, reset_below: 0, silent_below: 0, cut: None });
        let hand = state.clone();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, to, hand.clone()));
            }
        });
        Self { port, state, task }
    }

    /// Of what comes from now on, and of the connections that there are, unless they are ended.
    pub fn set(&self, mode: Mode) {
        self.state.send_modify(|state| state.mode = mode);
    }

    /// Ends every connection with a RST.
    pub fn reset(&self) {
        self.state.send_modify(|state| state.reset_below = NEXT.load(Ordering::SeqCst));
    }

    /// Silences the connections that there are; new ones pass.
    pub fn forget(&self) {
        self.state.send_modify(|state| {
            state.silent_below = NEXT.load(Ordering::SeqCst);
            state.mode = Mode::Pass;
        });
    }

    /// Cuts the connection of the next COMMIT, and returns when that has happened.
    pub async fn cut(&self, cut: Cut) {
        self.state.send_modify(|state| state.cut = Some(cut));
        self.state.subscribe().wait_for(|state| state.cut.is_none()).await.unwrap();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn carry(client: TcpStream, to: SocketAddr, hand: watch::Sender<State>) {
    let number = NEXT.fetch_add(1, Ordering::SeqCst);
    if hand.borrow().mode == Mode::Refuse {
        return;
    }
    let mut ended = hand.subscribe();
    // Dropping it sends a RST.
    client.set_zero_linger().unwrap();
    let passing = async {
        passes(&hand, number).await;
        let Ok(server) = TcpStream::connect(to).await else { return };
        let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
        let line = Line { hand: &hand, number, deaf: AtomicBool::new(false) };
        tokio::select! {
            () = line.up(from_client, to_server) => {}
            () = line.down(from_server, to_client) => {}
        }
    };
    tokio::select! {
        _ = ended.wait_for(|state| number < state.reset_below) => {}
        () = passing => {}
    }
}

/// Waits until something may pass.
async fn passes(hand: &watch::Sender<State>, number: u64) {
    let _ = hand.subscribe().wait_for(|state| state.mode != Mode::Silent && number >= state.silent_below).await;
}

struct Line<'a> {
    hand: &'a watch::Sender<State>,
    number: u64,
    /// The server's next words are the last.
    deaf: AtomicBool,
}

impl Line<'_> {
    async fn up(&self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(read @ 1..) = from.read(&mut buffer).await {
            passes(self.hand, self.number).await;
            if buffer[..read].windows(6).any(|bytes| bytes == b"COMMIT") {
                match self.take_cut() {
                    Some(Cut::Before) => return,
                    Some(Cut::After) => self.deaf.store(true, Ordering::SeqCst),
                    None => {}
                }
            }
            if to.write_all(&buffer[..read]).await.is_err() {
                return;
            }
        }
    }

    async fn down(&self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(read @ 1..) = from.read(&mut buffer).await {
            passes(self.hand, self.number).await;
            if self.deaf.load(Ordering::SeqCst) || to.write_all(&buffer[..read]).await.is_err() {
                return;
            }
        }
    }

    fn take_cut(&self) -> Option<Cut> {
        let mut taken = None;
        self.hand.send_if_modified(|state| {
            taken = state.cut.take();
            taken.is_some()
        });
        taken
    }
}
