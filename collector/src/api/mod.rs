//! The HTTP API, the live feed and the page.

pub mod auth;
mod devices;
mod fleet;
mod health;
mod history;
mod pages;
pub mod problem;
mod socket;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::http::request::Parts;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::get;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use ward_agent::service::Pulse;

use crate::feed::Live;
use crate::ingest::Outgoing;
use crate::metrics::Metrics;
use crate::outage::Covered;
use crate::store::{Readers, StoreError};
use crate::victoria::Victoria;
use auth::Token;
use problem::Problem;

/// How often the API is asked whether it still answers.
const PROVE_EVERY: Duration = Duration::from_secs(3);
/// How long it may take over that.
const PROVE_LIMIT: Duration = Duration::from_secs(30);
/// Time for open requests to end when the program does.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);

/// What the handlers read.
pub struct Api {
    /// The fleet and its feed.
    pub live: Arc<Live>,
    /// The collector's file.
    pub readers: Arc<Readers>,
    /// What the collector counts.
    pub metrics: Arc<Metrics>,
    /// Where series are asked for; the collector's file if there is none.
    pub victoria: Option<Victoria>,
    /// What callers must show.
    pub token: Token,
    /// Where questions to agents go.
    pub asks: mpsc::Sender<Outgoing>,
}

impl Api {
    /// Asks the collector's file something, on a thread that may block.
    async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        ask: impl FnOnce(&rusqlite::Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Problem> {
        let readers = Arc::clone(&self.readers);
        tokio::task::spawn_blocking(move || readers.read(ask)).await.map_err(Problem::internal)?.map_err(Problem::internal)
    }
}

/// A branch's coverage, up to what its agent has vouched for since the file was written.
fn up_to_date(api: &Api, branch: &str, mut covered: Vec<Covered>) -> Vec<Covered> {
    let fleet = api.live.fleet();
    let known = branch.parse().ok().and_then(|id| fleet.branch(&id)).and_then(|at| fleet.branches[at].observed);
    if let (Some(last), Some(known)) = (covered.last_mut(), known) {
        last.to = last.to.max(known);
    }
    covered
}

/// Query parameters; what isn't known is refused by name.
struct Query<T>(T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match axum::extract::Query::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Query(query)) => Ok(Self(query)),
            Err(rejection) => {
                // "Failed to deserialize query string: unknown field `x`, expected …": the field stands in backticks.
                let text = rejection.body_text();
                let field = text.split('`').nth(1).unwrap_or("query").to_owned();
                Err(Problem::field(&field, text))
            }
        }
    }
}

/// All routes. What isn't listed as open needs the token.
pub fn router(api: Arc<Api>) -> Router {
    let closed = Router::new()
        .route("/", get(pages::index))
        .route("/api/v1/dashboard/stats", get(fleet::stats))
        .route("/api/v1/branches", get(fleet::branches))
        .route("/api/v1/branches/{id}/coverage", get(fleet::coverage))
        .route("/api/v1/devices", get(devices::list))
        .route("/api/v1/devices/{id}", get(devices::detail))
        .route("/api/v1/devices/{id}/history", get(history::history))
        .route("/ws/updates", get(socket::updates))
        .fallback(|| async { Problem::not_found("there is no such path") })
        .layer(from_fn_with_state(Arc::clone(&api), auth::require_token));
    let open = Router::new()
        .route("/health", get(health::health))
        .route("/version", get(health::version))
        .route("/metrics", get(health::metrics))
        .route("/login", get(pages::login_page).post(pages::login))
        .route("/app.js", get(pages::app))
        .route("/state.js", get(pages::state))
        .route("/style.css", get(pages::style));
    open.merge(closed).layer(from_fn_with_state(Arc::clone(&api), count)).with_state(api)
}

async fn count(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let response = next.run(request).await;
    let labels = format!("route=\"{route}\",status=\"{}\"", response.status().as_u16());
    api.metrics.add("ward_api_requests_total", &labels, 1);
    pages::protect(response)
}

/// Asks the API for something small again and again, as anybody would; `pulse` beats when it answers.
pub async fn prove(listens: SocketAddr, pulse: Pulse) {
    let mut address = listens;
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
    }
    loop {
        match tokio::time::timeout(PROVE_LIMIT, ask(address)).await {
            Ok(Ok(())) => pulse.beat(),
            Ok(Err(error)) => tracing::warn!(%address, %error, "the API does not answer"),
            Err(_) => tracing::warn!(%address, "the API has not answered in {} s", PROVE_LIMIT.as_secs()),
        }
        tokio::time::sleep(PROVE_EVERY).await;
    }
}

async fn ask(address: SocketAddr) -> std::io::Result<()> {
    let mut connection = TcpStream::connect(address).await?;
    connection.write_all(b"GET /version HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
    // Any answer is one: what it says is for others to judge.
    connection.read_u8().await.map(drop)
}

/// Serves until `shutdown`.
///
/// # Errors
/// When the server fails.
pub async fn serve(listener: TcpListener, api: Arc<Api>, shutdown: CancellationToken) -> anyhow::Result<()> {
    let stop = shutdown.clone();
    let server = axum::serve(listener, router(api)).with_graceful_shutdown(async move { stop.cancelled().await });
    let late = async {
        shutdown.cancelled().await;
        // A live feed never ends by itself.
        tokio::time::sleep(DRAIN_LIMIT).await;
    };
    tokio::select! {
        ended = server => ended.context("the HTTP server"),
        () = late => Ok(()),
    }
}
