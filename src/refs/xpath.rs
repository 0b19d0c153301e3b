//! The part of `XPath` 1.0 that picks a value out of JSON, as `httpjson` of vals has it: pure, and bounded in its work.
//!
//! ```text
//! path      = ["/" | "//"] [step *(("/" | "//") step)] | "(" path ")" *predicate *(("/" | "//") step)
//! step      = "." | ("*" | name | "text()") *predicate
//! predicate = "[" condition "]"
//! condition = operand [("=" | "!=" | "<" | "<=" | ">" | ">=") operand], with and, or, not(…)
//! operand   = path | 'text' | number | "position()" | "last()" | contains(…, …) | starts-with(…, …)
//! ```
//!
//! Entries of a map are elements with its keys for names, in the order of their names. Items of a list are elements without
//! a name, so `*` finds them and `[2]` is the second. All else of `XPath` is refused by name.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::HashSet;

use crate::document::value::Value;
use crate::fault::{Class, Fault};

/// The longest expression, in bytes.
const MAX_LENGTH: usize = 1024;
/// Predicates in predicates, at most.
const MAX_DEPTH: usize = 16;
/// Values that are looked at for one expression, at most.
const MAX_STEPS: usize = 1 << 20;
/// What is shown of an expression, in characters.
const MAX_SHOWN: usize = 40;

/// An expression does not lead to a value.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum XpathError {
    /// A part of `XPath` that is not here.
    #[error(
        "XPath: {0} is not supported\nhelp: paths with /, //, * and names are, and [n], [last()], [key='x'], [a/b > 1], and, or, not, contains, starts-with"
    )]
    Unsupported(String),
    /// It is not `XPath`.
    #[error(
        "XPath: {expected} is expected before {rest:?}\nhelp: a text is quoted with ', and a space is written %20"
    )]
    Malformed {
        /// What could follow.
        expected: &'static str,
        /// The rest of the expression.
        rest: String,
    },
    /// More than [`MAX_LENGTH`].
    #[error("XPath: the expression is longer than {MAX_LENGTH} bytes")]
    TooLong,
    /// More than [`MAX_DEPTH`].
    #[error("XPath: more than {MAX_DEPTH} predicates inside each other")]
    TooDeep,
    /// More than [`MAX_STEPS`].
    #[error(
        "XPath: the expression looks at too many values\nhelp: name the keys that lead there instead of // and *"
    )]
    TooMuch,
    /// There is no such value.
    #[error("nothing is at this XPath")]
    Nothing,
}

impl Fault for XpathError {
    fn class(&self) -> Class {
        match self {
            Self::Nothing => Class::NotFound,
            _ => Class::Invalid,
        }
    }
}

/// The first value of `document` that `expression` selects. What it looks at is taken off `steps`, which several share.
pub(super) fn select<'v>(
    document: &'v Value,
    expression: &str,
    steps: &Cell<usize>,
) -> Result<&'v Value, XpathError> {
    let path = Parser::of(expression)?.whole()?;
    let own = Cell::new(steps.get().min(MAX_STEPS));
    let before = own.get();
    let found = Search { root: document, steps: &own }.path(&path, document);
    steps.set(steps.get() - (before - own.get()));
    found?.into_iter().next().ok_or(XpathError::Nothing)
}

struct Path {
    from: Start,
    steps: Vec<Step>,
}

enum Start {
    Root,
    Here,
    Group(Box<Path>, Vec<Expr>),
}

struct Step {
    /// Behind `//`.
    below: bool,
    test: Test,
    predicates: Vec<Expr>,
}

enum Test {
    Any,
    Name(String),
    Text,
    Here,
}

enum Expr {
    Or(Vec<Expr>),
    And(Vec<Expr>),
    Compare(Box<[Expr; 2]>, Order),
    Call(Function, Vec<Expr>),
    Text(String),
    Number(f64),
    Path(Path),
}

#[derive(Clone, Copy)]
enum Order {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// Longer spellings first.
const ORDERS: [(&str, Order); 6] = [
    ("!=", Order::NotEqual),
    ("<=", Order::LessOrEqual),
    (">=", Order::GreaterOrEqual),
    ("=", Order::Equal),
    ("<", Order::Less),
    (">", Order::Greater),
];

#[derive(Clone, Copy)]
enum Function {
    Contains,
    Last,
    Not,
    Position,
    StartsWith,
}

/// With the number of their arguments.
const FUNCTIONS: [(&str, Function, usize); 5] = [
    ("contains", Function::Contains, 2),
    ("last", Function::Last, 0),
    ("not", Function::Not, 1),
    ("position", Function::Position, 0),
    ("starts-with", Function::StartsWith, 2),
];

struct Parser<'e> {
    rest: &'e str,
    depth: usize,
}

impl<'e> Parser<'e> {
    const fn of(expression: &'e str) -> Result<Self, XpathError> {
        if expression.len() > MAX_LENGTH {
            return Err(XpathError::TooLong);
        }
        Ok(Self { rest: expression, depth: 0 })
    }

    fn whole(mut self) -> Result<Path, XpathError> {
        let path = self.path()?;
        self.skip();
        if self.rest.is_empty() { Ok(path) } else { Err(self.unexpected("the end")) }
    }

    fn path(&mut self) -> Result<Path, XpathError> {
        if self.take("(") {
            let inner = self.deeper(Self::path)?;
            self.expect(")")?;
            let group = Start::Group(Box::new(inner), self.predicates()?);
            return self.steps(group, Vec::new());
        }
        if self.take("//") {
            let step = self.step(true)?;
            return self.steps(Start::Root, vec![step]);
        }
        let from = if self.take("/") { Start::Root } else { Start::Here };
        let end = self.skip().is_empty() || self.rest.starts_with([']', ')', ',', '=', '!', '<', '>']);
        if matches!(from, Start::Root) && end {
            return Ok(Path { from, steps: Vec::new() });
        }
        let step = self.step(false)?;
        self.steps(from, vec![step])
    }

    fn steps(&mut self, from: Start, mut steps: Vec<Step>) -> Result<Path, XpathError> {
        loop {
            let below = self.take("//");
            if !below && !self.take("/") {
                return Ok(Path { from, steps });
            }
            steps.push(self.step(below)?);
        }
    }

    fn step(&mut self, below: bool) -> Result<Step, XpathError> {
        for (sign, what) in [("..", "`..`"), ("@", "`@`: JSON has no attributes"), ("$", "a variable")] {
            if self.take(sign) {
                return Err(XpathError::Unsupported(what.to_owned()));
            }
        }
        let test = if self.take(".") {
            Test::Here
        } else if self.take("*") {
            Test::Any
        } else {
            let name = self.name().ok_or_else(|| self.unexpected("a name or *"))?;
            if self.rest.starts_with(':') {
                let what = if self.rest.starts_with("::") { "the axis" } else { "the prefix" };
                return Err(XpathError::Unsupported(format!("{what} `{name}`")));
            }
            match name {
                "text" if self.take("(") => {
                    self.expect(")")?;
                    Test::Text
                }
                _ if self.skip().starts_with('(') => return Err(unsupported_function(name)),
                _ => Test::Name(name.to_owned()),
            }
        };
        Ok(Step { below, test, predicates: self.predicates()? })
    }

    fn predicates(&mut self) -> Result<Vec<Expr>, XpathError> {
        let mut predicates = Vec::new();
        while self.take("[") {
            predicates.push(self.deeper(Self::either)?);
            self.expect("]")?;
        }
        Ok(predicates)
    }

    fn either(&mut self) -> Result<Expr, XpathError> {
        let mut sides = vec![self.both()?];
        while self.word("or") {
            sides.push(self.both()?);
        }
        Ok(if sides.len() == 1 { sides.remove(0) } else { Expr::Or(sides) })
    }

    fn both(&mut self) -> Result<Expr, XpathError> {
        let mut sides = vec![self.comparison()?];
        while self.word("and") {
            sides.push(self.comparison()?);
        }
        Ok(if sides.len() == 1 { sides.remove(0) } else { Expr::And(sides) })
    }

    fn comparison(&mut self) -> Result<Expr, XpathError> {
        let left = self.operand()?;
        let found = ORDERS.iter().find(|(sign, _)| self.take(sign));
        let Some((_, order)) = found else { return Ok(left) };
        Ok(Expr::Compare(Box::new([left, self.operand()?]), *order))
    }

    fn operand(&mut self) -> Result<Expr, XpathError> {
        let rest = self.skip();
        if let Some(quote) = rest.chars().next().filter(|first| matches!(first, '\'' | '"')) {
            let (text, rest) =
                rest[1..].split_once(quote).ok_or_else(|| self.unexpected("a text that is closed"))?;
            self.rest = rest;
            return Ok(Expr::Text(text.to_owned()));
        }
        if rest.starts_with(|first: char| first.is_ascii_digit()) {
            let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
            let number = rest[..end].parse().map_err(|_| self.unexpected("a number"))?;
            self.rest = &rest[end..];
            return Ok(Expr::Number(number));
        }
        let mut ahead = Parser { rest, depth: self.depth };
        if let Some(name) = ahead.name().filter(|name| *name != "text")
            && ahead.take("(")
        {
            let function = FUNCTIONS.iter().find(|(known, ..)| *known == name);
            let (_, function, arguments) = function.ok_or_else(|| unsupported_function(name))?;
            self.rest = ahead.rest;
            return self.call(*function, *arguments);
        }
        self.path().map(Expr::Path)
    }

    fn call(&mut self, function: Function, number: usize) -> Result<Expr, XpathError> {
        let mut arguments = Vec::new();
        for index in 0..number {
            if index > 0 {
                self.expect(",")?;
            }
            arguments.push(self.deeper(Self::either)?);
        }
        self.expect(")")?;
        Ok(Expr::Call(function, arguments))
    }

    fn deeper<T>(&mut self, parse: fn(&mut Self) -> Result<T, XpathError>) -> Result<T, XpathError> {
        if self.depth == MAX_DEPTH {
            return Err(XpathError::TooDeep);
        }
        self.depth += 1;
        let parsed = parse(self);
        self.depth -= 1;
        parsed
    }

    fn skip(&mut self) -> &'e str {
        self.rest = self.rest.trim_start();
        self.rest
    }

    fn take(&mut self, sign: &str) -> bool {
        let Some(rest) = self.skip().strip_prefix(sign) else { return false };
        self.rest = rest;
        true
    }

    fn expect(&mut self, sign: &'static str) -> Result<(), XpathError> {
        if self.take(sign) { Ok(()) } else { Err(self.unexpected(sign)) }
    }

    fn name(&mut self) -> Option<&'e str> {
        let rest = self.skip();
        let starts = rest.starts_with(|first: char| first.is_alphabetic() || first == '_');
        let end = rest.find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '-' | '.')));
        let (name, rest) = rest.split_at(end.unwrap_or(rest.len()));
        starts.then(|| {
            self.rest = rest;
            name
        })
    }

    /// An operator that is spelled as a name.
    fn word(&mut self, word: &str) -> bool {
        let mut ahead = Parser { rest: self.rest, depth: self.depth };
        let is_it = ahead.name() == Some(word);
        if is_it {
            self.rest = ahead.rest;
        }
        is_it
    }

    fn unexpected(&self, expected: &'static str) -> XpathError {
        let rest = self.rest.trim_start();
        let operators = ["|", "+", "-", "*", "div ", "mod "];
        match operators.iter().find(|operator| rest.starts_with(**operator)) {
            Some(operator) if expected.len() == 1 || expected == "the end" => {
                XpathError::Unsupported(format!("the operator `{}`", operator.trim()))
            }
            _ => XpathError::Malformed { expected, rest: shown(rest) },
        }
    }
}

fn unsupported_function(name: &str) -> XpathError {
    XpathError::Unsupported(format!("the function `{}()`", shown(name)))
}

fn shown(text: &str) -> String {
    text.chars().take(MAX_SHOWN).collect()
}

/// What an expression comes to.
enum Outcome<'v> {
    Values(Vec<&'v Value>),
    Text(&'v str),
    Number(f64),
    Truth(bool),
}

/// A value that can be compared.
enum Atom<'v> {
    Text(&'v str),
    Number(f64),
}

struct Search<'v, 's> {
    root: &'v Value,
    steps: &'s Cell<usize>,
}

/// A value among those that were found with it, counted from 1.
#[derive(Clone, Copy)]
struct Place<'v> {
    value: &'v Value,
    position: usize,
    last: usize,
}

impl<'v> Search<'v, '_> {
    fn spend(&self, steps: usize) -> Result<(), XpathError> {
        self.steps.set(self.steps.get().checked_sub(steps).ok_or(XpathError::TooMuch)?);
        Ok(())
    }

    fn path(&self, path: &Path, here: &'v Value) -> Result<Vec<&'v Value>, XpathError> {
        let mut found = match &path.from {
            Start::Root => vec![self.root],
            Start::Here => vec![here],
            Start::Group(inner, predicates) => self.filter(self.path(inner, here)?, predicates)?,
        };
        for step in &path.steps {
            found = self.step(found, step)?;
        }
        Ok(found)
    }

    fn step(&self, from: Vec<&'v Value>, step: &Step) -> Result<Vec<&'v Value>, XpathError> {
        let by_name = matches!(step.test, Test::Any | Test::Name(_));
        if step.below && by_name && step.predicates.is_empty() {
            let all = self.below(from, false)?.into_iter();
            return Ok(all.filter(|(name, _)| step.test.takes(name)).map(|(_, value)| value).collect());
        }
        let from = if step.below {
            self.below(from, true)?.into_iter().map(|(_, value)| value).collect()
        } else {
            from
        };
        let mut found = Vec::new();
        for value in from {
            let here = match step.test {
                Test::Here => vec![value],
                Test::Text => Vec::from_iter(text(value).map(|_| value)),
                Test::Any | Test::Name(_) => {
                    let all = self.children(value)?.into_iter();
                    all.filter(|(name, _)| step.test.takes(name)).map(|(_, value)| value).collect()
                }
            };
            found.extend(self.filter(here, &step.predicates)?);
        }
        Ok(found)
    }

    /// Everything below `from`, and perhaps these too, each once, in the order of the document.
    fn below(&self, from: Vec<&'v Value>, with_these: bool) -> Result<Vec<(&'v str, &'v Value)>, XpathError> {
        let mut entered = HashSet::new();
        let mut found = Vec::new();
        for value in from {
            let mut open = vec![("", value, with_these)];
            while let Some((name, value, counts)) = open.pop() {
                let is_new = entered.insert(std::ptr::from_ref(value));
                if counts && (is_new || !with_these) {
                    found.push((name, value));
                }
                if is_new {
                    let children = self.children(value)?.into_iter().rev();
                    open.extend(children.map(|(name, value)| (name, value, true)));
                }
            }
        }
        Ok(found)
    }

    fn children(&self, value: &'v Value) -> Result<Vec<(&'v str, &'v Value)>, XpathError> {
        self.spend(1)?;
        match value {
            Value::Sequence(items) => {
                self.spend(items.len())?;
                Ok(items.iter().map(|item| ("", item)).collect())
            }
            Value::Mapping(entries) => {
                self.spend(entries.len())?;
                let mut entries: Vec<_> = entries.iter().map(|(key, value)| (key.as_str(), value)).collect();
                entries.sort_by_key(|(key, _)| *key);
                Ok(entries)
            }
            _ => Ok(Vec::new()),
        }
    }

    fn filter(&self, mut found: Vec<&'v Value>, predicates: &[Expr]) -> Result<Vec<&'v Value>, XpathError> {
        for predicate in predicates {
            let last = found.len();
            let mut kept = Vec::new();
            for (index, value) in found.into_iter().enumerate() {
                let place = Place { value, position: index + 1, last };
                let holds = match self.evaluate(predicate, place)? {
                    #[expect(clippy::float_cmp, clippy::cast_precision_loss, reason = "XPath compares so")]
                    Outcome::Number(number) => number == place.position as f64,
                    outcome => outcome.holds(),
                };
                if holds {
                    kept.push(value);
                }
            }
            found = kept;
        }
        Ok(found)
    }

    fn evaluate<'e: 'o, 'o>(&self, expr: &'e Expr, place: Place<'v>) -> Result<Outcome<'o>, XpathError>
    where
        'v: 'o,
    {
        self.spend(1)?;
        Ok(match expr {
            Expr::Or(sides) => Outcome::Truth(self.any(sides, place, true)?),
            Expr::And(sides) => Outcome::Truth(!self.any(sides, place, false)?),
            Expr::Compare(sides, order) => {
                let [left, right] = &**sides;
                let (left, right) =
                    (self.evaluate(left, place)?.atoms(), self.evaluate(right, place)?.atoms());
                self.spend(left.len() * right.len())?;
                Outcome::Truth(left.iter().any(|left| right.iter().any(|right| order.holds(left, right))))
            }
            Expr::Call(function, arguments) => self.call(*function, arguments, place)?,
            Expr::Text(text) => Outcome::Text(text),
            Expr::Number(number) => Outcome::Number(*number),
            Expr::Path(path) => Outcome::Values(self.path(path, place.value)?),
        })
    }

    /// Whether one of them is `wanted`.
    fn any(&self, sides: &[Expr], place: Place<'v>, wanted: bool) -> Result<bool, XpathError> {
        for side in sides {
            if self.evaluate(side, place)?.holds() == wanted {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn call<'e: 'o, 'o>(
        &self,
        function: Function,
        arguments: &'e [Expr],
        place: Place<'v>,
    ) -> Result<Outcome<'o>, XpathError>
    where
        'v: 'o,
    {
        let text = |index: usize| -> Result<Cow<'o, str>, XpathError> {
            Ok(self.evaluate(&arguments[index], place)?.atoms().first().map(Atom::text).unwrap_or_default())
        };
        #[expect(clippy::cast_precision_loss, reason = "positions are small")]
        Ok(match function {
            Function::Contains => Outcome::Truth(text(0)?.contains(&*text(1)?)),
            Function::StartsWith => Outcome::Truth(text(0)?.starts_with(&*text(1)?)),
            Function::Not => Outcome::Truth(!self.evaluate(&arguments[0], place)?.holds()),
            Function::Last => Outcome::Number(place.last as f64),
            Function::Position => Outcome::Number(place.position as f64),
        })
    }
}

impl Test {
    fn takes(&self, name: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Name(wanted) => wanted == name,
            Self::Text | Self::Here => false,
        }
    }
}

impl<'o> Outcome<'o> {
    fn holds(&self) -> bool {
        match self {
            Self::Values(values) => !values.is_empty(),
            Self::Text(text) => !text.is_empty(),
            Self::Number(number) => *number != 0.0,
            Self::Truth(truth) => *truth,
        }
    }

    fn atoms(self) -> Vec<Atom<'o>> {
        match self {
            Self::Values(values) => values.into_iter().filter_map(text).map(Atom::Text).collect(),
            Self::Text(text) => vec![Atom::Text(text)],
            Self::Number(number) => vec![Atom::Number(number)],
            Self::Truth(truth) => vec![Atom::Text(if truth { "true" } else { "false" })],
        }
    }
}

impl<'o> Atom<'o> {
    fn text(&self) -> Cow<'o, str> {
        match self {
            Self::Text(text) => Cow::Borrowed(text),
            Self::Number(number) => Cow::Owned(number.to_string()),
        }
    }

    fn number(&self) -> f64 {
        match self {
            Self::Text(text) => text.trim().parse().unwrap_or(f64::NAN),
            Self::Number(number) => *number,
        }
    }
}

impl Order {
    /// Numbers are compared where one is a number or the order is not that of equality, else texts.
    fn holds(self, left: &Atom<'_>, right: &Atom<'_>) -> bool {
        let texts = matches!((left, right), (Atom::Text(_), Atom::Text(_)));
        let (a, b) = (left.number(), right.number());
        #[expect(clippy::float_cmp, reason = "XPath compares so")]
        match self {
            Self::Equal if texts => left.text() == right.text(),
            Self::NotEqual if texts => left.text() != right.text(),
            Self::Equal => a == b,
            Self::NotEqual => a != b,
            Self::Less => a < b,
            Self::LessOrEqual => a <= b,
            Self::Greater => a > b,
            Self::GreaterOrEqual => a >= b,
        }
    }
}

/// What a value that is no list and no map is as text.
pub(super) fn text(value: &Value) -> Option<&str> {
    match value {
        Value::String(text) | Value::Number(text) => Some(text.expose()),
        Value::Bool(true) => Some("true"),
        Value::Bool(false) => Some("false"),
        Value::Null => Some("null"),
        Value::Sequence(_) | Value::Mapping(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = r#"[
        {"name": "one", "id": 251296379, "nodes": ["a", "b"], "owner": {"login": "h", "id": 8}, "no": null},
        {"name": "two", "id": 5, "owner": {"login": "z", "id": 9, "name": "deep"}, "ok": true}
    ]"#;

    fn found(document: &str, expression: &str) -> Result<String, XpathError> {
        let steps = Cell::new(usize::MAX);
        let document = Value::parse(document).unwrap();
        select(&document, expression, &steps).map(|value| value.to_flow().expose().clone())
    }

    #[test]
    fn an_expression_selects_the_first_value_that_it_means() {
        for (expression, expected) in [
            ("//*[1]/name", r#""one""#),
            ("//*[2]/name", r#""two""#),
            ("//*[last()]/name", r#""two""#),
            ("//*[position()=2]/name", r#""two""#),
            ("/*[2]/name", r#""two""#),
            ("*[2]/name", r#""two""#),
            ("./*[2]/owner/login", r#""z""#),
            ("//owner/login", r#""h""#),
            ("(//login)[2]", r#""z""#),
            ("(//owner)[2]/name", r#""deep""#),
            ("//nodes", r#"["a", "b"]"#),
            ("//nodes/*[2]", r#""b""#),
            ("//*[name='two']/id", "5"),
            ("//*[ name = \"two\" ]/id", "5"),
            ("//*[id=5]/name", r#""two""#),
            ("//*[id='5']/name", r#""two""#),
            ("//*[id!=251296379]/id", "5"),
            ("//*[id>=5][id<6]/name", r#""two""#),
            ("//*[owner/login='z']/name", r#""two""#),
            ("//owner[login='z' and id=9]/name", r#""deep""#),
            ("//owner[login='z' or id=8]/login", r#""h""#),
            ("//*[name and not(nodes)]/name", r#""two""#),
            ("//*[.//login='z']/name", r#""two""#),
            ("//*[contains(name,'wo')]/id", "5"),
            ("//*[starts-with(name,'t')]/id", "5"),
            ("//login[.='z']", r#""z""#),
            ("//login[text()='z']", r#""z""#),
            ("//name/text()", r#""one""#),
            ("//*[ok='true']/name", r#""two""#),
            ("//no", "null"),
            ("//*[name][2]/id", "5"),
            // By the order of names, not of the document.
            ("/*[1]/*[1]", "251296379"),
            ("/*[1]/*[4]", r#"["a", "b"]"#),
        ] {
            assert_eq!(found(DOCUMENT, expression).as_deref(), Ok(expected), "{expression}");
        }
        for absent in
            ["/name", "owner", "//*[3]/name", "//*[0]", "//owner[2]", "//nodes/a", "//*[id>'x']", "//*['']"]
        {
            assert_eq!(found(DOCUMENT, absent), Err(XpathError::Nothing), "{absent}");
        }
        assert_eq!(found(r#""x""#, "/").as_deref(), Ok(r#""x""#));
        assert_eq!(found(r#"{"ä-b.c_1": 1}"#, "/ä-b.c_1").as_deref(), Ok("1"));
    }

    #[test]
    fn what_is_not_supported_is_named() {
        for (expression, part) in [
            ("//a/..", "`..`"),
            ("//@a", "`@`: JSON has no attributes"),
            ("//a[$x]", "a variable"),
            ("ancestor::a", "the axis `ancestor`"),
            ("x:a", "the prefix `x`"),
            ("count(//a)", "the function `count()`"),
            ("//a[substring(b,1)='x']", "the function `substring()`"),
            ("//a|//b", "the operator `|`"),
            ("//a[last()-1]", "the operator `-`"),
            ("//a[b+1=2]", "the operator `+`"),
            ("//a[b mod 2]", "the operator `mod`"),
        ] {
            let error = found(DOCUMENT, expression).unwrap_err();
            assert_eq!(error, XpathError::Unsupported(part.to_owned()), "{expression}");
            assert_eq!(error.class(), Class::Invalid);
        }
    }

    #[test]
    fn what_is_no_expression_is_told_by_its_place() {
        for (expression, expected, rest) in [
            ("", "a name or *", ""),
            ("//", "a name or *", ""),
            ("//a[", "a name or *", ""),
            ("//a[]", "a name or *", "]"),
            ("//a[b", "]", ""),
            ("//a]", "the end", "]"),
            ("//a[b=]", "a name or *", "]"),
            ("//a[b='x]", "a text that is closed", "'x]"),
            ("//a[b=\"", "a text that is closed", "\""),
            ("//a[1.2.3]", "a number", "1.2.3]"),
            ("//a b", "the end", "b"),
            ("hello^sup", "the end", "^sup"),
            ("//9", "a name or *", "9"),
            ("(//a", ")", ""),
            ("//a[contains(b)]", ",", ")]"),
            ("//a[not b]", "]", "b]"),
        ] {
            let error = found(DOCUMENT, expression).unwrap_err();
            assert_eq!(error, XpathError::Malformed { expected, rest: rest.to_owned() }, "{expression}");
        }
        let long = found(DOCUMENT, &format!("//a {}", "x".repeat(500))).unwrap_err();
        assert!(long.to_string().len() < 200, "{long}");
    }

    #[test]
    fn expressions_that_would_take_long_are_refused() {
        let steps = Cell::new(usize::MAX);
        let chain = format!("{}1{}", r#"{"a":"#.repeat(900), "}".repeat(900));
        let chain = Value::parse(&chain).unwrap();
        let wide = Value::parse(&format!("[{}1]", "1,".repeat(100_000))).unwrap();
        let in_each_other = format!("{}a{}", "//a[".repeat(16), "]".repeat(16));
        for (document, expression, expected) in [
            (&chain, "//a//a//a//a//a//a//a//a//a//a//b", Err(XpathError::Nothing)),
            (&chain, "//*[.//*[.//*[b]]]", Err(XpathError::TooMuch)),
            (&chain, &in_each_other, Err(XpathError::TooMuch)),
            (&wide, "//*[//*='2']", Err(XpathError::TooMuch)),
            (&wide, "/*[//*=//*]", Err(XpathError::TooMuch)),
            (&wide, "(//*)[last()]", Ok("1")),
            (&wide, &"//*".repeat(300), Err(XpathError::Nothing)),
            (&wide, &"/a".repeat(513), Err(XpathError::TooLong)),
            (&wide, &"(".repeat(1000), Err(XpathError::TooDeep)),
            (&wide, &format!("//{}", "a[".repeat(500)), Err(XpathError::TooDeep)),
            (&wide, &format!("//a[{}", "not(".repeat(200)), Err(XpathError::TooDeep)),
        ] {
            let began = std::time::Instant::now();
            let value = select(document, expression, &steps).map(|value| text(value).unwrap());
            assert_eq!(value, expected, "{expression}");
            assert!(began.elapsed().as_secs() < 5, "{expression}: {:?}", began.elapsed());
        }
    }

    #[test]
    fn many_expressions_share_their_steps() {
        let document = Value::parse(&format!("[{}1]", "1,".repeat(1000))).unwrap();
        let steps = Cell::new(10_000);
        let outcomes: Vec<_> = (0..10).map(|_| select(&document, "//*[5]", &steps).map(drop)).collect();
        assert_eq!((outcomes.first(), outcomes.last()), (Some(&Ok(())), Some(&Err(XpathError::TooMuch))));
        assert!(steps.get() < 10_000);
    }

    proptest::proptest! {
        #[test]
        fn no_expression_makes_it_panic(expression in r"[ab1 /\*\[\]().,='<>!@$:|+-]{0,40}") {
            let _ = found(r#"{"a": [1, {"b": "x"}], "b": null}"#, &expression);
        }
    }
}
