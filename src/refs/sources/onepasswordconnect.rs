//! `ref+onepasswordconnect://vault/item#/section.field`: a 1Password Connect server.
//!
//! Vault and item are named by id or title. An item is a map of its fields under every name that each has: its id or
//! label, behind the id or label of its section where it is in one. A field without a value is not in it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::future::{self, BoxFuture, FutureExt};
use serde::Deserialize;

use crate::document::value::Value;
use crate::fault::Class;
use crate::refs::ambient::Ambient;
use crate::refs::source::{
    Document, FetchError, Fragment, Locator, OpenError, Params, Scheme, Source, without_dots,
};
use crate::refs::sources::http::{self, Credential, Server, Text};
use crate::scope::Scope;
use crate::secret::Secret;

const ID_LENGTH: usize = 26;

pub(crate) const SCHEME: Scheme = Scheme {
    name: "onepasswordconnect",
    doc: "a 1Password Connect server, with `OP_CONNECT_HOST` and `OP_CONNECT_TOKEN`",
    examples: &[
        (
            "ref+onepasswordconnect://Team/database#/password",
            "a field, by label or id; vault and item by title or id",
        ),
        ("ref+onepasswordconnect://Team/database#/replica.password", "a field of a section"),
        ("ref+onepasswordconnect://Team/database", "all fields, as JSON"),
    ],
    connection: &[],
    document: &[],
    fragment: Fragment::Walks,
    normalise,
    open,
};

fn normalise(scope: &Scope, path: &str, params: &Params) -> Result<String, FetchError> {
    let path = without_dots(scope, path, params)?;
    parts(&path)?;
    Ok(path)
}

fn parts(path: &str) -> Result<(&str, &str), FetchError> {
    let wrong = |reason| FetchError::new(Class::Invalid, reason);
    match path.split_once('/') {
        Some((vault, item)) if !vault.is_empty() && !item.is_empty() && !item.contains('/') => {
            // They become part of a filter.
            if path.contains(['"', '\\']) {
                Err(wrong("a title has a quote or backslash"))
            } else {
                Ok((vault, item))
            }
        }
        _ => Err(wrong("it must be vault/item")),
    }
}

fn open(_: &Params, ambient: &Ambient) -> Result<Arc<dyn Source>, OpenError> {
    let own = ambient.environment.get("OP_CONNECT_HOST");
    let address = http::chosen(None, own, "OP_CONNECT_HOST", &[])?;
    let token = Credential::of(&ambient.environment, "OP_CONNECT_TOKEN", "authorization", "Bearer ")?;
    Ok(Arc::new(Connect(Server::open("1Password Connect", address, Some(token))?)))
}

#[derive(Debug)]
struct Connect(Server);

impl Source for Connect {
    fn fetch<'a>(
        &'a self,
        _: &'a Scope,
        at: &'a [Locator],
    ) -> BoxFuture<'a, Vec<Result<Document, FetchError>>> {
        async move {
            let vaults: BTreeSet<_> =
                at.iter().filter_map(|at| parts(&at.path).ok()).map(|(vault, _)| vault).collect();
            let found = vaults.into_iter().map(|vault| async move { (vault, self.vault(vault).await) });
            let vaults: BTreeMap<_, _> = future::join_all(found).await.into_iter().collect();
            let vaults = &vaults;
            let items = at.iter().map(|at| async move {
                let (vault, item) = parts(&at.path)?;
                let vault = vaults[vault].as_ref().map_err(Clone::clone)?;
                Ok(self.item(vault, item, &at.path).await?.document())
            });
            future::join_all(items).await
        }
        .boxed()
    }

    fn is_same_for_all(&self) -> bool {
        true
    }
}

#[derive(Deserialize)]
struct Named {
    id: String,
}

#[derive(Deserialize)]
struct Item {
    #[serde(default)]
    sections: Vec<Section>,
    #[serde(default)]
    fields: Vec<Field>,
}

#[derive(Deserialize)]
struct Section {
    id: String,
    #[serde(default)]
    label: String,
}

#[derive(Deserialize)]
struct Field {
    id: String,
    #[serde(default)]
    label: String,
    value: Option<Text>,
    section: Option<Section>,
}

impl Connect {
    /// The id of a vault.
    async fn vault(&self, vault: &str) -> Result<String, FetchError> {
        if is_id(vault) { Ok(vault.to_owned()) } else { self.titled(&["v1", "vaults"], vault, vault).await }
    }

    async fn item(&self, vault: &str, item: &str, what: &str) -> Result<Item, FetchError> {
        let path = ["v1", "vaults", vault, "items"];
        let by_id = async |id: &str| {
            let url = self.0.url(path.into_iter().chain([id]), &[]);
            self.0.json(url, what).await
        };
        if is_id(item) {
            match by_id(item).await {
                // It may be a title that looks like an id.
                Err(error) if error.class == Class::NotFound => {}
                outcome => return outcome,
            }
        }
        by_id(&self.titled(&path, item, what).await?).await
    }

    /// The id of the one thing in the list at `path` that has this title.
    async fn titled(&self, path: &[&str], title: &str, what: &str) -> Result<String, FetchError> {
        let filter = format!("title eq \"{title}\"");
        let url = self.0.url(path.iter().copied(), &[("filter", &filter)]);
        let mut found: Vec<Named> = self.0.json(url, what).await?;
        match (found.pop(), found.len()) {
            (None, _) => Err(FetchError::not_found(format!("1Password Connect has nothing at {what}"))),
            (Some(one), 0) => Ok(one.id),
            (Some(_), others) => {
                let reason = format!("{} have the title of {what}\nhelp: name it by its id", others + 1);
                Err(FetchError::new(Class::Invalid, reason))
            }
        }
    }
}

fn is_id(text: &str) -> bool {
    text.len() == ID_LENGTH && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

impl Item {
    fn document(&self) -> Document {
        let mut entries = BTreeMap::new();
        for field in &self.fields {
            if let Some(Text(value)) = &field.value {
                entries
                    .extend(self.names(field).into_iter().map(|name| (name, Value::String(value.clone()))));
            }
        }
        let all = Value::Mapping(entries.into_iter().collect());
        Secret::new(all.to_flow().expose().clone().into_bytes())
    }

    fn names(&self, field: &Field) -> BTreeSet<String> {
        let own = [field.id.as_str(), field.label.as_str()];
        let mut names = BTreeSet::from([field.id.clone()]);
        match &field.section {
            None => names.extend(own.map(str::to_owned)),
            Some(section) => {
                let of_item = self.sections.iter().find(|known| known.id == section.id);
                let labels =
                    [Some(section), of_item].into_iter().flatten().map(|section| section.label.as_str());
                for section in labels.chain([section.id.as_str()]).filter(|section| !section.is_empty()) {
                    names.extend(own.map(|own| format!("{section}.{own}")));
                }
            }
        }
        names.retain(|name| !name.is_empty() && !name.ends_with('.'));
        names
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::refs::sources::mock::{ambient, locator, told};
    use crate::web::mock::{Mock, Request};

    const VAULT: &str = "abcdefghijklmnopqrstuvwxyz";
    const ITEM: &str = "0123456789abcdefghijklmnop";

    fn answer(request: &Request) -> (u16, String) {
        let item = json!({
            "id": ITEM,
            "sections": [{"id": "s1", "label": "replica"}],
            "fields": [
                {"id": "password", "label": "pass", "value": "STRONGROOM one"},
                {"id": "f2", "label": "password", "value": "two", "section": {"id": "s1"}},
                {"id": "f3", "label": "empty"},
            ],
        });
        let (vault_items, item_path) =
            (format!("/v1/vaults/{VAULT}/items"), format!("/v1/vaults/{VAULT}/items/{ITEM}"));
        match request.path.as_str() {
            "/v1/vaults?filter=title+eq+%22Team%22" => (200, json!([{"id": VAULT}]).to_string()),
            "/v1/vaults?filter=title+eq+%22Twice%22" => {
                (200, json!([{"id": VAULT}, {"id": ITEM}]).to_string())
            }
            path if path == item_path => (200, item.to_string()),
            path if path == format!("{vault_items}?filter=title+eq+%22database%22") => {
                (200, json!([{"id": ITEM}]).to_string())
            }
            path if path.contains("?filter=") => (200, "[]".to_owned()),
            _ => (404, String::new()),
        }
    }

    #[tokio::test]
    async fn titles_and_ids_of_a_mock_mean_the_same_item() {
        let mock = Mock::start(answer).await;
        let variables = [("OP_CONNECT_HOST", mock.url.as_str()), ("OP_CONNECT_TOKEN", "STRONGROOM-MARKER")];
        let source = open(&Params::new(), &ambient(&variables, &[])).unwrap();
        let paths = [
            "Team/database".to_owned(),
            format!("Team/{ITEM}"),
            format!("{VAULT}/database"),
            "Team/absent".to_owned(),
            format!("Team/{VAULT}"),
            "Nowhere/database".to_owned(),
            "Twice/database".to_owned(),
        ];
        let at: Vec<_> = paths.iter().map(|path| locator(path, false, &[])).collect();
        let answers = told(source.fetch(&Scope::default(), &at).await);
        let item = r#"{"f2": "two", "pass": "STRONGROOM one", "password": "STRONGROOM one", "replica.f2": "two", "replica.password": "two", "s1.f2": "two", "s1.password": "two"}"#;
        assert_eq!(answers[..3], [item, item, item]);
        assert_eq!(
            answers[3..],
            [
                "NotFound: 1Password Connect has nothing at Team/absent".to_owned(),
                format!("NotFound: 1Password Connect has nothing at Team/{VAULT}"),
                "NotFound: 1Password Connect has nothing at Nowhere".to_owned(),
                "Invalid: 2 have the title of Twice\nhelp: name it by its id".to_owned(),
            ]
        );
        let vaults = mock.seen().into_iter().filter(|request| request.path.ends_with("%22Team%22"));
        assert_eq!(vaults.count(), 1);
    }

    #[test]
    fn paths_are_of_a_vault_and_an_item() {
        for (path, ok) in [
            ("Team/db", true),
            ("Team", false),
            ("Team/", false),
            ("Team/a/b", false),
            ("Team/\"a", false),
            ("Team/..", false),
        ] {
            assert_eq!(normalise(&Scope::default(), path, &Params::new()).is_ok(), ok, "{path}");
        }
    }
}
