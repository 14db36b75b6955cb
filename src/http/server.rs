//! The connections: so many at a time, none for ever. HTTP/1.1 only, and without axum's own server, which gives a
//! client all the time it wants to send its header.

use std::{net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use axum::{Router, extract::ConnectInfo, serve::Listener};
use hyper::{Request, body::Incoming, server::conn::http1, service::Service};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::ANSWER_WITHIN;

/// More wait until one of these ends. Half of the files that a process may usually open.
const MAX_CONNECTIONS: usize = 512;

/// From a connection's begin, or the last answer on it, to the end of the next request's header.
const HEAD_WITHIN: Duration = Duration::from_secs(10);

/// So long a connection may last, then it is closed after the answer that is under way: one who does not read what
/// it is sent would hold it otherwise.
const MAX_AGE: Duration = Duration::from_secs(300);

/// Serves until `stop` is called and the requests under way are answered.
pub async fn serve(mut listener: TcpListener, router: Router, stop: CancellationToken) {
    let (places, connections) = (Arc::new(Semaphore::new(MAX_CONNECTIONS)), TaskTracker::new());
    while let Some(Some((place, stream, peer))) = stop.run_until_cancelled(next(&mut listener, &places)).await {
        let (router, stop) = (router.clone(), stop.clone());
        connections.spawn(async move {
            keep(stream, peer, router, stop).await;
            drop(place);
        });
    }
    drop(listener);
    connections.close();
    connections.wait().await;
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
    server.timer(TokioTimer::new()).header_read_timeout(HEAD_WITHIN);
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
