//! Names without values: by pages whose size is the server's affair, and by what has changed where there are many.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::try_join_all;
use jiff::SignedDuration;
use jiff::civil::DateTime;
use keyside_protocol::json::{SecretBuffer, push_string};
use reqwest::StatusCode;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::super::http::encoded;
use super::super::{BackendError, Description, Scope, ScopeLabel, Scopes};
use super::ZenmlServer;
use super::client::Request;
use super::error::Doing;
use super::session::{Server, Session};
use crate::layout::zenml_rest::{Item, Page, Place, page};

/// Names on a page, unless the server allows fewer. It would allow 10,000, but takes a second for them.
const PAGE_SIZE: u64 = 1000;

/// How often a list is begun again because it changed while it was read.
const ATTEMPTS: usize = 5;

/// No server has more.
const MOST_SECRETS: u64 = 1_000_000;

/// Up to so many names are looked up one by one; more together.
const FEW_NAMES: usize = 8;

/// The first version that takes several names at once. An older one would find nothing and call it success.
const FIRST_WITH_ONEOF: (u32, u32) = (0, 98);

/// What proxies and servers take for the query of a URL, with much to spare.
const LONGEST_QUERY: usize = 4000;

/// How long a list is only brought up to date, where nothing is configured: the default of `[cache] ttl`.
const WHOLE_EVERY: Duration = Duration::from_secs(5 * 60);

/// How far the clocks of a server's replicas may lie apart.
const CLOCKS_APART: SignedDuration = SignedDuration::from_mins(5);

/// The last whole list, to be brought up to date.
pub(super) struct Listings {
    whole_every: Duration,
    last: Mutex<Option<Listing>>,
    /// Set once the server has refused [`PAGE_SIZE`].
    small_pages: AtomicBool,
}

struct Listing {
    items: HashMap<String, Item>,
    server: Server,
    read_at: Instant,
}

impl Listings {
    pub(super) fn new(ttl: Option<Duration>) -> Self {
        Self { whole_every: ttl.unwrap_or(WHOLE_EVERY), last: Mutex::default(), small_pages: AtomicBool::new(false) }
    }
}

/// How one attempt at a list ended.
enum Attempt {
    Whole(Vec<Item>),
    /// It changed while it was read, or another page size is due.
    Again,
}

impl ZenmlServer {
    /// Returns the visible secrets of exactly this name, in any scope.
    pub(super) async fn named(&self, session: &Session, name: &str) -> Result<Vec<Item>, BackendError> {
        let items = self.pages(session, &format!("&name=equals:{}", encoded(name)), false).await?;
        // A data base may compare without regard to case.
        Ok(items.into_iter().filter(|item| item.name == name && is_visible(&session.server, item)).collect())
    }

    pub(super) async fn describe_secrets(
        &self,
        names: &[&str],
        scopes: Scopes,
    ) -> Result<Vec<Option<Description>>, BackendError> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let session = self.client.session().await?;
        let wanted: HashSet<&str> = names.iter().copied().collect();
        let items: Vec<Item> = if wanted.len() <= FEW_NAMES {
            try_join_all(wanted.iter().map(|name| self.named(&session, name))).await?.concat()
        } else if session.server.version >= FIRST_WITH_ONEOF {
            let queries = one_of(&wanted);
            try_join_all(queries.iter().map(|query| self.pages(&session, query, true))).await?.concat()
        } else {
            self.pages(&session, "", true).await?
        };
        let mut by_name: HashMap<&str, Vec<&Item>> = HashMap::with_capacity(wanted.len());
        for item in items.iter().filter(|item| is_visible(&session.server, item)) {
            by_name.entry(&item.name).or_default().push(item);
        }
        let describe = |name: &&str| choose(by_name.get(name)?.iter().copied(), name, scopes).map(description);
        Ok(names.iter().map(describe).collect())
    }

    pub(super) async fn list_secrets(&self) -> Result<Vec<Description>, BackendError> {
        let session = self.client.session().await?;
        let mut last = self.listings.last.lock().await;
        let old = last.take().filter(|listing| {
            listing.server == session.server
                && listing.items.len() as u64 > PAGE_SIZE
                && listing.read_at.elapsed() < self.listings.whole_every
        });
        let listing = match old {
            Some(listing) => self.bring_up_to_date(&session, listing).await?,
            None => None,
        };
        let listing = match listing {
            Some(listing) => listing,
            None => {
                let items = self.pages(&session, "", true).await?;
                let items = items.into_iter().map(|item| (item.id.clone(), item)).collect();
                Listing { items, server: session.server.clone(), read_at: Instant::now() }
            }
        };
        let mut oldest: HashMap<(&str, Scope), &Item> = HashMap::with_capacity(listing.items.len());
        for item in listing.items.values().filter(|item| is_visible(&session.server, item)) {
            // Before 0.80 two secrets may have one name and scope: the one that resolves is listed.
            let first = oldest.entry((&item.name, scope_of(item.place))).or_insert(item);
            if age_order(item) < age_order(first) {
                *first = item;
            }
        }
        let descriptions = oldest.into_values().map(description).collect();
        *last = Some(listing);
        Ok(descriptions)
    }

    /// Asks for what has changed, and for how many there are. Every secret that is there was there before or has changed
    /// since; so when the numbers agree, nothing is missing and nothing is left over. `None` when they do not.
    async fn bring_up_to_date(&self, session: &Session, mut listing: Listing) -> Result<Option<Listing>, BackendError> {
        let latest = listing.items.values().filter_map(|item| item.updated.parse::<DateTime>().ok()).max();
        let Some(since) = latest.and_then(|latest| latest.checked_sub(CLOCKS_APART).ok()) else { return Ok(None) };
        let since = since.strftime("%Y-%m-%d %H:%M:%S").to_string();
        let changed = self.pages(session, &format!("&updated=gte:{}", encoded(&since)), true).await?;
        listing.items.extend(changed.into_iter().map(|item| (item.id.clone(), item)));
        let reply = self.page(session, 1, "", Some(1)).await?;
        let total = reply.map(|page| page.total);
        Ok((total == Some(listing.items.len() as u64)).then_some(listing))
    }

    /// Reads every page of the secrets that `filter`, the rest of a query, lets through.
    async fn pages(&self, session: &Session, filter: &str, many: bool) -> Result<Vec<Item>, BackendError> {
        for _ in 0..ATTEMPTS {
            if let Attempt::Whole(items) = self.pages_once(session, filter, many).await? {
                return Ok(items);
            }
        }
        Err(self.client.place.transient("its list of secrets changes all the time while we read it", "try again"))
    }

    async fn pages_once(&self, session: &Session, filter: &str, many: bool) -> Result<Attempt, BackendError> {
        let size = (many && !self.listings.small_pages.load(Ordering::Relaxed)).then_some(PAGE_SIZE);
        let mut items: Vec<Item> = Vec::new();
        let mut total = None;
        for index in 1.. {
            let Some(page) = self.page(session, index, filter, size).await? else { return Ok(Attempt::Again) };
            // Somebody has written or deleted meanwhile, and what was on this page may have gone to the one before.
            if *total.get_or_insert(page.total) != page.total {
                return Ok(Attempt::Again);
            }
            if page.index != index || page.total > MOST_SECRETS || page.total_pages > MOST_SECRETS {
                return Err(self.client.place.malformed());
            }
            let is_last = index >= page.total_pages;
            items.extend(page.items);
            if is_last {
                break;
            }
        }
        let ids: HashSet<&str> = items.iter().map(|item| item.id.as_str()).collect();
        let is_whole = ids.len() == items.len();
        if items.iter().any(|item| !session.server.has(item.place)) {
            // The server has become another one, of a version with or without workspaces.
            self.client.forget(session).await;
            return Err(self.client.place.transient("its ZenML has just changed to another version", "try again"));
        }
        Ok(if is_whole { Attempt::Whole(items) } else { Attempt::Again })
    }

    /// Reads one page; `None` when the list must be begun again.
    async fn page(
        &self,
        session: &Session,
        index: u64,
        filter: &str,
        size: Option<u64>,
    ) -> Result<Option<Page>, BackendError> {
        // The order in which a new secret is the last one, and moves no other to another page.
        let mut target = format!("/secrets?sort_by=created&page={index}{filter}");
        if let Some(size) = size {
            target.push_str(&format!("&size={size}"));
        }
        if let Some(workspace) = &session.server.workspace {
            target.push_str(&format!("&scope_workspace={}", encoded(&workspace.id)));
        }
        let reply = self.client.ask(session, &Request::get(target)).await?;
        match reply.status {
            // expose: a list has no values.
            status if status.is_success() => {
                page(reply.body.expose()).map(Some).map_err(|_| self.client.place.malformed())
            }
            // Pages may not be this long: `ZENML_PAGINATION_DEFAULT_LIMIT` is the most that 0.98 allows.
            StatusCode::UNPROCESSABLE_ENTITY | StatusCode::BAD_REQUEST if size.is_some() && index == 1 => {
                self.listings.small_pages.store(true, Ordering::Relaxed);
                Ok(None)
            }
            // Beyond the last page: the list has become shorter.
            StatusCode::BAD_REQUEST if index > 1 => Ok(None),
            _ => Err(self.client.place.refusal(Doing::Listing, &reply)),
        }
    }
}

/// Returns the rest of as few queries as ask for all of these names.
fn one_of(names: &HashSet<&str>) -> Vec<String> {
    let mut queries: Vec<String> = Vec::new();
    let mut list = String::new();
    let ended = |list: &str| format!("&name=oneof:{}{}", list, encoded("]"));
    for name in names {
        let mut quoted = SecretBuffer::with_capacity(name.len() + 2);
        push_string(&mut quoted, name);
        // expose: a name.
        let name = encoded(&String::from_utf8_lossy(quoted.expose()));
        if !list.is_empty() && list.len() + name.len() > LONGEST_QUERY {
            queries.push(ended(&std::mem::take(&mut list)));
        }
        list.push_str(&encoded(if list.is_empty() { "[" } else { "," }));
        list.push_str(&name);
    }
    queries.push(ended(&list));
    queries
}

/// Tells whether a secret is ours to see. From 0.80 on the server decides; before, it shows the secrets in the name space
/// of every user.
pub(super) fn is_visible(server: &Server, item: &Item) -> bool {
    match (&server.workspace, item.place, &item.owner) {
        (Some(workspace), Place::User, Some(owner)) => *owner == workspace.user,
        _ => true,
    }
}

/// The secret of exactly `name` in the first scope that has one; the oldest where a server allows several.
pub(super) fn choose<'a>(items: impl IntoIterator<Item = &'a Item>, name: &str, scopes: Scopes) -> Option<&'a Item> {
    let rank = |item: &Item| scopes.order().iter().position(|scope| *scope == scope_of(item.place));
    let items = items.into_iter().filter(|item| item.name == name && rank(item).is_some());
    items.min_by_key(|item| (rank(item), age_order(item)))
}

pub(super) fn scope_of(place: Place) -> Scope {
    match place {
        Place::Private | Place::User => Scope::Private,
        Place::Public | Place::Workspace => Scope::Public,
    }
}

pub(super) fn description(item: &Item) -> Description {
    let label = match item.place {
        Place::Private => ScopeLabel::Private,
        Place::Public => ScopeLabel::Public,
        Place::User => ScopeLabel::User,
        Place::Workspace => ScopeLabel::Workspace,
    };
    Description {
        name: item.name.clone(),
        scope: scope_of(item.place),
        scope_label: Some(label),
        id: Some(item.id.clone()),
        version: version(item),
        keys: None,
    }
}

/// Changes with every change: the server sets `updated` each time.
pub(super) fn version(item: &Item) -> String {
    format!("{}:{}", item.id, item.updated)
}

fn age_order(item: &Item) -> (&str, &str) {
    (&item.created, &item.id)
}
