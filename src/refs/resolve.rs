//! From references to values: authorised one by one, fetched once each, batched and side by side.
//!
//! References go in rounds, innermost first. Of each round every distinct document is fetched once, by one source per
//! scheme and connection that lives as long as the [`Resolver`], and what another render is fetching is waited for; a
//! fragment is picked out of a document that is
//! parsed once. Nothing is opened before the policy has allowed it, and no value is kept when the answer is given.
//!
//! Every reference that fails is reported. An error says the reference as it is spelled; where it holds a nested
//! reference, the reason is left out, because it could show that one's value.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use futures::future;

use crate::document::value::{PickError, Value, ValueError};
use crate::document::{ParseError, text_of};
use crate::environment::Environment;
use crate::fault::{Class, Fault};
use crate::observe::audit::Access;
use crate::policy::{Authorise, Denied, What};
use crate::refs::ambient::Ambient;
use crate::refs::flights::{Connection, Flights};
use crate::refs::grammar::{Expression, GrammarError, Missing, Part, Reference, Target};
use crate::refs::schemes::{self, COMMON_OPTIONS, SchemeError};
use crate::refs::source::{
    ANY_OPTION, Document, FetchError, Fragment, Locator, OpenError, Params, Scheme, SchemeOption, Source,
};
use crate::scope::{Scope, TOO_LATE};
use crate::secret::Secret;

/// Connections are named by references, so the number of those kept is bounded.
const SOURCES_KEPT: usize = 256;

/// The scheme whose path is the value itself.
const VALUE_IN_PATH: &str = "echo";

/// Where the operator says an option that a reference leaves out, as for vals: `VALS_REGION`.
const OPTION_PREFIX: &str = "VALS_";

/// Options that vals takes from the reference alone; being there without a value is as good as `true`.
const SAID_BY_REFERENCE_ONLY: [&str; 3] = ["inCluster", "include_doppler_defaults", "no_verify_tls"];

/// See [`Resolver::limit`].
const MAX_TOTAL: usize = 128 << 20;

/// Values that all fragments of one call that a scheme picks by itself may look at.
const MAX_STEPS: usize = 64 << 20;

/// Resolves references for as many renders as there are.
pub struct Resolver {
    ambient: Ambient,
    policy: Arc<dyn Authorise>,
    find: fn(&str) -> Result<&'static Scheme, SchemeError>,
    sources: Mutex<HashMap<Connection, Arc<dyn Source>>>,
    flights: Flights,
    /// The values of one call, and all texts they are put into, take no more than this, in bytes.
    limit: usize,
}

/// A reference could not be resolved.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{reference}")]
pub struct RefError {
    /// The reference as it is spelled, without values of options that may be secret.
    pub reference: String,
    /// Why.
    #[source]
    pub cause: RefCause,
}

impl Fault for RefError {
    fn class(&self) -> Class {
        self.cause.class()
    }
}

/// Why a reference could not be resolved.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RefCause {
    /// It is not well formed.
    #[error(transparent)]
    Grammar(#[from] GrammarError),
    /// Its scheme is not one that can be resolved.
    #[error(transparent)]
    Scheme(#[from] SchemeError),
    /// It has an option that its scheme has not.
    #[error("scheme {scheme} has no option {option:?}\nhelp: {help}")]
    Option {
        /// The scheme.
        scheme: &'static str,
        /// Name of the option.
        option: String,
        /// The nearest option, or all of them.
        help: String,
    },
    /// The policy does not allow it.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// Its backend cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Its backend did not give the document.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The document is no text, or too long.
    #[error("the document cannot be a string: {0}")]
    Text(ParseError),
    /// The document has no keys.
    #[error("the document is neither YAML nor JSON: {0}")]
    Document(ValueError),
    /// The document does not have what the fragment names.
    #[error(transparent)]
    Pick(#[from] PickError),
    /// Few references to large documents can mean more than there is memory for.
    #[error("the values of all references together are too large")]
    TooMuch,
    /// Null, a list or a map, where a text is needed.
    #[error("its value is {0}, which cannot stand inside a text")]
    NotText(&'static str),
    /// It failed, and why could show the value of a nested reference.
    #[error("{}; the reason is left out, as it could show the value of the reference inside", .0.label().replace('_', " "))]
    Hidden(Class),
}

impl Fault for RefCause {
    fn class(&self) -> Class {
        match self {
            Self::Grammar(error) => error.class(),
            Self::Scheme(error) => error.class(),
            Self::Denied(error) => error.class(),
            Self::Open(error) => error.class(),
            Self::Fetch(error) => error.class(),
            Self::Pick(error) => error.class(),
            Self::Hidden(class) => *class,
            Self::Option { .. } | Self::Text(_) | Self::Document(_) | Self::TooMuch | Self::NotText(_) => {
                Class::Invalid
            }
        }
    }
}

impl RefCause {
    fn of(self, reference: &Reference) -> RefError {
        let about_nested_only =
            matches!(self, Self::Grammar(_) | Self::Scheme(_) | Self::TooMuch | Self::NotText(_));
        let hide = reference.nested().next().is_some() && !about_nested_only;
        let cause = if hide { Self::Hidden(self.class()) } else { self };
        RefError { reference: reference.to_string(), cause }
    }
}

impl Resolver {
    /// `policy` is asked before anything is opened.
    pub fn new(ambient: Ambient, policy: Arc<dyn Authorise>) -> Self {
        Self {
            ambient,
            policy,
            find: schemes::find,
            sources: Mutex::default(),
            flights: Flights::default(),
            limit: MAX_TOTAL,
        }
    }

    /// The value of every expression, in order, or all that failed in it.
    ///
    /// An expression that is one reference with a fragment has the type of what was picked; every other is a string.
    pub async fn resolve(
        &self,
        scope: &Scope,
        expressions: &[&Expression],
    ) -> Vec<Result<Value, Vec<RefError>>> {
        let mut known = Known {
            budget: Budget { bytes: Cell::new(self.limit), steps: Cell::new(MAX_STEPS) },
            documents: HashMap::new(),
            values: HashMap::new(),
        };
        for round in rounds(expressions) {
            let plans = round.into_iter().map(|reference| (reference, self.plan(scope, reference, &known)));
            let plans: Vec<_> = plans.collect();
            let wanted = known.wanted(plans.iter().filter_map(|(_, plan)| plan.as_ref().ok()));
            known.documents.extend(self.fetch(scope, wanted).await);
            for (reference, plan) in plans {
                let told =
                    plan.as_ref().map_or_else(|_| reference.to_string(), |plan| plan.audited(reference));
                let outcome =
                    plan.and_then(|plan| known.pick(&plan).map_err(|cause| vec![cause.of(reference)]));
                audit(scope, reference, &told, &outcome);
                known.values.insert(reference, outcome);
            }
        }
        expressions.iter().map(|expression| known.fill(expression)).collect()
    }

    /// What to ask for, once it is clear and allowed.
    fn plan(&self, scope: &Scope, reference: &Reference, known: &Known<'_>) -> Result<Plan, Vec<RefError>> {
        let nested = known.texts(reference.nested(), false)?;
        let plan = reference.target(&nested).map_err(RefCause::from);
        plan.and_then(|target| self.allowed(scope, target)).map_err(|cause| vec![cause.of(reference)])
    }

    fn allowed(&self, scope: &Scope, target: Target) -> Result<Plan, RefCause> {
        let scheme = (self.find)(&target.scheme)?;
        let options = with_operators(scheme, &target.options, &self.ambient.environment);
        let (connection, params) = split_options(scheme, &options)?;
        let path = (scheme.normalise)(scope, &target.path, &params)?;
        let judged = judged(scheme, &connection, &params);
        let what = What::Reference { scheme: scheme.name, path: &path, connection: &judged };
        self.policy.authorise(&scope.who, what)?;
        let fragment = matches!(scheme.fragment, Fragment::Asks) && target.fragment.is_some();
        let connection = (scheme.name, connection);
        Ok(Plan {
            scheme,
            request: Request { connection, locator: Locator { path, params, fragment } },
            judged,
            target,
        })
    }

    /// Asks every source for all that is wanted of it, all sources at the same time, until the deadline.
    async fn fetch(
        &self,
        scope: &Scope,
        wanted: BTreeMap<Connection, Wanted>,
    ) -> impl Iterator<Item = (Request, Fetched)> {
        let sources = wanted.into_iter().map(|(connection, wanted)| async move {
            let locators: Vec<_> = wanted.locators.into_iter().collect();
            let started = Instant::now();
            let answers = match self.source(&connection, wanted.scheme) {
                Ok(source) => {
                    let answers = self.flights.fetch(&source, &connection, scope, &locators);
                    in_time(scope, answers, locators.len()).await
                }
                Err(error) => vec![Err(RefCause::from(error)); locators.len()],
            };
            let meters = &scope.observer.meters;
            meters.fetch_took(wanted.scheme.name, started.elapsed());
            for answer in &answers {
                meters.fetched(wanted.scheme.name, answer.as_ref().map(drop).map_err(Fault::class));
            }
            let requests =
                locators.into_iter().map(|locator| Request { connection: connection.clone(), locator });
            requests.zip(answers.into_iter().map(Fetched::new)).collect::<Vec<_>>()
        });
        future::join_all(sources).await.into_iter().flatten()
    }

    fn source(&self, connection: &Connection, scheme: &Scheme) -> Result<Arc<dyn Source>, OpenError> {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(source) = sources.get(connection) {
            return Ok(Arc::clone(source));
        }
        if sources.len() >= SOURCES_KEPT {
            sources.clear();
        }
        let source = (scheme.open)(&connection.1, &self.ambient)?;
        sources.insert(connection.clone(), Arc::clone(&source));
        Ok(source)
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").field("ambient", &self.ambient).finish_non_exhaustive()
    }
}

/// What opened, what was denied, and what failed after it was allowed; not what is no reference to anything.
fn audit(scope: &Scope, reference: &Reference, told: &str, outcome: &Result<Value, Vec<RefError>>) {
    let outcome = match outcome.as_ref().map_err(|errors| errors.first()) {
        Ok(_) => Ok(()),
        Err(Some(error)) if is_access(&error.cause) && error.reference == reference.to_string() => {
            Err(error.class())
        }
        Err(_) => return,
    };
    scope.audit(Access::Reference(told), outcome);
}

/// As it is written, without a value.
fn spelled(reference: &Reference) -> String {
    let spelled = reference.to_string();
    match spelled.split_once("://") {
        Some((scheme, _)) if scheme.strip_prefix("ref+") == Some(VALUE_IN_PATH) => format!("{scheme}://***"),
        _ => spelled,
    }
}

const fn is_access(cause: &RefCause) -> bool {
    !matches!(
        cause,
        RefCause::Grammar(_)
            | RefCause::Scheme(SchemeError::NotYet(_) | SchemeError::Unknown { .. })
            | RefCause::Option { .. }
            | RefCause::NotText(_)
    )
}

async fn in_time<F>(scope: &Scope, fetch: F, number: usize) -> Vec<Result<Document, RefCause>>
where
    F: Future<Output = Vec<Result<Document, FetchError>>>,
{
    let answers = match scope.deadline {
        Some(deadline) => tokio::time::timeout_at(deadline.into(), fetch)
            .await
            .unwrap_or_else(|_| vec![Err(FetchError::new(Class::Timeout, TOO_LATE)); number]),
        None => fetch.await,
    };
    answers.into_iter().map(|answer| answer.map_err(RefCause::from)).collect()
}

/// Every distinct reference once, those without nested references first, each after those inside it.
fn rounds<'a>(expressions: &[&'a Expression]) -> Vec<Vec<&'a Reference>> {
    fn add<'a>(reference: &'a Reference, rounds: &mut Vec<Vec<&'a Reference>>, seen: &mut Seen<'a>) -> usize {
        if let Some(round) = seen.get(reference) {
            return *round;
        }
        let round = reference.nested().map(|nested| add(nested, rounds, seen) + 1).max().unwrap_or(0);
        if rounds.len() <= round {
            rounds.resize_with(round + 1, Vec::new);
        }
        rounds[round].push(reference);
        seen.insert(reference, round);
        round
    }
    let (mut rounds, mut seen) = (Vec::new(), Seen::new());
    for reference in expressions.iter().flat_map(|expression| expression.references()) {
        add(reference, &mut rounds, &mut seen);
    }
    rounds
}

type Seen<'a> = HashMap<&'a Reference, usize>;

/// `options`, and those that only the operator says. What a reference says counts, also that it is empty.
fn with_operators(scheme: &Scheme, options: &Params, environment: &Environment) -> Params {
    let mut all = options.clone();
    for SchemeOption { name, .. } in scheme.options() {
        if all.contains_key(*name) || SAID_BY_REFERENCE_ONLY.contains(name) || *name == ANY_OPTION {
            continue;
        }
        let variable = format!("{OPTION_PREFIX}{}", name.to_ascii_uppercase());
        if let Some(value) = environment.get(&variable) {
            all.insert((*name).to_owned(), value.to_owned());
        }
    }
    all
}

/// The options of the connection and those of the document; empty ones are as if not there.
fn split_options(scheme: &'static Scheme, options: &Params) -> Result<(Params, Params), RefCause> {
    let (mut connection, mut document) = (Params::new(), Params::new());
    for (name, value) in options {
        let is = |option: &&SchemeOption| option.name == name;
        let side = if scheme.connection.iter().any(|option| is(&option)) {
            &mut connection
        } else if scheme.document.iter().any(|option| is(&option) || option.name == ANY_OPTION) {
            &mut document
        } else {
            return Err(unknown_option(scheme, name));
        };
        let flag = SAID_BY_REFERENCE_ONLY.contains(&name.as_str());
        match (value.as_str(), flag) {
            ("", true) => side.insert(name.clone(), "true".to_owned()),
            ("", false) if is_named(scheme, name) => None,
            _ => side.insert(name.clone(), value.clone()),
        };
    }
    Ok((connection, document))
}

fn is_named(scheme: &Scheme, option: &str) -> bool {
    scheme.options().any(|known| known.name == option)
}

/// The options that the policy sees: those of the connection, and those that only [`ANY_OPTION`] is the name of.
fn judged(scheme: &Scheme, connection: &Params, params: &Params) -> Params {
    let others = params.iter().filter(|(name, _)| !is_named(scheme, name));
    connection.iter().chain(others).map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn unknown_option(scheme: &'static Scheme, option: &str) -> RefCause {
    let known = scheme.options().chain(COMMON_OPTIONS).map(|option| option.name);
    let help = schemes::nearest(option, known.clone()).map_or_else(
        || format!("its options are {}", known.collect::<Vec<_>>().join(", ")),
        |near| format!("did you mean {near}?"),
    );
    RefCause::Option { scheme: scheme.name, option: option.to_owned(), help }
}

/// One document of one source.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Request {
    connection: Connection,
    locator: Locator,
}

/// What a reference needs, clear and allowed.
struct Plan {
    scheme: &'static Scheme,
    request: Request,
    /// The options that the policy saw.
    judged: Params,
    target: Target,
}

impl Plan {
    /// What the audit trail calls it: what the policy saw, or what was written where that could hold a secret.
    fn audited(&self, reference: &Reference) -> String {
        let Request { connection: (scheme, _), locator } = &self.request;
        if scheme == &VALUE_IN_PATH || reference.nested().next().is_some() {
            return spelled(reference);
        }
        let fragment = self.target.fragment.as_deref().unwrap_or_default();
        let fragment: String = fragment.iter().map(|key| format!("/{key}")).collect();
        let what = What::Reference { scheme, path: &locator.path, connection: &self.judged };
        if fragment.is_empty() { what.to_string() } else { format!("{what}#{fragment}") }
    }
}

/// What one source is to be asked for.
struct Wanted {
    scheme: &'static Scheme,
    locators: BTreeSet<Locator>,
}

/// A document, and what it is as data once somebody needs that.
struct Fetched {
    document: Result<Document, RefCause>,
    value: OnceLock<Result<Value, RefCause>>,
}

impl Fetched {
    fn new(document: Result<Document, RefCause>) -> Self {
        Self { document, value: OnceLock::new() }
    }

    fn text(&self) -> Result<&str, RefCause> {
        let document = self.document.as_ref().map_err(Clone::clone)?;
        text_of(document.expose()).map_err(RefCause::Text)
    }

    fn pick(&self, plan: &Plan, budget: &Budget) -> Result<Value, RefCause> {
        let text = self.text()?;
        let Some(keys) = &plan.target.fragment else {
            budget.spend(text.len())?;
            return Ok(Value::from(text));
        };
        let value = self.value.get_or_init(|| Value::parse(text).map_err(RefCause::Document));
        let value = value.as_ref().map_err(Clone::clone)?;
        if let Fragment::Own(pick) = plan.scheme.fragment {
            let picked = pick(value, &keys.join("/"), &plan.request.locator.params, &budget.steps)?;
            budget.spend(bytes_of(&picked))?;
            return Ok(picked);
        }
        let keys: Vec<_> = keys.iter().map(String::as_str).collect();
        budget.copy(value.pick(&keys)?)
    }
}

/// What is left of [`Resolver::limit`], and of [`MAX_STEPS`].
struct Budget {
    bytes: Cell<usize>,
    steps: Cell<usize>,
}

impl Budget {
    fn spend(&self, bytes: usize) -> Result<(), RefCause> {
        self.bytes.set(self.bytes.get().checked_sub(bytes).ok_or(RefCause::TooMuch)?);
        Ok(())
    }

    fn copy(&self, value: &Value) -> Result<Value, RefCause> {
        self.spend(bytes_of(value))?;
        Ok(value.clone())
    }
}

fn bytes_of(value: &Value) -> usize {
    let own = size_of::<Value>();
    own + match value {
        Value::Null | Value::Bool(_) => 0,
        Value::Number(text) | Value::String(text) => text.expose().len(),
        Value::Sequence(items) => items.iter().map(bytes_of).sum(),
        Value::Mapping(entries) => entries.iter().map(|(key, value)| key.len() + bytes_of(value)).sum(),
    }
}

/// What one call has found out so far.
struct Known<'a> {
    budget: Budget,
    documents: HashMap<Request, Fetched>,
    values: HashMap<&'a Reference, Result<Value, Vec<RefError>>>,
}

impl Known<'_> {
    /// The documents of `plans` that are not there yet, by source.
    fn wanted<'p>(&self, plans: impl Iterator<Item = &'p Plan>) -> BTreeMap<Connection, Wanted> {
        let mut wanted: BTreeMap<Connection, Wanted> = BTreeMap::new();
        for Plan { scheme, request, .. } in plans.filter(|plan| !self.documents.contains_key(&plan.request)) {
            let of_source = wanted.entry(request.connection.clone());
            let of_source = of_source.or_insert_with(|| Wanted { scheme, locators: BTreeSet::new() });
            of_source.locators.insert(request.locator.clone());
        }
        wanted
    }

    fn pick(&self, plan: &Plan) -> Result<Value, RefCause> {
        let fetched = self.documents.get(&plan.request).expect("every planned document was fetched");
        match (fetched.pick(plan, &self.budget), &plan.target.missing) {
            (Err(cause), Missing::Empty) if cause.class() == Class::NotFound => Ok(Value::from("")),
            (Err(cause), Missing::Default(text)) if cause.class() == Class::NotFound => {
                Ok(Value::from(text.as_str()))
            }
            (picked, _) => picked,
        }
    }

    fn value(&self, reference: &Reference) -> &Result<Value, Vec<RefError>> {
        self.values.get(reference).expect("every reference is in a round")
    }

    /// The value of `reference` as text. Data of many values is JSON, where that is wanted.
    fn text(&self, reference: &Reference, json: bool) -> Result<Secret<String>, Vec<RefError>> {
        match self.value(reference).as_ref().map_err(Clone::clone)? {
            value @ (Value::Sequence(_) | Value::Mapping(_)) if !json => Err(value),
            Value::Null => Err(&Value::Null),
            value => Ok(value.to_text()),
        }
        .map_err(|value| vec![RefCause::NotText(value.kind()).of(reference)])
    }

    /// The texts of all, or all that failed.
    fn texts<'r>(
        &self,
        references: impl Iterator<Item = &'r Reference>,
        json: bool,
    ) -> Result<Vec<Secret<String>>, Vec<RefError>> {
        let (mut texts, mut errors) = (Vec::new(), Vec::new());
        for reference in references {
            match self.text(reference, json) {
                Ok(text) => texts.push(text),
                Err(failed) => errors.extend(failed),
            }
        }
        if errors.is_empty() { Ok(texts) } else { Err(errors) }
    }

    fn fill(&self, expression: &Expression) -> Result<Value, Vec<RefError>> {
        if let Some(reference) = expression.whole() {
            let value = self.value(reference).as_ref().map_err(Clone::clone)?;
            return self.budget.copy(value).map_err(|cause| vec![cause.of(reference)]);
        }
        let mut texts = self.texts(expression.references(), true)?.into_iter();
        let pieces = expression.parts().iter().map(|part| match part {
            Part::Text(text) => text.clone(),
            Part::Reference(_) => texts.next().expect("one text for each reference"),
        });
        let pieces: Vec<_> = pieces.collect();
        // The size is known before, so that no half-built secret is left behind by growing.
        let size = pieces.iter().map(|piece| piece.expose().len()).sum();
        if let (Some(first), Err(cause)) = (expression.references().next(), self.budget.spend(size)) {
            return Err(vec![cause.of(first)]);
        }
        let mut filled = Secret::new(String::with_capacity(size));
        filled.expose_mut().extend(pieces.iter().map(|piece| piece.expose().as_str()));
        Ok(Value::String(filled))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::time::{Duration, Instant};

    use futures::future::{BoxFuture, FutureExt};

    use super::*;
    use crate::fault::report;
    use crate::observe::Observer;
    use crate::policy::{AllowList, Who};
    use crate::refs::source::{Open, verbatim};
    use crate::sops::open::OpenOptions;

    thread_local! {
        /// Every question that the store was asked on this thread: its connection, and the paths.
        static ASKED: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    }

    /// Holds what the snapshot of the environment holds. `denied`, `down` and `slow` are what they say.
    #[derive(Debug)]
    struct Store(Environment, Params);

    impl Source for Store {
        fn fetch<'a>(
            &'a self,
            _: &'a Scope,
            at: &'a [Locator],
        ) -> BoxFuture<'a, Vec<Result<Document, FetchError>>> {
            let paths: Vec<_> = at.iter().map(|at| at.path.as_str()).collect();
            ASKED.with_borrow_mut(|asked| asked.push(format!("{:?} {}", self.1, paths.join(" "))));
            async move {
                tokio::task::yield_now().await;
                if paths.contains(&"slow") {
                    future::pending::<()>().await;
                }
                paths.into_iter().map(|path| self.answer(path)).collect()
            }
            .boxed()
        }

        fn is_same_for_all(&self) -> bool {
            true
        }
    }

    impl Store {
        fn answer(&self, path: &str) -> Result<Document, FetchError> {
            match path {
                "denied" => Err(FetchError::new(Class::Denied, "the store says no")),
                "down" => Err(FetchError::new(Class::Unavailable, "the store is down")),
                "binary" => Ok(Secret::new(vec![b'a', 0xff])),
                _ => match self.0.get_raw(path) {
                    Some(document) => Ok(Secret::new(document.to_str().unwrap().as_bytes().to_vec())),
                    None => Err(FetchError::not_found(format!("no document {path}"))),
                },
            }
        }
    }

    const OPEN: Open = |params, ambient| {
        if params.get("c").is_some_and(|c| c == "broken") {
            return Err(OpenError::new(Class::Invalid, "cannot be opened"));
        }
        Ok(Arc::new(Store(ambient.environment.clone(), params.clone())))
    };

    static STORE: Scheme = Scheme {
        name: "store",
        doc: "",
        examples: &[],
        connection: &[SchemeOption { name: "c", doc: "" }],
        document: &[SchemeOption { name: "version", doc: "" }],
        fragment: Fragment::Walks,
        normalise: verbatim,
        open: OPEN,
    };

    fn resolver(allow: &str) -> Resolver {
        let documents = [
            ("doc", "user: me\npassword: STRONGROOM-MARKER\nport: 5432\nlist: [a, {b: 1.10}]\nnull: ~\n"),
            ("text", "STRONGROOM-MARKER"),
            ("name", "doc"),
            ("a b", "spaced"),
            ("broken", "{STRONGROOM-MARKER: ["),
        ];
        let ambient = Ambient {
            environment: documents.into_iter().collect(),
            addresses: Vec::new(),
            aws: Arc::default(),
            azure: Arc::default(),
            google: Arc::default(),
            kubernetes: Arc::default(),
            vault: Arc::default(),
            keyring: Arc::default(),
            sops: OpenOptions::default(),
            envsubst: None,
        };
        let policy = AllowList::default().with_references(allow).unwrap();
        let find = |name: &str| if name == "store" { Ok(&STORE) } else { schemes::find(name) };
        Resolver { find, ..Resolver::new(ambient, Arc::new(policy)) }
    }

    async fn resolve_all(resolver: &Resolver, texts: &[&str]) -> Vec<Result<String, Vec<String>>> {
        let expressions: Vec<_> = texts.iter().map(|text| Expression::parse(text).expect(text)).collect();
        let scope = Scope { deadline: Some(Instant::now() + Duration::from_millis(50)), ..Scope::default() };
        let values = resolver.resolve(&scope, &expressions.iter().collect::<Vec<_>>()).await;
        let tell = |error: &RefError| format!("{:?} {}", error.class(), report(error));
        let values = values.into_iter();
        values
            .map(|value| match value {
                Ok(value) => Ok(value.to_flow().expose().clone()),
                Err(errors) => Err(errors.iter().map(tell).collect()),
            })
            .collect()
    }

    fn asked() -> Vec<String> {
        ASKED.with_borrow_mut(std::mem::take)
    }

    #[tokio::test]
    async fn values_have_the_type_that_was_asked_for() {
        for (text, expected) in [
            ("ref+store://text", r#""STRONGROOM-MARKER""#),
            ("ref+store://doc#/user", r#""me""#),
            ("ref+store://doc#/port", "5432"),
            ("ref+store://doc#/list", r#"["a", {"b": 1.1}]"#),
            ("ref+store://doc#/list/1/b", "1.1"),
            ("ref+store://doc#/null", "null"),
            ("port ref+store://doc#/port", r#""port 5432""#),
            ("ref+store://doc#/user+:ref+store://doc#/port", r#""me:5432""#),
            ("list ref+store://doc#/list", r#""list [\"a\", {\"b\": 1.1}]""#),
            ("ref+store://a%20b", r#""spaced""#),
            ("ref+store://ref+store://name+#/user", r#""me""#),
            ("ref+store://absent?optional=true", r#""""#),
            ("ref+store://absent?default=5", r#""5""#),
            ("ref+store://doc?default=5#/absent", r#""5""#),
            ("ref+store://doc?default=5#/port", "5432"),
            ("ref+store://absent?fallback_value=5", r#""5""#),
            ("ref+store://absent?fallback_value=5&optional=true", r#""""#),
            ("ref+store://doc?fallback_value=5#/port", "5432"),
            ("ref++store://doc", r#""ref+store://doc""#),
            ("ref+echo://a/b", r#""a/b""#),
            ("ref+echo://a/b#/a", r#""b""#),
        ] {
            assert_eq!(
                resolve_all(&resolver("store,echo"), &[text]).await,
                [Ok(expected.to_owned())],
                "{text}"
            );
        }
    }

    #[tokio::test]
    async fn every_failure_is_told_without_a_secret() {
        for (text, expected) in [
            ("ref+store://absent", "NotFound ref+store://absent: no document absent"),
            ("ref+store://doc#/pass", "NotFound ref+store://doc#/pass: no key \"pass\""),
            (
                "ref+store://doc#/user/x",
                "NotFound ref+store://doc#/user/x: no key \"x\" in a string below \"user\"",
            ),
            ("ref+store://doc#/list/7", "NotFound ref+store://doc#/list/7: no item \"7\" below \"list\""),
            (
                "ref+store://denied?optional=true",
                "Denied ref+store://denied?optional=true: the store says no",
            ),
            (
                "ref+store://binary",
                "Invalid ref+store://binary: the document cannot be a string: not UTF-8 (line 1)",
            ),
            ("ref+store://text#/a", "NotFound ref+store://text#/a: no key \"a\" in a string"),
            (
                "x ref+store://doc#/null",
                "Invalid ref+store://doc#/null: its value is null, which cannot stand inside a text",
            ),
            (
                "ref+store://a%zz",
                "Invalid ref+store://a%zz: a % that two hex digits do not follow\nhelp: a percent sign itself is written %25",
            ),
            (
                "ref+store://a?verison=1",
                "Invalid ref+store://a?verison=***: scheme store has no option \"verison\"\nhelp: did you mean version?",
            ),
            (
                "ref+store://a?nothing=1",
                "Invalid ref+store://a?nothing=***: scheme store has no option \"nothing\"\nhelp: its options are c, version, optional, default, fallback_value",
            ),
            ("ref+store://a?c=broken", "Invalid ref+store://a?c=***: cannot be opened"),
            ("ref+store://slow", &*format!("Timeout ref+store://slow: {TOO_LATE}")),
            ("ref+op://a", "Invalid ref+op://a: scheme op is not supported yet"),
            (
                "ref+awsssm://a",
                "Denied ref+awsssm://a: app \"\" may not open ref+awsssm://a\nhelp: the operator allows references with STRONGROOM_ALLOW_REFS",
            ),
            ("ref+store://ref+store://absent+#/user", "NotFound ref+store://absent: no document absent"),
            (
                "ref+store://ref+store://text+",
                "NotFound ref+store://ref+store://text+: not found; the reason is left out, as it could show the value of the reference inside",
            ),
            (
                "ref+store://ref+store://doc#/list+/x",
                "Invalid ref+store://doc#/list: its value is a list, which cannot stand inside a text",
            ),
        ] {
            let outcome = resolve_all(&resolver("store,echo"), &[text]).await;
            assert_eq!(outcome, [Err(vec![expected.to_owned()])], "{text}");
        }
        let broken = resolve_all(&resolver("store"), &["ref+store://broken#/a"]).await;
        let message = broken[0].as_ref().unwrap_err().join("\n");
        assert!(
            message
                .starts_with("Invalid ref+store://broken#/a: the document is neither YAML nor JSON: line ")
        );
        assert!(!message.contains("MARKER"), "{message}");
    }

    #[tokio::test]
    async fn only_what_is_not_found_is_forgiven() {
        for option in ["optional=true", "default=x", "fallback_value=x"] {
            for (path, class) in [
                ("denied", "Denied"),
                ("down", "Unavailable"),
                ("slow", "Timeout"),
                ("binary", "Invalid"),
                ("absent?c=broken", "Invalid"),
            ] {
                let text =
                    format!("ref+store://{path}{}{option}", if path.contains('?') { '&' } else { '?' });
                let outcome = resolve_all(&resolver("store"), &[&text]).await;
                let errors = outcome[0].as_ref().expect_err(&text);
                assert!(errors[0].starts_with(class), "{text}: {errors:?}");
            }
            let not_allowed =
                resolve_all(&resolver("echo"), &[&format!("ref+store://absent?{option}")]).await;
            assert!(not_allowed[0].as_ref().unwrap_err()[0].starts_with("Denied"), "{not_allowed:?}");
        }
    }

    #[tokio::test]
    async fn all_that_fail_are_told() {
        let texts = ["ref+store://x1 and ref+store://x2", "ref+store://doc#/user", "ref+vault://x3"];
        let outcome = resolve_all(&resolver("store"), &texts).await;
        assert_eq!(outcome[0].as_ref().unwrap_err().len(), 2);
        assert_eq!(outcome[1], Ok(r#""me""#.to_owned()));
        assert!(outcome[2].is_err());
    }

    #[tokio::test]
    async fn a_document_is_fetched_once_and_with_others() {
        asked();
        let texts = [
            "ref+store://doc",
            "ref+store://doc#/user",
            "secretref+store://doc#/port",
            "x ref+store://text y ref+STORE://doc",
            "ref+store://doc?version=1#/user",
            "ref+store://doc?c=other#/user",
            "ref+store://ref+store://name+#/user",
        ];
        let outcome = resolve_all(&resolver("store"), &texts).await;
        assert!(outcome.iter().all(Result::is_ok), "{outcome:?}");
        assert_eq!(asked(), ["{} doc doc name text", "{\"c\": \"other\"} doc"]);
    }

    #[tokio::test]
    async fn nothing_is_opened_that_is_not_allowed() {
        asked();
        let denied = resolver("store://team-a/");
        for text in [
            "ref+store://doc",
            "ref+store://team-a",
            "ref+store://team-ab/x",
            "ref+store://team-a%2F",
            "ref+store://team-a/x?c=other",
            "ref+store://%74eam-b/x",
        ] {
            let outcome = resolve_all(&denied, &[text]).await;
            assert!(outcome[0].as_ref().unwrap_err()[0].starts_with("Denied "), "{text}: {outcome:?}");
        }
        assert_eq!(asked(), [""; 0]);
        resolve_all(&denied, &["ref+store://%74eam-a%2Fx"]).await;
        assert_eq!(asked(), ["{} team-a/x"], "what was allowed is what is asked for");
    }

    #[tokio::test]
    async fn what_a_reference_leaves_out_the_operator_may_say_and_the_policy_sees_it() {
        asked();
        let with_variables = |allow: &str| {
            let mut resolver = resolver(allow);
            let variables = [
                ("doc", "{user: me}"),
                ("VALS_C", "operator's"),
                ("VALS_VERSION", ""),
                ("VALS_OPTIONAL", "true"),
            ];
            resolver.ambient.environment = variables.into_iter().collect();
            resolver
        };
        let allowed = with_variables("store://doc?c=operator's");
        for (text, expected) in [
            ("ref+store://doc#/user", Ok("{\"c\": \"operator's\"} doc")),
            ("ref+store://doc?c=own#/user", Err("Denied ")),
            // What is empty is as good as not there, and was not left out.
            ("ref+store://doc?c=#/user", Ok("{} doc")),
            ("ref+store://doc#/absent", Err("NotFound ")),
        ] {
            let outcome = resolve_all(&allowed, &[text]).await.remove(0);
            match expected {
                Ok(question) => {
                    assert_eq!((outcome.is_ok(), asked()), (true, vec![question.to_owned()]), "{text}");
                }
                Err(class) => assert!(outcome.unwrap_err()[0].starts_with(class), "{text}"),
            }
        }
        let refused = resolve_all(&with_variables("store://doc"), &["ref+store://doc#/user"]).await.remove(0);
        assert!(
            refused.unwrap_err()[0]
                .starts_with("Denied ref+store://doc#/user: app \"\" may not open ref+store://doc with c")
        );
    }

    /// Allows everything to everybody but one application.
    struct AllBut(&'static str);

    impl Authorise for AllBut {
        fn authorise(&self, who: &Who, what: What<'_>) -> Result<(), Denied> {
            if who.app == self.0 { Err(Denied::new(who, what, "")) } else { Ok(()) }
        }
    }

    #[tokio::test]
    async fn renders_at_the_same_time_share_a_fetch_and_each_is_authorised_and_audited() {
        asked();
        let resolver = Resolver { policy: Arc::new(AllBut("mallory")), ..resolver("store") };
        let expression = Expression::parse("ref+store://doc#/user").unwrap();
        let render = async |app: &str| {
            let who = Who { app: app.to_owned(), ..Who::default() };
            let scope = Scope { who, observer: Observer::keeping_trail(), ..Scope::default() };
            let value = resolver.resolve(&scope, &[&expression]).await.remove(0);
            let trail = scope.observer.trail();
            (
                value.map_err(|errors| errors[0].class()).map(drop),
                trail.iter().map(|entry| entry.result).collect(),
            )
        };
        let outcomes: (_, _, _) = tokio::join!(render("alice"), render("mallory"), render("bob"));
        let opened: (Result<(), Class>, Vec<_>) = (Ok(()), vec!["opened"]);
        assert_eq!(outcomes, (opened.clone(), (Err(Class::Denied), vec!["denied"]), opened));
        assert_eq!(asked(), ["{} doc"]);
    }

    #[tokio::test]
    async fn a_source_is_kept() {
        let resolver = resolver("store");
        for _ in 0..2 {
            resolve_all(&resolver, &["ref+store://doc"]).await.remove(0).unwrap();
        }
        assert_eq!(resolver.sources.lock().unwrap().len(), 1);
        for number in 0..2 * SOURCES_KEPT {
            resolve_all(&resolver, &[&format!("ref+store://doc?c={number}")]).await.remove(0).unwrap();
        }
        assert!(resolver.sources.lock().unwrap().len() <= SOURCES_KEPT, "however many a repository names");
    }

    #[tokio::test]
    async fn few_references_cannot_fill_the_memory() {
        let resolver = Resolver { limit: 70, ..resolver("store") };
        let outcome =
            resolve_all(&resolver, &["ref+store://text 1", "2 ref+store://text", "ref+store://text 3"]).await;
        assert_eq!(outcome[0], Ok(r#""STRONGROOM-MARKER 1""#.to_owned()));
        let too_much = "Invalid ref+store://text: the values of all references together are too large";
        assert_eq!(outcome[2], Err(vec![too_much.to_owned()]));
    }

    #[tokio::test]
    async fn files_are_read_inside_the_repository_only() {
        let keep = tempfile::tempdir().unwrap();
        let outer = keep.path().canonicalize().unwrap();
        let app = outer.join("repo/app");
        std::fs::create_dir_all(&app).unwrap();
        std::fs::write(app.join("own.yaml"), "k: own").unwrap();
        std::fs::write(outer.join("repo/shared"), "shared\n").unwrap();
        std::fs::write(outer.join("outside"), "STRONGROOM-MARKER").unwrap();
        std::os::unix::fs::symlink("../../outside", app.join("link")).unwrap();
        let scope =
            Scope { repository: Some(outer.join("repo")), directory: Some(app.clone()), ..Scope::default() };
        let resolver = resolver("file:///app/,file:///shared");
        for (text, expected) in [
            ("ref+file://own.yaml#/k", Ok(r#""own""#)),
            ("ref+file:///app/own.yaml", Ok(r#""k: own""#)),
            ("ref+file://../shared", Ok(r#""shared\n""#)),
            ("ref+file://../shared?encode=base64", Ok(r#""c2hhcmVkCg==""#)),
            ("ref+file://absent?default=d", Ok(r#""d""#)),
            ("ref+file://absent", Err(Class::NotFound)),
            ("ref+file://../absent?optional=true", Err(Class::Denied)),
            ("ref+file://../../outside", Err(Class::Denied)),
            ("ref+file://%2e%2e/%2e%2e/outside", Err(Class::Denied)),
            ("ref+file://link", Err(Class::Denied)),
            ("ref+file:///etc/passwd", Err(Class::Denied)),
            ("ref+file:///app", Err(Class::Denied)),
            ("ref+file:///app/", Err(Class::Denied)),
        ] {
            let expression = Expression::parse(text).unwrap();
            let value = resolver.resolve(&scope, &[&expression]).await.remove(0);
            let value =
                value.map(|value| value.to_flow().expose().clone()).map_err(|errors| errors[0].class());
            assert_eq!(value, expected.map(str::to_owned), "{text}");
        }
    }
}
