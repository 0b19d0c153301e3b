//! Locators of which one read answers several.

use std::collections::BTreeMap;

use futures::future;

use crate::fault::Class;
use crate::refs::source::{Document, FetchError, Locator};

/// One answer per locator, in order. `group` says which read answers a locator and what it wants of that, `read` is called
/// once for each, all at once, and `pick` takes out what was wanted.
pub(super) async fn fetch<'a, K, W, T, F>(
    at: &'a [Locator],
    group: impl Fn(&'a Locator) -> Result<(K, W), FetchError>,
    read: impl Fn(K) -> F,
    pick: impl Fn(&T, W) -> Result<Document, FetchError>,
) -> Vec<Result<Document, FetchError>>
where
    K: Ord,
    F: Future<Output = Result<T, FetchError>>,
{
    let mut answers = vec![Err(FetchError::new(Class::Invalid, "nothing was read")); at.len()];
    let mut groups: BTreeMap<K, Vec<(usize, W)>> = BTreeMap::new();
    for (index, locator) in at.iter().enumerate() {
        match group(locator) {
            Ok((key, wanted)) => groups.entry(key).or_default().push((index, wanted)),
            Err(error) => answers[index] = Err(error),
        }
    }
    let (keys, wanted): (Vec<_>, Vec<_>) = groups.into_iter().unzip();
    let outcomes = future::join_all(keys.into_iter().map(read)).await;
    for (outcome, wanted) in outcomes.into_iter().zip(wanted) {
        for (index, wanted) in wanted {
            answers[index] = outcome.as_ref().map_err(Clone::clone).and_then(|read| pick(read, wanted));
        }
    }
    answers
}
