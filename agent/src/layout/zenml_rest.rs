//! The shapes in which ZenML's server speaks of secrets over REST, in every version that has them.
//!
//! Until 0.53 a secret is one flat object; since 0.55 it has `body`, `metadata` and `resources`. Until 0.75 it has a
//! `scope` inside a workspace, since 0.80 it is `private` or not. Errors come in three shapes: `{"detail": [class,
//! message]}` from ZenML, `{"detail": text}` from its web framework, and a bare list from validation. Everything else
//! was said by somebody in between.

use std::fmt;

use keyside_protocol::json::{SecretBuffer, push_string};
use keyside_protocol::value::{SecretValue, SecretValues};
use serde::Deserialize;
use serde::de::{self, DeserializeOwned, Deserializer, IgnoredAny, MapAccess, Visitor};
use zeroize::Zeroizing;

use super::text::Text;

/// A reply that is not what it should be. What it was is not kept: it may have held values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the JSON that ZenML's server sends")]
pub struct Malformed;

/// Where a secret lies, in the words of the server's version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// 0.80 and later: no user but its owner sees it.
    Private,
    /// 0.80 and later.
    Public,
    /// Before: in the name space of one user.
    User,
    /// Before: in the workspace's.
    Workspace,
}

impl Place {
    /// Tells whether the server has workspaces.
    pub fn in_workspace(self) -> bool {
        matches!(self, Self::User | Self::Workspace)
    }
}

/// A secret without its values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// A dashed UUID.
    pub id: String,
    /// Exact.
    pub name: String,
    /// Where it lies.
    pub place: Place,
    /// As the server wrote it: naive UTC, ISO 8601.
    pub created: String,
    /// Likewise; changes with every change.
    pub updated: String,
    /// The owner's id, where the server says it.
    pub owner: Option<String>,
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Its number, from 1.
    pub index: u64,
    /// How many there are; at least 1.
    pub total_pages: u64,
    /// How many secrets all pages have.
    pub total: u64,
    /// Its secrets.
    pub items: Vec<Item>,
}

/// What stands under `values`.
pub enum Values {
    /// All of them.
    Readable(SecretValues),
    /// A `null` stands under at least one key: who asks may not read the values.
    NotPermitted,
}

/// What `/info` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    /// Major and minor number.
    pub version: (u32, u32),
}

/// In which of its shapes an error came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorShape {
    /// ZenML's own code raised it.
    Api,
    /// The web framework did: the route, or the login.
    Framework,
    /// The request did not have the shape that this version wants.
    Validation,
    /// Nothing of ZenML's: a proxy or an ingress.
    Foreign,
}

/// Reads one page of secrets.
pub fn page(json: &[u8]) -> Result<Page, Malformed> {
    #[derive(Deserialize)]
    struct RawPage {
        index: u64,
        total_pages: u64,
        total: u64,
        items: Vec<Raw<IgnoredAny>>,
    }
    let raw: RawPage = parse(json)?;
    let items = raw.items.into_iter().map(|raw| raw.divide().map(|(item, _)| item)).collect::<Result<_, _>>()?;
    Ok(Page { index: raw.index, total_pages: raw.total_pages, total: raw.total, items })
}

/// Reads one secret.
pub fn secret(json: &[u8]) -> Result<(Item, Values), Malformed> {
    let raw: Raw<Pairs> = parse(json)?;
    let (item, pairs) = raw.divide()?;
    Ok((item, pairs.ok_or(Malformed)?.0))
}

/// Reads the reply of `/info`.
pub fn info(json: &[u8]) -> Result<Info, Malformed> {
    #[derive(Deserialize)]
    struct RawInfo {
        version: String,
    }
    let raw: RawInfo = parse(json)?;
    let mut numbers = raw.version.split('.').map(|number| number.parse().ok());
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(major), Some(minor)) => Ok(Info { version: (major, minor) }),
        _ => Err(Malformed),
    }
}

/// Reads the id of whatever one object describes, such as a user or a workspace.
pub fn id(json: &[u8]) -> Result<String, Malformed> {
    parse::<Identified>(json)?.id()
}

/// Reads the token that a login gives.
pub fn token(json: &[u8]) -> Result<Zeroizing<String>, Malformed> {
    #[derive(Deserialize)]
    struct RawToken {
        access_token: String,
    }
    let token = Zeroizing::new(parse::<RawToken>(json)?.access_token);
    if token.is_empty() { Err(Malformed) } else { Ok(token) }
}

/// Tells the shape of an error's body.
pub fn error_shape(json: &[u8]) -> ErrorShape {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Detail {
        Raised(String, IgnoredAny),
        Text(#[expect(dead_code, reason = "its type is all that matters")] String),
    }
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum RawError {
        Detailed { detail: Detail },
        Bare(String, IgnoredAny),
    }
    let is_class =
        |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    match parse(json) {
        Ok(RawError::Detailed { detail: Detail::Raised(class, _) }) if is_class(&class) => ErrorShape::Api,
        Ok(RawError::Detailed { detail: Detail::Text(_) }) => ErrorShape::Framework,
        Ok(RawError::Bare(class, _)) if is_class(&class) => ErrorShape::Validation,
        _ => ErrorShape::Foreign,
    }
}

/// Whose a new secret is, where a server has workspaces.
pub struct Ownership<'a> {
    /// The id of the user that asks.
    pub user: &'a str,
    /// The workspace's id.
    pub workspace: &'a str,
}

/// What a write says of a secret; what is `None` is not said.
#[derive(Default)]
pub struct Change<'a> {
    /// The (new) name.
    pub name: Option<&'a str>,
    /// The (new) place.
    pub place: Option<Place>,
    /// Only for a new secret.
    pub ownership: Option<Ownership<'a>>,
}

/// Writes the body of a request that creates or changes a secret. `None` under a key removes it.
///
/// Errors: the first key whose value is not UTF-8.
pub fn write<'a>(
    change: &Change<'_>,
    values: impl IntoIterator<Item = (&'a str, Option<&'a SecretValue>)>,
) -> Result<SecretBuffer, String> {
    let mut out = SecretBuffer::with_capacity(1024);
    out.push(b"{");
    let text = |out: &mut SecretBuffer, key: &str, text: &str| {
        push_key(out, key);
        push_string(out, text);
    };
    if let Some(name) = change.name {
        text(&mut out, "name", name);
    }
    match change.place {
        Some(Place::Private) => {
            push_key(&mut out, "private");
            out.push(b"true");
        }
        Some(Place::Public) => {
            push_key(&mut out, "private");
            out.push(b"false");
        }
        Some(Place::User) => text(&mut out, "scope", "user"),
        Some(Place::Workspace) => text(&mut out, "scope", "workspace"),
        None => {}
    }
    if let Some(ownership) = &change.ownership {
        text(&mut out, "user", ownership.user);
        text(&mut out, "workspace", ownership.workspace);
    }
    let mut values = values.into_iter().peekable();
    if values.peek().is_some() {
        push_key(&mut out, "values");
        out.push(b"{");
        for (key, value) in values {
            push_key(&mut out, key);
            match value {
                // expose: into the wiped body of a request.
                Some(value) => match std::str::from_utf8(value.expose()) {
                    Ok(value) => push_string(&mut out, value),
                    Err(_) => return Err(key.to_owned()),
                },
                None => out.push(b"null"),
            }
        }
        out.push(b"}");
    }
    out.push(b"}");
    Ok(out)
}

/// Returns an id as ZenML shows it, `8-4-4-4-12` in lower case; `None` when it is no UUID.
pub fn uuid(text: &str) -> Option<String> {
    let digits: String = text.chars().filter(|character| *character != '-').collect::<String>().to_ascii_lowercase();
    if digits.len() != 32 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let part = |from: usize, to: usize| &digits[from..to];
    Some([part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-"))
}

fn push_key(out: &mut SecretBuffer, key: &str) {
    if !out.expose().ends_with(b"{") {
        out.push(b",");
    }
    push_string(out, key);
    out.push(b":");
}

fn parse<T: DeserializeOwned>(json: &[u8]) -> Result<T, Malformed> {
    // What the parser skips it does not look at; and its own words may quote what it stumbled over.
    std::str::from_utf8(json).map_err(|_| Malformed)?;
    serde_json::from_slice(json).map_err(|_| Malformed)
}

#[derive(Deserialize)]
struct Identified {
    id: String,
}

impl Identified {
    fn id(&self) -> Result<String, Malformed> {
        uuid(&self.id).ok_or(Malformed)
    }
}

/// A secret in any of its shapes; a key that stands twice is refused.
#[derive(Deserialize)]
struct Raw<V> {
    id: String,
    name: String,
    body: Option<Body<V>>,
    resources: Option<Resources>,
    created: Option<String>,
    updated: Option<String>,
    scope: Option<RawScope>,
    user: Option<Identified>,
    values: Option<V>,
}

#[derive(Deserialize)]
struct Body<V> {
    created: String,
    updated: String,
    private: Option<bool>,
    scope: Option<RawScope>,
    user_id: Option<String>,
    user: Option<Identified>,
    values: Option<V>,
}

#[derive(Deserialize)]
struct Resources {
    user: Option<Identified>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum RawScope {
    User,
    Workspace,
}

impl<V> Raw<V> {
    fn divide(self) -> Result<(Item, Option<V>), Malformed> {
        let place = |private: Option<bool>, scope: Option<RawScope>| match (private, scope) {
            (Some(true), None) => Ok(Place::Private),
            (Some(false), None) => Ok(Place::Public),
            (None, Some(RawScope::User)) => Ok(Place::User),
            (None, Some(RawScope::Workspace)) => Ok(Place::Workspace),
            _ => Err(Malformed),
        };
        let (place, created, updated, owner, values) = match self.body {
            Some(body) => {
                let user = body.user.or(self.resources.and_then(|resources| resources.user));
                let owner = body.user_id.or(user.map(|user| user.id));
                (place(body.private, body.scope)?, body.created, body.updated, owner, body.values)
            }
            None => {
                let (created, updated) = (self.created.ok_or(Malformed)?, self.updated.ok_or(Malformed)?);
                (place(None, self.scope)?, created, updated, self.user.map(|user| user.id), self.values)
            }
        };
        let id = uuid(&self.id).ok_or(Malformed)?;
        let owner = owner.map(|owner| uuid(&owner).ok_or(Malformed)).transpose()?;
        Ok((Item { id, name: self.name, place, created, updated, owner }, values))
    }
}

/// An object whose members are strings or `null`.
struct Pairs(Values);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PairsVisitor;

        impl<'de> Visitor<'de> for PairsVisitor {
            type Value = Pairs;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut values = SecretValues::new();
                let mut permitted = true;
                while let Some(key) = map.next_key::<String>()? {
                    match map.next_value::<Text>()?.0 {
                        Some(_) if values.get(&key).is_some() => return Err(de::Error::custom("a key stands twice")),
                        Some(value) => values.insert(key, value),
                        None => permitted = false,
                    }
                }
                Ok(Pairs(if permitted { Values::Readable(values) } else { Values::NotPermitted }))
            }
        }

        deserializer.deserialize_map(PairsVisitor)
    }
}

#[cfg(test)]
mod tests;
