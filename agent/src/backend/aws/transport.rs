//! The HTTP client that AWS's library is given: ours, with the proxy, certificate authorities, deadlines and bounds that
//! every back-end has. The library's own reads a body of any length, and knows a proxy only from the environment.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use http_body_util::Full;
use keyside_config::settings::BackendSettings;
use keyside_protocol::json::SecretBuffer;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Method, StatusCode, Url};
use tokio::sync::Semaphore;

use super::super::BackendError;
use super::super::http::{self, NoReply, seconds};
use super::super::pause::Pause;

/// Where no metadata service is, its address swallows connections: the library asks there last, and should not wait.
const METADATA_CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Sends AWS's requests; a clone shares everything.
#[derive(Clone)]
pub(super) struct Transport(Arc<Inner>);

struct Inner {
    /// For AWS's own services, by the proxy if there is one.
    services: Client,
    /// For the addresses of this machine's own credentials, which no proxy reaches.
    metadata: Client,
    backend: String,
    allow_plaintext: bool,
    max_body: usize,
    permits: Semaphore,
    pauses: Pauses,
}

/// The pause that each service has asked for, by its host: one that is busy says nothing of another.
#[derive(Default)]
struct Pauses(Mutex<HashMap<String, Arc<Pause>>>);

impl Pauses {
    fn of(&self, url: &Url) -> Arc<Pause> {
        let mut pauses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(pauses.entry(url.authority().to_owned()).or_default())
    }
}

impl Transport {
    /// Makes the client of a back-end; no body of more than `max_body` bytes is read. Makes no call.
    ///
    /// Errors: `Identity` where the proxy's address or the file of certificate authorities cannot be used.
    pub(super) fn new(settings: &BackendSettings, max_body: usize) -> Result<Self, BackendError> {
        let build = |builder: reqwest::ClientBuilder| {
            builder.build().map_err(|error| BackendError::Identity {
                what: format!("back-end `{}`: {}", settings.name, http::describe(&error)),
                hint: Some(format!("look at [backend.{}] in the agent's configuration", settings.name)),
            })
        };
        let metadata = http::builder(settings)?.no_proxy();
        Ok(Self(Arc::new(Inner {
            services: build(http::builder(settings)?)?,
            metadata: build(metadata.connect_timeout(METADATA_CONNECT_TIMEOUT))?,
            backend: settings.name.clone(),
            allow_plaintext: settings.network.allow_plaintext,
            max_body,
            permits: Semaphore::new(settings.parallelism.max(1)),
            pauses: Pauses::default(),
        })))
    }

    /// Lets no further call begin.
    pub(super) fn close(&self) {
        self.0.permits.close();
    }

    async fn send(&self, request: HttpRequest, patience: Option<Duration>) -> Result<HttpResponse, ConnectorError> {
        let inner = &*self.0;
        let url = Url::parse(request.uri()).map_err(|_| unusable("the address is no URL"))?;
        let place = Place::of(&url);
        if url.scheme() != "https" && place == Place::Elsewhere && !inner.allow_plaintext {
            return Err(unusable("without TLS only this machine is asked; use https, or `allow_plaintext = true`"));
        }
        let pause = inner.pauses.of(&url);
        let method = Method::from_bytes(request.method().as_bytes()).map_err(|_| unusable("an unknown method"))?;
        let client = if place == Place::Metadata { &inner.metadata } else { &inner.services };
        let body = request.body().bytes().ok_or_else(|| unusable("a request without its whole body"))?.to_vec();
        let mut ours = client.request(method, url).headers(headers_of(&request)?).body(body);
        if let Some(patience) = patience.filter(|_| place == Place::Metadata) {
            ours = ours.timeout(patience);
        }
        let _permit = inner.permits.acquire().await.map_err(|_| unusable("the back-end is closed"))?;
        refuse_in(&pause)?;
        let failed = |error: reqwest::Error| {
            let trouble = Trouble::Network(NoReply::of(&error, &inner.backend)).into();
            if error.is_timeout() { ConnectorError::timeout(trouble) } else { ConnectorError::io(trouble) }
        };
        let mut response = ours.send().await.map_err(failed)?;
        let status = response.status();
        let headers = std::mem::take(response.headers_mut());
        let retry_after = headers.get(RETRY_AFTER).and_then(|value| seconds(value.to_str().ok()?));
        match status {
            // AWS throttles with a status that says nothing.
            StatusCode::BAD_REQUEST => pause.begin(retry_after),
            status => pause.note(status.as_u16(), retry_after),
        }
        let announced = response.content_length().and_then(|length| usize::try_from(length).ok()).unwrap_or_default();
        if announced > inner.max_body {
            return Err(too_long());
        }
        let mut body = SecretBuffer::with_capacity(announced);
        while let Some(piece) = response.chunk().await.map_err(failed)? {
            if body.len() + piece.len() > inner.max_body {
                return Err(too_long());
            }
            body.push(&piece);
        }
        // Not as plain bytes: the library writes those into its trace of the reply. The buffer is wiped when it is dropped.
        let body = SdkBody::from_body_1_x(Full::new(Bytes::from_owner(body)));
        let mut reply = HttpResponse::new(status.into(), body);
        for (name, value) in &headers {
            if let Ok(value) = value.to_str() {
                reply.headers_mut().append(name.as_str().to_owned(), value.to_owned());
            }
        }
        Ok(reply)
    }
}

/// Tells whether an address is on this machine.
pub(super) fn is_loopback(url: &str) -> bool {
    Url::parse(url).is_ok_and(|url| Place::of(&url) == Place::Loopback)
}

/// Who is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// This machine.
    Loopback,
    /// The services beside a machine or container that hand out its credentials, which speak no TLS.
    Metadata,
    Elsewhere,
}

impl Place {
    fn of(url: &Url) -> Self {
        let host = url.host_str().unwrap_or_default();
        match host.trim_start_matches('[').trim_end_matches(']').parse() {
            Ok(IpAddr::V4(address)) if address.is_loopback() => Self::Loopback,
            Ok(IpAddr::V4(address)) if address.is_link_local() => Self::Metadata,
            Ok(IpAddr::V6(address)) if address.is_loopback() => Self::Loopback,
            // fd00:ec2::254 of EC2, fd00:ec2::23 of EKS.
            Ok(IpAddr::V6(address)) if address.segments()[..2] == [0xfd00, 0xec2] => Self::Metadata,
            Err(_) if host.eq_ignore_ascii_case("localhost") => Self::Loopback,
            _ => Self::Elsewhere,
        }
    }
}

/// Makes no call to a service that wants to be left alone.
fn refuse_in(pause: &Pause) -> Result<(), ConnectorError> {
    match pause.seconds_left() {
        Some(seconds) => {
            let what = format!("it has asked to be left alone, for {seconds} more seconds");
            let hint = "try again then; raise `[cache] ttl`, or lower `parallelism`".to_owned();
            Err(ConnectorError::io(Trouble::Network(NoReply { what, hint: Some(hint) }).into()))
        }
        None => Ok(()),
    }
}

fn headers_of(request: &HttpRequest) -> Result<HeaderMap, ConnectorError> {
    let mut headers = HeaderMap::new();
    for (name, value) in request.headers() {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| unusable("a header that cannot be sent"))?;
        let mut value = HeaderValue::from_str(value).map_err(|_| unusable("a header that cannot be sent"))?;
        // Tokens among them; no log needs any.
        value.set_sensitive(true);
        headers.append(name, value);
    }
    Ok(headers)
}

/// What stands in the way of a call, in words without the URL.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// Our settings; trying again does not help.
    #[error("{0}")]
    Settings(String),
    /// The network, or who is at its other end.
    #[error("{}", .0.what)]
    Network(NoReply),
}

fn unusable(what: &str) -> ConnectorError {
    ConnectorError::user(Trouble::Settings(what.to_owned()).into())
}

fn too_long() -> ConnectorError {
    ConnectorError::io(Trouble::Network(NoReply::too_long()).into())
}

impl fmt::Debug for Transport {
    /// Has no word about a proxy's password.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Transport")
    }
}

impl HttpClient for Transport {
    fn http_connector(&self, settings: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(Connector { transport: self.clone(), patience: settings.read_timeout() })
    }
}

#[derive(Debug)]
struct Connector {
    transport: Transport,
    patience: Option<Duration>,
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let (transport, patience) = (self.transport.clone(), self.patience);
        HttpConnectorFuture::new(async move { transport.send(request, patience).await })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_and_its_metadata_services_are_asked_without_tls() {
        let check = |url: &str, place| assert_eq!(Place::of(&Url::parse(url).expect(url)), place, "{url}");
        check("http://127.0.0.1:4566/", Place::Loopback);
        check("http://[::1]:4566/", Place::Loopback);
        check("http://localhost/", Place::Loopback);
        check("http://169.254.169.254/latest", Place::Metadata);
        check("http://169.254.170.2/creds", Place::Metadata);
        check("http://[fd00:ec2::23]/v1/credentials", Place::Metadata);
        check("http://secretsmanager.eu-central-1.amazonaws.com/", Place::Elsewhere);
        check("http://10.0.0.1/", Place::Elsewhere);
        check("http://127.example.com/", Place::Elsewhere);
        check("http://[fd00::1]/", Place::Elsewhere);
    }
}
