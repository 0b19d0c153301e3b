//! Who one is to HuaweiCloud: access key and secret key of the environment, of a file, or of the machine's agency.
//!
//! In this order, as in HuaweiCloud's own libraries, whose variables these are. What the machine gives is kept until it is
//! about to end; a file is read each time, because agents write new ones.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use reqwest::header::HeaderValue;
use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::Mutex;
use url::Url;

use crate::environment::Environment;
use crate::fault::Class;
use crate::huawei::HuaweiError;
use crate::secret::Secret;
use crate::web::{self, Answer, Clients};

/// The same in every cloud.
const METADATA: &str = "http://169.254.169.254";
/// Temporary keys are not used in their last minutes.
const MARGIN: Duration = Duration::from_mins(5);

/// Access key and secret key.
#[derive(Debug)]
pub(super) struct Credentials {
    pub(super) access: String,
    pub(super) secret: Secret<String>,
    /// Of temporary keys.
    pub(super) token: Option<Secret<String>>,
    /// Where the operator says it.
    pub(super) project: Option<String>,
    /// When temporary keys end.
    until: Option<SystemTime>,
}

/// Where credentials come from.
pub(super) struct Login {
    metadata: String,
    kept: Mutex<Option<Arc<Credentials>>>,
}

impl Default for Login {
    fn default() -> Self {
        Self { metadata: METADATA.to_owned(), kept: Mutex::default() }
    }
}

/// What the metadata server gives.
#[derive(Deserialize)]
struct Agency {
    credential: Temporary,
}

#[derive(Deserialize)]
struct Temporary {
    access: String,
    secret: String,
    securitytoken: String,
    expires_at: String,
}

impl Login {
    /// With a metadata server at this address.
    #[cfg(test)]
    pub(super) fn mocked(metadata: &str) -> Self {
        Self { metadata: metadata.to_owned(), kept: Mutex::default() }
    }

    pub(super) async fn credentials(
        &self,
        environment: &Environment,
        clients: &Clients,
    ) -> Result<Arc<Credentials>, HuaweiError> {
        let variable = |name: &str| environment.get(&format!("HUAWEICLOUD_SDK_{name}")).map(str::to_owned);
        if let Some(credentials) = Credentials::of(variable, |name| name) {
            return Ok(Arc::new(credentials));
        }
        if let Some(path) = credentials_file(environment) {
            return of_file(&path).map(Arc::new);
        }
        let mut kept = self.kept.lock().await;
        let fresh =
            |kept: &&Arc<Credentials>| kept.until.is_none_or(|until| SystemTime::now() + MARGIN < until);
        if let Some(credentials) = kept.as_ref().filter(fresh) {
            return Ok(Arc::clone(credentials));
        }
        let project = environment.get("HUAWEICLOUD_SDK_PROJECT_ID").map(str::to_owned);
        let credentials = Credentials { project, ..self.of_machine(clients).await? };
        Ok(Arc::clone(kept.insert(Arc::new(credentials))))
    }

    /// Those of the agency that the machine has.
    async fn of_machine(&self, clients: &Clients) -> Result<Credentials, HuaweiError> {
        let at = |path: &str| -> Result<Url, HuaweiError> {
            format!("{}{path}", self.metadata).parse().map_err(|_| HuaweiError::no_credentials())
        };
        let url = at("/meta-data/latest/api/token")?;
        let client = clients.to(&url).map_err(|error| HuaweiError::of(&error))?;
        let token = client.put(url).header("X-Metadata-Token-Ttl-Seconds", "21600");
        // A machine that nobody is on answers nothing, and an old one knows no tokens.
        let token = web::send_once(token).await.map_err(|_| HuaweiError::no_credentials())?;
        let mut request = client.get(at("/openstack/latest/securitykey")?);
        if let Some(token) = header_of(&token) {
            request = request.header("X-Metadata-Token", token);
        }
        let answer = web::send_once(request).await.map_err(|_| HuaweiError::no_credentials())?;
        let agency = serde_json::from_slice::<Agency>(answer.body.expose()).ok();
        let temporary =
            agency.filter(|_| answer.status == 200).ok_or_else(HuaweiError::no_credentials)?.credential;
        let until = OffsetDateTime::parse(&temporary.expires_at, &Rfc3339).ok();
        Ok(Credentials {
            access: temporary.access,
            secret: Secret::new(temporary.secret),
            token: Some(Secret::new(temporary.securitytoken)),
            project: None,
            until: Some(until.map_or(SystemTime::UNIX_EPOCH, SystemTime::from)),
        })
    }
}

fn header_of(answer: &Answer) -> Option<HeaderValue> {
    let mut token = HeaderValue::from_bytes(answer.body.expose()).ok().filter(|_| answer.status == 200)?;
    token.set_sensitive(true);
    Some(token)
}

impl Credentials {
    /// Those that `field` has under the names that `spell` makes of the variables'.
    fn of(field: impl Fn(&str) -> Option<String>, spell: fn(&'static str) -> &'static str) -> Option<Self> {
        Some(Self {
            access: field(spell("AK"))?,
            secret: Secret::new(field(spell("SK"))?),
            token: field(spell("SECURITY_TOKEN")).map(Secret::new),
            project: field(spell("PROJECT_ID")),
            until: None,
        })
    }
}

/// The file that the operator names, or the usual one where it is there.
fn credentials_file(environment: &Environment) -> Option<PathBuf> {
    if let Some(path) = environment.get("HUAWEICLOUD_SDK_CREDENTIALS_FILE") {
        return Some(PathBuf::from(path));
    }
    let usual = Path::new(environment.get("HOME")?).join(".huaweicloud/credentials");
    usual.is_file().then_some(usual)
}

/// The section `[basic]` of an INI file.
fn of_file(path: &Path) -> Result<Credentials, HuaweiError> {
    let wrong = |why: &str| {
        let reason = format!("HuaweiCloud credentials cannot be read from {}: {why}", path.display());
        HuaweiError::new(Class::Invalid, reason)
    };
    let text = fs::read_to_string(path).map_err(|error| wrong(&error.kind().to_string()))?;
    let text = Secret::new(text);
    let lines = text.expose().lines().map(str::trim);
    let section =
        lines.skip_while(|line| *line != "[basic]").skip(1).take_while(|line| !line.starts_with('['));
    let fields: Vec<_> = section.filter_map(|line| line.split_once('=')).collect();
    let field = |name: &str| {
        let found = fields.iter().find(|(known, _)| known.trim() == name);
        found.map(|(_, value)| value.trim().to_owned()).filter(|value| !value.is_empty())
    };
    Credentials::of(field, |name| match name {
        "AK" => "ak",
        "SK" => "sk",
        "SECURITY_TOKEN" => "security_token",
        _ => "project_id",
    })
    .ok_or_else(|| wrong("it has no `ak` and `sk` in a section [basic]"))
}
