//! Addresses of servers, in one spelling, so that two of them can be compared.
//!
//! A login goes only to an address that the operator names; one that a repository names must be on the operator's list.

use std::fmt;
use std::str::FromStr;

use url::Url;

/// `https://host:port` and perhaps a path: lower case, without the default port, without a `/` at its end.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Address(Url);

/// It is not an address.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum AddressError {
    /// It does not begin with `https://` or `http://`, or has no host.
    #[error("it must be an https:// or http:// URL")]
    NotHttp,
    /// It has a user, a password, a query or a fragment.
    #[error("it must be without user, query and fragment")]
    TooMuch,
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let url: Url = text.trim().parse().map_err(|_| AddressError::NotHttp)?;
        if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
            return Err(AddressError::NotHttp);
        }
        let bare = url.username().is_empty() && url.password().is_none();
        if !bare || url.query().is_some() || url.fragment().is_some() {
            return Err(AddressError::TooMuch);
        }
        let mut own = url.clone();
        own.set_path(url.path().trim_end_matches('/'));
        Ok(Self(own))
    }
}

impl Address {
    /// As a URL.
    pub const fn url(&self) -> &Url {
        &self.0
    }

    /// The URL of `path` below this address, each segment encoded.
    pub fn join<'a>(&self, path: impl IntoIterator<Item = &'a str>) -> Url {
        let mut url = self.0.clone();
        url.path_segments_mut().expect("http has a path").pop_if_empty().extend(path);
        url
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str().trim_end_matches('/'))
    }
}

/// `named` by a repository, if it is on the operator's list.
pub fn permit(named: Address, list: &[Address]) -> Result<Address, NotListed> {
    if list.contains(&named) { Ok(named) } else { Err(NotListed(named)) }
}

/// An address is not the operator's.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "{0} is not an address that the operator names\nhelp: the operator allows addresses with STRONGROOM_ALLOW_ADDRESSES"
)]
pub struct NotListed(Address);

/// The addresses of a list that is separated by commas.
pub fn list(text: &str) -> Result<Vec<Address>, AddressListError> {
    let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
    let parse = |entry: &str| {
        entry.parse().map_err(|why| AddressListError { entry: entry.chars().take(200).collect(), why })
    };
    entries.map(parse).collect()
}

/// An entry of a list is no address.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{entry:?} is no address: {why}")]
pub struct AddressListError {
    entry: String,
    why: AddressError,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_spellings_of_an_address_are_one() {
        for (text, expected) in [
            ("https://vault.example:443/", Ok("https://vault.example")),
            ("HTTPS://Vault.Example", Ok("https://vault.example")),
            ("http://127.0.0.1:8200", Ok("http://127.0.0.1:8200")),
            ("https://vault.example/behind/it/", Ok("https://vault.example/behind/it")),
            ("https://vault.example@evil.example", Err(AddressError::TooMuch)),
            ("https://vault.example?a", Err(AddressError::TooMuch)),
            ("https://vault.example#a", Err(AddressError::TooMuch)),
            ("vault.example:8200", Err(AddressError::NotHttp)),
            ("unix:///run/vault", Err(AddressError::NotHttp)),
            ("", Err(AddressError::NotHttp)),
        ] {
            let address = text.parse::<Address>().map(|address| address.to_string());
            assert_eq!(address, expected.map(str::to_owned), "{text}");
        }
    }

    #[test]
    fn segments_cannot_leave_their_place() {
        let address: Address = "https://vault.example/x".parse().unwrap();
        let url = address.join(["v1", "secret", "a/b", "c?d#e", "%2e%2e"]);
        assert_eq!(url.as_str(), "https://vault.example/x/v1/secret/a%2Fb/c%3Fd%23e/%252e%252e");
        let plain: Address = "http://h:1".parse().unwrap();
        assert_eq!(plain.join(["sys", "health"]).as_str(), "http://h:1/sys/health");
    }

    #[test]
    fn a_list_names_the_entry_that_is_wrong() {
        assert_eq!(list(" https://a , https://b/,").unwrap().len(), 2);
        let error = list("https://a,b").unwrap_err();
        assert_eq!(error.to_string(), "\"b\" is no address: it must be an https:// or http:// URL");
    }
}
