//! `ref+vault://mount/path/field`, `ref+openbao://…`: HashiCorp Vault and OpenBao.
//!
//! Whether a mount is a KV engine of version 2 is what the server says of it, once per mount; where it may not be
//! asked, both are tried. Every other engine is read as it is. Two fields of one secret are one read. The paths below
//! `auth/token/` that tell Strongroom's own token are refused.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::future::{BoxFuture, FutureExt};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::Mutex;

use crate::fault::Class;
use crate::refs::ambient::Ambient;
use crate::refs::source::{
    Document, FetchError, Fragment, Locator, Params, Scheme, SchemeOption, Source, without_dots,
};
use crate::refs::sources::grouped;
use crate::scope::Scope;
use crate::secret::Secret;
use crate::vault::{Brand, Call, Connection, Server, Vault, VaultError};
use crate::web::Answer;

/// For so long it is believed what a mount is.
const MOUNT_KNOWN: Duration = Duration::from_mins(5);

pub(crate) const VAULT: Scheme = Scheme {
    name: "vault",
    doc: "HashiCorp Vault; the login is the operator's, see [Vault and OpenBao](keys.md#vault-and-openbao)",
    examples: &[
        (
            "ref+vault://secret/team/db/password",
            "the field `password` of the secret `team/db` in the mount `secret`",
        ),
        ("ref+vault://secret/team/db#/password", "the same"),
        ("ref+vault://secret/team/db?version=3#/password", "of its version 3"),
        (
            "ref+vault://database/creds/reader#/password",
            "of whatever else can be read; each render reads it once, and renders at the same time share it",
        ),
    ],
    connection: CONNECTION,
    document: DOCUMENT,
    fragment: Fragment::Asks,
    normalise,
    open: |params, ambient| Ok(open(Brand::Vault, params, ambient)),
};

pub(crate) const OPENBAO: Scheme = Scheme {
    name: "openbao",
    doc: "OpenBao, as `vault`, with the variables `BAO_…` before `VAULT_…`",
    examples: &[("ref+openbao://secret/team/db#/password", "the field `password` of the secret `team/db`")],
    connection: CONNECTION,
    document: DOCUMENT,
    fragment: Fragment::Asks,
    normalise,
    open: |params, ambient| Ok(open(Brand::OpenBao, params, ambient)),
};

const CONNECTION: &[SchemeOption] = &[
    SchemeOption {
        name: "address",
        doc: "address; one that the operator names with `VAULT_ADDR` or `STRONGROOM_ALLOW_ADDRESSES`",
    },
    SchemeOption { name: "host", doc: "host and port of the address" },
    SchemeOption { name: "proto", doc: "`http` or `https` (unless said), with `host`" },
    SchemeOption { name: "namespace", doc: "namespace" },
    SchemeOption { name: "auth_method", doc: "method of the login, with the operator's credentials" },
    SchemeOption { name: "role_id", doc: "role to log in to" },
];

const DOCUMENT: &[SchemeOption] = &[
    SchemeOption { name: "version", doc: "version of a secret in a KV engine of version 2" },
    SchemeOption {
        name: "decode",
        doc: "`base64`: the field is base64 of the value; without a fragment only",
    },
];

fn normalise(scope: &Scope, path: &str, params: &Params) -> Result<String, FetchError> {
    let path = without_dots(scope, path.trim_end_matches('/'), params)?;
    if path.split('/').any(str::is_empty) || path.chars().any(char::is_control) {
        return Err(invalid("a segment of the path is empty, or has control characters"));
    }
    let segments: Vec<_> = path.split('/').collect();
    if segments.windows(3).any(|three| three[..2] == ["auth", "token"] && three[2].starts_with("lookup")) {
        return Err(FetchError::new(Class::Denied, "it would tell Strongroom's own token"));
    }
    Ok(path)
}

fn open(brand: Brand, params: &Params, ambient: &Ambient) -> Arc<dyn Source> {
    let option = |name: &str| params.get(name).cloned();
    let of_host = || {
        let proto = option("proto").unwrap_or_else(|| "https".to_owned());
        option("host").map(|host| format!("{proto}://{host}"))
    };
    let connection = Connection {
        brand,
        address: option("address").or_else(of_host),
        namespace: option("namespace"),
        method: option("auth_method"),
        role: option("role_id"),
    };
    Arc::new(Reader { vault: Arc::clone(&ambient.vault), connection, mounts: Mutex::default() })
}

#[derive(Debug)]
struct Reader {
    vault: Arc<Vault>,
    connection: Connection,
    mounts: Mutex<Vec<Mount>>,
}

/// Where an engine is mounted.
#[derive(Clone, Debug)]
struct Mount {
    path: String,
    versioned: bool,
    seen: Instant,
}

/// How the path of a secret becomes the path of a request.
enum Engine {
    /// KV 2, mounted at this many segments.
    Versioned(usize),
    /// As it is.
    Plain,
    /// Not to be found out.
    Unknown,
}

/// The path of a secret, and a version of it that is not the newest.
type Version<'a> = (&'a str, Option<&'a str>);

/// What a locator wants of a secret.
#[derive(Clone, Copy)]
enum Pick<'a> {
    Whole,
    Field { name: &'a str, base64: bool },
}

impl Source for Reader {
    fn fetch<'a>(
        &'a self,
        _: &'a Scope,
        at: &'a [Locator],
    ) -> BoxFuture<'a, Vec<Result<Document, FetchError>>> {
        async move {
            let server = match self.vault.server(&self.connection) {
                Ok(server) => server,
                Err(error) => return vec![Err(error.into()); at.len()],
            };
            let read = |(path, version)| self.read(&server, path, version);
            grouped::fetch(at, wanted, read, |secret, pick| pick.of(secret)).await
        }
        .boxed()
    }

    fn is_same_for_all(&self) -> bool {
        true
    }
}

fn wanted(at: &Locator) -> Result<(Version<'_>, Pick<'_>), FetchError> {
    let version = at.params.get("version").map(String::as_str);
    if version.is_some_and(|version| version.parse::<u32>().is_err()) {
        return Err(invalid("a version is a number"));
    }
    let base64 = match at.params.get("decode").map(String::as_str) {
        None | Some("raw") => false,
        Some("base64") => true,
        Some(_) => return Err(invalid("decode is raw or base64")),
    };
    if at.fragment {
        return if base64 {
            Err(invalid("decode works without a fragment only"))
        } else {
            Ok(((&at.path, version), Pick::Whole))
        };
    }
    match at.path.rsplit_once('/') {
        Some((path, name)) if path.contains('/') => Ok(((path, version), Pick::Field { name, base64 })),
        _ => Err(invalid("it must be mount/path/field, or mount/path#/field")),
    }
}

impl Reader {
    /// The data of one secret, as JSON.
    async fn read(&self, server: &Server, path: &str, version: Option<&str>) -> Result<Document, FetchError> {
        let segments: Vec<_> = path.split('/').collect();
        match self.engine(server, path).await? {
            Engine::Versioned(mount) => versioned(server, &segments, mount, version).await,
            Engine::Plain => plain(server, &segments, version).await,
            Engine::Unknown => match versioned(server, &segments, 1, version).await {
                Err(first) if first.class != Class::Unavailable && version.is_none() => {
                    plain(server, &segments, None).await.map_err(|_| first)
                }
                outcome => outcome,
            },
        }
    }

    /// The lock is held while the server is asked, so that many secrets of one mount ask once.
    async fn engine(&self, server: &Server, path: &str) -> Result<Engine, FetchError> {
        let mut mounts = self.mounts.lock().await;
        mounts.retain(|mount| mount.seen.elapsed() < MOUNT_KNOWN);
        let is_below = |mount: &&Mount| path.starts_with(&mount.path);
        if let Some(mount) = mounts.iter().filter(is_below).max_by_key(|mount| mount.path.len()) {
            return Ok(mount.engine());
        }
        let question: Vec<_> =
            ["sys", "internal", "ui", "mounts"].into_iter().chain(path.split('/')).collect();
        let answer = server.ask(Call::read(&question)).await?;
        let mount = match answer.status {
            200 => Mount::of(&answer).filter(|mount| path.starts_with(&mount.path)),
            404 => return Ok(Engine::Plain),
            400 | 401 | 403 | 405 => None,
            _ => return Err(server.failure(&answer, "the kind of the mount").into()),
        };
        let engine = mount.as_ref().map_or(Engine::Unknown, Mount::engine);
        mounts.extend(mount);
        Ok(engine)
    }
}

impl Mount {
    fn of(answer: &Answer) -> Option<Self> {
        #[derive(Deserialize)]
        struct Envelope {
            data: Data,
        }
        #[derive(Deserialize)]
        struct Data {
            path: String,
            options: Option<BTreeMap<String, String>>,
        }
        let Envelope { data } = serde_json::from_slice(answer.body.expose()).ok()?;
        let version = data.options.as_ref().and_then(|options| options.get("version"));
        let versioned = version.is_some_and(|version| version == "2");
        let path = format!("{}/", data.path.trim_matches('/'));
        Some(Self { path, versioned, seen: Instant::now() })
    }

    fn engine(&self) -> Engine {
        if self.versioned { Engine::Versioned(self.path.matches('/').count()) } else { Engine::Plain }
    }
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

/// A read of KV 2, whose mount is the first `mount` segments.
async fn versioned(
    server: &Server,
    segments: &[&str],
    mount: usize,
    version: Option<&str>,
) -> Result<Document, FetchError> {
    #[derive(Deserialize)]
    struct Version<'a> {
        #[serde(borrow)]
        data: Option<&'a RawValue>,
        #[serde(borrow, rename = "metadata")]
        _metadata: &'a RawValue,
    }
    let (mount, path) = segments.split_at(mount.min(segments.len()));
    let question: Vec<_> = mount.iter().chain(&["data"]).chain(path).copied().collect();
    let answer = server.ask(Call::read(&question).version(version)).await?;
    let what = segments.join("/");
    if answer.status != 200 {
        return Err(server.failure(&answer, &what).into());
    }
    let body: Option<Envelope<'_>> = serde_json::from_slice(answer.body.expose()).ok();
    let version =
        body.and_then(|body| body.data).and_then(|data| serde_json::from_str::<Version<'_>>(data.get()).ok());
    let version =
        version.ok_or_else(|| invalid(&format!("what is at {what} is no secret of a KV engine")))?;
    let data =
        version.data.ok_or_else(|| FetchError::not_found(format!("this version of {what} is deleted")))?;
    Ok(Secret::new(data.get().as_bytes().to_vec()))
}

async fn plain(server: &Server, segments: &[&str], version: Option<&str>) -> Result<Document, FetchError> {
    let what = segments.join("/");
    if version.is_some() {
        return Err(invalid(&format!("the mount of {what} has no versions")));
    }
    let answer = server.ask(Call::read(segments)).await?;
    if answer.status != 200 {
        return Err(server.failure(&answer, &what).into());
    }
    let body: Option<Envelope<'_>> = serde_json::from_slice(answer.body.expose()).ok();
    let data = body.and_then(|body| body.data);
    let data = data.ok_or_else(|| FetchError::not_found(format!("there is no data at {what}")))?;
    Ok(Secret::new(data.get().as_bytes().to_vec()))
}

impl Pick<'_> {
    fn of(self, secret: &Document) -> Result<Document, FetchError> {
        let Self::Field { name, base64 } = self else { return Ok(secret.clone()) };
        let fields: BTreeMap<String, &RawValue> =
            serde_json::from_slice(secret.expose()).map_err(|_| invalid("the secret has no fields"))?;
        let field =
            fields.get(name).ok_or_else(|| FetchError::not_found(format!("no field {name:?}")))?.get();
        let text = match field.as_bytes().first() {
            Some(b'"') => serde_json::from_str(field).map_err(|_| invalid("the field is not readable"))?,
            Some(b'n') => return Err(invalid(&format!("the field {name:?} is null"))),
            _ => field.to_owned(),
        };
        let text = Secret::new(text);
        if !base64 {
            return Ok(Secret::new(text.expose().clone().into_bytes()));
        }
        let bytes = STANDARD.decode(text.expose().trim());
        bytes.map(Secret::new).map_err(|_| invalid(&format!("the field {name:?} is not base64")))
    }
}

impl From<VaultError> for FetchError {
    fn from(error: VaultError) -> Self {
        Self::new(error.class, error.reason).busy(error.busy)
    }
}

fn invalid(reason: &str) -> FetchError {
    FetchError::new(Class::Invalid, reason)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;
    use crate::refs::sources::mock::told;
    use crate::vault::Settings;
    use crate::vault::mock::{Mock, Seen};

    /// `kv` is KV 2, `old` is KV 1; `shut2` is KV 2 and `shut1` KV 1, whose mounts may not be asked about.
    fn answer(seen: &Seen) -> (u16, Json) {
        let secret = json!({"a": "STRONGROOM a", "n": 1.50, "null": null, "b": "YQ=="});
        let two = json!({"data": {"data": secret, "metadata": {"version": 1}}});
        match seen.path.as_str() {
            "sys/internal/ui/mounts/old/x" => (200, json!({"data": {"path": "old/", "options": null}})),
            path if path.starts_with("sys/internal/ui/mounts/kv/") => {
                (200, json!({"data": {"path": "kv/", "options": {"version": "2"}}}))
            }
            path if path.starts_with("sys/internal/ui/mounts/shut") => {
                (403, json!({"errors": ["permission denied"]}))
            }
            "kv/data/x" | "kv/data/y?version=3" | "shut2/data/x" => (200, two),
            "kv/data/gone" => (200, json!({"data": {"data": null, "metadata": {"version": 1}}})),
            "old/x" | "shut1/x" => (200, json!({"data": secret})),
            _ => (404, json!({"errors": []})),
        }
    }

    fn locator(path: &str, params: &[(&str, &str)], fragment: bool) -> Locator {
        let params = params.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Locator { path: path.to_owned(), params, fragment }
    }

    async fn fetched(at: &[Locator]) -> (Vec<String>, Vec<String>) {
        let mock = Mock::start(answer).await;
        let environment = [("VAULT_ADDR", mock.url.as_str()), ("VAULT_TOKEN", "STRONGROOM-MARKER")];
        let vault = Arc::new(Vault::new(environment.into_iter().collect(), Settings::default()));
        let reader = Reader { vault, connection: Connection::of(Brand::Vault), mounts: Mutex::default() };
        let answers = told(reader.fetch(&Scope::default(), at).await);
        let mut asked: Vec<_> = mock.seen().into_iter().map(|seen| seen.path).collect();
        asked.sort();
        (answers, asked)
    }

    #[tokio::test]
    async fn many_fields_of_a_mount_are_one_question_and_one_read_a_secret() {
        let (answers, asked) = fetched(&[
            locator("kv/x/a", &[], false),
            locator("kv/x/n", &[], false),
            locator("kv/x", &[], true),
            locator("kv/x/b", &[("decode", "base64")], false),
            locator("kv/y/a", &[("version", "3")], false),
        ])
        .await;
        let whole = r#"{"a":"STRONGROOM a","n":1.5,"null":null,"b":"YQ=="}"#;
        assert_eq!(answers, ["STRONGROOM a", "1.5", whole, "a", "STRONGROOM a"]);
        assert_eq!(asked.len(), 3, "{asked:?}");
        assert_eq!(asked[..2], ["kv/data/x", "kv/data/y?version=3"]);
    }

    #[tokio::test]
    async fn where_the_mount_may_not_be_asked_about_both_versions_are_tried() {
        let (answers, asked) = fetched(&[
            locator("shut1/x/a", &[], false),
            locator("shut2/x/a", &[], false),
            locator("shut2/absent/a", &[], false),
        ])
        .await;
        assert_eq!(answers, ["STRONGROOM a", "STRONGROOM a", "NotFound: Vault has nothing at shut2/absent"]);
        assert!(asked.contains(&"shut1/data/x".to_owned()) && asked.contains(&"shut1/x".to_owned()));
    }

    #[tokio::test]
    async fn each_locator_fails_by_itself() {
        for (at, expected) in [
            (locator("old/x/a", &[], false), "STRONGROOM a"),
            (locator("old/x/c", &[], false), "NotFound: no field \"c\""),
            (locator("old/x/null", &[], false), "Invalid: the field \"null\" is null"),
            (locator("old/x/a", &[("decode", "base64")], false), "Invalid: the field \"a\" is not base64"),
            (locator("old/x/a", &[("decode", "gzip")], false), "Invalid: decode is raw or base64"),
            (
                locator("old/x", &[("decode", "base64")], true),
                "Invalid: decode works without a fragment only",
            ),
            (locator("old/x", &[("version", "1")], true), "Invalid: the mount of old/x has no versions"),
            (locator("kv/x", &[("version", "-1")], true), "Invalid: a version is a number"),
            (locator("kv/gone", &[], true), "NotFound: this version of kv/gone is deleted"),
            (locator("kv/none", &[], true), "NotFound: Vault has nothing at kv/none"),
            (locator("kv/x", &[], false), "Invalid: it must be mount/path/field, or mount/path#/field"),
        ] {
            assert_eq!(fetched(std::slice::from_ref(&at)).await.0, [expected], "{at:?}");
        }
    }

    #[test]
    fn paths_have_one_spelling() {
        for (path, expected) in [
            ("secret/a/b", Ok("secret/a/b")),
            ("secret/a/", Ok("secret/a")),
            ("secret/auth/token/b", Ok("secret/auth/token/b")),
            ("/secret/a", Err(Class::Invalid)),
            ("secret//a", Err(Class::Invalid)),
            ("secret/../a", Err(Class::Invalid)),
            ("secret/a\nb", Err(Class::Invalid)),
            ("", Err(Class::Invalid)),
            ("auth/token/lookup-self", Err(Class::Denied)),
            ("team/auth/token/lookup-self/id", Err(Class::Denied)),
            ("auth/token/lookup", Err(Class::Denied)),
        ] {
            let normalised = normalise(&Scope::default(), path, &Params::new());
            assert_eq!(normalised.map_err(|error| error.class), expected.map(str::to_owned), "{path}");
        }
    }
}
