//! ZenML's own tables as the store: on a MySQL server.

use std::net::IpAddr;
use std::path::Path;

use zeroize::Zeroizing;

use super::section::{Section, switch_of};
use crate::backend::url;
use crate::environment::Environment;
use crate::mistake::Mistake;
use crate::settings::{AwsRole, MysqlSettings, Pem, RdsIam, SecretText};

/// Where AWS's own tools look for the file of a pod's token.
const TOKEN_FILE: &str = "AWS_WEB_IDENTITY_TOKEN_FILE";

/// Reads the settings of a server of MySQL. As in ZenML, what stands in the URL goes before the fields beside it.
pub(super) fn mysql(
    store: &Section,
    environment: &Environment,
    mistakes: &mut Vec<Mistake>,
    sources: &mut Vec<String>,
) -> Option<Box<MysqlSettings>> {
    let server = match url::server_parts(store.text("url", mistakes)?) {
        Ok(server) => server,
        Err(what) => {
            mistakes.extend(store.origin("url").map(|origin| origin.mistake(&what)));
            return None;
        }
    };
    let in_url = |text: Zeroizing<String>| store.as_secret("url", text);
    let mut parameters = Parameters::default();
    for (key, value) in server.parameters {
        match key.as_str() {
            "ssl" => {}
            "ssl_ca" => parameters.ca = Some(value),
            "ssl_cert" => parameters.cert = Some(value),
            "ssl_key" => parameters.key = Some(value),
            "ssl_verify_server_cert" => parameters.verify = switch_of(&value),
            _ => {
                let what = "has a parameter that ZenML does not know; there are ssl, ssl_ca, ssl_cert, ssl_key, \
                            ssl_verify_server_cert";
                mistakes.extend(store.origin("url").map(|origin| origin.mistake(what)));
            }
        }
    }
    let mut certificate = |text: Option<Zeroizing<String>>, key: &str| match text {
        Some(text) => pem_of(in_url(text)).map_err(|what| {
            mistakes.extend(store.origin("url").map(|origin| origin.mistake(&format!("its `{key}` {what}"))));
        }),
        None => Ok(None),
    };
    let (ca, cert, key) = (
        certificate(parameters.ca, "ssl_ca"),
        certificate(parameters.cert, "ssl_cert"),
        certificate(parameters.key, "ssl_key"),
    );
    let ssl_ca = ca.ok()?.or_else(|| pem(store, "ssl_ca", mistakes));
    let ssl_cert = cert.ok()?.or_else(|| pem(store, "ssl_cert", mistakes));
    let ssl_key = key.ok()?.or_else(|| pem(store, "ssl_key", mistakes));
    match (&ssl_cert, &ssl_key) {
        (Some(_), None) => mistakes.push(store.missing("ssl_key")),
        (None, Some(_)) => mistakes.push(store.missing("ssl_cert")),
        _ => {}
    }
    let user = server.user.or_else(|| store.owned("username", mistakes));
    if user.is_none() {
        mistakes.push(store.missing("username"));
    }
    let database = server.database.or_else(|| store.owned("database", mistakes));
    if database.is_none() {
        mistakes.push(store.missing("database"));
    }
    let (password, iam) = match store.text("auth_mode", mistakes).unwrap_or("password") {
        "password" => {
            let password = server.password.filter(|password| !password.is_empty()).map(in_url);
            (password.or_else(|| store.required_secret("password", mistakes)), None)
        }
        "aws_rds_iam" => {
            // ZenML refuses such a store, too.
            let second = "has no meaning for a login by \"aws_rds_iam\"";
            mistakes.extend(store.origin("password").map(|origin| origin.mistake(second)));
            if server.password.is_some_and(|password| !password.is_empty()) {
                let what = format!("its password {second}");
                mistakes.extend(store.origin("url").map(|origin| origin.mistake(&what)));
            }
            (None, iam(store, environment, mistakes))
        }
        _ => {
            let what = "unknown way to log in; known are \"password\" and \"aws_rds_iam\"";
            mistakes.extend(store.origin("auth_mode").map(|origin| origin.mistake(what)));
            (None, None)
        }
    };
    let asked = parameters.verify.or_else(|| store.switch("ssl_verify_server_cert").ok().flatten());
    // A token goes to nobody who is not known, whatever was asked; ZenML takes such a store for a mistake.
    let verify = iam.is_some() || verify(asked, &server.host, ssl_ca.is_some(), sources);
    Some(Box::new(MysqlSettings {
        host: server.host,
        port: server.port,
        user: user?,
        password,
        database: database?,
        ssl_ca,
        ssl_cert,
        ssl_key,
        verify,
        iam,
    }))
}

/// The login by IAM. As in ZenML a role is assumed with the pod's own token and nothing else, and the region has no
/// default.
fn iam(store: &Section, environment: &Environment, mistakes: &mut Vec<Mistake>) -> Option<RdsIam> {
    let region = store.required("aws_region", mistakes).map(str::to_owned);
    let role = store.owned("aws_rds_iam_role_arn", mistakes).and_then(|arn| {
        let file = environment.get(TOKEN_FILE).filter(|file| !file.is_empty());
        match file.and_then(|file| std::path::absolute(file).ok()) {
            Some(token_file) => Some(AwsRole::ByWebIdentity { arn, token_file }),
            None => {
                let what = format!("is a role for the pod's own token, whose file {TOKEN_FILE} must name");
                mistakes.extend(store.origin("aws_rds_iam_role_arn").map(|origin| origin.mistake(&what)));
                None
            }
        }
    });
    Some(RdsIam { region: region?, role })
}

#[derive(Default)]
struct Parameters {
    ca: Option<Zeroizing<String>>,
    cert: Option<Zeroizing<String>>,
    key: Option<Zeroizing<String>>,
    verify: Option<bool>,
}

/// ZenML's `ssl_verify_server_cert` is false unless somebody set it, and means the host's name: with an authority the
/// certificate is checked all the same. Without one nothing would be checked, which is for this machine alone.
fn verify(asked: Option<bool>, host: &str, has_authority: bool, sources: &mut Vec<String>) -> bool {
    let is_loopback =
        host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(|address: IpAddr| address.is_loopback());
    if asked != Some(false) {
        return true;
    }
    if has_authority || is_loopback {
        return false;
    }
    let what = "the data base's certificate is checked by the system's authorities, although `ssl_verify_server_cert` \
                is false, because no `ssl_ca` is named";
    sources.push(what.to_owned());
    true
}

/// Reads a certificate or key, which may be a file or its text.
pub(super) fn pem(section: &Section, key: &str, mistakes: &mut Vec<Mistake>) -> Option<Pem> {
    let secret = section.secret(key, mistakes)?;
    match pem_of(secret) {
        Ok(pem) => pem,
        Err(what) => {
            mistakes.extend(section.origin(key).map(|origin| origin.mistake(&what)));
            None
        }
    }
}

fn pem_of(secret: SecretText) -> Result<Option<Pem>, String> {
    if secret.text.is_empty() {
        return Ok(None);
    }
    if secret.text.contains("-----BEGIN ") {
        return Ok(Some(Pem::Text(secret)));
    }
    match std::path::absolute(Path::new(secret.text.as_str())) {
        Ok(path) if path.is_file() => Ok(Some(Pem::File(path))),
        // It may be half a key, so it is not shown.
        _ => Err("is neither a file that is there nor PEM text".to_owned()),
    }
}
