//! Calls that are due, and those among them that one call to the back-end can make together.
//!
//! Where a back-end reads several secrets in one call, what is asked for in the same moment is gathered: a check of two
//! hundred secrets becomes ten calls, and a single reader waits for nobody, since the moment ends as soon as nothing more
//! comes.

use std::sync::Arc;

use tokio::sync::watch;

use super::source::{Reads, did_not_answer, failure_class};
use super::{Call, Resolver, Source, lock};
use crate::backend::{BackendError, Scopes, Secret};
use crate::cache::{Hit, Key};
use crate::clock::Tick;
use crate::request_id::carried;

/// What came of a call, for everybody who waits for it.
#[derive(Clone)]
pub(super) struct Landing {
    pub(super) result: Result<Hit, BackendError>,
    /// Calls that were made for it alone: one, or none where another of the same call counts it.
    pub(super) calls: u64,
}

/// A call that is due: the cache counts on its end.
pub(super) struct Due {
    pub(super) place: usize,
    pub(super) scopes: Scopes,
    pub(super) name: String,
    pub(super) id: u64,
    pub(super) began: Tick,
    pub(super) sender: watch::Sender<Option<Landing>>,
}

impl Resolver {
    /// Makes a call that is due, with others of the same moment where the back-end can.
    pub(super) fn launch(self: &Arc<Self>, backend: usize, due: Due) {
        let resolver = Arc::clone(self);
        let source = &self.sources[backend];
        if source.most_at_once <= 1 {
            tokio::spawn(carried(async move { resolver.make(backend, vec![due]).await }));
            return;
        }
        let mut gathered = lock(&source.gathered);
        gathered.push(due);
        if gathered.len() == 1 {
            tokio::spawn(carried(async move {
                for due in resolver.sources[backend].gather().await {
                    let resolver = Arc::clone(&resolver);
                    tokio::spawn(carried(async move { resolver.make(backend, due).await }));
                }
            }));
        }
    }

    /// Makes one call for secrets of one choice of scopes, and lets everybody know.
    async fn make(&self, backend: usize, due: Vec<Due>) {
        let source = &self.sources[backend];
        let pending: Vec<Call<'_>> = due
            .iter()
            .map(|due| {
                let key = Key { backend: due.place, scopes: due.scopes, name: &due.name };
                Call { memory: &self.memory, source, key, id: due.id }
            })
            .collect();
        let results = source.read(&due).await;
        for (at, ((due, pending), result)) in due.iter().zip(&pending).zip(results).enumerate() {
            let result = pending.complete(due.began, result);
            // Nobody may be waiting any more: a stale value was served meanwhile.
            let _ = due.sender.send(Some(Landing { result, calls: u64::from(at == 0) }));
        }
    }
}

impl Source {
    /// Waits until nothing more comes in this moment, and returns what is due in calls' worth.
    async fn gather(&self) -> Vec<Vec<Due>> {
        let mut before = 0;
        loop {
            // Whoever is ready to ask does so before this goes on.
            tokio::task::yield_now().await;
            let now = lock(&self.gathered).len();
            if now == before {
                break;
            }
            before = now;
        }
        let mut calls: Vec<Vec<Due>> = Vec::new();
        for due in std::mem::take(&mut *lock(&self.gathered)) {
            let fits = |call: &&mut Vec<Due>| call.len() < self.most_at_once && call[0].scopes == due.scopes;
            match calls.iter_mut().rev().find(fits) {
                Some(call) => call.push(due),
                None => calls.push(vec![due]),
            }
        }
        calls
    }

    async fn read(&self, due: &[Due]) -> Vec<Result<Secret, BackendError>> {
        if let [due] = due {
            return vec![self.call(Reads::Values, self.reader.fetch(&due.name, due.scopes)).await];
        }
        let names: Vec<&str> = due.iter().map(|due| due.name.as_str()).collect();
        let scopes = due.first().map_or(Scopes::PrivateFirst, |due| due.scopes);
        let error = match self.call(Reads::Values, self.reader.fetch_many(&names, scopes)).await {
            Ok(results) if results.len() == due.len() => {
                for error in results.iter().filter_map(|result| result.as_ref().err()) {
                    self.failed(failure_class(error));
                }
                return results;
            }
            Ok(_) => did_not_answer(&self.name, "did not answer for every secret"),
            Err(error) => error,
        };
        due.iter().map(|_| Err(error.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::resolver;
    use super::super::{Selection, Want};
    use super::*;
    use crate::backend::fake::FakeBackend;
    use futures_util::future::join_all;

    async fn read_all(resolver: &Arc<Resolver>, names: &[String]) -> (usize, u64) {
        let reads = names.iter().map(|name| resolver.secret(name, Selection::default(), Want::Usual));
        let results = join_all(reads).await;
        let calls = results.iter().map(|result| match result {
            Ok(found) => found.calls,
            Err(miss) => miss.calls,
        });
        let calls = calls.sum();
        (results.iter().filter(|result| result.is_ok()).count(), calls)
    }

    #[tokio::test]
    async fn what_is_asked_for_in_one_moment_is_read_in_as_few_calls_as_there_are() {
        let names: Vec<String> = (0..200).map(|n| format!("s{n}")).collect();
        let fake = names.iter().skip(1).fold(FakeBackend::new(), |fake, name| fake.with(name, &[("k", "v")]));
        let fake = Arc::new(fake.reading_at_once(20));
        let resolver = resolver(&[("store", &fake)]);
        assert_eq!(read_all(&resolver, &names).await, (199, 10));
        assert_eq!((fake.batches(), resolver.backend_calls()), (10, 10));
        // The one that is missing is remembered, the others are held.
        assert_eq!(read_all(&resolver, &names).await, (199, 0));
        assert_eq!(read_all(&resolver, &["other".to_owned()]).await, (0, 1));
        assert_eq!(fake.batches(), 10, "one secret alone is one plain call");
    }

    #[tokio::test]
    async fn what_fails_for_one_secret_leaves_the_others_of_its_call_alone() {
        let fake = FakeBackend::new().with("a", &[("k", "v")]).with("b", &[("k", "v")]).reading_at_once(20);
        let fake = Arc::new(fake);
        fake.fail_name("b", FakeBackend::denied());
        let resolver = resolver(&[("store", &fake)]);
        let (a, b) = tokio::join!(
            resolver.secret("a", Selection::default(), Want::Usual),
            resolver.secret("b", Selection::default(), Want::Usual)
        );
        assert!(a.is_ok());
        assert_eq!(b.err().map(|miss| miss.error), Some(FakeBackend::denied()));
        assert_eq!(resolver.backend_calls(), 1);
    }

    #[tokio::test]
    async fn a_call_that_fails_fails_for_all_of_its_secrets() {
        let fake = FakeBackend::new().with("a", &[("k", "v")]).with("b", &[("k", "v")]).reading_at_once(20);
        let fake = Arc::new(fake);
        fake.fail_next(1, FakeBackend::transient());
        let resolver = resolver(&[("store", &fake)]);
        let names = ["a".to_owned(), "b".to_owned()];
        assert_eq!(read_all(&resolver, &names).await, (0, 1));
        assert_eq!(read_all(&resolver, &names).await, (2, 1));
    }
}
