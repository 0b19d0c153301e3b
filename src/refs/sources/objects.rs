//! Objects of S3, for the backends that have something there.
//!
//! A bucket says itself in which region it is, where that is not the one that was asked; it is asked there then.

use std::sync::Arc;

use aws_sdk_s3::Client;
use aws_sdk_s3::error::SdkError;
use aws_sdk_s3::operation::get_object::{GetObjectError, GetObjectOutput};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

use crate::aws::{Aws, AwsError, Connection};
use crate::fault::Class;
use crate::refs::source::{Document, FetchError};
use crate::refs::sources::aws::{self, Turns};
use crate::secret::Secret;

/// A larger object is not read, in bytes.
const LIMIT: usize = 32 << 20;
/// The longest name of a bucket, of the oldest ones too.
const BUCKET_LIMIT: usize = 255;

/// S3, as one identity.
#[derive(Debug)]
pub(super) struct Objects {
    aws: Arc<Aws>,
    connection: Connection,
    turns: Turns,
}

impl Objects {
    pub(super) fn new(aws: &Arc<Aws>, connection: Connection) -> Self {
        Self { aws: Arc::clone(aws), connection, turns: Turns::default() }
    }

    /// The bytes of `at`, its newest version unless one is named.
    pub(super) async fn get(&self, at: At<'_>, version: Option<&str>) -> Result<Document, FetchError> {
        let _turn = self.turns.turn().await;
        match self.ask(&self.connection, at, version).await? {
            Answer::Here(object) => read(*object).await,
            Answer::Elsewhere(region) => {
                let connection = Connection { region: Some(region), ..self.connection.clone() };
                match self.ask(&connection, at, version).await? {
                    Answer::Here(object) => read(*object).await,
                    Answer::Elsewhere(_) => {
                        Err(FetchError::new(Class::Unavailable, "S3 does not say where the bucket is"))
                    }
                }
            }
        }
    }

    async fn ask(
        &self,
        connection: &Connection,
        at: At<'_>,
        version: Option<&str>,
    ) -> Result<Answer, FetchError> {
        let config = self.aws.config(connection).await.map_err(|error| aws::failure(&error, connection))?;
        let request = Client::new(&config).get_object().bucket(at.bucket).key(at.key);
        match request.set_version_id(version.map(str::to_owned)).send().await {
            Ok(object) => Ok(Answer::Here(Box::new(object))),
            Err(error) => match region_of(&error) {
                Some(region) if connection.region.as_ref() != Some(&region) => Ok(Answer::Elsewhere(region)),
                _ => Err(aws::failure(&AwsError::of(&error), connection)),
            },
        }
    }
}

enum Answer {
    Here(Box<GetObjectOutput>),
    /// In this region.
    Elsewhere(String),
}

/// Where the bucket is, if it is not where it was asked for.
fn region_of(error: &SdkError<GetObjectError, HttpResponse>) -> Option<String> {
    let answer = error.raw_response()?;
    let moved = matches!(answer.status().as_u16(), 301 | 307 | 400);
    answer.headers().get("x-amz-bucket-region").filter(|_| moved).map(str::to_owned)
}

async fn read(object: GetObjectOutput) -> Result<Document, FetchError> {
    let too_large = || FetchError::new(Class::Invalid, format!("it is larger than {} MiB", LIMIT >> 20));
    let length = object.content_length.and_then(|length| usize::try_from(length).ok()).unwrap_or_default();
    if length > LIMIT {
        return Err(too_large());
    }
    let mut body = object.body;
    let mut bytes = Secret::new(Vec::with_capacity(length));
    while let Some(chunk) = body.next().await {
        let broken =
            |_| FetchError::new(Class::Unavailable, "S3's answer breaks off or is damaged").busy(true);
        let chunk = chunk.map_err(broken)?;
        if bytes.expose().len() + chunk.len() > LIMIT {
            return Err(too_large());
        }
        bytes.expose_mut().extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// Where an object is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct At<'a> {
    pub(super) bucket: &'a str,
    pub(super) key: &'a str,
}

impl<'a> At<'a> {
    /// From `bucket/key`. A repository names the bucket, and it becomes part of a host name.
    pub(super) fn parse(path: &'a str) -> Result<Self, FetchError> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        let is_bucket =
            |bucket: &str| !bucket.is_empty() && bucket.len() <= BUCKET_LIMIT && bucket.bytes().all(plain);
        match path.split_once('/') {
            Some((bucket, key)) if is_bucket(bucket) && !key.is_empty() => Ok(Self { bucket, key }),
            _ => Err(FetchError::new(Class::Invalid, "it must be bucket/key")),
        }
    }
}

#[cfg(test)]
mod tests {
    use aws_credential_types::Credentials;

    use super::*;
    use crate::web::mock::Mock;

    #[test]
    fn a_bucket_cannot_be_another_host() {
        for (path, expected) in [
            ("bucket/key", Some(("bucket", "key"))),
            ("my.bucket_1/a/b//c", Some(("my.bucket_1", "a/b//c"))),
            ("bucket//key", Some(("bucket", "/key"))),
            ("bucket", None),
            ("bucket/", None),
            ("/key", None),
            ("evil.example:80/key", None),
            ("a@evil.example/key", None),
            ("a?b/key", None),
        ] {
            let at = At::parse(path).map(|at| (at.bucket, at.key));
            assert_eq!(at.map_err(|error| error.class), expected.ok_or(Class::Invalid), "{path}");
        }
    }

    fn objects(mock: &Mock) -> Objects {
        let credentials = Credentials::new("id", "STRONGROOM-MARKER", None, None, "mock");
        let aws = Arc::new(Aws::emulated(&mock.url, "eu-west-1", credentials));
        Objects::new(&aws, Connection::default())
    }

    const AT: At<'_> = At { bucket: "bucket", key: "key" };

    #[tokio::test]
    async fn a_bucket_is_asked_in_the_region_that_the_mock_says() {
        let mock = Mock::start(|request| {
            let right = request.header("authorization").contains("/eu-north-1/s3/");
            if right {
                (200, "value".into())
            } else {
                (301, "<Error><Code>PermanentRedirect</Code></Error>".into())
            }
        })
        .await;
        let document = objects(&mock).get(AT, None).await.unwrap();
        assert_eq!(document.expose(), b"value");
        assert_eq!(mock.seen().len(), 2);
    }

    #[tokio::test]
    async fn a_mock_that_always_moves_on_is_asked_twice() {
        let mock = Mock::start(|_| (301, "<Error><Code>PermanentRedirect</Code></Error>".into())).await;
        let error = objects(&mock).get(AT, None).await.unwrap_err();
        assert_eq!(error.reason, "AWS says PermanentRedirect");
        assert_eq!(mock.seen().len(), 2);
    }

    #[tokio::test]
    async fn what_goes_wrong_on_a_mock_is_told_without_the_body() {
        for (status, code, class) in [
            (404, "NoSuchKey", Class::NotFound),
            (404, "NoSuchBucket", Class::NotFound),
            (403, "AccessDenied", Class::Denied),
            (403, "InvalidAccessKeyId", Class::Denied),
            (400, "InvalidArgument", Class::Invalid),
            (503, "SlowDown", Class::Unavailable),
        ] {
            let body = format!("<Error><Code>{code}</Code><Extra>STRONGROOM-MARKER</Extra></Error>");
            let mock = Mock::start(move |_| (status, body.clone())).await;
            let error = objects(&mock).get(AT, Some("v1")).await.unwrap_err();
            assert_eq!((error.class, error.busy), (class, status == 503), "{code}");
            assert!(error.reason.contains(code) && !error.reason.contains("MARKER"), "{}", error.reason);
            assert!(mock.seen()[0].path.contains("versionId=v1"), "{:?}", mock.seen()[0]);
        }
    }

    #[tokio::test]
    async fn an_object_of_a_mock_that_is_too_large_is_not_kept() {
        let mock = Mock::start(|_| (200, "x".repeat(LIMIT + 1))).await;
        assert_eq!(objects(&mock).get(AT, None).await.unwrap_err().class, Class::Invalid);
    }
}
