//! How a token is had, as the operator's environment says (`VAULT_…`, or `BAO_…` for OpenBao).
//!
//! | `AUTH_METHOD` | takes | mount |
//! |---|---|---|
//! | `token` | `TOKEN`, the file `TOKEN_FILE`, on a terminal `~/.vault-token` | |
//! | `approle` | `ROLE_ID`, `SECRET_ID` or the file `SECRET_ID_FILE` | `LOGIN_MOUNT_POINT` |
//! | `kubernetes` | `ROLE_ID`; the service account's token, or the file `KUBERNETES_JWT_TOKEN_PATH` | `KUBERNETES_MOUNT_POINT` |
//! | `userpass` | `USERNAME`; the file `PASSWORD_FILE`, or the variable that `PASSWORD_ENV` names | `LOGIN_MOUNT_POINT` |
//! | `jwt` | `ROLE_ID`; the file `JWT_FILE`, or the service account's token | `LOGIN_MOUNT_POINT` |
//!
//! Files are read at each login, because agents write new ones. A mount is named as its method unless said.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use reqwest::header::HeaderValue;
use serde::Deserialize;
use serde_json::{Value as Json, json};
use zeroize::Zeroize;

use crate::environment::Environment;
use crate::fault::Class;
use crate::secret::Secret;
use crate::vault::{Brand, Connection, VaultError, read};
use crate::web::Answer;

const SERVICE_ACCOUNT_TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// A token, and how long it lasts.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) token: Secret<String>,
    pub(super) made: Instant,
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

/// JSON that is wiped.
pub(super) struct Body(pub(super) Json);

impl Zeroize for Body {
    fn zeroize(&mut self) {
        if let Json::Object(fields) = &mut self.0 {
            for (_, value) in fields {
                if let Json::String(text) = value {
                    text.zeroize();
                }
            }
        }
    }
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
            _ => Err(VaultError::new(
                Class::Invalid,
                format!(
                    "the method of the login is not known\nhelp: {}AUTH_METHOD is token, approle, kubernetes, userpass or jwt",
                    connection.brand.prefix()
                ),
            )),
        }
    }

    pub(super) fn request(&self) -> Result<Request, VaultError> {
        match self {
            Self::Token(held) => Ok(Request::Token(held.text()?)),
            Self::Write { path, role, credential: (name, held) } => {
                let mut body = json!({ *name: held.text()?.expose() });
                if let Some((name, role)) = role {
                    body[*name] = role.as_str().into();
                }
                Ok(Request::Login { path: path.clone(), body: Secret::new(Body(body)) })
            }
        }
    }
}

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
            lease: (auth.lease_duration > 0).then(|| Duration::from_secs(auth.lease_duration.min(1 << 32))),
            renewable: auth.renewable,
        })
    }

    /// For `X-Vault-Token`. What cannot be in a header is no token, and the server will say so.
    pub(super) fn header(&self) -> HeaderValue {
        let mut value =
            HeaderValue::from_str(self.token.expose()).unwrap_or_else(|_| HeaderValue::from_static(""));
        value.set_sensitive(true);
        value
    }
}
