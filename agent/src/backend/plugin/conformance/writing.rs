//! What is seen by writing: a secret of our own is made, changed and deleted again, whatever comes in between.

use keyside_protocol::value::{SecretValue, SecretValues};

use super::super::super::Scope;
use super::super::reply::{Class, Outcome, PluginError};
use super::super::request::{Method, Params, scope_word};
use super::looking::{only, says_taken};
use super::{Examiner, Look, Not, broken, refused, unseen};

const SCOPE: Scope = Scope::Public;

/// Text that has to survive: control characters, line ends, quotes, every plane, what looks like a template.
const TEXT: &str = " \r\n\t\u{1}\u{7f}\"\\ naïve ключ 🔐\u{2028}\u{10ffff} {{a.b}} ${X} ";

impl Examiner {
    pub(super) async fn write_all(&mut self) {
        if !self.declares(Method::Create) || !self.declares(Method::Delete) {
            self.note("writes", unseen("it does not declare both `create` and `delete`"));
            return;
        }
        let name = format!("keyside-plugin-test-{}", self.nonce);
        let created = self.create(&name).await;
        let made = self.note("create", created);
        if made {
            if self.declares(Method::Update) {
                let updated = self.update(&name).await;
                self.note("update", updated);
            } else {
                self.note("update", unseen("it does not declare `update`"));
            }
        }
        // Also when it could not be made as it should: half of it may be there.
        let deleted = self.delete(&name).await;
        if made || matches!(deleted, Ok(_) | Err(Not::Kept(_))) {
            self.note("delete", deleted);
        }
    }

    async fn change(&mut self, method: Method, params: Params) -> Result<Result<Outcome, PluginError>, Not> {
        self.ask(method, params).await
    }

    async fn create(&mut self, name: &str) -> Look {
        let wanted = values(&[("text", TEXT.as_bytes()), ("empty", b""), ("ключ\t🔐", b"key")]);
        let params = |values| place(name).values(values);
        if let Err(error) = self.change(Method::Create, params(&wanted)).await? {
            return broken(refused(Method::Create, &error));
        }
        let version = self.must_hold(name, &wanted, Method::Create).await?;
        match self.change(Method::Create, params(&wanted)).await? {
            Ok(_) => return broken("a second secret of the same name and scope can be made"),
            Err(error) if says_taken(&error) => {}
            Err(error) => {
                return broken(format!("a name that is taken: {}, not `invalid`", refused(Method::Create, &error)));
            }
        }
        if self.must_hold(name, &wanted, Method::Create).await? != version {
            return broken("a `create` that was refused has changed the version");
        }
        Ok("made, and read back byte for byte; the name is taken then".into())
    }

    async fn update(&mut self, name: &str) -> Look {
        let before = self.version_of(name).await?;
        let changes = vec![
            ("empty".to_owned(), None),
            ("text".to_owned(), Some(SecretValue::copy_of(b"another"))),
            ("raw".to_owned(), Some(SecretValue::copy_of(&[0, 0xff, 0xfe]))),
        ];
        let mut wanted = values(&[("text", b"another"), ("raw", &[0, 0xff, 0xfe]), ("ключ\t🔐", b"key")]);
        let mut bytes = "bytes too";
        match self.change(Method::Update, place(name).changes(&changes)).await? {
            Ok(_) => {}
            // Text alone is a store that can be lived with.
            Err(error) if error.class == Class::Invalid => {
                bytes = "bytes that are not text are refused";
                wanted.remove("raw");
                if let Err(error) = self.change(Method::Update, place(name).changes(&changes[..2])).await? {
                    return broken(refused(Method::Update, &error));
                }
            }
            Err(error) => return broken(refused(Method::Update, &error)),
        }
        let after = self.must_hold(name, &wanted, Method::Update).await?;
        if before.is_some() && before == after {
            return broken("other values have the same version");
        }
        Ok(format!("one key set, one added, one removed, the others kept; {bytes}"))
    }

    async fn delete(&mut self, name: &str) -> Look {
        if let Err(error) = self.change(Method::Delete, place(name)).await? {
            return match error.class {
                Class::NotFound => unseen("there is nothing to delete"),
                _ => broken(format!("{}; delete `{name}` by hand", refused(Method::Delete, &error))),
            };
        }
        match self.fetched(name, only(SCOPE)).await? {
            Err(error) if error.class == Class::NotFound => {}
            _ => return broken(format!("`{name}` is still there after `delete`; delete it by hand")),
        }
        match self.change(Method::Delete, place(name)).await? {
            Err(error) if error.class == Class::NotFound => Ok("gone, and then `not_found`".into()),
            Err(error) => broken(format!("what is gone: {}, not `not_found`", refused(Method::Delete, &error))),
            Ok(_) => broken("what is gone can be deleted again"),
        }
    }

    async fn version_of(&mut self, name: &str) -> Result<Option<String>, Not> {
        let fetched = self.fetched(name, only(SCOPE)).await?;
        fetched.map(|(described, _)| described.version).map_err(|error| Not::Kept(refused(Method::Fetch, &error)))
    }

    /// Compares what is there with what was written; returns the version.
    async fn must_hold(&mut self, name: &str, wanted: &SecretValues, after: Method) -> Result<Option<String>, Not> {
        let (described, values) = match self.fetched(name, only(SCOPE)).await? {
            Ok(secret) => secret,
            Err(error) => return broken(format!("after `{}`, {}", after.as_str(), refused(Method::Fetch, &error))),
        };
        if !values.keys().eq(wanted.keys()) {
            return broken(format!("after `{}`, other keys are there than were written", after.as_str()));
        }
        // expose: compared, nothing kept.
        match values.iter().zip(wanted.iter()).find(|((_, found), (_, written))| found.expose() != written.expose()) {
            Some(((key, _), _)) => broken(format!("key `{key}` comes back with another value")),
            None => Ok(described.version),
        }
    }
}

fn place(name: &str) -> Params {
    Params::new().text("name", name).text("scope", scope_word(SCOPE))
}

fn values(pairs: &[(&str, &[u8])]) -> SecretValues {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), SecretValue::copy_of(value))).collect()
}
