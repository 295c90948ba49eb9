//! What the keys of each type of back-end mean.

use super::Row;

/// The keys of one type of back-end, beside those that every back-end has.
pub(super) struct TypeSection {
    /// The spelling of `type`.
    pub(super) kind: &'static str,
    /// Its own keys.
    pub(super) rows: &'static [Row],
    /// Keys that it shares with other types.
    pub(super) shared: &'static [Row],
}

pub(super) const TYPES: &[TypeSection] = &[
    TypeSection { kind: "zenml-server", rows: ZENML_SERVER, shared: &[] },
    TypeSection { kind: "zenml-sql", rows: ZENML_SQL, shared: &[] },
    TypeSection { kind: "aws", rows: AWS, shared: LAYOUT },
    TypeSection { kind: "gcp", rows: GCP, shared: LAYOUT },
    TypeSection { kind: "azure", rows: AZURE, shared: LAYOUT },
    TypeSection { kind: "vault", rows: VAULT, shared: LAYOUT_OF_VAULT },
    TypeSection {
        kind: "local",
        rows: &[Row(
            "path",
            "required",
            "The file: `<local stores>/<id of the component>/secrets.yaml`, or what the component's `secrets_file` says",
        )],
        shared: &[],
    },
    TypeSection {
        kind: "plugin",
        rows: &[
            Row(
                "command",
                "required",
                "The program, by absolute path or by a name on PATH, and its arguments. No shell reads them",
            ),
            Row(
                "env",
                "none",
                "Variables that are added to its environment. No place for secrets: the file holds none",
            ),
        ],
        shared: &[],
    },
];

const ZENML_SERVER: &[Row] = &[
    Row("url", "required", "The server's address: `https://zenml.example.com`"),
    Row("api_key_env", "none", "The variable with the API key of a service account. One way to log in, of three"),
    Row("api_key_file", "none", "The file with it"),
    Row("api_key_credential", "none", "The systemd credential with it"),
    Row("username", "none", "The user who logs in with a password. The second way"),
    Row("password_env", "none", "The variable with the user's password"),
    Row("password_file", "none", "The file with it"),
    Row("password_credential", "none", "The systemd credential with it"),
    Row(
        "api_token_env",
        "none",
        "The variable with a token that another login gave; it cannot be renewed here. The third way",
    ),
    Row("api_token_file", "none", "The file with it"),
    Row("api_token_credential", "none", "The systemd credential with it"),
    Row("workspace", "`default`", "Name or id; ZenML before 0.80"),
];

const ZENML_SQL: &[Row] = &[
    Row(
        "url",
        "required",
        "A file: `sqlite://` and the absolute path after one more slash, `sqlite:////var/lib/zenml/zenml.db`; nothing \
         in it is decoded. Or a server: `mysql://user@host:port/database`, percent-encoded, without a password. \
         Parameters are refused",
    ),
    Row("password_env", "none", "MySQL: the variable with the user's password"),
    Row("password_file", "none", "The file with it"),
    Row("password_credential", "none", "The systemd credential with it"),
    Row(
        "iam_region",
        "none",
        "MySQL on RDS: its region; the user logs in by IAM, with tokens that AWS's default chain of credentials signs, \
         in place of a password. TLS is due then, on this machine too",
    ),
    Row("iam_role_arn", "none", "A role to assume for that with the credentials that were found; needs `iam_region`"),
    Row("ssl_ca", "those of the system", "MySQL: a PEM file of certificate authorities"),
    Row("ssl_cert", "none", "MySQL: a PEM file with the client's certificate; needs `ssl_key`"),
    Row("ssl_key", "none", "MySQL: a PEM file with its key"),
    Row(
        "encryption_key_env",
        "none",
        "The variable with the encryption key of ZenML's secrets store of type `sql`, or of the backup of that type. \
         Without any key the values are taken as not encrypted",
    ),
    Row("encryption_key_file", "none", "The file with it"),
    Row("encryption_key_credential", "none", "The systemd credential with it"),
    Row("user", "nobody", "Name or id of the user whose private (or user-scoped) secrets are visible. Unset: nobody's"),
    Row("workspace", "the only one, else `default`", "Name or id; ZenML before 0.80"),
    Row(
        "values",
        "the tables themselves",
        "The name of the back-end, of type `aws`, `gcp`, `azure` or `vault`, that holds the values by the secrets' \
         ids, as ZenML 0.55 and later keep them there. It serves nothing else then",
    ),
    Row(
        "backup",
        "none",
        "Likewise, the back-end that is asked for values when the first one fails or lacks them. This back-end's own \
         name: its own tables, which hold copies then",
    ),
];

const AWS: &[Row] = &[
    Row("region", "that of AWS's own files and variables", "The region"),
    Row("endpoint_url", "AWS's own", "Another address"),
    Row("profile", "that of AWS's own variables", "A profile of the shared files"),
    Row("role_arn", "none", "A role to assume with the credentials that were found"),
];

const GCP: &[Row] = &[
    Row("project", "required", "The project's id"),
    Row("endpoint", "Google's own", "Another address"),
    Row(
        "credentials_file",
        "Application Default Credentials",
        "A file of credentials: a service account, an external account or an authorized user",
    ),
    Row("impersonate", "none", "The e-mail address of the service account to act as"),
];

const AZURE: &[Row] = &[
    Row("vault_url", "required", "The vault's address: `https://name.vault.azure.net`"),
    Row("client_id", "none", "The id of the service principal or of the managed identity"),
    Row("tenant_id", "none", "The id of the tenant"),
    Row(
        "client_secret_env",
        "workload identity, managed identity, the command line",
        "The variable with the secret of a service principal; needs `client_id` and `tenant_id`",
    ),
    Row("client_secret_file", "none", "The file with it"),
    Row("client_secret_credential", "none", "The systemd credential with it"),
    Row("authority", "`https://login.microsoftonline.com`", "Another authority"),
];

const VAULT: &[Row] = &[
    Row("url", "required", "The server's address: `https://vault.example.com:8200`"),
    Row("mount", "", "Where the key-value engine is mounted"),
    Row("namespace", "none", "Vault's own name space (not that of a secrets manager)"),
    Row("kv", "", "The version of the engine; 1 goes with layout `\"plain\"` alone"),
    Row("auth", "", "How to log in"),
    Row("role", "none", "The role: `\"kubernetes\"` (required), `\"jwt\"`, `\"aws\"`"),
    Row("role_id", "none", "The role's id: `\"approle\"` (required)"),
    Row("secret_id_env", "none", "The variable with the role's secret: `\"approle\"`"),
    Row("secret_id_file", "none", "The file with it"),
    Row("secret_id_credential", "none", "The systemd credential with it"),
    Row("token_env", "none", "The variable with the token: `\"token\"`, which needs one of the three"),
    Row("token_file", "none", "The file with it"),
    Row("token_credential", "none", "The systemd credential with it"),
    Row(
        "jwt_file",
        "the pod's own service account (`\"kubernetes\"`)",
        "The file of the token to log in with: `\"kubernetes\"`, `\"jwt\"` (required)",
    ),
    Row(
        "aws_header_value",
        "none",
        "What the server demands in the header `X-Vault-AWS-IAM-Server-ID` (its `iam_server_id_header_value`): \
         `\"aws\"`",
    ),
    Row("auth_mount", "the name of the method", "Where the login method is mounted"),
];

const LAYOUT: &[Row] = &[
    LAYOUT_ROW,
    SCOPE_ROW,
    Row("namespace", "none", "The name space of a secrets manager of scope `\"namespace\"`"),
    COMPONENT_ROW,
    PREFIX_ROW,
];

/// `namespace` means something else there.
const LAYOUT_OF_VAULT: &[Row] = &[
    LAYOUT_ROW,
    SCOPE_ROW,
    Row("scope_namespace", "none", "The name space of a secrets manager of scope `\"namespace\"`"),
    COMPONENT_ROW,
    PREFIX_ROW,
];

const LAYOUT_ROW: Row = Row(
    "layout",
    "",
    "How secrets are written there: by ZenML's secrets store, by a secrets manager component of old, or not by ZenML",
);

const SCOPE_ROW: Row = Row("scope", "", "The scope of the secrets manager; layout `\"manager\"`");

const COMPONENT_ROW: Row = Row("component", "none", "The id of a secrets manager of scope `\"component\"`");

const PREFIX_ROW: Row =
    Row("prefix", "none", "What every name there begins with, and names here leave out; layout `\"plain\"`");
