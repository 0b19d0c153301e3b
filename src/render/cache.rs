//! What helm printed, kept in memory for the next render that would ask it for the same.
//!
//! The key is a keyed hash over all that helm's output depends on: each file of the chart and of its dependencies, the opened
//! values, and every choice of the call. The hash's own key is drawn by the process, so that what is kept cannot be looked
//! for from outside. Before a render comes here its keys and references were authorised, opened and audited as ever, so a
//! rotated secret is another key, and one that is denied is never looked up. What this saves is the run of helm, and no
//! more: the result is checked anew.
//!
//! Of renders at once that would ask for the same, one runs helm and the others wait for what it prints. Should it fail or be
//! given up, the next one runs helm itself: a failure is told by its own render, which knows what must not be shown.
//!
//! Not kept is what helm would print otherwise a second time. A chart is known for it by the names of functions in `{{ }}`
//! in any file of the chart or in a value, which `tpl` may run. Functions whose order alone is by chance (`keys`, `values`) are
//! not among them: what is kept is one of the outcomes that helm may have.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use aws_lc_rs::hmac::{self, HMAC_SHA256};
use futures::future::BoxFuture;
use lru::LruCache;
use tokio::sync::OnceCell;

use crate::chart::fingerprint;
use crate::observe::Meters;
use crate::render::helm::{Helm, HelmCall, HelmError};
use crate::secret::Secret;

/// What this cache is called in metrics.
const NAME: &str = "render";

/// What an entry takes beside the manifests, in bytes.
const ENTRY: usize = 200;

/// Functions of helm's templates that give something else each time, or look at the world. A name ends with `*` where all that
/// begin so are meant.
const CHANCE: [&str; 20] = [
    "ago",
    "bcrypt",
    "date",
    "dateInZone",
    "date_in_zone",
    "durationRound",
    "encryptAES",
    "genCA*",
    "genPrivateKey",
    "genSelfSignedCert*",
    "genSignedCert*",
    "getHostByName",
    "htmlDate",
    "htmlDateInZone",
    "htpasswd",
    "lookup",
    "now",
    "rand*",
    "shuffle",
    "uuidv4",
];

/// Helm, of which each result is kept while there is room.
pub struct Cached {
    helm: Arc<dyn Helm>,
    secret: hmac::Key,
    /// In bytes.
    room: usize,
    kept: Mutex<Kept>,
    meters: Meters,
}

struct Kept {
    manifests: LruCache<Digest, Secret<String>>,
    bytes: usize,
    /// What helm is printing now, or was until a moment ago.
    flights: HashMap<Digest, Weak<Flight>>,
}

/// Why what helm prints is not kept.
#[derive(Clone, Copy)]
enum Unkept {
    /// Helm would print something else the next time.
    Chance,
    /// The chart has a file that is too large to be looked at.
    LargeFile,
    /// It is larger than all the room.
    TooLarge,
    /// The chart or a choice cannot be read: helm says why.
    Unreadable,
}

impl Unkept {
    /// Its label in metrics.
    const fn label(self) -> &'static str {
        match self {
            Self::Chance => "chance",
            Self::LargeFile => "large_file",
            Self::TooLarge => "too_large",
            Self::Unreadable => "unreadable",
        }
    }
}

type Digest = [u8; 32];
type Flight = OnceCell<Secret<String>>;

impl fmt::Debug for Cached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cached").field("helm", &self.helm).field("room", &self.room).finish_non_exhaustive()
    }
}

impl Cached {
    /// Keeps at most `room` bytes of what `helm` prints, and nothing yet.
    pub fn new(helm: Arc<dyn Helm>, room: usize, meters: Meters) -> Self {
        let mut secret = [0; 32];
        aws_lc_rs::rand::fill(&mut secret).expect("the system has random numbers");
        let kept = Kept { manifests: LruCache::unbounded(), bytes: 0, flights: HashMap::new() };
        meters.holds(NAME, 0);
        Self { helm, secret: hmac::Key::new(HMAC_SHA256, &secret), room, kept: Mutex::new(kept), meters }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The flight that all join who need `digest` now.
    fn flight(&self, digest: Digest) -> Arc<Flight> {
        let flights = &mut self.lock().flights;
        if let Some(flight) = flights.get(&digest).and_then(Weak::upgrade) {
            return flight;
        }
        flights.retain(|_, flight| flight.strong_count() > 0);
        let flight = Arc::new(Flight::new());
        flights.insert(digest, Arc::downgrade(&flight));
        flight
    }

    fn get(&self, digest: &Digest) -> Option<Secret<String>> {
        let found = self.lock().manifests.get(digest).cloned();
        self.meters.looked_up(NAME, found.is_some());
        found
    }

    /// Keeps `manifests`, unless they would need more than all the room and push out everything else.
    fn keep(&self, digest: Digest, manifests: &Secret<String>) {
        if size(manifests) > self.room {
            return self.meters.unkept(Unkept::TooLarge.label());
        }
        let mut kept = self.lock();
        kept.bytes += size(manifests);
        if let Some(before) = kept.manifests.put(digest, manifests.clone()) {
            kept.bytes -= size(&before);
        }
        while kept.bytes > self.room
            && let Some((_, oldest)) = kept.manifests.pop_lru()
        {
            kept.bytes -= size(&oldest);
        }
        self.meters.holds(NAME, kept.bytes);
    }

    /// What the output of `call` depends on, where that can be told.
    fn digest(&self, call: &HelmCall) -> Result<Digest, Unkept> {
        let HelmCall {
            chart,
            repository,
            release_name,
            namespace,
            kube_version,
            api_versions,
            values,
            sets,
            include_crds,
            skip_tests,
            skip_schema_validation,
            deadline: _,
            redactor: _,
        } = call;
        let mut hash = Hash { context: hmac::Context::with_key(&self.secret), repeatable: true };
        hash.add(release_name.as_bytes());
        for option in [namespace, kube_version] {
            hash.add_all(option.iter().map(String::as_bytes));
        }
        hash.add_all(api_versions.iter().map(String::as_bytes));
        for choice in [include_crds, skip_tests, skip_schema_validation] {
            hash.count(usize::from(*choice));
        }
        hash.scan_all(values.iter().map(|values| values.text.expose().as_bytes()));
        let sets = sets.render().map_err(|_| Unkept::Unreadable)?;
        hash.scan_all(sets.documents.iter().map(|document| document.expose().as_bytes()));
        hash.count(sets.flags.len());
        for (flag, value) in &sets.flags {
            hash.add(flag.as_bytes());
            hash.scan(value.as_bytes());
        }
        hash.count(sets.files.len());
        for (key, content) in &sets.files {
            hash.add(key.as_bytes());
            hash.scan(content.expose());
        }
        let whole = fingerprint::each_file(repository, chart, |path, content| {
            hash.add(path.as_bytes());
            hash.scan(content);
        });
        match whole {
            Err(_) => Err(Unkept::Unreadable),
            Ok(false) => Err(Unkept::LargeFile),
            Ok(true) if !hash.repeatable => Err(Unkept::Chance),
            Ok(true) => Ok(hash.finish()),
        }
    }
}

fn size(manifests: &Secret<String>) -> usize {
    manifests.expose().len() + ENTRY
}

impl Helm for Cached {
    fn template<'a>(&'a self, call: &'a HelmCall) -> BoxFuture<'a, Result<Secret<String>, HelmError>> {
        Box::pin(async move {
            let digest = match self.digest(call) {
                Ok(digest) => digest,
                Err(reason) => {
                    self.meters.unkept(reason.label());
                    return self.helm.template(call).await;
                }
            };
            let flight = self.flight(digest);
            let mut joined = true;
            let look_or_run = || {
                joined = false;
                async {
                    if let Some(manifests) = self.get(&digest) {
                        return Ok(manifests);
                    }
                    let manifests = self.helm.template(call).await?;
                    self.keep(digest, &manifests);
                    Ok::<_, HelmError>(manifests)
                }
            };
            let manifests = flight.get_or_try_init(look_or_run).await?.clone();
            if joined {
                self.meters.looked_up(NAME, true);
            }
            Ok(manifests)
        })
    }

    fn version(&self, deadline: Instant) -> BoxFuture<'_, Result<String, HelmError>> {
        self.helm.version(deadline)
    }
}

/// A hash over parts, of which none can be taken for a piece of its neighbours.
struct Hash {
    context: hmac::Context,
    repeatable: bool,
}

impl Hash {
    fn count(&mut self, count: usize) {
        self.context.update(&(count as u64).to_le_bytes());
    }

    fn add(&mut self, part: &[u8]) {
        self.count(part.len());
        self.context.update(part);
    }

    fn add_all<'a>(&mut self, parts: impl ExactSizeIterator<Item = &'a [u8]>) {
        self.count(parts.len());
        for part in parts {
            self.add(part);
        }
    }

    fn scan_all<'a>(&mut self, parts: impl ExactSizeIterator<Item = &'a [u8]>) {
        self.count(parts.len());
        for part in parts {
            self.scan(part);
        }
    }

    /// As [`Hash::add`], of what may hold templates.
    fn scan(&mut self, part: &[u8]) {
        self.add(part);
        self.repeatable = self.repeatable && is_repeatable(part);
    }

    fn finish(self) -> Digest {
        self.context.sign().as_ref().try_into().expect("SHA-256 has 32 bytes")
    }
}

/// Whether no template in `text` names a function whose result is by chance.
pub fn is_repeatable(text: &[u8]) -> bool {
    let mut rest = text;
    while let Some(begin) = memchr::memmem::find(rest, b"{{") {
        rest = &rest[begin + 2..];
        let action = &rest[..memchr::memmem::find(rest, b"{{").unwrap_or(rest.len())];
        // The last, since a string in an action may have them too.
        let end = memchr::memmem::rfind(action, b"}}").unwrap_or(action.len());
        if words(&action[..end]).any(is_chance) {
            return false;
        }
    }
    true
}

/// The words that may be functions: a field has a dot before its name, and a variable a dollar.
fn words(action: &[u8]) -> impl Iterator<Item = &[u8]> {
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'$');
    action.split(move |byte| !is_part(byte)).filter(|word| !word.is_empty())
}

fn is_chance(word: &[u8]) -> bool {
    let named = |name: &&str| match name.strip_suffix('*') {
        Some(start) => word.starts_with(start.as_bytes()),
        None => word == name.as_bytes(),
    };
    CHANCE.iter().any(named)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use futures::FutureExt as _;
    use prometheus_client::registry::Registry;
    use tempfile::TempDir;

    use super::*;
    use crate::redact::Redactor;
    use crate::render::helm::Values;
    use crate::render::set::{Flags, Sets};

    /// Prints how often it ran, and so many bytes more.
    #[derive(Debug, Default)]
    struct Counted(AtomicUsize, usize);

    impl Helm for Counted {
        fn template<'a>(&'a self, call: &'a HelmCall) -> BoxFuture<'a, Result<Secret<String>, HelmError>> {
            let runs = self.0.fetch_add(1, Ordering::SeqCst) + 1;
            let printed = match call.release_name.as_str() {
                "broken" => Err(HelmError::NotText),
                "huge" => Ok(Secret::new(format!("{runs}{}", " ".repeat(100_000)))),
                _ => Ok(Secret::new(format!("{runs}{}", " ".repeat(self.1)))),
            };
            tokio::task::yield_now().map(|()| printed).boxed()
        }

        fn version(&self, _: Instant) -> BoxFuture<'_, Result<String, HelmError>> {
            futures::future::ready(Ok("v4".to_owned())).boxed()
        }
    }

    fn cached(printed: usize, room: usize) -> (Arc<Counted>, Cached) {
        let (helm, cached, _) = shown(printed, room);
        (helm, cached)
    }

    /// With the registry that shows what is counted.
    fn shown(printed: usize, room: usize) -> (Arc<Counted>, Cached, Registry) {
        let helm = Arc::new(Counted(AtomicUsize::new(0), printed));
        let mut registry = Registry::default();
        let cached = Cached::new(helm.clone(), room, Meters::register(&mut registry, false));
        (helm, cached, registry)
    }

    /// How many results were not kept, for `reason`.
    fn unkept(registry: &Registry, reason: &str) -> usize {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
        let name = format!("strongroom_unkept_renders_total{{reason=\"{reason}\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).unwrap_or(0)
    }

    fn write(path: &Path, text: impl AsRef<[u8]>) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// A repository of its own with one chart, as each request has.
    fn chart(files: &[(&str, &str)]) -> (TempDir, HelmCall) {
        let folder = TempDir::new().unwrap();
        let repository = folder.path().canonicalize().unwrap();
        write(&repository.join("app/Chart.yaml"), "apiVersion: v2\nname: app\nversion: 1.0.0\n");
        write(&repository.join("app/templates/a.yaml"), "a: {{ .Values.a }}\n");
        for (name, text) in files {
            write(&repository.join("app").join(name), text);
        }
        let call = HelmCall {
            chart: repository.join("app"),
            repository,
            release_name: "app".to_owned(),
            namespace: None,
            kube_version: None,
            api_versions: vec!["v1".to_owned()],
            values: vec![values("a: STRONGROOM-MARKER")],
            sets: Sets::default(),
            include_crds: true,
            skip_tests: false,
            skip_schema_validation: false,
            deadline: Instant::now() + Duration::from_mins(1),
            redactor: Redactor::new(&[]),
        };
        (folder, call)
    }

    fn values(text: &str) -> Values {
        Values { name: "a.yaml".to_owned(), text: Secret::new(text.to_owned()) }
    }

    fn sets(line: &str) -> Sets {
        Sets::parse(&Flags { set: vec![Secret::new(line.to_owned())], ..Flags::default() }).unwrap()
    }

    async fn runs(cached: &Cached, call: &HelmCall) -> usize {
        cached.template(call).await.unwrap().expose().trim().parse().unwrap()
    }

    #[tokio::test]
    async fn the_same_again_does_not_run_helm_wherever_it_lies() {
        let (helm, cached) = cached(0, 1 << 20);
        for _ in 0..3 {
            let (_folder, call) = chart(&[("charts/sub/templates/b.yaml", "b: 1\n")]);
            assert_eq!(runs(&cached, &call).await, 1);
        }
        assert_eq!(helm.0.load(Ordering::SeqCst), 1);
        assert!(!format!("{cached:?}").contains("STRONGROOM-MARKER"));
    }

    #[tokio::test]
    async fn whatever_helm_s_output_depends_on_makes_another_run() {
        let changes: &[fn(&mut HelmCall)] = &[
            |_| {},
            |call| call.release_name = "other".to_owned(),
            |call| call.namespace = Some("app".to_owned()),
            |call| call.kube_version = Some("app".to_owned()),
            |call| call.api_versions.clear(),
            |call| call.api_versions.push("v2".to_owned()),
            |call| call.values = vec![values("a: STRONGROOM-MARKER-2")],
            |call| call.values.push(values("")),
            |call| call.values.clear(),
            |call| call.sets = sets("a=b"),
            |call| call.sets = sets("a=c"),
            |call| call.include_crds = false,
            |call| call.skip_tests = true,
            |call| call.skip_schema_validation = true,
            |call| write(&call.chart.join("templates/a.yaml"), "a: {{ .Values.b }}\n"),
            |call| write(&call.chart.join("values.yaml"), "a: 1\n"),
            |call| write(&call.chart.join("files/new"), [0, 1]),
            |call| write(&call.chart.join("charts/sub/Chart.yaml"), "name: sub\n"),
            |call| {
                fs::rename(call.chart.join("templates/a.yaml"), call.chart.join("templates/b.yaml")).unwrap();
            },
            |call| std::os::unix::fs::symlink("templates", call.chart.join("linked")).unwrap(),
        ];
        let (helm, cached) = cached(0, 1 << 20);
        for round in 0..2 {
            for change in changes {
                let (_folder, mut call) = chart(&[]);
                change(&mut call);
                runs(&cached, &call).await;
            }
            assert_eq!(helm.0.load(Ordering::SeqCst), changes.len(), "round {round}");
        }
    }

    #[tokio::test]
    async fn a_commit_that_changes_one_of_200_apps_is_one_run_of_helm() {
        let (helm, cached) = cached(1000, 64 << 20);
        for (commit, expected) in [("1", 200), ("2", 201), ("2", 201)] {
            for app in 0..200 {
                let version = if app == 77 { commit } else { "1" };
                let (_folder, mut call) = chart(&[("values.yaml", &format!("version: {version}\n"))]);
                call.release_name = format!("app-{app}");
                cached.template(&call).await.unwrap();
            }
            assert_eq!(helm.0.load(Ordering::SeqCst), expected);
        }
    }

    #[tokio::test]
    async fn of_the_same_at_once_one_runs_helm_even_when_nothing_can_be_kept() {
        let (helm, cached) = cached(1000, 1000);
        let charts: Vec<_> = (0..5).map(|_| chart(&[])).collect();
        let all = futures::future::join_all(charts.iter().map(|(_, call)| runs(&cached, call)));
        assert_eq!(all.await, [1; 5]);
        assert_eq!(runs(&cached, &charts[0].1).await, 2);
        assert_eq!(helm.0.load(Ordering::SeqCst), 2);
        assert_eq!(cached.lock().flights.len(), 1);
    }

    #[tokio::test]
    async fn when_the_one_that_runs_helm_goes_or_fails_the_next_one_does() {
        let (helm, cached) = cached(0, 1 << 20);
        let (_folder, mut call) = chart(&[]);
        {
            let mut first = cached.template(&call);
            let second = cached.template(&call);
            assert!(futures::poll!(&mut first).is_pending());
            drop(first);
            assert_eq!(second.await.unwrap().expose(), "2");
        }
        "broken".clone_into(&mut call.release_name);
        let (first, second) = tokio::join!(cached.template(&call), cached.template(&call));
        assert!(first.is_err() && second.is_err());
        assert_eq!(helm.0.load(Ordering::SeqCst), 4);
    }

    #[tokio::test]
    async fn the_bound_is_kept_and_what_was_not_used_for_longest_goes() {
        let (_, cached) = cached(1000, 2 * (1000 + ENTRY + 10));
        let named = |name: &str| {
            let (folder, mut call) = chart(&[]);
            name.clone_into(&mut call.release_name);
            (folder, call)
        };
        for (name, run) in [("a", 1), ("b", 2), ("a", 1), ("c", 3), ("a", 1), ("b", 4)] {
            let (_folder, call) = named(name);
            assert_eq!(runs(&cached, &call).await, run, "{name}");
            let kept = cached.lock();
            assert!(kept.bytes <= cached.room, "{name}: {}", kept.bytes);
            assert_eq!(kept.bytes, kept.manifests.iter().map(|(_, text)| size(text)).sum::<usize>());
        }
    }

    #[tokio::test]
    async fn a_failure_is_not_kept_nor_what_is_larger_than_all_room_which_pushes_nothing_out() {
        let (helm, cached, registry) = shown(1000, 10_000);
        for (name, run) in
            [("app", 1), ("broken", 2), ("broken", 3), ("huge", 4), ("app", 1), ("huge", 5), ("app", 1)]
        {
            let (_folder, mut call) = chart(&[]);
            name.clone_into(&mut call.release_name);
            match cached.template(&call).await {
                Ok(manifests) => assert_eq!(manifests.expose().trim(), run.to_string(), "{name}"),
                Err(_) => assert_eq!(helm.0.load(Ordering::SeqCst), run, "{name}"),
            }
        }
        assert_eq!(cached.lock().bytes, 1000 + ENTRY + 1);
        assert_eq!(unkept(&registry, "too_large"), 2);
    }

    #[tokio::test]
    async fn what_cannot_be_looked_at_is_not_kept_and_counted_by_its_reason() {
        let (helm, cached, registry) = shown(0, 1 << 20);
        let (_folder, call) = chart(&[("charts/broken.tgz", "no archive")]);
        runs(&cached, &call).await;
        let (_folder, call) = chart(&[]);
        fs::File::create(call.chart.join("files")).unwrap().set_len(33 << 20).unwrap();
        runs(&cached, &call).await;
        assert_eq!(helm.0.load(Ordering::SeqCst), 2);
        assert_eq!(["unreadable", "large_file", "chance"].map(|reason| unkept(&registry, reason)), [1, 1, 0]);
        assert_eq!(cached.lock().manifests.len(), 0);
    }

    #[tokio::test]
    async fn what_is_by_chance_runs_each_time() {
        let (helm, cached, registry) = shown(0, 1 << 20);
        let mut packed =
            tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
        let text = b"a: {{ randAlpha 3 }}";
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        packed.append_data(&mut header, "sub/templates/a.yaml", &text[..]).unwrap();
        let packed = packed.into_inner().unwrap().finish().unwrap();
        let changes: &[&dyn Fn(&mut HelmCall)] = &[
            &|call| write(&call.chart.join("templates/b.yaml"), "a: {{ now }}"),
            &|call| write(&call.chart.join("charts/sub/templates/b.yaml"), "a: {{- uuidv4 -}}"),
            &|call| write(&call.chart.join("charts/sub.tgz"), &packed),
            &|call| write(&call.chart.join("values.yaml"), "text: '{{ genCA \"a\" 1 }}'"),
            &|call| call.values.push(values("text: '{{ htpasswd \"a\" \"b\" }}'")),
            &|call| {
                let literal = vec![Secret::new("a={{ now }}".to_owned())];
                call.sets = Sets::parse(&Flags { literal, ..Flags::default() }).unwrap();
            },
        ];
        for (index, change) in changes.iter().enumerate() {
            for run in 1..=2 {
                let (_folder, mut call) = chart(&[]);
                change(&mut call);
                assert_eq!(runs(&cached, &call).await, 2 * index + run);
            }
        }
        assert_eq!(helm.0.load(Ordering::SeqCst), 2 * changes.len());
        assert_eq!(unkept(&registry, "chance"), 2 * changes.len());
        assert_eq!(cached.lock().bytes, 0);
    }

    #[test]
    fn chance_is_known_by_the_names_of_functions_in_actions() {
        for (text, expected) in [
            ("{{ .Values.now }} now {{ $date }} {{ .Values.randomPassword | quote }}", true),
            ("{{ include \"app.generateName\" . }} {{ keys .Values | sortAlpha }}", true),
            ("now }} lookup {{", true),
            ("", true),
            ("{{now}}", false),
            ("{{-now|date \"2006\"-}}", false),
            ("{{ (lookup \"v1\" \"Secret\" \"a\" \"b\").data }}", false),
            ("{{ a }}{{ b }}\n{{ $x := randAlphaNum 8 }}", false),
            ("{{ tpl \"{{ shuffle .a }}\" . }}", false),
            ("{{ never closed: bcrypt", false),
            ("{{ print \"}}\" now }}", false),
            ("{{ genSelfSignedCertWithKey 1 }}", false),
        ] {
            assert_eq!(is_repeatable(text.as_bytes()), expected, "{text}");
        }
    }
}
