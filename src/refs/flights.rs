//! Documents on their way: what several renders want at the same time is fetched once.
//!
//! A flight is one question to one source. Whoever wants some of its documents before it has landed waits for it; every
//! requester was authorised by itself before. It goes on as long as anybody waits, whoever began it, and what it brings is
//! kept by nobody but those who waited. So a value is never older than the render that uses it, but for the time of one
//! request.
//!
//! A backend that is busy is asked again, with pauses that grow and differ, until the deadline of whoever asks: Argo CD
//! pauses an application for an hour after three failures.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::future::{self, BoxFuture, FutureExt, Shared, WeakShared};

use crate::fault::Class;
use crate::refs::source::{Document, FetchError, Locator, Params, Source};
use crate::scope::Scope;
use crate::web;

/// A scheme, and the options that choose one of its backends.
pub(super) type Connection = (&'static str, Params);

/// So long before the deadline it is told that a backend stayed busy.
const TO_TELL: Duration = Duration::from_millis(if cfg!(test) { 5 } else { 200 });

type Answer = Result<Document, FetchError>;
type Landed = Arc<HashMap<Locator, Answer>>;
type Flight = BoxFuture<'static, Landed>;

/// The flights of a process.
#[derive(Default)]
pub(super) struct Flights(Arc<Mutex<Board>>);

/// The flight that brings each document.
type Board = HashMap<(Connection, Locator), WeakShared<Flight>>;

impl fmt::Debug for Flights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} documents on their way", lock(&self.0).len())
    }
}

fn lock(board: &Mutex<Board>) -> MutexGuard<'_, Board> {
    board.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Flights {
    /// One answer of `source` for each locator, in order.
    pub(super) async fn fetch(
        &self,
        source: &Arc<dyn Source>,
        connection: &Connection,
        scope: &Scope,
        at: &[Locator],
    ) -> Vec<Answer> {
        if !source.is_same_for_all() {
            return ask(source.as_ref(), scope, at).await;
        }
        let (flights, own) = self.board(source, connection, scope, at);
        let mut landed: Vec<_> = future::join_all(flights).await.into_iter().map(Bag::of).collect();
        let mut take = |locator| landed.iter_mut().find_map(|bag| bag.take(locator));
        let mut answers: Vec<_> =
            at.iter().map(|locator| take(locator).unwrap_or_else(|| Err(lost()))).collect();
        // Who began it may have had less time.
        let early =
            |index: &usize| !own.contains(index) && answers[*index].as_ref().is_err_and(|error| error.busy);
        let early: Vec<_> = (0..at.len()).filter(early).collect();
        let again: Vec<_> = early.iter().map(|index| at[*index].clone()).collect();
        for (index, answer) in early.into_iter().zip(ask(source.as_ref(), scope, &again).await) {
            answers[index] = answer;
        }
        answers
    }

    /// The flights that bring all of `at`, and the positions of what no other had under way.
    fn board(
        &self,
        source: &Arc<dyn Source>,
        connection: &Connection,
        scope: &Scope,
        at: &[Locator],
    ) -> (Vec<Shared<Flight>>, Vec<usize>) {
        let mut board = lock(&self.0);
        let (mut flights, mut own): (Vec<Shared<Flight>>, _) = (Vec::new(), Vec::new());
        for (index, locator) in at.iter().enumerate() {
            match board.get(&(connection.clone(), locator.clone())).and_then(WeakShared::upgrade) {
                Some(flight) if flights.iter().any(|known| known.ptr_eq(&flight)) => {}
                Some(flight) => flights.push(flight),
                None => own.push(index),
            }
        }
        if !own.is_empty() {
            let locators: Vec<_> = own.iter().map(|index| at[*index].clone()).collect();
            let keys: Vec<_> = locators.iter().map(|locator| (connection.clone(), locator.clone())).collect();
            let landing = Landing { board: Arc::clone(&self.0), keys: keys.clone() };
            let (source, scope) = (Arc::clone(source), scope.clone());
            let flight = async move {
                let _landing = landing;
                let answers = ask(source.as_ref(), &scope, &locators).await;
                Arc::new(locators.into_iter().zip(answers).collect::<HashMap<_, _>>())
            };
            let flight = flight.boxed().shared();
            if let Some(weak) = flight.downgrade() {
                board.extend(keys.into_iter().map(|key| (key, weak.clone())));
            }
            flights.push(flight);
        }
        (flights, own)
    }
}

/// Takes a flight off the board when it has landed, or when nobody waits for it any more.
struct Landing {
    board: Arc<Mutex<Board>>,
    keys: Vec<(Connection, Locator)>,
}

impl Drop for Landing {
    fn drop(&mut self) {
        let mut board = lock(&self.board);
        for key in &self.keys {
            board.remove(key);
        }
    }
}

/// What a flight brought: to the only one who waited, or to several.
enum Bag {
    Own(HashMap<Locator, Answer>),
    Shared(Landed),
}

impl Bag {
    fn of(landed: Landed) -> Self {
        Arc::try_unwrap(landed).map_or_else(Self::Shared, Self::Own)
    }

    fn take(&mut self, locator: &Locator) -> Option<Answer> {
        match self {
            Self::Own(answers) => answers.remove(locator),
            Self::Shared(answers) => answers.get(locator).cloned(),
        }
    }
}

fn lost() -> FetchError {
    FetchError::new(Class::Internal, "the flight did not bring it")
}

/// Asks, and again for what was busy while the deadline allows.
async fn ask(source: &dyn Source, scope: &Scope, at: &[Locator]) -> Vec<Answer> {
    if at.is_empty() {
        return Vec::new();
    }
    let mut answers = source.fetch(scope, at).await;
    for round in 1.. {
        let is_busy = |index: &usize| answers[*index].as_ref().is_err_and(|error| error.busy);
        let busy: Vec<_> = (0..at.len()).filter(is_busy).collect();
        if busy.is_empty() {
            break;
        }
        let pause = web::pause(round);
        // What was said before is told rather than that it became too late.
        let end = scope.deadline.and_then(|deadline| deadline.checked_sub(TO_TELL));
        let Some(end) = end.filter(|end| Instant::now() + pause < *end) else {
            tell(&mut answers, &busy, round);
            break;
        };
        tokio::time::sleep(pause).await;
        let again: Vec<_> = busy.iter().map(|index| at[*index].clone()).collect();
        let Ok(fresh) = tokio::time::timeout_at(end.into(), source.fetch(scope, &again)).await else {
            tell(&mut answers, &busy, round + 1);
            break;
        };
        for (index, answer) in busy.into_iter().zip(fresh) {
            answers[index] = answer;
        }
    }
    answers
}

fn tell(answers: &mut [Answer], busy: &[usize], rounds: u32) {
    for index in busy {
        if let Err(error) = &mut answers[*index] {
            error.until_the_deadline(rounds);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::sync::Semaphore;
    use tokio::task::{JoinHandle, yield_now};

    use super::*;
    use crate::scope::DEADLINE;
    use crate::secret::Secret;

    /// Answers with the path, once it is let; says first so many times that it is busy.
    #[derive(Debug)]
    struct Store {
        asked: Mutex<Vec<String>>,
        let_through: Semaphore,
        busy: AtomicUsize,
        same_for_all: bool,
    }

    impl Source for Store {
        fn fetch<'a>(&'a self, _: &'a Scope, at: &'a [Locator]) -> BoxFuture<'a, Vec<Answer>> {
            let paths: Vec<_> = at.iter().map(|at| at.path.as_str()).collect();
            self.asked.lock().unwrap().push(paths.join(" "));
            async move {
                self.let_through.acquire().await.unwrap().forget();
                let less = |busy: usize| busy.checked_sub(1);
                if self.busy.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_ok() {
                    return vec![
                        Err(FetchError::new(Class::Unavailable, "come back later").busy(true));
                        at.len()
                    ];
                }
                paths.iter().map(|path| Ok(Secret::new(path.as_bytes().to_vec()))).collect()
            }
            .boxed()
        }

        fn is_same_for_all(&self) -> bool {
            self.same_for_all
        }
    }

    /// A store, and the flights to it.
    #[derive(Clone)]
    struct World {
        store: Arc<Store>,
        flights: Arc<Flights>,
    }

    impl World {
        fn new(let_through: usize, busy: usize, same_for_all: bool) -> Self {
            let store = Store {
                asked: Mutex::default(),
                let_through: Semaphore::new(let_through),
                busy: AtomicUsize::new(busy),
                same_for_all,
            };
            Self { store: Arc::new(store), flights: Arc::default() }
        }

        async fn fetch(self, paths: &'static str, time: Option<Duration>) -> Vec<Result<String, String>> {
            let source: Arc<dyn Source> = self.store.clone();
            let scope = Scope { deadline: time.map(|time| Instant::now() + time), ..Scope::default() };
            let locator =
                |path: &str| Locator { path: path.to_owned(), params: Params::new(), fragment: false };
            let at: Vec<_> = paths.split(' ').map(locator).collect();
            let answers = self.flights.fetch(&source, &("store", Params::new()), &scope, &at).await;
            let tell = |answer: Answer| {
                let text = |document: Document| String::from_utf8(document.expose().clone()).unwrap();
                answer.map(text).map_err(|error| error.reason)
            };
            answers.into_iter().map(tell).collect()
        }

        /// Begins to fetch, and comes to wait for the store.
        async fn begin(
            &self,
            paths: &'static str,
            time: Option<Duration>,
        ) -> JoinHandle<Vec<Result<String, String>>> {
            let begun = tokio::spawn(self.clone().fetch(paths, time));
            yield_now().await;
            begun
        }

        fn asked(&self) -> Vec<String> {
            self.store.asked.lock().unwrap().clone()
        }
    }

    fn all(paths: &str) -> Vec<Result<String, String>> {
        paths.split(' ').map(|path| Ok(path.to_owned())).collect()
    }

    #[tokio::test]
    async fn what_is_on_its_way_is_waited_for_and_not_kept() {
        let world = World::new(0, 0, true);
        let (first, second) = (world.begin("a b", None).await, world.begin("b c", None).await);
        assert_eq!(world.asked(), ["a b", "c"]);
        world.store.let_through.add_permits(2);
        assert_eq!((first.await.unwrap(), second.await.unwrap()), (all("a b"), all("b c")));
        assert_eq!(format!("{:?}", world.flights), "0 documents on their way");
        world.store.let_through.add_permits(1);
        assert_eq!(world.clone().fetch("b", None).await, all("b"));
        assert_eq!(world.asked().len(), 3, "what has landed is asked for anew");
    }

    #[tokio::test]
    async fn a_flight_goes_on_while_anybody_waits_and_no_longer() {
        let world = World::new(0, 0, true);
        let (first, second) = (world.begin("a", None).await, world.begin("a", None).await);
        first.abort();
        assert!(first.await.unwrap_err().is_cancelled());
        world.store.let_through.add_permits(1);
        assert_eq!(second.await.unwrap(), all("a"));
        assert_eq!(world.asked(), ["a"]);
        let alone = world.begin("b", None).await;
        alone.abort();
        assert!(alone.await.unwrap_err().is_cancelled());
        assert_eq!(format!("{:?}", world.flights), "0 documents on their way");
    }

    #[tokio::test]
    async fn what_depends_on_the_render_is_not_shared() {
        let world = World::new(2, 0, false);
        let (first, second) = tokio::join!(world.clone().fetch("a", None), world.clone().fetch("a", None));
        assert_eq!((first, second), (all("a"), all("a")));
        assert_eq!(world.asked(), ["a", "a"]);
    }

    #[tokio::test]
    async fn a_busy_store_is_asked_again_until_the_deadline() {
        for (busy, time, expected) in [
            (0, None, Ok("a")),
            (6, Some(60_000), Ok("a")),
            (6, Some(0), Err("come back later")),
            (1, None, Err("come back later")),
        ] {
            let world = World::new(100, busy, true);
            let outcome = world.fetch("a", time.map(Duration::from_millis)).await.remove(0);
            assert_eq!(outcome, expected.map(str::to_owned).map_err(str::to_owned), "{busy} {time:?}");
        }
        let world = World::new(10_000, usize::MAX, true);
        let reason = world.clone().fetch("a", Some(Duration::from_millis(40))).await.remove(0).unwrap_err();
        let asked = world.asked().len();
        assert!(asked > 1);
        assert_eq!(reason, format!("come back later; and so {asked} times, until {DEADLINE}"));
    }

    #[tokio::test]
    async fn who_has_more_time_than_the_one_who_began_asks_on() {
        let world = World::new(0, 2, true);
        let hasty = world.begin("a", Some(Duration::ZERO)).await;
        let patient = world.begin("a b", Some(Duration::from_mins(1))).await;
        world.store.let_through.add_permits(100);
        assert_eq!(hasty.await.unwrap(), [Err("come back later".to_owned())]);
        assert_eq!(patient.await.unwrap(), all("a b"));
    }
}
