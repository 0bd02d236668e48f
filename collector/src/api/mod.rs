//! The HTTP API, the live feed and the page.

pub mod access;
pub mod answer;
pub mod auth;
mod availability;
mod body;
pub mod certificate;
mod devices;
mod diagnostics;
pub mod edits;
pub mod effort;
mod events;
pub mod feeds;
mod fleet;
pub mod gate;
mod graphql;
mod health;
mod history;
mod inventory;
mod login;
mod logins;
mod maintenance;
pub mod openapi;
mod pages;
pub mod problem;
mod prometheus;
mod query;
mod request;
pub mod room;
pub mod server;
mod socket;
mod users;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::{HeaderValue, Uri, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, patch, post};
use shared::BranchId;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;
use ward_agent::service::Pulse;

use crate::feed::Live;
use crate::ingest::Outgoing;
use crate::metrics::Metrics;
use crate::outage::Covered;
use crate::proxies::{self, Network};
use crate::store::{Readers, StoreError};
use crate::victoria::Victoria;
use answer::Answers;
use auth::{Caller, Peer};
/// What reads words of callers that have a form of their own, for who tries it with bytes that have none.
pub mod reading {
    pub use super::graphql::read as graphql;
    pub use super::query::cursor;
    pub use super::socket::{Said, said};
}

use certificate::Certificate;
use gate::Gate;
use problem::Problem;
use request::Name;
use server::{Limits, Server};

/// Time for an answer, of which a question to VictoriaMetrics takes the most.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// Largest body of a request: a thousand holidays.
const BODY_LIMIT_BYTES: usize = 64 * 1024;
/// The one route whose body may be larger.
const IMPORT: &str = "/api/v1/inventory/import";
/// How often the API is asked whether it still answers.
const PROVE_EVERY: Duration = Duration::from_secs(3);
/// How long it may take over that.
const PROVE_LIMIT: Duration = Duration::from_secs(30);

/// What the handlers read.
pub struct Api {
    /// The fleet and its feed.
    pub live: Arc<Live>,
    /// The collector's file.
    pub readers: Arc<Readers>,
    /// What the collector counts.
    pub metrics: Arc<Metrics>,
    /// Where series are asked for; the collector's file if there is none.
    pub victoria: Option<Arc<Victoria>>,
    /// Who comes in.
    pub gate: Gate,
    /// The collector itself speaks TLS.
    pub is_tls: bool,
    /// Where questions to agents go.
    pub asks: mpsc::Sender<Outgoing>,
    /// Room for questions that read much of the collector's file.
    pub room: room::Room,
    /// What agents have been asked for.
    pub effort: effort::Effort,
    /// Which devices are watched.
    pub watched: effort::Watched,
    /// Proxies whose word on who asks is taken.
    pub trusted_proxies: Vec<Network>,
    /// Where changes go.
    pub edits: mpsc::Sender<edits::Request>,
    /// The time zone of calendar months and days unless a caller names another, and its name.
    pub zone: (String, jiff::tz::TimeZone),
    /// Answers that others may ask for as well.
    pub answers: Answers,
    /// Room for live feeds.
    pub feeds: Arc<feeds::Feeds>,
}

impl Api {
    /// The same of a question that may take long: it waits for its turn.
    async fn read_much<T: Send + 'static>(
        self: &Arc<Self>,
        ask: impl FnOnce(&rusqlite::Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Problem> {
        let place = self.room.enter().await?;
        let ask = move |db: &rusqlite::Connection| {
            let _place = place;
            ask(db)
        };
        self.read(ask).await
    }

    /// Asks the collector's file something, on a thread that may block.
    async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        ask: impl FnOnce(&rusqlite::Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Problem> {
        self.metrics.add("ward_ledger_reads_total", "", 1);
        let readers = Arc::clone(&self.readers);
        tokio::task::spawn_blocking(move || readers.read(ask)).await.map_err(Problem::internal)?.map_err(Problem::internal)
    }
}

/// What an answer is kept under: what was asked, and what the caller may see.
fn asked(uri: &Uri, caller: &Caller) -> String {
    match caller.who.reach.words() {
        None => uri.to_string(),
        // No address has this in it.
        Some(regions) => format!("{uri}#{regions}"),
    }
}

/// A branch's coverage, up to what its agent has vouched for since the file was written.
fn up_to_date(api: &Api, branch: &BranchId, mut covered: Vec<Covered>) -> Vec<Covered> {
    let fleet = api.live.fleet();
    let known = fleet.branch(branch).and_then(|at| fleet.branches[at].observed);
    if let (Some(last), Some(known)) = (covered.last_mut(), known) {
        last.to = last.to.max(known);
    }
    covered
}

/// All routes. What isn't listed as open needs somebody who may.
pub fn router(api: Arc<Api>) -> Router {
    let views = pages::VIEWS.iter().fold(Router::new(), |views, path| views.route(path, get(pages::index)));
    let closed = views
        .route("/api/v1/openapi.json", get(openapi::document))
        .route("/api/v1/availability", get(availability::availability))
        .route("/api/v1/reports/sla", get(availability::sla))
        .route("/api/v1/reports/uptime", get(availability::uptime))
        .route("/api/v1/reports/flapping", get(availability::flaps))
        .route("/api/v1/reports/rtt", get(availability::round_trips))
        .route("/logout", post(login::logout))
        .route("/api/v1/me", get(login::me))
        .route("/api/v1/me/password", post(login::password))
        .route("/api/v1/users", get(users::users).post(users::add_user))
        .route("/api/v1/users/{name}", patch(users::change_user).delete(users::remove_user))
        .route("/api/v1/tokens", get(users::tokens).post(users::add_token))
        .route("/api/v1/tokens/{id}", delete(users::remove_token))
        .route("/api/v1/audit", get(users::audit))
        .route("/api/v1/maintenance", get(maintenance::windows).post(maintenance::add_window))
        .route("/api/v1/maintenance/{id}", delete(maintenance::remove_window))
        .route("/api/v1/service-hours", get(maintenance::hours).post(maintenance::add_hours))
        .route("/api/v1/service-hours/{id}", delete(maintenance::remove_hours))
        .route("/api/v1/dashboard/stats", get(fleet::stats))
        .route("/api/v1/branches", get(fleet::branches).post(inventory::add_branch))
        .route("/api/v1/branches/{id}", get(fleet::branch).patch(inventory::change_branch).delete(inventory::remove_branch))
        .route("/api/v1/branches/{id}/coverage", get(fleet::coverage))
        .route("/api/v1/regions", get(fleet::regions).post(inventory::add_region))
        .route("/api/v1/regions/{id}", patch(inventory::change_region).delete(inventory::remove_region))
        .route("/api/v1/inventory.csv", get(inventory::export))
        .route("/api/v1/inventory/import", post(inventory::import).layer(DefaultBodyLimit::max(inventory::IMPORT_LIMIT_BYTES)))
        .route("/api/v1/agents", get(fleet::agents))
        .route("/api/v1/events", get(events::events))
        .route("/api/v1/devices", get(devices::list).post(inventory::add_device))
        .route("/api/v1/devices/{id}", get(devices::detail).patch(inventory::change_device).delete(inventory::remove_device))
        .route("/api/v1/devices/{id}/history", get(history::history))
        .route("/api/v1/devices/{id}/transitions", get(events::transitions))
        .route("/api/v1/devices/{id}/outages", get(events::outages))
        .route("/api/v1/devices/{id}/probe", post(diagnostics::probe))
        .route("/api/v1/devices/{id}/traceroute", post(diagnostics::traceroute))
        .route("/api/v1/devices/{id}/identity", get(diagnostics::identity).delete(diagnostics::accept_identity))
        .route("/api/v1/branches/{id}/discovery", post(diagnostics::discovery))
        .route("/api/v1/branches/{id}/cuts", get(diagnostics::cuts))
        .route("/api/v1/query", get(prometheus::query).post(prometheus::query))
        .route("/api/v1/query_range", get(prometheus::query_range).post(prometheus::query_range))
        .route("/api/v1/labels", get(prometheus::labels).post(prometheus::labels))
        .route("/api/v1/label/{name}/values", get(prometheus::label_values))
        .route("/api/v1/series", get(prometheus::series).post(prometheus::series))
        .route("/api/v1/graphql", post(graphql::answer))
        .route("/api/v1/schema.graphql", get(graphql::schema))
        .route("/ws/updates", get(socket::updates))
        .fallback(|| async { Problem::not_found("there is no such path") })
        .method_not_allowed_fallback(|| async { Problem::method_not_allowed() })
        .layer(from_fn_with_state(Arc::clone(&api), auth::admit));
    let open = Router::new()
        .route("/health", get(health::health))
        .route("/version", get(health::version))
        .route("/metrics", get(health::metrics))
        .route("/login", get(pages::login_page).post(login::login))
        .route("/setup", post(login::setup))
        .route("/assets/{name}", get(pages::asset));
    open.merge(closed)
        .method_not_allowed_fallback(|| async { Problem::method_not_allowed() })
        .layer(from_fn(answer::form))
        .layer(DefaultBodyLimit::max(BODY_LIMIT_BYTES))
        .layer(from_fn_with_state(Arc::clone(&api), count))
        .with_state(api)
}

/// Whether a body is announced that nobody would take: it isn't read at all then.
fn too_large(request: &Request, limit_bytes: usize) -> bool {
    let length = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    length.is_some_and(|length| length > limit_bytes)
}

async fn count(State(api): State<Arc<Api>>, mut request: Request, next: Next) -> Response {
    if let Some(Peer(peer)) = request.extensions().get::<Peer>().copied() {
        let forwarded = request.headers().get_all("x-forwarded-for").iter().map(HeaderValue::as_bytes);
        let client = proxies::client(&api.trusted_proxies, peer, forwarded);
        request.extensions_mut().insert(Peer(client));
    }
    let name = Name::of(request.headers());
    let span = name.span(request.headers());
    let is_at_443 = api.is_tls && request.headers().get(header::HOST).is_some_and(|host| !pages::names_port(host));
    let mut response = name.during(timed(&api, request, next)).instrument(span).await;
    name.tell(response.headers_mut());
    pages::protect(response, is_at_443)
}

/// An answer in time, counted.
async fn timed(api: &Api, request: Request, next: Next) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let began = tokio::time::Instant::now();
    let limit_bytes = if route == IMPORT { inventory::IMPORT_LIMIT_BYTES } else { BODY_LIMIT_BYTES };
    let response = match too_large(&request, limit_bytes) {
        true => Problem::too_large(limit_bytes).into_response(),
        false => match tokio::time::timeout(ANSWER_LIMIT, next.run(request)).await {
            Ok(response) => response,
            Err(_) => Problem::unavailable("this took too long").into_response(),
        },
    };
    let (took, status) = (began.elapsed(), response.status().as_u16());
    api.metrics.observe("api_request_duration_seconds", &format!("route=\"{route}\""), took);
    api.metrics.add("ward_api_requests_total", &format!("route=\"{route}\",status=\"{status}\""), 1);
    tracing::debug!(
        http.request.method = method.as_str(),
        url.path = path,
        http.response.status_code = status,
        event.duration = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX),
        "a request was answered"
    );
    response
}

/// Asks the API for something small again and again, as anybody would; `pulse` beats when it answers.
pub async fn prove(listens: SocketAddr, is_tls: bool, pulse: Pulse) {
    let mut address = listens;
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
    }
    loop {
        match tokio::time::timeout(PROVE_LIMIT, ask(address, is_tls)).await {
            Ok(Ok(())) => pulse.beat(),
            Ok(Err(error)) => tracing::warn!(%address, error = format!("{error:#}"), "the API does not answer"),
            Err(_) => tracing::warn!(%address, "the API has not answered in {} s", PROVE_LIMIT.as_secs()),
        }
        tokio::time::sleep(PROVE_EVERY).await;
    }
}

async fn ask(address: SocketAddr, is_tls: bool) -> anyhow::Result<()> {
    let connection = TcpStream::connect(address).await?;
    match is_tls {
        false => ask_over(connection).await?,
        // Whoever is at this address of ours is ourselves.
        true => ask_over(ward_agent::tls::to_anybody(None, address.ip(), connection).await?).await?,
    }
    Ok(())
}

async fn ask_over(mut connection: impl AsyncRead + AsyncWrite + Unpin) -> std::io::Result<()> {
    connection.write_all(b"GET /version HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
    // Any answer is one: what it says is for others to judge.
    connection.read_u8().await.map(drop)
}

/// Serves until `shutdown`, by TLS where there is a certificate.
///
/// # Errors
/// When the server fails.
pub async fn serve(
    listener: TcpListener,
    api: Arc<Api>,
    certificate: Option<Arc<Certificate>>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let metrics = Arc::clone(&api.metrics);
    let server = Server { router: router(api), certificate, limits: Limits::DEFAULT, metrics, shutdown };
    server.serve(listener).await
}
