//! The connections: so many at a time, none for ever. HTTP/1.1 only, and without axum's own server, which gives a
//! client all the time it wants to send its header.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use axum::{Router, extract::ConnectInfo, serve::Listener};
use hyper::{Request, body::Incoming, server::conn::http1, service::Service};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use parking_lot::Mutex;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{ANSWER_WITHIN, limits::caller_network};

/// More wait until one of these ends. Half of the files that a process may usually open.
const MAX_CONNECTIONS: usize = 512;

/// Of one address: a stranger that takes all it can get leaves room for others.
const OF_ONE_ADDRESS: usize = 128;

/// Of a request's head, in bytes: so much is kept for each connection, whoever it is.
const LONGEST_HEAD: usize = 16 * 1024;

/// From a connection's begin, or the last answer on it, to the end of the next request's header.
const HEAD_WITHIN: Duration = Duration::from_secs(10);

/// So long a connection may last, then it is closed after the answer that is under way: one who does not read what
/// it is sent would hold it otherwise.
const MAX_AGE: Duration = Duration::from_secs(300);

/// Serves until `stop` is called and the requests under way are answered.
pub async fn serve(mut listener: TcpListener, router: Router, stop: CancellationToken) {
    let (places, connections) = (Arc::new(Semaphore::new(MAX_CONNECTIONS)), TaskTracker::new());
    let callers = Callers::default();
    while let Some(Some((place, stream, peer))) = stop.run_until_cancelled(next(&mut listener, &places)).await {
        // One that has its share is hung up on.
        let Some(share) = callers.admit(caller_network(peer.ip())) else { continue };
        let (router, stop) = (router.clone(), stop.clone());
        connections.spawn(async move {
            keep(stream, peer, router, stop).await;
            drop((place, share));
        });
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

/// How many connections each address has.
#[derive(Debug, Clone, Default)]
struct Callers(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One connection of an address, until this is dropped.
struct Share {
    callers: Callers,
    address: IpAddr,
}

impl Callers {
    fn admit(&self, address: IpAddr) -> Option<Share> {
        let mut callers = self.0.lock();
        let connections = callers.entry(address).or_default();
        if *connections >= OF_ONE_ADDRESS {
            return None;
        }
        *connections += 1;
        Some(Share { callers: self.clone(), address })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut callers = self.callers.0.lock();
        if let Entry::Occupied(mut connections) = callers.entry(self.address) {
            *connections.get_mut() -= 1;
            if *connections.get() == 0 {
                connections.remove();
            }
        }
    }
}

async fn next(
    listener: &mut TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(OwnedSemaphorePermit, TcpStream, SocketAddr)> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    let (stream, peer) = Listener::accept(listener).await;
    Some((place, stream, peer))
}

async fn keep(stream: TcpStream, peer: SocketAddr, router: Router, stop: CancellationToken) {
    let routes = TowerToHyperService::new(router);
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        routes.call(request)
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD_WITHIN).max_buf_size(LONGEST_HEAD);
    let mut connection = pin!(server.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        // Why it broke is of no interest: the client has gone, or was not one.
        _ = connection.as_mut() => return,
        () = stop.cancelled() => {}
        () = sleep(MAX_AGE) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = timeout(ANSWER_WITHIN, connection).await;
}
