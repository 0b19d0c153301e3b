//! `ref+httpjson://host/path#///xpath`: a JSON document of a web server, and a value that `XPath` finds in it.
//!
//! No credentials are sent and no redirect is followed. An answer that is not 200, or no JSON, is an error, where vals looks
//! for the value in an error page too. The value is always text, as for vals; numbers keep their digits.

use std::cell::Cell;
use std::sync::Arc;

use futures::future::{self, BoxFuture, FutureExt};
use serde::de::IgnoredAny;

use crate::document::value::Value;
use crate::fault::Class;
use crate::refs::ambient::Ambient;
use crate::refs::source::{
    ANY_OPTION, Document, FetchError, Fragment, Locator, OpenError, Params, Scheme, SchemeOption, Source,
    without_dots,
};
use crate::refs::sources::http::{self, Servers};
use crate::refs::xpath::{self, text};
use crate::scope::Scope;
use crate::secret::Secret;

const AS_INTEGER: &str = "floatAsInt";

pub(crate) const SCHEME: Scheme = Scheme {
    name: "httpjson",
    doc: "a JSON document of a web server on `STRONGROOM_ALLOW_ADDRESSES`, without credentials. The fragment is XPath: paths \
          with `/`, `//`, `*` and names, and in brackets a position, `last()`, a path, comparisons, `and`, `or`, `not()`, \
          `contains()` and `starts-with()`. The value is text",
    examples: &[
        ("ref+httpjson://config.example/apps.json#///*[1]/name", "`//*[1]/name`: of the first item"),
        ("ref+httpjson://config.example/apps.json#///*[name='shop']/id", "of the item with that name"),
        ("ref+httpjson://config.example/apps.json#//db/port", "`/db/port`: by keys from the root"),
        ("ref+httpjson://config.example/hosts?team=a#///hosts", "a list, with commas between its items"),
        ("ref+httpjson://config.example/apps.json", "the whole document"),
    ],
    connection: &[SchemeOption {
        name: "insecure",
        doc: "`true`: over `http`, to an address that the operator names with `http://`",
    }],
    document: &[
        SchemeOption { name: AS_INTEGER, doc: "`true`: the value is a number, rounded to a whole one" },
        SchemeOption { name: ANY_OPTION, doc: "every other option goes along in the query of the request" },
    ],
    fragment: Fragment::Own(pick),
    normalise,
    open: |params: &Params, ambient: &Ambient| -> Result<Arc<dyn Source>, OpenError> {
        let scheme = if is_true(params, "insecure") { "http" } else { "https" };
        Ok(Arc::new(HttpJson { servers: Servers::new("the server", &ambient.addresses, None), scheme }))
    },
};

/// `host/path`, with one spelling of the host.
fn normalise(scope: &Scope, path: &str, params: &Params) -> Result<String, FetchError> {
    let path = without_dots(scope, path, params)?;
    let (host, rest) = path.split_at(path.find('/').unwrap_or(path.len()));
    Ok(format!("{}{rest}", http::host(host)?))
}

fn is_true(params: &Params, option: &str) -> bool {
    params.get(option).is_some_and(|said| said == "true")
}

#[derive(Debug)]
struct HttpJson {
    servers: Servers,
    scheme: &'static str,
}

impl Source for HttpJson {
    fn fetch<'a>(
        &'a self,
        _: &'a Scope,
        at: &'a [Locator],
    ) -> BoxFuture<'a, Vec<Result<Document, FetchError>>> {
        future::join_all(at.iter().map(|at| self.document(at))).boxed()
    }

    fn is_same_for_all(&self) -> bool {
        true
    }
}

impl HttpJson {
    async fn document(&self, at: &Locator) -> Result<Document, FetchError> {
        let (host, path) = at.path.split_once('/').unwrap_or((&at.path, ""));
        let server = self.servers.at(self.scheme, host)?;
        let query = at.params.iter().filter(|(name, _)| *name != AS_INTEGER);
        let query: Vec<_> = query.map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let url = server.url(path.split('/').filter(|_| !path.is_empty()), &query);
        let body = server.read(url, &at.path).await?;
        match serde_json::from_slice::<IgnoredAny>(body.expose()) {
            Ok(_) => Ok(body),
            Err(_) => Err(FetchError::new(
                Class::Invalid,
                format!("what the server answers for {} is no JSON", at.path),
            )),
        }
    }
}

fn pick(
    document: &Value,
    expression: &str,
    params: &Params,
    steps: &Cell<usize>,
) -> Result<Value, FetchError> {
    let found = xpath::select(document, expression, steps).map_err(|error| FetchError::of(&error))?;
    let text = match found {
        Value::Null => Err(FetchError::not_found("the value at this XPath is null")),
        Value::Sequence(items) => {
            let texts: Option<Vec<_>> = items.iter().map(text).collect();
            texts.filter(|texts| !texts.is_empty()).map(|texts| Secret::new(texts.join(","))).ok_or_else(
                || {
                    let what = if items.is_empty() { "an empty list" } else { "a list of lists or maps" };
                    no_text(what)
                },
            )
        }
        one => text(one).map(|text| Secret::new(text.to_owned())).ok_or_else(|| no_text(one.kind())),
    }?;
    let text = if is_true(params, AS_INTEGER) { whole_number(text.expose())? } else { text };
    Ok(Value::String(text))
}

fn no_text(what: &str) -> FetchError {
    let reason =
        format!("the value at this XPath is {what}\nhelp: go on to a value that is a text or a number");
    FetchError::new(Class::Invalid, reason)
}

fn whole_number(text: &str) -> Result<Secret<String>, FetchError> {
    if text.parse::<i128>().is_ok() {
        return Ok(Secret::new(text.to_owned()));
    }
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() => Ok(Secret::new(format!("{number:.0}"))),
        _ => Err(FetchError::new(
            Class::Invalid,
            format!("option {AS_INTEGER}: the value at this XPath is no number"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::report;
    use crate::policy::AllowList;
    use crate::refs::grammar::Expression;
    use crate::refs::resolve::Resolver;
    use crate::refs::sources::mock::{ambient, locator, told};
    use crate::web::mock::Mock;

    #[test]
    fn a_document_has_one_spelling() {
        for (path, expected) in [
            ("Config.example:443/a/b.json", Ok("config.example/a/b.json")),
            ("config.example", Ok("config.example")),
            ("config.example:8443/", Ok("config.example:8443/")),
            ("config.example/a?b", Ok("config.example/a?b")),
            ("config.example/../a", Err(Class::Invalid)),
            ("me@config.example/a", Err(Class::Invalid)),
            ("/a", Err(Class::Invalid)),
        ] {
            let normalised = normalise(&Scope::default(), path, &Params::new());
            assert_eq!(normalised.map_err(|error| error.class), expected.map(str::to_owned), "{path}");
        }
    }

    #[tokio::test]
    async fn a_mock_is_asked_for_the_path_and_every_option_but_vals_own() {
        let mock = Mock::start(|_| (200, r#"{"a": 1}"#.to_owned())).await;
        let params = locator("", false, &[("insecure", "true")]).params;
        let source = (SCHEME.open)(&params, &ambient(&[], &[&mock.url])).unwrap();
        let host = mock.url.trim_start_matches("http://");
        let at = [
            locator(&format!("{host}/a b/?#"), false, &[(AS_INTEGER, "true"), ("q", "x&y"), ("empty", "")]),
            locator(host, false, &[]),
            locator(&format!("{host}/a/"), false, &[]),
        ];
        assert_eq!(told(source.fetch(&Scope::default(), &at).await), [r#"{"a": 1}"#; 3]);
        let mut asked: Vec<_> = mock.seen().into_iter().map(|request| request.path).collect();
        asked.sort();
        assert_eq!(asked, ["/", "/a%20b/%3F%23?empty=&q=x%26y", "/a/"]);
        assert!(mock.seen().iter().all(|request| request.header("authorization").is_empty()));
    }

    #[tokio::test]
    async fn without_the_operators_http_address_nothing_is_asked_over_http() {
        let ambient = ambient(&[], &["https://config.example"]);
        for (insecure, reason) in [
            ("true", "Denied: http://config.example is not an address that the operator names"),
            ("false", "Denied: https://config.example:8443 is not an address that the operator names"),
        ] {
            let source =
                (SCHEME.open)(&locator("", false, &[("insecure", insecure)]).params, &ambient).unwrap();
            let path = if insecure == "true" { "config.example/a" } else { "config.example:8443/a" };
            let answer = told(source.fetch(&Scope::default(), &[locator(path, false, &[])]).await).remove(0);
            assert!(answer.starts_with(reason), "{answer}");
        }
    }

    #[tokio::test]
    async fn the_policy_sees_what_goes_along_to_a_mock_and_nobody_is_told_its_value() {
        let mock = Mock::start(|_| (200, r#"{"a": "x"}"#.to_owned())).await;
        let host = mock.url.trim_start_matches("http://");
        let list = format!("httpjson://{host}/doc?insecure=true&team=a");
        let policy = AllowList::default().with_references(&list).unwrap();
        let resolver = Resolver::new(ambient(&[], &[&mock.url]), Arc::new(policy));
        for (options, denied) in [
            ("", None),
            ("&team=a", None),
            ("&floatAsInt=false&team=a", None),
            ("&team=STRONGROOM-MARKER", Some("/doc with insecure, team\n")),
            ("&other=STRONGROOM-MARKER", Some("/doc with insecure, other\n")),
            ("&other=", Some("/doc with insecure, other\n")),
        ] {
            let reference = format!("ref+httpjson://{host}/doc?insecure=true{options}#//a");
            let expression = Expression::parse(&reference).unwrap();
            let value = resolver.resolve(&Scope::default(), &[&expression]).await.remove(0);
            match (value, denied) {
                (Ok(value), None) => assert_eq!(value.to_text().expose(), "x", "{options}"),
                (Err(errors), Some(denied)) => {
                    let said = report(&errors[0]);
                    assert!(said.contains(denied) && !said.contains("MARKER"), "{options}: {said}");
                }
                (value, _) => panic!("{options}: {value:?}"),
            }
        }
        assert_eq!(mock.seen().len(), 3, "nothing is asked that is denied");
    }

    #[test]
    fn what_is_found_is_text_or_an_error_that_does_not_show_it() {
        let document = r#"{
            "text": "STRONGROOM-MARKER", "whole": 12345678901234567890123, "float": 2.5, "on": true, "nothing": null,
            "list": ["a", 1, false], "one": ["a"], "none": [], "maps": [{"a": "STRONGROOM-MARKER"}], "map": {"a": "b"}, "digits": "1.2"
        }"#;
        let document = Value::parse(document).unwrap();
        for (expression, as_integer, expected) in [
            ("/text", "false", Ok("STRONGROOM-MARKER")),
            ("/float", "false", Ok("2.5")),
            ("/float", "true", Ok("2")),
            ("/digits", "true", Ok("1")),
            ("/on", "false", Ok("true")),
            ("/list", "false", Ok("a,1,false")),
            ("/one", "false", Ok("a")),
            ("//absent", "false", Err("NotFound: nothing is at this XPath")),
            ("/nothing", "false", Err("NotFound: the value at this XPath is null")),
            ("/none", "false", Err("Invalid: the value at this XPath is an empty list")),
            ("/maps", "false", Err("Invalid: the value at this XPath is a list of lists or maps")),
            ("/map", "false", Err("Invalid: the value at this XPath is a map")),
            ("/text", "true", Err("Invalid: option floatAsInt: the value at this XPath is no number")),
            ("/list", "true", Err("Invalid: option floatAsInt: the value at this XPath is no number")),
            ("count(/list)", "false", Err("Invalid: XPath: the function `count()` is not supported")),
        ] {
            let params = locator("", false, &[(AS_INTEGER, as_integer)]).params;
            match (pick(&document, expression, &params, &Cell::new(1000)), expected) {
                (Ok(value), Ok(expected)) => assert_eq!(value.to_text().expose(), expected, "{expression}"),
                (Err(error), Err(expected)) => {
                    let said = format!("{:?}: {}", error.class, error.reason);
                    assert!(said.starts_with(expected) && !said.contains("MARKER"), "{said}");
                }
                (value, _) => panic!("{expression}: {value:?}"),
            }
        }
        assert_eq!(whole_number("12345678901234567890").unwrap().expose(), "12345678901234567890");
        for none in ["inf", "NaN", "", "1e999"] {
            assert_eq!(whole_number(none).unwrap_err().class, Class::Invalid, "{none}");
        }
    }
}
