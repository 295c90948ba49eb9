//! Layouts `manager` and `plain`: a secret lies under its name.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::StreamExt as _;
use futures_util::stream;
use keyside_config::settings::Layout;

use super::super::{BackendError, Description, Scope, Secret};
use super::kv::{Kv, Look};
use super::{Limits, check_sizes, unusable};
use crate::layout::vault::{self as layout, DecodeError};

/// Most names that one list goes through.
const MOST_NAMES: usize = 100_000;

/// What stands for the version where only the name is known.
const UNREAD: &str = "unread";

/// Secrets by name in one folder of one mount.
pub(super) struct Named {
    pub(super) kv: Kv,
    pub(super) layout: Layout,
    pub(super) folder: Vec<String>,
    pub(super) limits: Limits,
}

fn pieces_in(path: &str) -> Vec<&str> {
    path.split('/').filter(|piece| !piece.is_empty()).collect()
}

fn description(name: &str, version: String, keys: Option<Vec<String>>) -> Description {
    Description { name: name.to_owned(), scope: Scope::Public, scope_label: None, id: None, version, keys }
}

impl Named {
    /// Errors: as [`super::super::Backend::fetch`].
    pub(super) async fn fetch(&self, name: &str) -> Result<Secret, BackendError> {
        let pieces = layout::pieces_of(&self.layout, name).ok_or(BackendError::NotFound)?;
        let body = self.kv.look("data", &self.folder, &pieces).await?.found()?.ok_or(BackendError::NotFound)?;
        let (values, version) = self.kv.parse_data(&body, |object| match self.layout {
            Layout::Manager(_) => layout::manager(object),
            _ => Ok(layout::plain(object)),
        })?;
        let values = match values {
            Ok(values) => values,
            Err(DecodeError::Foreign) => return Err(BackendError::NotFound),
            Err(error) => return Err(unusable(&self.kv.api.words.backend, name, &error.to_string())),
        };
        check_sizes(&self.kv.api.words.backend, name, &values, self.limits.max_value)?;
        Ok(Secret { description: description(name, version, None), values })
    }

    /// Errors: as [`super::super::Backend::describe`].
    pub(super) async fn describe(&self, names: &[&str]) -> Result<Vec<Option<Description>>, BackendError> {
        if !self.kv.is_versioned() {
            return self.describe_by_lists(names).await;
        }
        let calls: Vec<_> = names.iter().map(|name| self.describe_one(name)).collect();
        self.together(calls).await.into_iter().collect()
    }

    /// One call tells keys and version; whoever may not make it may still see the metadata.
    async fn describe_one(&self, name: &str) -> Result<Option<Description>, BackendError> {
        let Some(pieces) = layout::pieces_of(&self.layout, name) else { return Ok(None) };
        let mut refused = None;
        match self.kv.look("subkeys", &self.folder, &pieces).await? {
            Look::Found(body) => {
                let (keys, version) = self.kv.parse_subkeys(&body, |subkeys| layout::keys_of(&self.layout, subkeys))?;
                return Ok(keys.map(|keys| description(name, version, Some(keys))));
            }
            Look::Absent => return Ok(None),
            // Who may not ask for keys may still be allowed to see that there is something.
            Look::Denied(error) => refused = Some(error),
            // Servers before 1.10 know no subkeys.
            Look::Unsupported(_) => {}
        }
        let body = match (self.kv.look("metadata", &self.folder, &pieces).await?, refused) {
            // The right to subkeys is the one to ask for: it tells existence and keys.
            (Look::Denied(_), Some(refused)) => return Err(refused),
            (look, _) => look.found()?,
        };
        let Some(body) = body else { return Ok(None) };
        let version = self.kv.parse_metadata(&body)?;
        Ok(version.map(|version| description(name, version, None)))
    }

    /// Version 1 has nothing but values and lists.
    async fn describe_by_lists(&self, names: &[&str]) -> Result<Vec<Option<Description>>, BackendError> {
        let of = |name| layout::pieces_of(&self.layout, name);
        let folders: BTreeSet<Vec<&str>> =
            names.iter().filter_map(|name| of(name)).map(|pieces| pieces[..pieces.len() - 1].to_vec()).collect();
        let calls: Vec<_> = folders.iter().map(|pieces| self.list_of(pieces)).collect();
        let lists = self.together(calls).await.into_iter().collect::<Result<Vec<_>, _>>()?;
        let lists: BTreeMap<Vec<&str>, Vec<String>> = folders.into_iter().zip(lists).collect();
        let is_there = |name| {
            let pieces = of(name)?;
            let (leaf, folder) = pieces.split_last()?;
            lists.get(folder)?.iter().any(|key| key == leaf).then_some(())
        };
        Ok(names.iter().map(|name| is_there(*name).map(|()| description(name, UNREAD.into(), None))).collect())
    }

    /// Errors: as [`super::super::Backend::list`].
    pub(super) async fn list(&self) -> Result<Vec<Description>, BackendError> {
        let names = self.names().await?;
        if !self.kv.is_versioned() {
            return Ok(names.iter().map(|name| description(name, UNREAD.into(), None)).collect());
        }
        let calls: Vec<_> = names.iter().map(|name| self.describe_one(name)).collect();
        let mut secrets = Vec::new();
        for secret in self.together(calls).await {
            match secret {
                Ok(secret) => secrets.extend(secret),
                // Its name is known and nothing else: it is none of those that we may see.
                Err(BackendError::Denied { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(secrets)
    }

    /// Returns the names of everything in the folder, and for `plain` in the folders below it.
    async fn names(&self) -> Result<Vec<String>, BackendError> {
        let mut names = Vec::new();
        let mut folders = vec![String::new()];
        while !folders.is_empty() {
            let pieces: Vec<Vec<&str>> = folders.iter().map(|folder| pieces_in(folder)).collect();
            let calls: Vec<_> = pieces.iter().map(|pieces| self.kv.list(&self.folder, pieces)).collect();
            let lists = self.together(calls).await;
            drop(pieces);
            for (folder, list) in std::mem::take(&mut folders).iter().zip(lists) {
                let list = match list? {
                    // A folder further down may be another's.
                    Err(Look::Denied(_)) if !folder.is_empty() => Vec::new(),
                    list => self.listed(list, &[])?,
                };
                for key in list {
                    let path = format!("{folder}{key}");
                    match key.ends_with('/') {
                        true if matches!(self.layout, Layout::Plain { .. }) => folders.push(path),
                        // Other scopes of secrets managers.
                        true => {}
                        false => names.push(path),
                    }
                }
            }
            if names.len() + folders.len() > MOST_NAMES {
                let what = format!("there are more than {MOST_NAMES} secrets in its folder");
                return Err(self.kv.api.words.transient(&what, Some("give it a narrower `prefix`")));
            }
        }
        names.retain(|name| layout::pieces_of(&self.layout, name).is_some());
        Ok(names)
    }

    async fn list_of(&self, pieces: &[&str]) -> Result<Vec<String>, BackendError> {
        let list = self.kv.list(&self.folder, pieces).await?;
        self.listed(list, pieces)
    }

    fn listed(&self, list: Result<Vec<String>, Look>, pieces: &[&str]) -> Result<Vec<String>, BackendError> {
        match list {
            Ok(keys) => Ok(keys),
            Err(Look::Denied(_)) => Err(self.kv.may_not_list(&self.folder, pieces)),
            Err(look) => look.found().map(|_| Vec::new()),
        }
    }

    /// Makes calls at the same time, and returns their answers in order.
    async fn together<T>(&self, calls: Vec<impl Future<Output = T>>) -> Vec<T> {
        stream::iter(calls).buffered(self.limits.parallelism).collect().await
    }
}
