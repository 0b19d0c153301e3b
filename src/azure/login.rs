//! As whom Azure is asked: the operator's identity, which the environment tells, never what a repository says.
//!
//! The variables are those of Azure's own libraries, and `AZKV_AUTH` of vals. One way is chosen and no other is tried after
//! it, so that a mistake is an error and not another identity. The logins are those of `azure_identity`; what a server
//! says of one is not told but for its numbers, because it may repeat what it was sent.

use std::collections::HashMap;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use azure_core::credentials::{AccessToken, TokenCredential};
use azure_core::error::ErrorKind;
use azure_core::http::{ClientOptions, Transport};
use azure_core::time::OffsetDateTime;
use azure_identity::{
    AzureCliCredential, AzureDeveloperCliCredential, ClientAssertionCredentialOptions,
    ClientSecretCredential, ClientSecretCredentialOptions, ManagedIdentityCredential,
    ManagedIdentityCredentialOptions, UserAssignedId, WorkloadIdentityCredential,
    WorkloadIdentityCredentialOptions,
};
use reqwest::header::HeaderValue;
use tokio::sync::Mutex;
use url::Url;

use crate::azure::AzureError;
use crate::environment::Environment;
use crate::fault::Class;
use crate::secret::Secret;
use crate::web::Clients;

/// Where nothing answers a login would wait for as long as the render may take.
const TIMEOUT: Duration = Duration::from_secs(15);
/// A token is not used for longer than until so long before its end.
const MARGIN: Duration = Duration::from_mins(5);
const ENTRA: &str = "https://login.microsoftonline.com";
const METADATA: &str = "http://localhost";
const WAYS: &str = "bind Strongroom's service account by workload identity, or set AZURE_TENANT_ID, AZURE_CLIENT_ID and \
                    AZURE_CLIENT_SECRET";

/// The login of this process, and its tokens by what they are for.
pub(super) struct Login {
    environment: Environment,
    person: bool,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    credential: Option<(&'static str, Arc<dyn TokenCredential>)>,
    tokens: HashMap<String, AccessToken>,
}

/// One way to log in.
#[derive(Debug, Eq, PartialEq)]
enum Way {
    /// An application with a secret.
    ClientSecret,
    /// An application that trusts the cluster's tokens.
    Workload,
    /// Of the machine or pod.
    Managed,
    /// Of a person, by `az`.
    Cli,
    /// Of a person, by `azd`.
    DeveloperCli,
}

impl Login {
    pub(super) fn new(environment: Environment, person: bool) -> Self {
        Self { environment, person, kept: Mutex::default() }
    }

    /// The header `Authorization` for `scope`.
    pub(super) async fn bearer(&self, scope: &str, clients: &Clients) -> Result<HeaderValue, AzureError> {
        let mut kept = self.kept.lock().await;
        if let Some(token) = kept.tokens.get(scope)
            && token.expires_on > OffsetDateTime::now_utc() + MARGIN
        {
            return header(token);
        }
        let (from, credential) = if let Some(credential) = &kept.credential {
            credential.clone()
        } else {
            let credential = self.credential(clients)?;
            kept.credential.insert(credential).clone()
        };
        let token = match tokio::time::timeout(TIMEOUT, credential.get_token(&[scope], None)).await {
            Ok(Ok(token)) => token,
            Ok(Err(error)) => return Err(failure(from, &error)),
            Err(_) => return Err(refusal(Class::Timeout, from, "it does not answer in time")),
        };
        let bearer = header(&token);
        kept.tokens.insert(scope.to_owned(), token);
        bearer
    }

    /// The next call asks for a new token for `scope`.
    pub(super) async fn forget(&self, scope: &str) {
        self.kept.lock().await.tokens.remove(scope);
    }

    fn credential(&self, clients: &Clients) -> Result<(&'static str, Arc<dyn TokenCredential>), AzureError> {
        let way = way(&self.environment, self.person)?;
        let options = |to: &str| -> Result<ClientOptions, AzureError> {
            let to: Url = to.parse().expect("a valid URL");
            let client = clients.to(&to).map_err(|error| AzureError::of(&error))?;
            Ok(ClientOptions {
                transport: Some(Transport::new(Arc::new(client))),
                ..ClientOptions::default()
            })
        };
        let variable = |name: &str| -> Result<String, AzureError> {
            let said = self.environment.get(name).map(str::to_owned);
            said.ok_or_else(|| {
                AzureError::new(Class::Invalid, format!("no Azure credentials: {name} is not set"))
            })
        };
        let of = |from, credential: azure_core::Result<Arc<dyn TokenCredential>>| {
            Ok((
                from,
                credential.map_err(|_| refusal(Class::Invalid, from, "what it takes is not well formed"))?,
            ))
        };
        match way {
            Way::ClientSecret => {
                let options = ClientSecretCredentialOptions { client_options: options(ENTRA)? };
                let (tenant, client) = (variable("AZURE_TENANT_ID")?, variable("AZURE_CLIENT_ID")?);
                let secret = variable("AZURE_CLIENT_SECRET")?.into();
                let credential = ClientSecretCredential::new(&tenant, client, secret, Some(options));
                of("AZURE_CLIENT_SECRET", credential.map(|credential| credential as _))
            }
            Way::Workload => {
                let file = variable("AZURE_FEDERATED_TOKEN_FILE")?;
                let credential = WorkloadIdentityCredential::new(Some(WorkloadIdentityCredentialOptions {
                    credential_options: ClientAssertionCredentialOptions { client_options: options(ENTRA)? },
                    client_id: Some(variable("AZURE_CLIENT_ID")?),
                    tenant_id: Some(variable("AZURE_TENANT_ID")?),
                    token_file_path: Some(file.into()),
                }));
                of("workload identity", credential.map(|credential| credential as _))
            }
            Way::Managed => {
                let client = self.environment.get("AZURE_CLIENT_ID").map(str::to_owned);
                let credential = ManagedIdentityCredential::new(Some(ManagedIdentityCredentialOptions {
                    user_assigned_id: client.map(UserAssignedId::ClientId),
                    // It is on this machine or its link, never behind a proxy.
                    client_options: options(METADATA)?,
                }));
                of("managed identity", credential.map(|credential| credential as _))
            }
            Way::Cli => of("az", AzureCliCredential::new(None).map(|credential| credential as _)),
            Way::DeveloperCli => {
                of("azd", AzureDeveloperCliCredential::new(None).map(|credential| credential as _))
            }
        }
    }
}

fn way(environment: &Environment, person: bool) -> Result<Way, AzureError> {
    let is_set = |name| environment.get(name).is_some();
    let invalid = |reason| Err(AzureError::new(Class::Invalid, reason));
    match environment.get("AZKV_AUTH").unwrap_or("default") {
        "default" => {}
        "workload" => return Ok(Way::Workload),
        "managed" => return Ok(Way::Managed),
        "cli" | "devcli" if !person => {
            return invalid("AZKV_AUTH: a login that runs a program is for a person at a terminal");
        }
        "cli" => return Ok(Way::Cli),
        "devcli" => return Ok(Way::DeveloperCli),
        _ => return invalid("AZKV_AUTH is none of default, workload, managed, cli, devcli"),
    }
    if is_set("AZURE_CLIENT_SECRET") {
        Ok(Way::ClientSecret)
    } else if is_set("AZURE_CLIENT_CERTIFICATE_PATH") {
        invalid("AZURE_CLIENT_CERTIFICATE_PATH: a login by certificate is not supported")
    } else if is_set("AZURE_FEDERATED_TOKEN_FILE") {
        Ok(Way::Workload)
    } else if person && !is_set("IDENTITY_ENDPOINT") && !is_set("MSI_ENDPOINT") {
        Ok(Way::Cli)
    } else {
        Ok(Way::Managed)
    }
}

/// What the innermost link that knows says: a status with Entra's numbers, or that there was no answer.
fn failure(from: &str, error: &azure_core::Error) -> AzureError {
    let mut link: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = link {
        match error.downcast_ref::<azure_core::Error>().map(azure_core::Error::kind) {
            Some(ErrorKind::HttpResponse { status, error_code, .. }) => {
                let status = u16::from(*status);
                let digits = |code: &&String| code.bytes().all(|c| c.is_ascii_digit() || c == b',');
                let numbers = error_code.as_ref().filter(digits).map(|code| format!(" AADSTS{code}"));
                let class = if status == 429 || status >= 500 { Class::Unavailable } else { Class::Denied };
                let why = format!("it says HTTP {status}{}", numbers.unwrap_or_default());
                return refusal(class, from, &why);
            }
            Some(ErrorKind::Connection | ErrorKind::Io) => {
                return refusal(Class::Unavailable, from, "it cannot be reached");
            }
            _ => link = error.source(),
        }
    }
    refusal(Class::Denied, from, "it gives no token")
}

fn refusal(class: Class, from: &str, why: &str) -> AzureError {
    AzureError::new(class, format!("no Azure credentials by {from}: {why}\nhelp: {WAYS}"))
}

fn header(token: &AccessToken) -> Result<HeaderValue, AzureError> {
    let text = Secret::new(format!("Bearer {}", token.token.secret()));
    let mut value = HeaderValue::from_str(text.expose())
        .map_err(|_| AzureError::new(Class::Invalid, "Azure's token is none"))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod mock {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use azure_core::credentials::TokenRequestOptions;
    use futures::future::BoxFuture;

    use super::*;

    impl Login {
        /// Is given `token`, whatever for; with a number behind it where it ends in `#`.
        pub(in crate::azure) fn mocked(token: &'static str) -> Self {
            Self::by(Arc::new(Counting::new(token, Duration::from_hours(1))))
        }

        pub(super) fn by(credential: Arc<dyn TokenCredential>) -> Self {
            let kept = Kept { credential: Some(("a mock", credential)), ..Kept::default() };
            Self { environment: Environment::default(), person: false, kept: Mutex::new(kept) }
        }
    }

    /// Gives tokens that live for so long, and counts them.
    #[derive(Debug)]
    pub(super) struct Counting {
        token: &'static str,
        life: Duration,
        pub(super) given: AtomicUsize,
    }

    impl Counting {
        pub(super) fn new(token: &'static str, life: Duration) -> Self {
            Self { token, life, given: AtomicUsize::default() }
        }
    }

    impl TokenCredential for Counting {
        fn get_token<'a, 'b, 'c, 'd, 'f>(
            &'a self,
            _: &'b [&'c str],
            _: Option<TokenRequestOptions<'d>>,
        ) -> BoxFuture<'f, azure_core::Result<AccessToken>>
        where
            Self: 'f,
            'a: 'f,
            'b: 'f,
            'c: 'f,
            'd: 'f,
        {
            Box::pin(async move {
                let number = self.given.fetch_add(1, Ordering::Relaxed) + 1;
                tokio::task::yield_now().await;
                let number = if self.token.ends_with('#') { number.to_string() } else { String::new() };
                Ok(AccessToken::new(self.token.to_owned() + &number, OffsetDateTime::now_utc() + self.life))
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::mock::Counting;
    use super::*;

    #[test]
    fn one_way_is_chosen_by_what_the_operator_says() {
        let certificate = "Invalid: AZURE_CLIENT_CERTIFICATE_PATH: a login by certificate is not supported";
        let program = "Invalid: AZKV_AUTH: a login that runs a program is for a person at a terminal";
        let unknown = "Invalid: AZKV_AUTH is none of default, workload, managed, cli, devcli";
        for (set, expected, of_person) in [
            (&[][..], Ok(Way::Managed), Ok(Way::Cli)),
            (
                &["AZURE_CLIENT_SECRET", "AZURE_FEDERATED_TOKEN_FILE"],
                Ok(Way::ClientSecret),
                Ok(Way::ClientSecret),
            ),
            (&["AZURE_FEDERATED_TOKEN_FILE"], Ok(Way::Workload), Ok(Way::Workload)),
            (&["IDENTITY_ENDPOINT"], Ok(Way::Managed), Ok(Way::Managed)),
            (&["AZURE_CLIENT_CERTIFICATE_PATH"], Err(certificate), Err(certificate)),
            (&["AZKV_AUTH=default", "IDENTITY_ENDPOINT"], Ok(Way::Managed), Ok(Way::Managed)),
            (&["AZKV_AUTH=workload", "AZURE_CLIENT_SECRET"], Ok(Way::Workload), Ok(Way::Workload)),
            (&["AZKV_AUTH=managed", "AZURE_CLIENT_SECRET"], Ok(Way::Managed), Ok(Way::Managed)),
            (&["AZKV_AUTH=cli"], Err(program), Ok(Way::Cli)),
            (&["AZKV_AUTH=devcli"], Err(program), Ok(Way::DeveloperCli)),
            (&["AZKV_AUTH=other"], Err(unknown), Err(unknown)),
        ] {
            let variable =
                |entry: &&'static str| entry.split_once('=').unwrap_or((entry, "STRONGROOM-MARKER"));
            let environment: Environment = set.iter().map(variable).collect();
            let told = |person| way(&environment, person).map_err(|e| format!("{:?}: {e}", e.class));
            assert_eq!(told(false), expected.map_err(str::to_owned), "{set:?}");
            assert_eq!(told(true), of_person.map_err(str::to_owned), "{set:?} of a person");
        }
    }

    #[tokio::test]
    async fn a_token_serves_many_until_shortly_before_its_end() {
        for (life, given) in [(Duration::from_hours(1), 2), (Duration::from_mins(4), 40)] {
            let credential = Arc::new(Counting::new("STRONGROOM-MARKER", life));
            let login = Login::by(credential.clone());
            let clients = Clients::default();
            let asked = (0..40).map(|at| login.bearer(["a", "b"][at % 2], &clients));
            for bearer in futures::future::join_all(asked).await {
                let bearer = bearer.unwrap();
                assert_eq!(bearer, "Bearer STRONGROOM-MARKER");
                assert!(!format!("{bearer:?}").contains("MARKER"));
            }
            assert_eq!(credential.given.load(Ordering::Relaxed), given, "{life:?}");
        }
    }

    #[tokio::test]
    async fn what_a_way_lacks_is_named_and_no_other_way_is_tried() {
        for (variables, expected) in [
            (
                &[("AZURE_CLIENT_SECRET", "STRONGROOM-MARKER")][..],
                "no Azure credentials: AZURE_TENANT_ID is not set",
            ),
            (
                &[
                    ("AZURE_FEDERATED_TOKEN_FILE", "/absent"),
                    ("AZURE_CLIENT_ID", "c"),
                    ("AZURE_TENANT_ID", "t"),
                ],
                "no Azure credentials by workload identity: what it takes is not well formed",
            ),
        ] {
            let login = Login::new(variables.iter().copied().collect(), false);
            let error =
                login.bearer("https://vault.azure.net/.default", &Clients::default()).await.unwrap_err();
            assert_eq!((error.class, error.reason.lines().next()), (Class::Invalid, Some(expected)));
        }
    }
}
