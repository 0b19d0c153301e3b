//! What the AWS backends share: options of the connection, regions of ARNs, calls side by side.

use std::collections::BTreeMap;
use std::future::Future;

use aws_config::SdkConfig;
use futures::future;
use futures::stream::{self, StreamExt};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::aws::{Aws, AwsError, Connection};
use crate::fault::Class;
use crate::refs::source::{Document, FetchError, Locator, Params, SchemeOption};

/// Requests to one backend at the same time, of all renders together.
const CONCURRENT: usize = 16;

/// Who may ask a backend now.
#[derive(Debug)]
pub(super) struct Turns(Semaphore);

impl Default for Turns {
    fn default() -> Self {
        Self(Semaphore::new(CONCURRENT))
    }
}

impl Turns {
    /// Waits for a turn, which lasts for one request.
    pub(super) async fn turn(&self) -> SemaphorePermit<'_> {
        self.0.acquire().await.expect("the semaphore is never closed")
    }
}

pub(super) const CONNECTION: &[SchemeOption] = &[
    SchemeOption { name: "region", doc: "region, where the environment's is not the one" },
    SchemeOption { name: "profile", doc: "profile of the shared AWS configuration" },
    SchemeOption { name: "role_arn", doc: "role to assume first" },
];

/// What a backend answered, by the position of the locator.
pub(super) type Answers = Vec<(usize, Result<Document, FetchError>)>;

pub(super) fn connection(params: &Params) -> Connection {
    let option = |name: &str| params.get(name).cloned();
    Connection {
        region: option("region"),
        profile: option("profile"),
        role_arn: option("role_arn"),
        session_name: None,
    }
}

/// One answer per locator, in order, from the `fetch` of each region; all regions at once.
pub(super) async fn fetch_regions<F>(
    aws: &Aws,
    connection: &Connection,
    at: &[Locator],
    fetch: impl Fn(SdkConfig, Connection, Indexed) -> F,
) -> Vec<Result<Document, FetchError>>
where
    F: Future<Output = Answers>,
{
    let fetch = &fetch;
    let region = |(connection, at): (Connection, Indexed)| async move {
        match aws.config(&connection).await {
            Ok(config) => fetch(config, connection, at).await,
            Err(error) => fail(&at, &failure(&error, &connection)),
        }
    };
    let regions = by_region(connection, at).into_iter().map(region);
    in_order(future::join_all(regions).await.concat(), at.len())
}

/// The locators by the connection that reaches them: an ARN names its region, which counts where no option does.
fn by_region(connection: &Connection, at: &[Locator]) -> Vec<(Connection, Indexed)> {
    let mut regions: BTreeMap<Connection, Indexed> = BTreeMap::new();
    for (index, locator) in at.iter().enumerate() {
        let region = connection.region.clone().or_else(|| region_of(&locator.path));
        regions
            .entry(Connection { region, ..connection.clone() })
            .or_default()
            .push((index, locator.clone()));
    }
    regions.into_iter().collect()
}

/// Locators with their positions in the question.
pub(super) type Indexed = Vec<(usize, Locator)>;

fn region_of(path: &str) -> Option<String> {
    let mut parts = path.strip_prefix("arn:aws")?.split(':');
    parts.nth(2).filter(|region| !region.is_empty()).map(str::to_owned)
}

/// Runs `call` for every item, some at a time.
pub(super) async fn side_by_side<I, F>(items: Vec<I>, call: impl Fn(I) -> F) -> Answers
where
    F: Future<Output = Answers>,
{
    stream::iter(items).map(call).buffer_unordered(CONCURRENT).concat().await
}

/// The answers in the order of the question.
fn in_order(mut answers: Answers, number: usize) -> Vec<Result<Document, FetchError>> {
    answers.sort_by_key(|(index, _)| *index);
    debug_assert!(answers.iter().map(|(index, _)| *index).eq(0..number), "one answer per locator");
    answers.into_iter().map(|(_, answer)| answer).collect()
}

/// The same error for all of them.
pub(super) fn fail(at: &[(usize, Locator)], error: &FetchError) -> Answers {
    at.iter().map(|(index, _)| (*index, Err(error.clone()))).collect()
}

/// Whether a batch failed for a reason that may not hold for each of its items: no permission to ask in batches, or
/// one item that spoils it.
pub(super) fn is_of_batch(error: &AwsError) -> bool {
    error.code.is_some() && matches!(error.class, Class::Denied | Class::Invalid | Class::NotFound)
}

pub(super) fn failure(error: &AwsError, connection: &Connection) -> FetchError {
    let place = match (&connection.region, error.class) {
        (Some(region), Class::NotFound) => format!(" in {region}"),
        _ => String::new(),
    };
    FetchError::new(error.class, format!("{}{place}", error.reason)).busy(error.busy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arn_names_its_region_unless_an_option_does() {
        let locator = |path: &str| Locator { path: path.into(), params: Params::new(), fragment: false };
        let at = [
            locator("team/db"),
            locator("arn:aws:secretsmanager:eu-west-1:1:secret:a"),
            locator("arn:aws-cn:secretsmanager:cn-north-1:1:secret:a"),
            locator("arn:aws:secretsmanager::1:secret:a"),
        ];
        let regions = |connection: &Connection| {
            let groups = by_region(connection, &at).into_iter();
            groups
                .map(|(connection, at)| (connection.region, at.iter().map(|(index, _)| *index).collect()))
                .collect::<Vec<(_, Vec<_>)>>()
        };
        assert_eq!(
            regions(&Connection::default()),
            [(None, vec![0, 3]), (Some("cn-north-1".into()), vec![2]), (Some("eu-west-1".into()), vec![1])]
        );
        let chosen = Connection { region: Some("us-east-1".into()), ..Connection::default() };
        assert_eq!(regions(&chosen), [(Some("us-east-1".into()), vec![0, 1, 2, 3])]);
    }
}
