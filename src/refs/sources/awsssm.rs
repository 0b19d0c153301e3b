//! `ref+awsssm://path`: AWS Systems Manager Parameter Store.
//!
//! Without a fragment it is one parameter, asked for in batches of ten. With a fragment it is all parameters directly
//! below the path (`recursive=true`: at any depth) as a map, as in vals, unless `mode=singleparam` says that the
//! parameter itself holds YAML or JSON. Names always begin with `/`; parameters are decrypted.

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_sdk_ssm::Client;
use aws_sdk_ssm::types::Parameter;
use futures::future::{BoxFuture, FutureExt};

use crate::aws::{Aws, AwsError, Connection};
use crate::document::value::Value;
use crate::fault::Class;
use crate::refs::source::{
    Document, FetchError, Fragment, Locator, Params, Scheme, SchemeOption, Source, without_dots,
};
use crate::refs::sources::aws::{self, Answers, Turns};
use crate::scope::Scope;
use crate::secret::Secret;

/// As many as `GetParameters` takes.
const BATCH: usize = 10;

pub(crate) const SCHEME: Scheme = Scheme {
    name: "awsssm",
    doc: "AWS Systems Manager Parameter Store",
    examples: &[
        ("ref+awsssm://team/db/password", "the parameter `/team/db/password`"),
        ("ref+awsssm://team/db#/password", "the same, asked for with all others directly below `/team/db`"),
        (
            "ref+awsssm://team?recursive=true#/db/password",
            "the same, with all others at any depth below `/team`",
        ),
        ("ref+awsssm://team/app?mode=singleparam#/db/password", "out of a parameter that holds YAML or JSON"),
        ("ref+awsssm://team/db/password?version=3", "version 3 of a parameter"),
    ],
    connection: aws::CONNECTION,
    document: &[
        SchemeOption {
            name: "mode",
            doc: "`singleparam`: with a fragment, pick it out of the parameter itself",
        },
        SchemeOption {
            name: "recursive",
            doc: "`true`: with a fragment, parameters at any depth below the path",
        },
        SchemeOption {
            name: "version",
            doc: "number of a version; with a fragment only if `mode=singleparam`",
        },
    ],
    fragment: Fragment::Asks,
    normalise,
    open: |params, ambient| {
        let aws = Arc::clone(&ambient.aws);
        Ok(Arc::new(ParameterStore { aws, connection: aws::connection(params), turns: Turns::default() }))
    },
};

/// A leading `/` means nothing here, so it is left out.
fn normalise(scope: &Scope, path: &str, params: &Params) -> Result<String, FetchError> {
    without_dots(scope, path.trim_matches('/'), params)
}

#[derive(Debug)]
struct ParameterStore {
    aws: Arc<Aws>,
    connection: Connection,
    turns: Turns,
}

/// What a locator asks for.
#[derive(Debug, Eq, PartialEq)]
enum Question {
    Parameter(String),
    Below { path: String, recursive: bool },
}

/// One request, or for `Below` one row of them.
enum Call {
    Batch(Vec<(usize, String)>),
    Below { index: usize, path: String, recursive: bool },
}

impl Source for ParameterStore {
    fn fetch<'a>(
        &'a self,
        _: &'a Scope,
        at: &'a [Locator],
    ) -> BoxFuture<'a, Vec<Result<Document, FetchError>>> {
        aws::fetch_regions(&self.aws, &self.connection, at, move |config, connection, at| async move {
            let region = Region { client: Client::new(&config), connection, turns: &self.turns };
            let (calls, mut answers) = calls(&at);
            answers.extend(aws::side_by_side(calls, |call| region.call(call)).await);
            answers
        })
        .boxed()
    }

    fn is_same_for_all(&self) -> bool {
        true
    }
}

/// The requests to make, and the answers to what cannot be asked.
fn calls(at: &[(usize, Locator)]) -> (Vec<Call>, Answers) {
    let (mut calls, mut names, mut answers) = (Vec::new(), Vec::new(), Answers::new());
    for (index, locator) in at {
        match question(locator) {
            Ok(Question::Parameter(name)) => names.push((*index, name)),
            Ok(Question::Below { path, recursive }) => {
                calls.push(Call::Below { index: *index, path, recursive });
            }
            Err(error) => answers.push((*index, Err(error))),
        }
    }
    calls.extend(names.chunks(BATCH).map(|names| Call::Batch(names.to_vec())));
    (calls, answers)
}

fn question(at: &Locator) -> Result<Question, FetchError> {
    let invalid = |reason| Err(FetchError::new(Class::Invalid, reason));
    let single = match at.params.get("mode").map(String::as_str) {
        None => !at.fragment,
        Some("singleparam") => true,
        Some(_) => return invalid("option mode is not singleparam"),
    };
    let recursive = match at.params.get("recursive").map(String::as_str) {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return invalid("option recursive is neither true nor false"),
    };
    let name = if at.path.starts_with("arn:aws") { at.path.clone() } else { format!("/{}", at.path) };
    match at.params.get("version") {
        None if single => Ok(Question::Parameter(name)),
        None => Ok(Question::Below { path: name, recursive }),
        Some(_) if !single => invalid("option version needs mode=singleparam where there is a fragment"),
        Some(version) if !version.is_empty() && version.bytes().all(|digit| digit.is_ascii_digit()) => {
            Ok(Question::Parameter(format!("{name}:{version}")))
        }
        Some(_) => invalid("option version is not a number"),
    }
}

/// The Parameter Store of one region, as one identity.
struct Region<'a> {
    client: Client,
    connection: Connection,
    turns: &'a Turns,
}

impl Region<'_> {
    async fn call(&self, call: Call) -> Answers {
        match call {
            Call::Batch(names) => self.batch(names).await,
            Call::Below { index, path, recursive } => vec![(index, self.below(&path, recursive).await)],
        }
    }

    async fn batch(&self, names: Vec<(usize, String)>) -> Answers {
        if let [(index, name)] = names.as_slice() {
            return vec![(*index, self.single(name).await)];
        }
        let ids = names.iter().map(|(_, name)| name.clone()).collect();
        let request = self.client.get_parameters().set_names(Some(ids)).with_decryption(true);
        let turn = self.turns.turn().await;
        let answer = request.send().await;
        drop(turn);
        match answer.map_err(|error| AwsError::of(&error)) {
            Ok(answer) => {
                let mut found = answer.parameters.unwrap_or_default();
                names.into_iter().map(|(index, name)| (index, self.take(&mut found, &name))).collect()
            }
            Err(error) if aws::is_of_batch(&error) => {
                let single =
                    |(index, name): (usize, String)| async move { vec![(index, self.single(&name).await)] };
                aws::side_by_side(names, single).await
            }
            Err(error) => {
                let error = aws::failure(&error, &self.connection);
                names.into_iter().map(|(index, _)| (index, Err(error.clone()))).collect()
            }
        }
    }

    fn take(&self, found: &mut Vec<Parameter>, name: &str) -> Result<Document, FetchError> {
        let at = found.iter().position(|parameter| is_called(parameter, name));
        let missing = || aws::failure(&AwsError::of_code("ParameterNotFound"), &self.connection);
        found.swap_remove(at.ok_or_else(missing)?).value.map(document).ok_or_else(without_value)
    }

    async fn single(&self, name: &str) -> Result<Document, FetchError> {
        let turn = self.turns.turn().await;
        let answer = self.client.get_parameter().name(name).with_decryption(true).send().await;
        drop(turn);
        let answer = answer.map_err(|error| aws::failure(&AwsError::of(&error), &self.connection))?;
        answer.parameter.and_then(|parameter| parameter.value).map(document).ok_or_else(without_value)
    }

    async fn below(&self, path: &str, recursive: bool) -> Result<Document, FetchError> {
        let mut tree = Tree::default();
        let mut page = None;
        loop {
            let request = self.client.get_parameters_by_path().path(path).recursive(recursive);
            let turn = self.turns.turn().await;
            let answer = request.with_decryption(true).set_next_token(page).send().await;
            drop(turn);
            let answer = answer.map_err(|error| aws::failure(&AwsError::of(&error), &self.connection))?;
            for parameter in answer.parameters.unwrap_or_default() {
                let (Some(name), Some(value)) = (parameter.name, parameter.value) else { continue };
                tree.insert(name.strip_prefix(path).unwrap_or(&name), Secret::new(value));
            }
            page = answer.next_token.filter(|token| !token.is_empty());
            if page.is_none() {
                break;
            }
        }
        if tree.0.is_empty() {
            return Err(FetchError::not_found(format!(
                "no parameters below {path}\nhelp: mode=singleparam picks out of a parameter that holds YAML or JSON"
            )));
        }
        Ok(document(tree.into_value().to_flow().expose().clone()))
    }
}

/// Whether `name` is how the parameter was asked for: by name or ARN, and a version.
fn is_called(parameter: &Parameter, name: &str) -> bool {
    let selector = parameter.selector().unwrap_or_default();
    [parameter.name(), parameter.arn()]
        .into_iter()
        .flatten()
        .any(|known| known == name || name.strip_prefix(known).is_some_and(|rest| rest == selector))
}

fn document(value: String) -> Document {
    Secret::new(value.into_bytes())
}

fn without_value() -> FetchError {
    FetchError::not_found("the parameter has no value")
}

/// Parameters below a path. Where `a` and `a/b` both exist, `a` is a map, as in vals.
#[derive(Default)]
struct Tree(BTreeMap<String, Branch>);

enum Branch {
    Leaf(Secret<String>),
    Tree(Tree),
}

impl Tree {
    fn insert(&mut self, name: &str, value: Secret<String>) {
        let mut tree = self;
        let mut keys = name.trim_start_matches('/').split('/');
        let last = keys.next_back().unwrap_or_default();
        for key in keys {
            let branch = tree.0.entry(key.to_owned()).or_insert_with(|| Branch::Tree(Self::default()));
            if matches!(branch, Branch::Leaf(_)) {
                *branch = Branch::Tree(Self::default());
            }
            let Branch::Tree(below) = branch else { unreachable!("a leaf was replaced") };
            tree = below;
        }
        tree.0.entry(last.to_owned()).or_insert(Branch::Leaf(value));
    }

    fn into_value(self) -> Value {
        let entries = self.0.into_iter().map(|(key, branch)| match branch {
            Branch::Leaf(value) => (key, Value::String(value)),
            Branch::Tree(tree) => (key, tree.into_value()),
        });
        Value::Mapping(entries.collect())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;
    use crate::refs::sources::aws::Indexed;
    use crate::refs::sources::mock::{self, locator};

    #[test]
    fn a_fragment_asks_for_what_is_below_unless_said() {
        let parameter = |name: &str| Ok(Question::Parameter(name.to_owned()));
        let below = |recursive| Ok(Question::Below { path: "/a/b".to_owned(), recursive });
        for (fragment, params, expected) in [
            (false, &[][..], parameter("/a/b")),
            (false, &[("version", "3")], parameter("/a/b:3")),
            (false, &[("recursive", "true")], parameter("/a/b")),
            (true, &[], below(false)),
            (true, &[("recursive", "true")], below(true)),
            (true, &[("mode", "singleparam")], parameter("/a/b")),
            (true, &[("mode", "singleparam"), ("version", "3")], parameter("/a/b:3")),
            (
                true,
                &[("version", "3")],
                Err("option version needs mode=singleparam where there is a fragment"),
            ),
            (false, &[("version", "x")], Err("option version is not a number")),
            (true, &[("mode", "x")], Err("option mode is not singleparam")),
            (true, &[("recursive", "x")], Err("option recursive is neither true nor false")),
        ] {
            let question = question(&locator("a/b", fragment, params));
            assert_eq!(question.map_err(|error| error.reason), expected.map_err(str::to_owned), "{params:?}");
        }
        let arn = "arn:aws:ssm:eu-west-1:1:parameter/a";
        assert_eq!(question(&locator(arn, false, &[])).unwrap(), Question::Parameter(arn.to_owned()));
    }

    #[test]
    fn the_path_has_one_spelling() {
        for path in ["a/b", "/a/b", "//a/b/"] {
            assert_eq!(normalise(&Scope::default(), path, &Params::new()).unwrap(), "a/b");
        }
        let error = normalise(&Scope::default(), "a/../b", &Params::new()).unwrap_err();
        assert_eq!(error.class, Class::Invalid);
    }

    #[test]
    fn batches_are_of_ten_and_paths_alone() {
        let mut at: Vec<_> = (0..21).map(|number| locator(&format!("p{number}"), false, &[])).collect();
        at.push(locator("below", true, &[]));
        at.push(locator("wrong", false, &[("version", "x")]));
        let indexed: Indexed = at.into_iter().enumerate().collect();
        let (calls, answers) = calls(&indexed);
        let size = |call: &Call| if let Call::Batch(names) = call { names.len() } else { 0 };
        assert_eq!(calls.iter().map(size).collect::<Vec<_>>(), [0, 10, 10, 1]);
        assert_eq!(answers.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [22]);
    }

    #[test]
    fn parameters_answer_to_their_name_version_and_arn() {
        let parameter = |name: &str, selector: Option<&str>| {
            let arn = format!("arn:aws:ssm:eu-west-1:1:parameter{name}");
            Parameter::builder().name(name).set_selector(selector.map(str::to_owned)).arn(arn).build()
        };
        for (parameter, name, expected) in [
            (parameter("/a", None), "/a", true),
            (parameter("/a", None), "/a:3", false),
            (parameter("/a", Some(":3")), "/a:3", true),
            (parameter("/a", None), "/ab", false),
            (parameter("/a", None), "arn:aws:ssm:eu-west-1:1:parameter/a", true),
        ] {
            assert_eq!(is_called(&parameter, name), expected, "{name}");
        }
    }

    #[test]
    fn a_path_beats_a_leaf_in_any_order() {
        for names in [["/a", "/a/b", "/c"], ["/a/b", "/a", "/c"]] {
            let mut tree = Tree::default();
            for name in names {
                tree.insert(name, Secret::new(name.to_owned()));
            }
            assert_eq!(tree.into_value().to_flow().expose(), r#"{"a": {"b": "/a/b"}, "c": "/c"}"#);
        }
    }

    /// `/p…` are there, `/closed` is denied and spoils every batch, and `/tree` has two pages below it.
    fn answer(operation: &str, input: &Json) -> Result<Json, &'static str> {
        assert_eq!(input["WithDecryption"], true);
        let parameter = |name: &str| json!({"Name": name, "Value": name});
        let there = |name: &str| match name {
            "/closed" => Err("AccessDeniedException"),
            name if name.starts_with("/p") => Ok(parameter(name)),
            _ => Err("ParameterNotFound"),
        };
        match operation {
            "GetParameter" => Ok(json!({"Parameter": there(input["Name"].as_str().unwrap())?})),
            "GetParameters" => {
                let names: Vec<_> =
                    input["Names"].as_array().unwrap().iter().filter_map(Json::as_str).collect();
                assert!(names.len() <= BATCH);
                if names.contains(&"/closed") {
                    return Err("AccessDeniedException");
                }
                let found: Vec<_> = names.iter().rev().filter_map(|name| there(name).ok()).collect();
                Ok(json!({"Parameters": found, "InvalidParameters": []}))
            }
            _ if input["Path"] != "/tree" => Ok(json!({"Parameters": []})),
            _ if input["NextToken"] == "2" => Ok(json!({"Parameters": [parameter("/tree/b")]})),
            _ => Ok(json!({"Parameters": [parameter("/tree/a")], "NextToken": "2"})),
        }
    }

    async fn fetched(paths: &[&str], fragment: bool) -> (Vec<String>, Vec<(String, usize)>) {
        let (aws, calls) = mock::aws(answer).await;
        let source = ParameterStore { aws, connection: Connection::default(), turns: Turns::default() };
        let answers = source.fetch(&Scope::default(), &mock::locators(paths.iter().copied(), fragment)).await;
        (mock::told(answers), mock::counted(&calls))
    }

    #[tokio::test]
    async fn many_are_asked_for_in_batches_and_answered_in_order() {
        let names: Vec<_> = (0..25).map(|number| format!("p{number}")).chain(["gone".to_owned()]).collect();
        let (answers, calls) = fetched(&names.iter().map(String::as_str).collect::<Vec<_>>(), false).await;
        let mut expected: Vec<_> = names.iter().map(|name| format!("/{name}")).collect();
        expected[25] = "NotFound: AWS says ParameterNotFound".to_owned();
        assert_eq!(answers, expected);
        assert_eq!(calls, [("GetParameters".to_owned(), 3)]);
    }

    #[tokio::test]
    async fn one_that_is_denied_does_not_deny_the_others() {
        let (answers, calls) = fetched(&["p1", "closed", "p2"], false).await;
        assert_eq!(answers, ["/p1", "Denied: AWS says AccessDeniedException: for a reason", "/p2"]);
        assert_eq!(calls, [("GetParameter".to_owned(), 3), ("GetParameters".to_owned(), 1)]);
    }

    #[tokio::test]
    async fn what_is_below_a_path_is_one_map_of_all_pages() {
        let (answers, calls) = fetched(&["tree", "empty"], true).await;
        assert_eq!(answers[0], r#"{"a": "/tree/a", "b": "/tree/b"}"#);
        assert!(answers[1].starts_with("NotFound: no parameters below /empty\nhelp: "), "{answers:?}");
        assert_eq!(calls, [("GetParametersByPath".to_owned(), 3)]);
    }
}
