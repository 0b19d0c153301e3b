//! `ref+awssecrets://name`: AWS Secrets Manager.
//!
//! Secrets are asked for in batches of 20 where more than one is wanted and no version is named. Where the identity
//! may not ask in batches, or an item spoils its batch, they are asked for one by one. Throttling is retried by the
//! SDK; an item that was throttled within a batch is asked for once more by itself.

use std::sync::Arc;

use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::types::{ApiErrorType, SecretValueEntry};
use aws_smithy_types::Blob;
use futures::future::{BoxFuture, FutureExt};

use crate::aws::{Aws, AwsError, Connection};
use crate::fault::Class;
use crate::refs::source::{
    Document, FetchError, Fragment, Locator, Scheme, SchemeOption, Source, without_dots,
};
use crate::refs::sources::aws::{self, Answers, Indexed, Turns};
use crate::scope::Scope;
use crate::secret::Secret;

/// As many as `BatchGetSecretValue` takes.
const BATCH: usize = 20;

pub(crate) const SCHEME: Scheme = Scheme {
    name: "awssecrets",
    doc: "AWS Secrets Manager",
    examples: &[
        ("ref+awssecrets://team/db", "the secret `team/db`"),
        ("ref+awssecrets://team/db#/password", "`password` of a secret that holds JSON or YAML"),
        (
            "ref+awssecrets://team/db?region=eu-west-1&version_stage=AWSPREVIOUS#/password",
            "its previous version",
        ),
        (
            "ref+awssecrets://arn:aws:secretsmanager:eu-west-1:123456789012:secret:team/db-AbCdEf",
            "by its ARN",
        ),
    ],
    connection: aws::CONNECTION,
    document: &[
        SchemeOption { name: "version_id", doc: "id of a version" },
        SchemeOption { name: "version_stage", doc: "stage of a version; `AWSCURRENT` unless said" },
    ],
    fragment: Fragment::Walks,
    normalise: without_dots,
    open: |params, ambient| {
        let aws = Arc::clone(&ambient.aws);
        Ok(Arc::new(SecretsManager { aws, connection: aws::connection(params), turns: Turns::default() }))
    },
};

#[derive(Debug)]
struct SecretsManager {
    aws: Arc<Aws>,
    connection: Connection,
    turns: Turns,
}

/// One request.
enum Call {
    Batch(Indexed),
    Single(usize, Locator),
}

impl Source for SecretsManager {
    fn fetch<'a>(
        &'a self,
        _: &'a Scope,
        at: &'a [Locator],
    ) -> BoxFuture<'a, Vec<Result<Document, FetchError>>> {
        aws::fetch_regions(&self.aws, &self.connection, at, move |config, connection, at| async move {
            let region = Region { client: Client::new(&config), connection, turns: &self.turns };
            aws::side_by_side(calls(at), |call| region.call(call)).await
        })
        .boxed()
    }

    fn is_same_for_all(&self) -> bool {
        true
    }
}

fn calls(at: Indexed) -> Vec<Call> {
    let (current, alone): (Indexed, Indexed) =
        at.into_iter().partition(|(_, locator)| locator.params.is_empty());
    current.chunks(BATCH).chain(alone.chunks(1)).map(Call::of).collect()
}

impl Call {
    fn of(at: &[(usize, Locator)]) -> Self {
        match at {
            [(index, locator)] => Self::Single(*index, locator.clone()),
            _ => Self::Batch(at.to_vec()),
        }
    }
}

/// Secrets Manager of one region, as one identity.
struct Region<'a> {
    client: Client,
    connection: Connection,
    turns: &'a Turns,
}

impl Region<'_> {
    async fn call(&self, call: Call) -> Answers {
        match call {
            Call::Single(index, locator) => vec![(index, self.single(&locator).await)],
            Call::Batch(at) => self.batch(at).await,
        }
    }

    async fn single(&self, at: &Locator) -> Result<Document, FetchError> {
        let option = |name: &str| at.params.get(name).cloned();
        let request = self.client.get_secret_value().secret_id(&at.path);
        let request = request.set_version_id(option("version_id")).set_version_stage(option("version_stage"));
        let turn = self.turns.turn().await;
        let answer = request.send().await;
        drop(turn);
        let answer = answer.map_err(|error| aws::failure(&AwsError::of(&error), &self.connection))?;
        document(answer.secret_string, answer.secret_binary)
    }

    async fn batch(&self, at: Indexed) -> Answers {
        let mut found = match self.batch_call(&at).await {
            Ok(found) => found,
            Err(error) if aws::is_of_batch(&error) => Found::default(),
            Err(error) => return aws::fail(&at, &aws::failure(&error, &self.connection)),
        };
        let (mut answers, mut again) = (Answers::new(), Vec::new());
        for (index, locator) in at {
            match found.take(&locator.path, &self.connection) {
                Some(answer) => answers.push((index, answer)),
                None => again.push((index, locator)),
            }
        }
        let singles =
            |(index, locator): (usize, Locator)| async move { vec![(index, self.single(&locator).await)] };
        answers.extend(aws::side_by_side(again, singles).await);
        answers
    }

    async fn batch_call(&self, at: &[(usize, Locator)]) -> Result<Found, AwsError> {
        let ids: Vec<_> = at.iter().map(|(_, locator)| locator.path.clone()).collect();
        let mut found = Found::default();
        let mut page = None;
        loop {
            let request = self.client.batch_get_secret_value().set_secret_id_list(Some(ids.clone()));
            let request = request.set_next_token(page);
            let turn = self.turns.turn().await;
            let answer = request.send().await.map_err(|error| AwsError::of(&error))?;
            drop(turn);
            found.secrets.extend(answer.secret_values.unwrap_or_default());
            found.errors.extend(answer.errors.unwrap_or_default());
            page = answer.next_token.filter(|token| !token.is_empty());
            if page.is_none() {
                return Ok(found);
            }
        }
    }
}

/// What a batch answered.
#[derive(Default)]
struct Found {
    secrets: Vec<SecretValueEntry>,
    errors: Vec<ApiErrorType>,
}

impl Found {
    /// The answer for `id`, a name or an ARN; `None` where it has to be asked for by itself.
    fn take(&mut self, id: &str, connection: &Connection) -> Option<Result<Document, FetchError>> {
        if let Some(at) = self.secrets.iter().position(|secret| is_called(secret, id)) {
            let secret = self.secrets.swap_remove(at);
            return Some(document(secret.secret_string, secret.secret_binary));
        }
        let error = self.errors.iter().find(|error| error.secret_id() == Some(id))?;
        let error = AwsError::of_code(error.error_code()?);
        let transient = matches!(error.class, Class::Unavailable | Class::Timeout | Class::Internal);
        (!transient).then(|| Err(aws::failure(&error, connection)))
    }
}

/// Whether `id` is the secret's name or its ARN, with or without the six characters that AWS adds to it.
fn is_called(secret: &SecretValueEntry, id: &str) -> bool {
    let is_suffix = |rest: &str| rest.is_empty() || rest.len() == 7 && rest.starts_with('-');
    secret.name() == Some(id) || secret.arn().and_then(|arn| arn.strip_prefix(id)).is_some_and(is_suffix)
}

fn document(text: Option<String>, binary: Option<Blob>) -> Result<Document, FetchError> {
    let bytes = text.map(String::into_bytes).or_else(|| binary.map(Blob::into_inner));
    bytes
        .map(Secret::new)
        .ok_or_else(|| FetchError::not_found("the secret has neither a string nor binary data"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;
    use crate::refs::sources::mock::{self, locator};

    #[test]
    fn calls_are_batches_of_twenty_and_versions_alone() {
        let mut at: Vec<_> = (0..41).map(|number| locator(&format!("s{number}"), false, &[])).collect();
        at.push(locator("v", false, &[("version_stage", "AWSPREVIOUS")]));
        let indexed: Indexed = at.into_iter().enumerate().collect();
        let sizes = |calls: Vec<Call>| -> Vec<_> {
            let size = |call: &Call| if let Call::Batch(at) = call { at.len() } else { 1 };
            calls.iter().map(size).collect()
        };
        assert_eq!(sizes(calls(indexed)), [20, 20, 1, 1]);
    }

    #[test]
    fn answers_of_a_batch_are_matched_and_classified() {
        let arn = "arn:aws:secretsmanager:eu-west-1:1:secret:";
        let secret = |name: &str| {
            let entry = SecretValueEntry::builder().name(name).arn(format!("{arn}{name}-AbCdEf"));
            entry.secret_string("STRONGROOM-MARKER").build()
        };
        let error = |id: &str, code: &str| {
            ApiErrorType::builder().secret_id(id).error_code(code).message("STRONGROOM-MARKER").build()
        };
        let mut found = Found {
            secrets: ["a", "a-long", "b", "c"].map(secret).to_vec(),
            errors: vec![
                error("gone", "ResourceNotFoundException"),
                error("closed", "AccessDeniedException"),
                error("busy", "ThrottlingException"),
            ],
        };
        let connection = Connection { region: Some("eu-west-1".into()), ..Connection::default() };
        for (id, expected) in [
            ("a".to_owned(), Some(Ok(()))),
            (format!("{arn}b-AbCdEf"), Some(Ok(()))),
            (format!("{arn}c"), Some(Ok(()))),
            (format!("{arn}a"), None),
            ("gone".to_owned(), Some(Err(Class::NotFound))),
            ("closed".to_owned(), Some(Err(Class::Denied))),
            ("busy".to_owned(), None),
            ("unanswered".to_owned(), None),
        ] {
            let answer = found.take(&id, &connection);
            if let Some(Err(error)) = &answer {
                assert!(!error.to_string().contains("STRONGROOM-MARKER"), "{error}");
            }
            assert_eq!(answer.map(|answer| answer.map(drop).map_err(|error| error.class)), expected, "{id}");
        }
    }

    #[test]
    fn a_secret_is_text_or_bytes() {
        let bytes =
            |result: Result<Document, FetchError>| result.map(|document| document.expose().clone()).ok();
        assert_eq!(bytes(document(Some("a".into()), None)), Some(b"a".to_vec()));
        assert_eq!(bytes(document(None, Some(Blob::new(b"\xff")))), Some(b"\xff".to_vec()));
        assert_eq!(document(None, None).unwrap_err().class, Class::NotFound);
    }

    /// `s…` are there, `gone` is not, `busy` is busy in a batch, `closed` is denied; `locked` spoils every batch.
    fn answer(operation: &str, input: &Json) -> Result<Json, &'static str> {
        let secret =
            |name: &str| json!({"Name": name, "ARN": format!("arn:{name}-AbCdEf"), "SecretString": name});
        let code = |name: &str| match name {
            "gone" => "ResourceNotFoundException",
            "busy" => "InternalServiceError",
            _ => "AccessDeniedException",
        };
        if operation == "GetSecretValue" {
            let name = input["SecretId"].as_str().unwrap();
            return if name.starts_with('s') || name == "busy" { Ok(secret(name)) } else { Err(code(name)) };
        }
        let ids: Vec<_> = input["SecretIdList"].as_array().unwrap().iter().filter_map(Json::as_str).collect();
        assert!(ids.len() <= BATCH);
        if ids.contains(&"locked") {
            return Err("AccessDeniedException");
        }
        let (there, not): (Vec<_>, Vec<_>) = ids.into_iter().partition(|name| name.starts_with('s'));
        let errors =
            not.into_iter().map(|name| json!({"SecretId": name, "ErrorCode": code(name), "Message": "m"}));
        let secrets: Vec<_> = there.into_iter().rev().map(secret).collect();
        Ok(json!({"SecretValues": secrets, "Errors": errors.collect::<Vec<_>>()}))
    }

    async fn fetched(paths: &[&str]) -> (Vec<String>, Vec<(String, usize)>) {
        let (aws, calls) = mock::aws(answer).await;
        let source = SecretsManager { aws, connection: Connection::default(), turns: Turns::default() };
        let answers = source.fetch(&Scope::default(), &mock::locators(paths.iter().copied(), false)).await;
        (mock::told(answers), mock::counted(&calls))
    }

    #[tokio::test]
    async fn many_are_asked_for_in_batches_and_answered_in_order() {
        let names: Vec<_> = (0..45).map(|number| format!("s{number}")).collect();
        let (answers, calls) = fetched(&names.iter().map(String::as_str).collect::<Vec<_>>()).await;
        assert_eq!(answers, names);
        assert_eq!(calls, [("BatchGetSecretValue".to_owned(), 3)]);
    }

    #[tokio::test]
    async fn each_of_a_batch_fails_by_itself() {
        let (answers, calls) = fetched(&["s1", "gone", "busy", "closed", "s2"]).await;
        let gone = "NotFound: AWS says ResourceNotFoundException";
        assert_eq!(answers, ["s1", gone, "busy", "Denied: AWS says AccessDeniedException", "s2"]);
        assert_eq!(calls, [("BatchGetSecretValue".to_owned(), 1), ("GetSecretValue".to_owned(), 1)]);
    }

    #[tokio::test]
    async fn where_batches_are_denied_each_is_asked_for() {
        let (answers, calls) = fetched(&["s1", "locked", "gone"]).await;
        assert_eq!(answers[0], "s1");
        assert_eq!(answers[1], "Denied: AWS says AccessDeniedException: for a reason");
        assert!(answers[2].starts_with("NotFound: "), "{answers:?}");
        assert_eq!(calls, [("BatchGetSecretValue".to_owned(), 1), ("GetSecretValue".to_owned(), 3)]);
    }
}
