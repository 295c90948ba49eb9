//! What is said to a plug-in: one JSON object a line, always `id`, `method`, `params` in this order and without blanks, so
//! that a program without a JSON parser can take it apart.

use keyside_protocol::json::{SecretBuffer, push_string, push_value, push_values};
use keyside_protocol::value::{SecretValue, SecretValues};

use super::super::{Scope, Scopes};

/// The version of the protocol that is spoken here.
pub(super) const PROTOCOL: u64 = 1;

/// What can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    /// The first request, once.
    Initialize,
    /// Every secret, without values.
    List,
    /// One secret, without values.
    Describe,
    /// One secret with its values.
    Fetch,
    /// Makes a secret.
    Create,
    /// Changes one.
    Update,
    /// Removes one.
    Delete,
}

impl Method {
    /// Returns its name on the line.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Initialize => "initialize",
            Self::List => "list",
            Self::Describe => "describe",
            Self::Fetch => "fetch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }
}

/// The fields of `params`, in the order they are added.
pub(super) struct Params {
    text: SecretBuffer,
}

impl Params {
    /// None yet.
    pub(super) fn new() -> Self {
        let mut text = SecretBuffer::with_capacity(256);
        text.push(b"{");
        Self { text }
    }

    fn key(&mut self, key: &str) {
        if self.text.len() > 1 {
            self.text.push(b",");
        }
        push_string(&mut self.text, key);
        self.text.push(b":");
    }

    /// Adds a text.
    pub(super) fn text(mut self, key: &str, text: &str) -> Self {
        self.key(key);
        push_string(&mut self.text, text);
        self
    }

    /// Adds a text where there is one.
    pub(super) fn optional(self, key: &str, text: Option<&str>) -> Self {
        match text {
            Some(text) => self.text(key, text),
            None => self,
        }
    }

    /// Adds a number.
    pub(super) fn number(mut self, key: &str, number: u64) -> Self {
        self.key(key);
        self.text.push(number.to_string().as_bytes());
        self
    }

    /// Adds `scopes`, in the order they are to be tried.
    pub(super) fn scopes(mut self, scopes: Scopes) -> Self {
        self.key("scopes");
        for (index, scope) in scopes.order().iter().enumerate() {
            self.text.push(if index == 0 { b"[" } else { b"," });
            push_string(&mut self.text, scope_word(*scope));
        }
        self.text.push(b"]");
        self
    }

    /// Adds the values of a new secret.
    pub(super) fn values(mut self, values: &SecretValues) -> Self {
        self.key("values");
        push_values(&mut self.text, values.iter());
        self
    }

    /// Adds values to set, and `null` for each that is to be removed.
    pub(super) fn changes(mut self, values: &[(String, Option<SecretValue>)]) -> Self {
        self.key("values");
        self.text.push(b"{");
        for (index, (key, value)) in values.iter().enumerate() {
            if index > 0 {
                self.text.push(b",");
            }
            push_string(&mut self.text, key);
            self.text.push(b":");
            match value {
                Some(value) => push_value(&mut self.text, value),
                None => self.text.push(b"null"),
            }
        }
        self.text.push(b"}");
        self
    }

    /// Returns the whole line, its end included.
    pub(super) fn into_line(self, id: u64, method: &str) -> SecretBuffer {
        let mut line = SecretBuffer::with_capacity(self.text.len() + method.len() + 64);
        line.push(format!("{{\"id\":{id},\"method\":").as_bytes());
        push_string(&mut line, method);
        line.push(b",\"params\":");
        // expose: into the wiped buffer of the request, for the plug-in.
        line.push(self.text.expose());
        line.push(b"}}\n");
        line
    }
}

/// Returns what a scope is called on the line.
pub(super) fn scope_word(scope: Scope) -> &'static str {
    match scope {
        Scope::Private => "private",
        Scope::Public => "public",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_one_line_with_its_fields_in_a_fixed_order() {
        let check = |method: Method, params: Params, expected: &str| {
            let line = params.into_line(7, method.as_str());
            assert_eq!(String::from_utf8_lossy(line.expose()), format!("{expected}\n"));
        };
        check(Method::List, Params::new(), r#"{"id":7,"method":"list","params":{}}"#);
        check(
            Method::Fetch,
            Params::new().text("name", "a \"b\"\nключ").scopes(Scopes::PublicFirst),
            r#"{"id":7,"method":"fetch","params":{"name":"a \"b\"\nключ","scopes":["public","private"]}}"#,
        );
        let values = vec![("gone".to_owned(), None), ("k".to_owned(), Some(SecretValue::new(vec![0xff, 0])))];
        check(
            Method::Update,
            Params::new().text("name", "n").optional("new_name", None).changes(&values).number("n", 3),
            r#"{"id":7,"method":"update","params":{"name":"n","values":{"gone":null,"k":{"base64":"/wA="}},"n":3}}"#,
        );
    }
}
