//! What the backends of Google Cloud share.

use futures::future;

use crate::google::GoogleError;
use crate::refs::source::{Document, FetchError, Locator};

/// Asks for each of `at`, side by side.
pub(super) async fn each<'a, F>(
    at: &'a [Locator],
    ask: impl Fn(&'a Locator) -> F,
) -> Vec<Result<Document, FetchError>>
where
    F: Future<Output = Result<Document, FetchError>>,
{
    future::join_all(at.iter().map(ask)).await
}

/// What went wrong at `what`.
pub(super) fn failure(error: &GoogleError, what: &str) -> FetchError {
    let reason = match error.reason.split_once('\n') {
        Some((reason, help)) => format!("{reason} for {what}\n{help}"),
        None => format!("{} for {what}", error.reason),
    };
    FetchError::new(error.class, reason).busy(error.busy)
}
