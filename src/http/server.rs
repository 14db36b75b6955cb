//! The connections: so many at a time, none for ever. HTTP/1.1 only, and without axum's own server, which gives a
//! client all the time it wants to send its header.

use std::{
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Router,
    body::{Bytes, HttpBody},
    extract::ConnectInfo,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    serve::Listener,
};
use hyper::{
    Request,
    body::{Frame, Incoming, SizeHint},
    server::conn::http1,
    service::Service,
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    ANSWER_WITHIN,
    connections::{ConnectionPermit, Connections, MAX_CONNECTIONS},
    limits::caller_network,
    problem::Problem,
    proxies::TrustedProxies,
};

/// Of one address: a stranger that takes all it can get leaves room for others.
const OF_ONE_ADDRESS: usize = 128;

/// Of a request's head, in bytes: so much is kept for each connection.
const LONGEST_HEAD: usize = 16 * 1024;

/// From a connection's begin, or the last answer on it, to the end of the next request's header.
const HEAD_WITHIN: Duration = Duration::from_secs(10);

/// A connection lasts at most this long. Then it closes after the present answer. Otherwise a
/// client that does not read its answers would hold the connection.
const MAX_AGE: Duration = Duration::from_secs(300);

/// The probes, which are answered also when all other connections are taken.
const PROBES: [&str; 2] = ["/healthz", "/readyz"];

/// Serves until `stop` is called and the open requests are answered.
pub async fn serve(mut listener: TcpListener, router: Router, proxies: TrustedProxies, stop: CancellationToken) {
    let (places, connections, proxies) = (Connections::default(), TaskTracker::new(), Arc::new(proxies));
    while let Some((stream, peer)) = stop.run_until_cancelled(Listener::accept(&mut listener)).await {
        // A proxy connects for all its clients.
        let share = if proxies.trusts(peer.ip()) { MAX_CONNECTIONS } else { OF_ONE_ADDRESS };
        let Some(place) = places.admit(caller_network(peer.ip()), share) else { continue };
        let (router, proxies, stop) = (router.clone(), Arc::clone(&proxies), stop.clone());
        connections.spawn(async move { keep(stream, peer, proxies, Arc::new(place), router, stop).await });
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

async fn keep(
    stream: TcpStream,
    peer: SocketAddr,
    proxies: Arc<TrustedProxies>,
    place: Arc<ConnectionPermit>,
    router: Router,
    stop: CancellationToken,
) {
    let routes = TowerToHyperService::new(router);
    let close = place.close.clone();
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        let client = proxies.client(peer.ip(), request.headers());
        request.extensions_mut().insert(ConnectInfo(SocketAddr::new(client, peer.port())));
        let is_refused = place.for_probes && !PROBES.contains(&request.uri().path());
        if request.body().is_end_stream() {
            place.arrived();
        }
        let answer = routes.call(request.map(|body| Arriving { body, place: Arc::clone(&place) }));
        let place = Arc::clone(&place);
        async move {
            let answer = if is_refused { Ok(no_room()) } else { answer.await };
            place.waits();
            answer
        }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD_WITHIN).max_buf_size(LONGEST_HEAD);
    let mut connection = pin!(server.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        // Why it broke is of no interest: the client has gone, or was not one.
        _ = connection.as_mut() => return,
        () = close.cancelled() => return,
        () = stop.cancelled() => {}
        () = sleep(MAX_AGE) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = timeout(ANSWER_WITHIN, connection).await;
}

fn no_room() -> Response {
    let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "all connections are taken; try again");
    ([(header::CONNECTION, HeaderValue::from_static("close"))], problem).into_response()
}

/// A request's body, which says when it has arrived.
#[derive(Debug)]
struct Arriving {
    body: Incoming,
    place: Arc<ConnectionPermit>,
}

impl HttpBody for Arriving {
    type Data = Bytes;

    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        let is_over = match &frame {
            Poll::Ready(Some(Ok(_))) => self.body.is_end_stream(),
            Poll::Ready(None | Some(Err(_))) => true,
            Poll::Pending => false,
        };
        if is_over {
            self.place.arrived();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
