//! `ref+tfstate://state/address`: values of Terraform and `OpenTofu`, out of a state of version 4.
//!
//! The last segment of the path is an address as Terraform spells it, of an output, a resource or a data source, and
//! perhaps an attribute of it: `module.vpc.aws_subnet.this[0].id`. What has no value is not found, where vals says
//! `null`. A state is read once for all addresses in it. It never leads to another place: a file that names a backend
//! is refused.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt};

use crate::aws::Connection;
use crate::confine;
use crate::document::text_of;
use crate::document::value::Value;
use crate::fault::Class;
use crate::refs::source::{
    Document, FetchError, Fragment, Locator, Scheme, SchemeOption, Source, inside_repository, without_dots,
};
use crate::refs::sources::grouped;
use crate::refs::sources::objects::{At, Objects};
use crate::scope::Scope;
use crate::secret::Secret;

/// A larger state is not read, in bytes.
const MAX_BYTES: u64 = 32 << 20;
/// Nobody counts so far.
const MAX_INSTANCES: usize = 1 << 16;

pub(crate) const FILE: Scheme = Scheme {
    name: "tfstate",
    doc: "a Terraform or OpenTofu state in the application's own repository",
    examples: &[
        ("ref+tfstate://infra/terraform.tfstate/output.db_password", "an output"),
        (
            "ref+tfstate://infra/terraform.tfstate/module.vpc.aws_subnet.this[0].id",
            "an attribute of a resource",
        ),
        (
            r#"ref+tfstate://infra/terraform.tfstate/aws_iam_user.each["ci"].arn"#,
            "of a resource with `for_each`",
        ),
        ("ref+tfstate:///infra/terraform.tfstate/data.aws_caller_identity.me.account_id", "of a data source"),
        (
            "ref+tfstate://infra/terraform.tfstate/output.db#/port",
            "out of an output that is a map, with its type",
        ),
    ],
    connection: &[],
    document: &[],
    fragment: Fragment::Walks,
    normalise: |scope, path, params| {
        let (state, address) = split(path)?;
        Ok(format!("{}/{address}", inside_repository(scope, state, params)?))
    },
    open: |_, _| Ok(Arc::new(States::Repository)),
};

pub(crate) const S3: Scheme = Scheme {
    name: "tfstates3",
    doc: "a Terraform or OpenTofu state in Amazon S3",
    examples: &[
        ("ref+tfstates3://bucket/prod/terraform.tfstate/output.db_password", "an output"),
        ("ref+tfstates3://bucket/prod/terraform.tfstate/aws_vpc.main.id", "an attribute of a resource"),
    ],
    connection: &[
        SchemeOption { name: "aws_profile", doc: "profile of the shared AWS configuration" },
        SchemeOption { name: "region", doc: "region, where the bucket does not say it itself" },
        SchemeOption { name: "role_arn", doc: "role to assume first" },
    ],
    document: &[],
    fragment: Fragment::Walks,
    normalise: |scope, path, params| {
        At::parse(split(path)?.0)?;
        without_dots(scope, path, params)
    },
    open: |params, ambient| {
        let option = |name: &str| params.get(name).cloned();
        let connection = Connection {
            region: option("region"),
            profile: option("aws_profile"),
            role_arn: option("role_arn"),
            session_name: None,
        };
        Ok(Arc::new(States::S3(Objects::new(&ambient.aws, connection))))
    },
};

/// The path of the state and the address in it. A `/` in a quoted key of the address does not separate them.
fn split(path: &str) -> Result<(&str, &str), FetchError> {
    let unquoted = path.find("[\"").unwrap_or(path.len());
    let malformed = || FetchError::new(Class::Invalid, "it must be path/of/the/state/address");
    let (state, _) = path[..unquoted].rsplit_once('/').ok_or_else(malformed)?;
    let address = &path[state.len() + 1..];
    if state.is_empty() || address.is_empty() { Err(malformed()) } else { Ok((state, address)) }
}

/// Where states are.
#[derive(Debug)]
enum States {
    Repository,
    S3(Objects),
}

impl Source for States {
    fn fetch<'a>(
        &'a self,
        scope: &'a Scope,
        at: &'a [Locator],
    ) -> BoxFuture<'a, Vec<Result<Document, FetchError>>> {
        let of = |locator: &'a Locator| split(&locator.path);
        grouped::fetch(at, of, move |state| self.state(scope, state), State::find).boxed()
    }

    fn is_same_for_all(&self) -> bool {
        matches!(self, Self::S3(_))
    }
}

impl States {
    async fn state(&self, scope: &Scope, path: &str) -> Result<State, FetchError> {
        let bytes = match self {
            Self::Repository => {
                let root = scope.repository.as_deref();
                let root = root
                    .ok_or_else(|| FetchError::new(Class::Invalid, "the repository's root is not known"))?;
                confine::read(&confine::resolve(root, root, path)?, path, MAX_BYTES)?
            }
            Self::S3(objects) => objects.get(At::parse(path)?, None).await?,
        };
        State::parse(&bytes)
    }
}

/// What a state holds, by address.
struct State(BTreeMap<String, Value>);

impl State {
    fn parse(bytes: &Document) -> Result<Self, FetchError> {
        let not_a_state = || FetchError::new(Class::Invalid, "it is not a state of Terraform");
        let text = text_of(bytes.expose()).map_err(|_| not_a_state())?;
        let root = Value::parse(text).map_err(|_| not_a_state())?;
        let part = |name: &str| root.pick(&[name]).ok();
        if part("backend").is_some_and(|backend| *backend != Value::Null) {
            let reason = "it names a backend and is no state\nhelp: name the state itself, as with tfstates3://bucket/key/address";
            return Err(FetchError::new(Class::Invalid, reason));
        }
        match part("version") {
            Some(Value::Number(version)) if version.expose() == "4" => {}
            Some(Value::Number(_)) => {
                return Err(FetchError::new(Class::Invalid, "it is a state of another version than 4"));
            }
            _ => return Err(not_a_state()),
        }
        let mut found = Self(BTreeMap::new());
        for (name, output) in part("outputs").map(entries).unwrap_or_default() {
            found.0.insert(format!("output.{name}"), value_of(output).clone());
        }
        for resource in part("resources").map(items).unwrap_or_default() {
            found.resource(resource);
        }
        Ok(found)
    }

    fn resource(&mut self, resource: &Value) {
        let part = |name: &str| resource.pick(&[name]).ok().and_then(text).unwrap_or_default();
        let module = if part("module").is_empty() { String::new() } else { format!("{}.", part("module")) };
        let mode = if part("mode") == "data" { "data." } else { "" };
        let address = format!("{module}{mode}{}.{}", part("type"), part("name"));
        let instances = resource.pick(&["instances"]).map(items).unwrap_or_default();
        // What is about to be destroyed does not count any more.
        let instances = instances.iter().filter(|instance| instance.pick(&["deposed"]).is_err());
        let (mut list, mut map) = (Vec::new(), Vec::new());
        for instance in instances {
            let mut attributes = attributes(instance);
            if mode == "data." && part("type") == "terraform_remote_state" {
                attributes = outputs_of(&attributes);
            }
            match instance.pick(&["index_key"]) {
                Ok(Value::String(key)) => map.push((key.expose().clone(), attributes)),
                Ok(Value::Number(index)) => put(&mut list, index.expose(), attributes),
                _ => {
                    self.0.insert(address.clone(), attributes);
                }
            }
        }
        if !list.is_empty() {
            self.0.insert(address, Value::Sequence(list));
        } else if !map.is_empty() {
            self.0.insert(address, Value::Mapping(map));
        }
    }

    fn find(&self, address: &str) -> Result<Document, FetchError> {
        let absent = || FetchError::not_found(format!("the state has no {address}"));
        let (value, rest) = self.longest(address).ok_or_else(absent)?;
        let mut value = value;
        for step in steps(rest)? {
            value = step.of(value).ok_or_else(absent)?;
        }
        match value {
            Value::Null => Err(FetchError::not_found(format!("{address} is null in the state"))),
            value => Ok(Secret::new(value.to_text().expose().clone().into_bytes())),
        }
    }

    /// What the most of `address` names, and the rest of it.
    fn longest<'a>(&self, address: &'a str) -> Option<(&Value, &'a str)> {
        let ends = (1..=address.len()).rev().filter(|end| {
            *end == address.len() || address.is_char_boundary(*end) && address[*end..].starts_with(['.', '['])
        });
        ends.into_iter().find_map(|end| Some((self.0.get(&address[..end])?, &address[end..])))
    }
}

/// One step from a value into it.
#[derive(Debug, Eq, PartialEq)]
enum Step<'a> {
    Key(&'a str),
    Index(i64),
}

impl Step<'_> {
    fn of<'v>(&self, value: &'v Value) -> Option<&'v Value> {
        match (self, value) {
            (Self::Key(key), value) => value.pick(&[key]).ok(),
            // Counted from the end where it is negative.
            (Self::Index(index), Value::Sequence(items)) if *index < 0 => items
                .len()
                .checked_sub(usize::try_from(index.unsigned_abs()).ok()?)
                .map(|index| &items[index]),
            (Self::Index(index), Value::Sequence(items)) => items.get(usize::try_from(*index).ok()?),
            (Self::Index(_), _) => None,
        }
    }
}

/// The steps of `.name`, `[0]` and `["key"]`.
fn steps(mut rest: &str) -> Result<Vec<Step<'_>>, FetchError> {
    let malformed =
        || FetchError::new(Class::Invalid, "behind a resource, an address has .name, [0] and [\"key\"]");
    let mut steps = Vec::new();
    while !rest.is_empty() {
        rest = if rest.starts_with(".[") { &rest[1..] } else { rest };
        let (step, behind) = if let Some(quoted) = rest.strip_prefix("[\"") {
            let (key, behind) = quoted.split_once("\"]").ok_or_else(malformed)?;
            (Step::Key(key), behind)
        } else if let Some(index) = rest.strip_prefix('[') {
            let (index, behind) = index.split_once(']').ok_or_else(malformed)?;
            (Step::Index(index.parse().map_err(|_| malformed())?), behind)
        } else {
            let name = rest.strip_prefix('.').ok_or_else(malformed)?;
            let end = name.find(['.', '[']).unwrap_or(name.len());
            (Step::Key(&name[..end]), &name[end..])
        };
        if step == Step::Key("") {
            return Err(malformed());
        }
        steps.push(step);
        rest = behind;
    }
    Ok(steps)
}

/// Puts the attributes of an instance where its index says; there may be gaps.
fn put(list: &mut Vec<Value>, index: &str, attributes: Value) {
    let Ok(index @ 0..MAX_INSTANCES) = index.parse::<usize>() else { return };
    if list.len() <= index {
        list.resize(index + 1, Value::Null);
    }
    list[index] = attributes;
}

fn attributes(instance: &Value) -> Value {
    let part = |name: &str| instance.pick(&[name]).ok().filter(|value| **value != Value::Null);
    part("attributes").or_else(|| part("attributes_flat")).cloned().unwrap_or(Value::Null)
}

/// The attributes of another state's data source, whose outputs are wrapped as in that state.
fn outputs_of(attributes: &Value) -> Value {
    let outputs = entries(attributes).iter().map(|(name, output)| (name.clone(), value_of(output).clone()));
    Value::Mapping(outputs.collect())
}

/// An output is its value and its type.
fn value_of(output: &Value) -> &Value {
    let part = |name: &str| output.pick(&[name]).ok();
    part("value").filter(|_| part("type").is_some()).unwrap_or(output)
}

fn entries(value: &Value) -> &[(String, Value)] {
    if let Value::Mapping(entries) = value { entries } else { &[] }
}

fn items(value: &Value) -> &[Value] {
    if let Value::Sequence(items) = value { items } else { &[] }
}

fn text(value: &Value) -> Option<&str> {
    if let Value::String(text) = value { Some(text.expose()) } else { None }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;
    use crate::refs::source::Params;
    use crate::refs::sources::mock::{ambient, locators, told};

    fn state() -> Json {
        let managed = |module: &str, kind: &str, name: &str, instances: Json| json!({"module": module, "mode": "managed", "type": kind, "name": name, "instances": instances});
        json!({
            "version": 4,
            "outputs": {
                "password": {"value": "STRONGROOM-MARKER", "type": "string", "sensitive": true},
                "db": {"value": {"port": 5432, "hosts": ["a", "b"], "dash-ed": {"x": 1}}, "type": ["object", {}]},
                "public": {"value": true, "type": "bool"},
                "publican": {"value": "innkeeper", "type": "string"},
                "nothing": {"value": null, "type": "string"},
            },
            "resources": [
                managed("", "aws_vpc", "main", json!([{"attributes": {"id": "vpc-1", "arn": null, "tags": {"a.b": "c"}}}])),
                managed("module.vpc", "aws_subnet", "this", json!([
                    {"index_key": 0, "attributes": {"id": "subnet-0"}},
                    {"index_key": 2, "attributes": {"id": "subnet-2"}},
                ])),
                managed("module.a[\"x\"].module.b", "aws_iam_user", "each", json!([
                    {"index_key": "a/b", "attributes": {"arn": "arn-1"}},
                    {"index_key": "c.d", "attributes": {"arn": "arn-2"}},
                ])),
                managed("", "old", "flat", json!([{"attributes_flat": {"id": "flat"}}])),
                managed("", "old", "none", json!([])),
                managed("", "aws_eip", "moving", json!([
                    {"deposed": "0123abcd", "attributes": {"id": "before"}},
                    {"attributes": {"id": "after"}},
                ])),
                managed("", "far", "away", json!([{"index_key": 4_000_000_000_u32, "attributes": {"id": "x"}}])),
                {"mode": "data", "type": "aws_caller_identity", "name": "me",
                 "instances": [{"attributes": {"account_id": "123456789012"}}]},
                {"mode": "data", "type": "terraform_remote_state", "name": "other", "instances": [{"attributes": {
                    "backend": "s3", "outputs": {"value": {"a": "b"}, "type": ["object", {"a": "string"}]}}}]},
            ],
        })
    }

    #[test]
    fn an_address_means_what_terraform_means_by_it() {
        let state = State::parse(&Secret::new(state().to_string().into_bytes())).unwrap();
        let absent = |address: &str| format!("NotFound: the state has no {address}");
        for (address, expected) in [
            ("output.password", "STRONGROOM-MARKER"),
            ("output.db.port", "5432"),
            ("output.db.hosts[1]", "b"),
            ("output.db.hosts[-1]", "b"),
            ("output.db.hosts.0", "a"),
            ("output.db.hosts", r#"["a", "b"]"#),
            ("output.db.dash-ed.x", "1"),
            (r#"output.db["dash-ed"]"#, r#"{"x": 1}"#),
            ("output.public", "true"),
            ("output.publican", "innkeeper"),
            ("output.nothing", "NotFound: output.nothing is null in the state"),
            ("output.nothing.below", ""),
            ("output.absent", ""),
            ("output", ""),
            ("aws_vpc.main.id", "vpc-1"),
            ("aws_vpc.main.arn", "NotFound: aws_vpc.main.arn is null in the state"),
            ("aws_vpc.main.absent", ""),
            (r#"aws_vpc.main.tags["a.b"]"#, "c"),
            (r#"aws_vpc.main.tags.["a.b"]"#, "c"),
            ("aws_vpc.mainly.id", ""),
            ("module.vpc.aws_subnet.this[0].id", "subnet-0"),
            ("module.vpc.aws_subnet.this[1].id", ""),
            ("module.vpc.aws_subnet.this[2].id", "subnet-2"),
            ("module.vpc.aws_subnet.this[3].id", ""),
            ("aws_subnet.this[0].id", ""),
            (r#"module.a["x"].module.b.aws_iam_user.each["a/b"].arn"#, "arn-1"),
            (r#"module.a["x"].module.b.aws_iam_user.each["c.d"].arn"#, "arn-2"),
            (r#"module.a["x"].module.b.aws_iam_user.each["e"].arn"#, ""),
            ("old.flat.id", "flat"),
            ("old.none.id", ""),
            ("aws_eip.moving.id", "after"),
            ("far.away[4000000000].id", ""),
            ("data.aws_caller_identity.me.account_id", "123456789012"),
            ("aws_caller_identity.me.account_id", ""),
            ("data.terraform_remote_state.other.outputs.a", "b"),
        ] {
            let expected = if expected.is_empty() { absent(address) } else { expected.to_owned() };
            assert_eq!(told(vec![state.find(address)]), [expected], "{address}");
        }
        for address in
            ["output.db[", "output.db.", "output.db[x]", "output.db[\"x", "output.db.a|keys[", "output.db[]"]
        {
            let error = state.find(address).unwrap_err();
            assert!(matches!(error.class, Class::Invalid), "{address}: {error}");
        }
    }

    #[test]
    fn what_is_no_state_is_told_without_its_content() {
        for (text, reason) in [
            ("STRONGROOM-MARKER", "it is not a state of Terraform"),
            ("{}", "it is not a state of Terraform"),
            ("{\"version\": ", "it is not a state of Terraform"),
            (r#"{"version": 3, "modules": []}"#, "it is a state of another version than 4"),
            (
                r#"{"version": 3, "backend": {"type": "s3", "config": {"secret_key": "STRONGROOM-MARKER"}}}"#,
                "it names a backend and is no state\nhelp: name the state itself, as with tfstates3://bucket/key/address",
            ),
        ] {
            let error = State::parse(&Secret::new(text.into())).map(|_| ()).unwrap_err();
            assert_eq!((error.class, error.reason.as_str()), (Class::Invalid, reason));
        }
    }

    #[test]
    fn a_path_is_a_state_and_an_address() {
        for (path, expected) in [
            ("a/b.tfstate/output.x", Some(("a/b.tfstate", "output.x"))),
            ("/b.tfstate/output.x", Some(("/b.tfstate", "output.x"))),
            (r#"b.tfstate/t.n["a/b"].c"#, Some(("b.tfstate", r#"t.n["a/b"].c"#))),
            ("b.tfstate", None),
            ("b.tfstate/", None),
            ("/output.x", None),
        ] {
            assert_eq!(split(path).ok(), expected, "{path}");
        }
    }

    fn scope(repository: &std::path::Path) -> Scope {
        let root = repository.canonicalize().unwrap();
        Scope { repository: Some(root.clone()), directory: Some(root.join("app")), ..Scope::default() }
    }

    #[tokio::test]
    async fn a_state_is_read_from_the_repository_only() {
        let repository = tempfile::tempdir().unwrap();
        let scope = scope(repository.path());
        std::fs::create_dir(repository.path().join("app")).unwrap();
        std::fs::write(repository.path().join("app/t.tfstate"), state().to_string()).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", repository.path().join("out")).unwrap();
        let normalise =
            |path: &str| (FILE.normalise)(&scope, path, &Params::new()).map_err(|error| error.class);
        assert_eq!(normalise("t.tfstate/output.public"), Ok("/app/t.tfstate/output.public".into()));
        assert_eq!(normalise("../app/t.tfstate/output.public"), Ok("/app/t.tfstate/output.public".into()));
        assert_eq!(normalise("../../t.tfstate/output.public"), Err(Class::Denied));
        assert_eq!(normalise("/out/output.public"), Err(Class::Denied));
        let source = (FILE.open)(&Params::new(), &ambient(&[], &[])).unwrap();
        let paths =
            ["/app/t.tfstate/output.public", "/app/absent/output.public", "/app/t.tfstate/output.db.port"];
        let answers = told(source.fetch(&scope, &locators(paths, false)).await);
        assert_eq!((answers[0].as_str(), answers[2].as_str()), ("true", "5432"));
        assert!(answers[1].starts_with("NotFound: /app/absent: no such file"), "{}", answers[1]);
    }

    #[test]
    fn a_state_in_s3_is_in_a_bucket() {
        let normalise =
            |path: &str| (S3.normalise)(&Scope::default(), path, &Params::new()).map_err(|error| error.class);
        assert_eq!(normalise("bucket/a/b.tfstate/output.x"), Ok("bucket/a/b.tfstate/output.x".into()));
        for path in ["bucket/output.x", "b@evil.example/k/output.x", "bucket/../k/output.x"] {
            assert_eq!(normalise(path), Err(Class::Invalid), "{path}");
        }
    }
}
