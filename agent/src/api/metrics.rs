//! `GET /metrics`: every figure of the agent in Prometheus' text form, on the socket and over TCP. None of them names a
//! secret, so every peer that may ask sees the same.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use keyside_protocol::code::Code;

use super::request::{Query, refuse_strangers};
use super::respond::{ApiError, plain, problem};
use super::{Agent, Reply, only};
use crate::clock::Tick;
use crate::metrics::{Page, Route, families, process};
use crate::resolver::Figures;

const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Answers on the socket.
pub(super) fn metrics<B>(agent: &Agent, request: &Request<B>) -> Result<Reply, ApiError> {
    only(request, &[Method::GET])?;
    Query::parse(request.uri().query(), &[])?;
    Ok(plain(200, CONTENT_TYPE, Bytes::from(page(agent))))
}

/// Answers on the TCP listener at `own`, where there is no other route. Only a Host that names that very address passes:
/// no name that a web page made a browser resolve to it.
pub fn answer_scrape<B>(agent: &Agent, request: &Request<B>, own: SocketAddr) -> Reply {
    let began = Tick::now();
    let outcome = scrape(agent, request, own);
    let code = outcome.as_ref().err().map(|error| error.code);
    agent.metrics.answered(Route::Status, code, Tick::now().since(began));
    outcome.unwrap_or_else(problem)
}

fn scrape<B>(agent: &Agent, request: &Request<B>, own: SocketAddr) -> Result<Reply, ApiError> {
    // As the client wrote it: an IPv4 address also where a listener on all of IPv6 took it in, and without a zone.
    let own = SocketAddr::new(own.ip().to_canonical(), own.port());
    let (literal, by_name) = (own.to_string(), format!("localhost:{}", own.port()));
    let is_ours = |host: &[u8]| {
        host == literal.as_bytes() || own.ip().is_loopback() && host.eq_ignore_ascii_case(by_name.as_bytes())
    };
    refuse_strangers(request, is_ours, "the address and port that is listened on")?;
    if request.uri().path() != "/metrics" {
        return Err(ApiError::new(Code::NotFound, "no such route").hint("this listener has /metrics alone").close());
    }
    // What a refused method brought along is left unread.
    metrics(agent, request).map_err(ApiError::close)
}

/// Writes every family.
fn page(agent: &Agent) -> String {
    let mut page = Page::default();
    let uptime = Tick::now().since(agent.started);
    page.begin(&families::BUILD_INFO);
    page.sample(&[env!("CARGO_PKG_VERSION")], 1);
    page.begin(&families::INSTANCE_INFO);
    page.sample(&[agent.resolver.instance()], 1);
    page.begin(&families::UPTIME);
    page.sample(&[], uptime.as_secs_f64());
    page.begin(&families::READY);
    page.sample(&[], u8::from(agent.resolver.is_ready()));
    agent.metrics.write_requests(&mut page);
    page.begin(&families::CONNECTIONS);
    page.sample(&[], agent.connections.load(Ordering::Relaxed));
    agent.metrics.write_connections(&mut page);
    page.begin(&families::WATCHERS);
    page.sample(&[], agent.resolver.watches().watchers());
    cache(agent, &mut page);
    backends(agent, &mut page);
    agent.metrics.write_reloads(&mut page);
    let (written, lost) = agent.audit.counts();
    page.begin(&families::AUDIT_LINES);
    page.sample(&["written"], written);
    page.sample(&["lost"], lost);
    page.begin(&families::AUDIT_FAILING);
    page.sample(&[], u8::from(agent.audit.is_failing()));
    process::write(&mut page, uptime);
    page.into_text()
}

fn cache(agent: &Agent, page: &mut Page) {
    let (counters, entries, bytes) = agent.resolver.cache_state();
    let (absences, oldest) = agent.resolver.cache_depth();
    page.begin(&families::CACHE_READS);
    for (outcome, count) in [("hit", counters.hits), ("stale", counters.stale_hits), ("miss", counters.misses)] {
        page.sample(&[outcome], count);
    }
    page.begin(&families::CACHE_JOINS);
    page.sample(&[], counters.joins);
    page.begin(&families::CACHE_ENTRIES);
    page.sample(&[], entries);
    page.begin(&families::CACHE_ABSENCES);
    page.sample(&[], absences);
    page.begin(&families::CACHE_BYTES);
    page.sample(&[], bytes);
    page.begin(&families::CACHE_MAX_BYTES);
    page.sample(&[], agent.max_cache_bytes);
    page.begin(&families::CACHE_EVICTIONS);
    page.sample(&[], counters.evictions);
    page.begin(&families::CACHE_OLDEST_AGE);
    page.sample(&[], oldest.unwrap_or(Duration::ZERO).as_secs_f64());
}

/// One family after the other, each with a sample a back-end: samples of one family stand together.
fn backends(agent: &Agent, page: &mut Page) {
    let sources = agent.resolver.sources();
    let figures: Vec<(&str, Figures<'_>)> =
        sources.iter().map(|source| (source.name.as_str(), source.figures())).collect();
    page.begin(&families::BACKEND_UP);
    for (name, figures) in &figures {
        page.sample(&[name], u8::from(figures.is_up));
    }
    page.begin(&families::BACKEND_CALLS);
    for (name, figures) in &figures {
        page.sample(&[name], figures.calls);
    }
    page.begin(&families::BACKEND_FAILURES);
    for (name, figures) in &figures {
        for (class, count) in figures.failures {
            page.sample(&[name, class], count);
        }
    }
    page.begin(&families::BACKEND_DURATION);
    for (name, figures) in &figures {
        page.histogram(&[name], figures.durations, 0);
    }
    page.begin(&families::BACKEND_BREAKER_OPEN);
    for (name, figures) in &figures {
        page.sample(&[name], u8::from(figures.is_paused));
    }
    page.begin(&families::BACKEND_SUCCESS_AGE);
    for (name, figures) in &figures {
        if let Some(since) = figures.since_success {
            page.sample(&[name], since.as_secs_f64());
        }
    }
    page.begin(&families::BACKEND_POLLS);
    for (name, figures) in &figures {
        page.sample(&[name], figures.polls);
    }
}
