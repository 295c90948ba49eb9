//! The identities that a token can come from, each by the official library.

use std::fmt;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use azure_core::cloud::{CloudConfiguration, CustomConfiguration};
use azure_core::credentials::{AccessToken, Secret, TokenCredential};
use azure_core::error::ErrorKind;
use azure_core::http::{ClientOptions, RetryOptions, Transport, Url};
use azure_identity::{
    AzureCliCredential, AzureCliCredentialOptions, ClientAssertionCredentialOptions, ClientSecretCredential,
    ClientSecretCredentialOptions, Executor, ManagedIdentityCredential, ManagedIdentityCredentialOptions,
    UserAssignedId, WorkloadIdentityCredential, WorkloadIdentityCredentialOptions,
};

use super::super::http::NoReply;
use super::login::{federated_token_file, variable};
use super::transport::{Failure, LoginTransport, lock, secure};

/// Where a machine's own identity is asked for, unless a variable names another place.
const METADATA: &str = "http://169.254.169.254";

/// One identity.
pub(super) enum Source {
    /// An application with a client secret.
    ServicePrincipal {
        client: String,
        tenant: String,
        secret: Secret,
        /// The setting or variable of the secret.
        origin: String,
    },
    /// The identity of a pod.
    Workload { client: Option<String>, tenant: Option<String>, file: PathBuf },
    /// The identity of a machine, or of an App Service.
    Managed { client: Option<String> },
    /// Whoever is logged in at the Azure command line.
    CommandLine { tenant: Option<String> },
}

/// Why an identity gave no token.
#[derive(Debug)]
pub(super) enum Trouble {
    /// This machine has no such identity.
    Absent(String),
    /// No whole reply came.
    Silent(NoReply),
    /// What answered is in trouble, or is not the login service.
    Unreachable(String),
    /// It said no.
    Refused {
        status: u16,
        /// Entra's own numbers, separated by commas.
        codes: String,
    },
}

impl fmt::Display for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::ServicePrincipal { .. } => "service principal",
            Self::Workload { .. } => "workload identity",
            Self::Managed { .. } => "managed identity",
            Self::CommandLine { .. } => "Azure command line",
        })
    }
}

impl Source {
    /// Returns the identities that this machine may have, in the order in which they are tried. Without a variable that
    /// announces it, a service principal or a workload identity is not among them.
    pub(super) fn of_this_machine(client: Option<&str>, tenant: Option<&str>) -> Vec<Self> {
        [Self::environment(), Self::workload(client, tenant)]
            .into_iter()
            .flatten()
            .chain([
                Self::Managed { client: client.map(str::to_owned) },
                Self::CommandLine { tenant: tenant.map(str::to_owned) },
            ])
            .collect()
    }

    /// Returns the same identity as the environment has it now.
    pub(super) fn renewed(&self, client: Option<&str>, tenant: Option<&str>) -> Self {
        match self {
            Self::ServicePrincipal { client, tenant, secret, origin } => Self::environment().unwrap_or_else(|| {
                let (client, tenant, secret, origin) = (client.clone(), tenant.clone(), secret.clone(), origin.clone());
                Self::ServicePrincipal { client, tenant, secret, origin }
            }),
            Self::Workload { file, .. } => Self::Workload {
                client: client.map(str::to_owned),
                tenant: tenant.map(str::to_owned),
                file: federated_token_file().unwrap_or_else(|| file.clone()),
            },
            Self::Managed { .. } => Self::Managed { client: client.map(str::to_owned) },
            Self::CommandLine { .. } => Self::CommandLine { tenant: tenant.map(str::to_owned) },
        }
    }

    /// Returns the setting that an operator would look at.
    pub(super) fn setting(&self) -> Option<&str> {
        match self {
            Self::ServicePrincipal { origin, .. } => Some(origin),
            _ => None,
        }
    }

    fn environment() -> Option<Self> {
        Some(Self::ServicePrincipal {
            client: variable("AZURE_CLIENT_ID")?,
            tenant: variable("AZURE_TENANT_ID")?,
            secret: Secret::new(variable("AZURE_CLIENT_SECRET")?),
            origin: "variable `AZURE_CLIENT_SECRET`".to_owned(),
        })
    }

    fn workload(client: Option<&str>, tenant: Option<&str>) -> Option<Self> {
        let file = federated_token_file()?;
        Some(Self::Workload { client: client.map(str::to_owned), tenant: tenant.map(str::to_owned), file })
    }
}

/// Gets tokens for identities.
pub(super) struct Identities {
    /// The key under `[backend]`, for messages.
    pub(super) backend: String,
    /// Reaches the authority, by the proxy where one is configured.
    pub(super) outside: reqwest::Client,
    /// Reaches this machine's own metadata service, which no proxy can.
    pub(super) inside: reqwest::Client,
    /// Where that is, if not where it always is.
    pub(super) metadata: Option<Url>,
    /// Another authority than Azure's own.
    pub(super) authority: Option<Url>,
}

impl Identities {
    /// Asks one identity for one token, once.
    pub(super) async fn token(&self, source: &Source, scope: &str) -> Result<AccessToken, Trouble> {
        let (client, reroute) = match source {
            Source::Managed { .. } => (&self.inside, self.metadata_elsewhere()),
            _ => (&self.outside, self.plain_authority()),
        };
        let (transport, failure) = LoginTransport::new(client.clone(), self.backend.clone(), reroute);
        let options = ClientOptions {
            transport: Some(Transport::new(Arc::new(transport))),
            retry: RetryOptions::none(),
            cloud: self.cloud(),
            ..ClientOptions::default()
        };
        let end = Arc::new(Mutex::new(None));
        let credential = credential(source, options, &end).map_err(|error| trouble(source, &error, None))?;
        let scopes = [scope];
        tokio::select! {
            biased;
            token = credential.get_token(&scopes, None) => {
                token.map_err(|error| trouble(source, &error, lock(&end).take()))
            }
            Ok(failure) = failure => Err(failed(source, failure)),
        }
    }

    fn cloud(&self) -> Option<Arc<CloudConfiguration>> {
        let mut custom = CustomConfiguration::default();
        custom.authority_host = secure(self.authority.as_ref()?)?.to_string();
        Some(Arc::new(custom.into()))
    }

    /// An authority without TLS, which only a loopback address may be: the library insists on `https`.
    fn plain_authority(&self) -> Option<(Url, Url)> {
        let authority = self.authority.as_ref().filter(|authority| authority.scheme() != "https")?;
        Some((secure(authority)?, authority.clone()))
    }

    fn metadata_elsewhere(&self) -> Option<(Url, Url)> {
        Some((Url::parse(METADATA).ok()?, self.metadata.clone()?))
    }
}

/// Returns where the metadata service of a cluster's pod identity is, as other libraries of Azure find it.
pub(super) fn metadata_service() -> Option<Url> {
    Url::parse(&variable("AZURE_POD_IDENTITY_AUTHORITY_HOST")?).ok()
}

fn credential(
    source: &Source,
    options: ClientOptions,
    end: &Arc<Mutex<Option<CommandEnd>>>,
) -> azure_core::Result<Arc<dyn TokenCredential>> {
    Ok(match source {
        Source::ServicePrincipal { client, tenant, secret, .. } => {
            let options = ClientSecretCredentialOptions { client_options: options };
            ClientSecretCredential::new(tenant, client.clone(), secret.clone(), Some(options))?
        }
        Source::Workload { client, tenant, file } => {
            let workload = WorkloadIdentityCredentialOptions {
                credential_options: ClientAssertionCredentialOptions { client_options: options },
                client_id: client.clone(),
                tenant_id: tenant.clone(),
                token_file_path: Some(file.clone()),
            };
            WorkloadIdentityCredential::new(Some(workload))?
        }
        Source::Managed { client } => {
            let user_assigned_id = client.clone().map(UserAssignedId::ClientId);
            let managed = ManagedIdentityCredentialOptions { user_assigned_id, client_options: options };
            ManagedIdentityCredential::new(Some(managed))?
        }
        Source::CommandLine { tenant } => {
            let executor: Arc<dyn Executor> = Arc::new(Commands { end: Arc::clone(end) });
            let command = AzureCliCredentialOptions {
                tenant_id: tenant.clone(),
                executor: Some(executor),
                ..AzureCliCredentialOptions::default()
            };
            AzureCliCredential::new(Some(command))?
        }
    })
}

fn failed(source: &Source, failure: Failure) -> Trouble {
    match (source, failure) {
        (_, Failure::Unreachable(fault)) => Trouble::Silent(fault),
        (Source::Managed { .. }, Failure::Status(404)) => Trouble::Absent("HTTP 404".to_owned()),
        (_, Failure::Status(404)) => Trouble::Refused { status: 404, codes: String::new() },
        (_, Failure::Status(status)) => Trouble::Unreachable(format!("the login service answers {status}")),
    }
}

/// Says what an error of the library means. Its text is not shown: it may quote what came.
fn trouble(source: &Source, error: &azure_core::Error, end: Option<CommandEnd>) -> Trouble {
    if let Some(end) = end {
        return match end {
            CommandEnd::NotThere => Trouble::Absent("there is no `az` on the agent's PATH".to_owned()),
            CommandEnd::Failed => Trouble::Absent("`az account get-access-token` failed: run `az login`".to_owned()),
        };
    }
    let mut kinds = Vec::new();
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(ours) = error.downcast_ref::<azure_core::Error>() {
            kinds.push(ours.kind());
        }
        next = error.source();
    }
    for kind in &kinds {
        if let ErrorKind::HttpResponse { status, error_code, .. } = kind {
            // A machine without the identity that is asked for.
            if matches!(source, Source::Managed { .. }) && u16::from(*status) == 400 {
                return Trouble::Absent("it is not given to this machine".to_owned());
            }
            return Trouble::Refused { status: u16::from(*status), codes: error_code.clone().unwrap_or_default() };
        }
    }
    match source {
        _ if kinds.contains(&&ErrorKind::DataConversion) => {
            Trouble::Unreachable("what answered is not the login service".to_owned())
        }
        Source::Workload { file, .. } if std::fs::File::open(file).is_err() => {
            Trouble::Absent(format!("its token file {} cannot be read", file.display()))
        }
        Source::Workload { .. } => Trouble::Absent("`client_id` or `tenant_id` is missing or wrong".to_owned()),
        Source::Managed { .. } => Trouble::Absent("this kind of machine is not supported".to_owned()),
        _ => Trouble::Refused { status: 0, codes: String::new() },
    }
}

/// How the command line ended.
#[derive(Debug, Clone, Copy)]
enum CommandEnd {
    NotThere,
    Failed,
}

/// Runs the command line: ended with the login that started it, and with nothing of ours open.
#[derive(Debug)]
struct Commands {
    end: Arc<Mutex<Option<CommandEnd>>>,
}

#[async_trait]
impl Executor for Commands {
    async fn run(&self, program: &std::ffi::OsStr, arguments: &[&std::ffi::OsStr]) -> std::io::Result<Output> {
        let output = tokio::process::Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await;
        *lock(&self.end) = match &output {
            Ok(output) if output.status.success() => None,
            Ok(output) if output.status.code() != Some(127) => Some(CommandEnd::Failed),
            _ => Some(CommandEnd::NotThere),
        };
        output
    }
}
