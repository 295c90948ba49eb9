//! Addresses, and the URLs of stores as SQLAlchemy reads them. No message quotes what it refuses: a password may stand
//! in it.

use std::net::IpAddr;
use std::path::PathBuf;

use percent_encoding::percent_decode_str;
use url::{Host, Url};
use zeroize::Zeroizing;

/// What the URL of a store names.
pub(crate) enum Store {
    /// A file.
    Sqlite(PathBuf),
    /// A server.
    Mysql(Server),
}

/// A server of MySQL as its URL names it.
pub(crate) struct Server {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) user: String,
    pub(crate) password: Option<Zeroizing<String>>,
    pub(crate) database: String,
}

/// Tells whether this is meant to be the URL of a MySQL server.
pub(crate) fn is_mysql(url: &str) -> bool {
    url.split_once("://").is_some_and(|(scheme, _)| is_mysql_scheme(scheme))
}

/// ZenML takes `mysql`, and SQLAlchemy a driver behind it.
fn is_mysql_scheme(scheme: &str) -> bool {
    let dialect = scheme.split('+').next().unwrap_or_default();
    matches!(dialect, "mysql" | "mariadb")
}

/// Reads the URL of a store of ZenML's own tables.
pub(crate) fn store(text: &str) -> Result<Store, String> {
    const FORM: &str = "write sqlite:////abs/zenml.db or mysql://user@host:port/database";
    let Some((scheme, _)) = text.split_once("://") else {
        return Err(format!("this is no URL; {FORM}"));
    };
    match scheme {
        "sqlite" => crate::sqlite_url::path_of(text).map(Store::Sqlite),
        "http" | "https" => Err(format!("this is the address of a ZenML server, of type \"zenml-server\"; {FORM}")),
        _ if is_mysql_scheme(scheme) => server(text).map(Store::Mysql),
        _ => Err(format!("the scheme of this URL is not known; {FORM}")),
    }
}

fn server(text: &str) -> Result<Server, String> {
    const FORM: &str = "write mysql://user@host:port/database";
    let parts = server_parts(text)?;
    if !parts.parameters.is_empty() {
        return Err("parameters in this URL are not supported; TLS has `ssl_ca`, `ssl_cert` and `ssl_key`".to_owned());
    }
    Ok(Server {
        user: parts.user.ok_or_else(|| format!("this URL names no user; {FORM}"))?,
        database: parts.database.ok_or_else(|| format!("this URL names no data base; {FORM}"))?,
        host: parts.host,
        port: parts.port,
        password: parts.password,
    })
}

/// What the URL of a server of MySQL holds; ZenML has most of it beside the URL as well.
pub(crate) struct ServerParts {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<Zeroizing<String>>,
    pub(crate) database: Option<String>,
    pub(crate) parameters: Vec<(String, Zeroizing<String>)>,
}

/// Reads the URL of a server of MySQL.
pub(crate) fn server_parts(text: &str) -> Result<ServerParts, String> {
    const FORM: &str = "write mysql://user@host:port/database";
    let url = Url::parse(text).map_err(|_| format!("this is no URL of a MySQL server; {FORM}"))?;
    let decoded = |part: &str| {
        percent_decode_str(part)
            .decode_utf8()
            .map(|text| text.into_owned())
            .map_err(|_| "this URL is not UTF-8".to_owned())
    };
    let host =
        url.host_str().filter(|host| !host.is_empty()).ok_or_else(|| format!("this URL names no host; {FORM}"))?;
    let database = decoded(url.path().strip_prefix('/').unwrap_or_default())?;
    if database.contains('/') {
        return Err(format!("this URL names no data base; {FORM}"));
    }
    if url.fragment().is_some() {
        return Err(format!("this URL has a `#`, which is written %23; {FORM}"));
    }
    let user = decoded(url.username())?;
    let parameters = url.query_pairs().map(|(key, value)| (key.into_owned(), Zeroizing::new(value.into_owned())));
    Ok(ServerParts {
        host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
        port: url.port().unwrap_or(3306),
        user: Some(user).filter(|user| !user.is_empty()),
        password: url.password().map(decoded).transpose()?.map(Zeroizing::new),
        database: Some(database).filter(|database| !database.is_empty()),
        parameters: parameters.collect(),
    })
}

/// Checks the address of a server, and returns it without a slash at its end. Without TLS only this machine is asked,
/// or any where the operator permits it.
pub(crate) fn address(text: &str, allow_plaintext: bool) -> Result<String, String> {
    let url = Url::parse(text).map_err(|_| "this is no URL; write https://host or https://host:port".to_owned())?;
    match url.scheme() {
        "https" => {}
        "http" if allow_plaintext || url.host().is_some_and(|host| is_loopback(&host)) => {}
        "http" => {
            return Err(
                "without TLS only this machine is asked; write https://, or `allow_plaintext = true`".to_owned()
            );
        }
        _ => return Err("the scheme of this URL is not known; write https://host or https://host:port".to_owned()),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("this URL holds a login, which never stands here".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("this URL has parameters; write only scheme, host and path".to_owned());
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err("this URL names no host; write https://host or https://host:port".to_owned());
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

/// Checks the address of a proxy, which may hold its login.
pub(crate) fn proxy(text: &str) -> Result<(), String> {
    match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.host_str().is_some_and(|host| !host.is_empty()) => {
            Ok(())
        }
        _ => Err("this is no address of a proxy; write http://host:port or https://host:port".to_owned()),
    }
}

/// Returns the path of a mount of Vault's without slashes around it; `None` when it cannot be one.
pub(crate) fn mount(text: &str) -> Option<String> {
    let path = text.trim_matches('/');
    let is_plain = |part: &str| {
        !matches!(part, "" | "." | "..")
            && part.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#%\\".contains(&byte))
    };
    path.split('/').all(is_plain).then(|| path.to_owned())
}

/// What [`is_header_value`] takes, for "must be X".
pub(crate) const HEADER_VALUE: &str = "printable ASCII without blanks around it";

/// Tells whether a text can be sent as the value of a header, as it is.
pub(crate) fn is_header_value(text: &str) -> bool {
    let is_printable = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
    !text.is_empty() && text.trim() == text && text.bytes().all(is_printable)
}

fn is_loopback(host: &Host<&str>) -> bool {
    match host {
        Host::Domain(name) => name.eq_ignore_ascii_case("localhost"),
        Host::Ipv4(address) => IpAddr::from(*address).is_loopback(),
        Host::Ipv6(address) => IpAddr::from(*address).is_loopback(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_without_tls_is_for_this_machine_alone_unless_permitted() {
        for text in ["https://zenml.example.com", "http://127.0.0.1:8237", "http://[::1]:8237/", "http://localhost"] {
            let address = address(text, false).expect(text);
            assert!(!address.ends_with('/'), "{address}");
        }
        for text in
            ["http://zenml.example.com", "http://127.example.com", "http://10.0.0.1", "http://localhost.example"]
        {
            assert!(address(text, false).expect_err(text).contains("allow_plaintext"), "{text}");
            assert!(address(text, true).is_ok(), "{text}");
        }
    }

    #[test]
    fn a_wrong_address_is_refused_without_quoting_it() {
        for text in [
            "canary",
            "ftp://canary.example.com",
            "https://user:canary@example.com",
            "https://canary@example.com",
            "https://example.com/?canary",
            "https://example.com/#canary",
            "",
        ] {
            let what = address(text, true).expect_err(text);
            assert!(!what.contains("canary"), "{what}");
        }
        assert!(proxy("http://user:canary@proxy:3128").is_ok());
        assert!(!proxy("socks5://canary").expect_err("unknown").contains("canary"));
    }

    #[test]
    fn a_mysql_url_is_read_as_sqlalchemy_reads_it() {
        let Ok(Store::Mysql(server)) = store("mysql+pymysql://ze%40n:p%2Fw@db.example.com:3307/zen%20ml") else {
            panic!("a server")
        };
        assert_eq!((server.host.as_str(), server.port, server.user.as_str()), ("db.example.com", 3307, "ze@n"));
        assert_eq!((server.password.as_deref().map(String::as_str), server.database.as_str()), (Some("p/w"), "zen ml"));
        let Ok(Store::Mysql(server)) = store("mysql://root@[::1]/zenml") else { panic!("a server") };
        assert_eq!((server.host.as_str(), server.port, server.password.is_none()), ("::1", 3306, true));
        for text in [
            "mysql://canary.host/db",
            "mysql://u:canary@/db",
            "mysql://u:canary@h",
            "mysql://u:canary@h/",
            "mysql://u@h/db?canary=1",
            "https://canary",
            "postgres://u:canary@h/d",
            "canary",
        ] {
            let what = store(text).err().expect(text);
            assert!(!what.contains("canary"), "{text}: {what}");
        }
    }
}
