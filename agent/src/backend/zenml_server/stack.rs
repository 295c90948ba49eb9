//! Reading the components of one stack.

use futures_util::future::try_join_all;
use reqwest::StatusCode;

use super::super::http::encoded;
use super::super::{BackendError, Component, Stack};
use super::ZenmlServer;
use super::client::Request;
use super::error::{Doing, is_own_404};
use super::session::Session;
use crate::layout::zenml_rest::{Malformed, uuid};
use crate::layout::zenml_stack::{ComponentItem, StackItem, component, stack, stacks};

impl ZenmlServer {
    /// Finds a stack by its exact name, else by its id.
    pub(super) async fn read_stack(&self, name: &str) -> Result<Stack, BackendError> {
        let session = self.client.session().await?;
        let target = format!("/stacks?hydrate=True&name=equals:{}", encoded(name));
        let found = self.of_stack(&session, &target, stacks).await?.unwrap_or_default();
        let found = match (found.into_iter().find(|found| found.name == name), uuid(name)) {
            (Some(found), _) => found,
            (None, Some(id)) => {
                let found = self.of_stack(&session, &format!("/stacks/{id}?hydrate=True"), stack).await?;
                found.ok_or(BackendError::NotFound)?
            }
            (None, None) => return Err(BackendError::NotFound),
        };
        let StackItem { name, components, .. } = found;
        let whole = components.into_iter().map(|item| self.whole(&session, item));
        Ok(Stack { name, components: try_join_all(whole).await? })
    }

    /// Adds the configuration, where the stack came without.
    async fn whole(&self, session: &Session, item: ComponentItem) -> Result<Component, BackendError> {
        let texts = match item.texts {
            Some(texts) => texts,
            None => {
                let target = format!("/components/{}?hydrate=True", encoded(&item.id));
                // Gone since: then the stack no longer has it.
                let found = self.of_stack(session, &target, component).await?;
                found.and_then(|found| found.texts).unwrap_or_default()
            }
        };
        Ok(Component { kind: item.kind, name: item.name, texts })
    }

    /// Asks for something of a stack; `None` where ZenML itself says that there is no such thing.
    async fn of_stack<T>(
        &self,
        session: &Session,
        target: &str,
        parse: fn(&[u8]) -> Result<T, Malformed>,
    ) -> Result<Option<T>, BackendError> {
        let reply = self.client.ask(session, &Request::get(target)).await?;
        match reply.status {
            // expose: looked at for references, which are no values.
            StatusCode::OK => parse(reply.body.expose()).map(Some).map_err(|_| self.client.place.malformed()),
            _ if is_own_404(&reply) => Ok(None),
            _ => Err(self.client.place.refusal(Doing::Stack, &reply)),
        }
    }
}
