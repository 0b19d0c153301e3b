//! How a token is had, as the operator's environment says (`VAULT_…`, or `BAO_…` for OpenBao).
//!
//! | `AUTH_METHOD` | takes | mount |
//! |---|---|---|
//! | `token` | `TOKEN`, the file `TOKEN_FILE`, on a terminal `~/.vault-token` | |
//! | `approle` | `ROLE_ID`, `SECRET_ID` or the file `SECRET_ID_FILE` | `LOGIN_MOUNT_POINT` |
//! | `kubernetes` | `ROLE_ID`; the service account's token, or the file `KUBERNETES_JWT_TOKEN_PATH` | `KUBERNETES_MOUNT_POINT` |
//! | `userpass` | `USERNAME`; the file `PASSWORD_FILE`, or the variable that `PASSWORD_ENV` names | `LOGIN_MOUNT_POINT` |
//! | `jwt` | `ROLE_ID`; the file `JWT_FILE`, or the service account's token | `LOGIN_MOUNT_POINT` |
//! | `aws` | AWS's own chain of credentials; `ROLE_ID` and `AWS_IAM_SERVER_ID` where the server wants them | `LOGIN_MOUNT_POINT` |
//!
//! Files are read at each login, because agents write new ones. A mount is named as its method unless said.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use aws_credential_types::provider::ProvideCredentials;
use aws_sigv4::http_request::{self, SignableBody, SignableRequest, SigningSettings};
use aws_sigv4::sign::v4;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::HeaderValue;
use serde::Deserialize;
use serde_json::{Value as Json, json};

use crate::aws::{self, Aws};
use crate::environment::Environment;
use crate::fault::Class;
use crate::secret::Secret;
use crate::vault::{Body, Brand, Connection, VaultError, read};
use crate::web::Answer;

const SERVICE_ACCOUNT_TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// Who one is to AWS is asked here; a server of Vault that is not told otherwise asks the same.
const STS: &str = "https://sts.amazonaws.com/";
const STS_REGION: &str = "us-east-1";
const CALLER_IDENTITY: &str = "Action=GetCallerIdentity&Version=2011-06-15";
const SERVER_ID: &str = "X-Vault-AWS-IAM-Server-ID";

/// A token, and how long it lasts.
#[derive(Clone, Debug)]
pub(super) struct Session {
    pub(super) token: Secret<String>,
    pub(super) made: Instant,
    /// Whether the server said how long it lasts, or was asked in vain.
    pub(super) known: bool,
    /// `None`: as long as nobody says otherwise.
    pub(super) lease: Option<Duration>,
    pub(super) renewable: bool,
}

/// Where a token comes from.
#[derive(Debug)]
pub(super) enum Login {
    Token(Held),
    /// A write to `auth/…`, of fields and one credential.
    Write {
        path: Vec<String>,
        role: Option<(&'static str, String)>,
        credential: (&'static str, Held),
    },
    /// A write to `auth/…` of a question to AWS that is signed and not sent.
    Aws {
        path: Vec<String>,
        role: Option<String>,
        server_id: Option<String>,
        aws: Arc<Aws>,
    },
}

/// A credential that the operator holds.
#[derive(Debug)]
pub(super) enum Held {
    Here(Secret<String>),
    File(PathBuf),
}

/// What a login sends.
pub(super) enum Request {
    /// Nothing: this is the token.
    Token(Secret<String>),
    Login {
        path: Vec<String>,
        body: Secret<Body>,
    },
}

/// The environment, by the names of one brand.
struct Chosen<'a> {
    brand: Brand,
    environment: &'a Environment,
}

impl Login {
    pub(super) fn choose(
        connection: &Connection,
        environment: &Environment,
        home: bool,
        aws: &Arc<Aws>,
    ) -> Result<Self, VaultError> {
        let chosen = Chosen { brand: connection.brand, environment };
        let role = || connection.role.clone().map_or_else(|| chosen.need("ROLE_ID"), Ok);
        let method = connection.method.clone().or_else(|| chosen.get("AUTH_METHOD"));
        match method.as_deref().unwrap_or("token") {
            "token" => chosen.token(home).map(Self::Token),
            "approle" => Ok(Self::Write {
                path: chosen.login_path("approle", "LOGIN_MOUNT_POINT", None),
                role: Some(("role_id", role()?)),
                credential: ("secret_id", chosen.held("SECRET_ID", "SECRET_ID_FILE")?),
            }),
            "kubernetes" => Ok(Self::Write {
                path: chosen.login_path("kubernetes", "KUBERNETES_MOUNT_POINT", None),
                role: Some(("role", role()?)),
                credential: ("jwt", chosen.jwt("KUBERNETES_JWT_TOKEN_PATH")),
            }),
            "jwt" => Ok(Self::Write {
                path: chosen.login_path("jwt", "LOGIN_MOUNT_POINT", None),
                role: Some(("role", role()?)),
                credential: ("jwt", chosen.jwt("JWT_FILE")),
            }),
            "userpass" => Ok(Self::Write {
                path: chosen.login_path("userpass", "LOGIN_MOUNT_POINT", Some(chosen.need("USERNAME")?)),
                role: None,
                credential: ("password", chosen.password()?),
            }),
            "aws" => Ok(Self::Aws {
                path: chosen.login_path("aws", "LOGIN_MOUNT_POINT", None),
                role: connection.role.clone().or_else(|| chosen.get("ROLE_ID")),
                server_id: chosen.get("AWS_IAM_SERVER_ID"),
                aws: Arc::clone(aws),
            }),
            _ => Err(VaultError::new(
                Class::Invalid,
                format!(
                    "the method of the login is not known\nhelp: {}AUTH_METHOD is token, approle, kubernetes, userpass, jwt or aws",
                    connection.brand.prefix()
                ),
            )),
        }
    }

    pub(super) async fn request(&self) -> Result<Request, VaultError> {
        match self {
            Self::Token(held) => Ok(Request::Token(held.text()?)),
            Self::Write { path, role, credential: (name, held) } => {
                let mut body = json!({ *name: held.text()?.expose() });
                if let Some((name, role)) = role {
                    body[*name] = role.as_str().into();
                }
                Ok(Request::Login { path: path.clone(), body: Secret::new(Body(body)) })
            }
            Self::Aws { path, role, server_id, aws } => {
                let body = signed(aws, role.as_deref(), server_id.as_deref()).await?;
                Ok(Request::Login { path: path.clone(), body })
            }
        }
    }
}

/// A question to AWS who it is that asks, with a signature that holds for minutes. It is the server that sends it.
async fn signed(aws: &Aws, role: Option<&str>, server_id: Option<&str>) -> Result<Secret<Body>, VaultError> {
    let failed = |reason: String| VaultError::new(Class::Denied, format!("the login failed: {reason}"));
    let connection = aws::Connection { region: Some(STS_REGION.to_owned()), ..aws::Connection::default() };
    let config = aws.config(&connection).await.map_err(|error| failed(error.reason))?;
    let provider = config.credentials_provider().ok_or_else(|| failed(NO_AWS.to_owned()))?;
    let credentials = provider.provide_credentials().await.map_err(|_| failed(NO_AWS.to_owned()))?;
    let identity = credentials.into();
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(STS_REGION)
        .name("sts")
        .time(SystemTime::now())
        .settings(SigningSettings::default())
        .build()
        .expect("all parts are there");
    let mut headers = vec![
        ("Host", "sts.amazonaws.com".to_owned()),
        ("Content-Type", "application/x-www-form-urlencoded; charset=utf-8".to_owned()),
    ];
    headers.extend(server_id.map(|id| (SERVER_ID, id.to_owned())));
    let plain = headers.iter().map(|(name, value)| (*name, value.as_str()));
    let request = SignableRequest::new("POST", STS, plain, SignableBody::Bytes(CALLER_IDENTITY.as_bytes()));
    let signed = request.and_then(|request| http_request::sign(request, &params.into()));
    let (signature, _) =
        signed.map_err(|_| failed("a header has characters that cannot be signed".to_owned()))?.into_parts();
    let all = headers.iter().map(|(name, value)| (*name, value.as_str())).chain(signature.headers());
    let all: serde_json::Map<_, _> = all.map(|(name, value)| (name.to_owned(), value.into())).collect();
    let all = Secret::new(Body(Json::Object(all)));
    let mut body = json!({
        "iam_http_request_method": "POST",
        "iam_request_url": STANDARD.encode(STS),
        "iam_request_body": STANDARD.encode(CALLER_IDENTITY),
        "iam_request_headers": STANDARD.encode(all.expose().0.to_string()),
    });
    if let Some(role) = role {
        body["role"] = role.into();
    }
    Ok(Secret::new(Body(body)))
}

const NO_AWS: &str = "no AWS credentials\nhelp: give Strongroom's service account a role (IRSA or Pod Identity), or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY";

impl Held {
    fn text(&self) -> Result<Secret<String>, VaultError> {
        match self {
            Self::Here(text) => Ok(text.clone()),
            Self::File(path) => {
                let bytes = read(path)?;
                let text = std::str::from_utf8(bytes.expose()).map(str::trim);
                let text = text.ok().filter(|text| !text.is_empty()).ok_or_else(|| {
                    VaultError::new(Class::Invalid, format!("{} holds no credential", path.display()))
                })?;
                Ok(Secret::new(text.to_owned()))
            }
        }
    }
}

impl Chosen<'_> {
    fn get(&self, name: &str) -> Option<String> {
        self.brand.variable(self.environment, name)
    }

    fn need(&self, name: &str) -> Result<String, VaultError> {
        self.get(name).ok_or_else(|| self.lacks(name))
    }

    fn lacks(&self, name: &str) -> VaultError {
        let (brand, prefix) = (self.brand.name(), self.brand.prefix());
        let reason = format!("no credentials for {brand}\nhelp: the operator sets {prefix}{name}");
        VaultError::new(Class::Denied, reason)
    }

    fn held(&self, value: &str, file: &str) -> Result<Held, VaultError> {
        let here = self.get(value).map(|text| Held::Here(Secret::new(text)));
        let file = || self.get(file).map(|path| Held::File(path.into()));
        here.or_else(file).ok_or_else(|| self.lacks(value))
    }

    fn token(&self, home: bool) -> Result<Held, VaultError> {
        self.held("TOKEN", "TOKEN_FILE").or_else(|error| {
            let home = self.environment.get("HOME").filter(|_| home).map(Path::new).ok_or(error.clone())?;
            let names: &[&str] = if self.brand == Brand::OpenBao {
                &[".bao-token", ".vault-token"]
            } else {
                &[".vault-token"]
            };
            let mut files = names.iter().map(|name| home.join(name));
            files.find(|file| file.is_file()).map(Held::File).ok_or(error)
        })
    }

    fn jwt(&self, variable: &str) -> Held {
        Held::File(self.get(variable).unwrap_or_else(|| SERVICE_ACCOUNT_TOKEN.to_owned()).into())
    }

    fn password(&self) -> Result<Held, VaultError> {
        if let Some(path) = self.get("PASSWORD_FILE") {
            return Ok(Held::File(path.into()));
        }
        let variable = self.need("PASSWORD_ENV")?;
        let password = self.environment.get(&variable).ok_or_else(|| self.lacks("PASSWORD_FILE"))?;
        Ok(Held::Here(Secret::new(password.to_owned())))
    }

    fn login_path(&self, method: &str, mount: &str, user: Option<String>) -> Vec<String> {
        let mount = self.get(mount).unwrap_or_else(|| method.to_owned());
        let mount = mount.split('/').filter(|segment| !segment.is_empty()).map(str::to_owned);
        let path = std::iter::once("auth".to_owned()).chain(mount).chain(["login".to_owned()]);
        path.chain(user).collect()
    }
}

impl Session {
    /// From the `auth` of an answer.
    pub(super) fn of_answer(answer: &Answer) -> Option<Self> {
        #[derive(Deserialize)]
        struct Envelope {
            auth: Auth,
        }
        #[derive(Deserialize)]
        struct Auth {
            client_token: String,
            lease_duration: u64,
            renewable: bool,
        }
        let Envelope { auth } = serde_json::from_slice(answer.body.expose()).ok()?;
        Some(Self {
            token: Secret::new(auth.client_token),
            made: Instant::now(),
            known: true,
            lease: (auth.lease_duration > 0).then(|| Duration::from_secs(auth.lease_duration.min(1 << 32))),
            renewable: auth.renewable,
        })
    }

    /// The same token, with what the server says of it.
    pub(super) fn looked_up(&self, answer: Option<&Answer>) -> Self {
        #[derive(Deserialize)]
        struct Envelope {
            data: Data,
        }
        #[derive(Deserialize)]
        struct Data {
            ttl: u64,
            #[serde(default)]
            renewable: bool,
        }
        let data = answer.filter(|answer| answer.status == 200);
        let data = data.and_then(|answer| serde_json::from_slice::<Envelope>(answer.body.expose()).ok());
        let Some(Envelope { data: Data { ttl, renewable } }) = data else {
            return Self { known: true, ..self.clone() };
        };
        let lease = (ttl > 0).then(|| Duration::from_secs(ttl.min(1 << 32)));
        Self { token: self.token.clone(), made: Instant::now(), known: true, lease, renewable }
    }

    /// For `X-Vault-Token`. What cannot be in a header is no token, and the server will say so.
    pub(super) fn header(&self) -> HeaderValue {
        let mut value =
            HeaderValue::from_str(self.token.expose()).unwrap_or_else(|_| HeaderValue::from_static(""));
        value.set_sensitive(true);
        value
    }
}
