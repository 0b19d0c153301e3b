//! `make soak`: many renders, several at once, for a bounded time. Every one must print the same, and all together must
//! leave no file and no process behind.

#![allow(clippy::disallowed_methods, reason = "a soak looks at processes itself")]
#![allow(clippy::unwrap_used, reason = "a soak that cannot go on fails")]

mod support;

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use support::MARKER;
use support::differential::{Bench, Sealer, assert_flat, assert_same, json_cases, yaml_cases};
use support::documents::{binary, dotenv, ini};
use support::process::Run;
use support::product::{generate_with, shipped};
use support::repository::Repository;
use support::tools::top;

const AT_ONCE: usize = 8;
/// Of random SOPS files; each gives some hundred documents of each format, sealed by sops and by the product.
const SEEDS: u64 = 25;
/// Of one document each.
const FLAT: usize = 96;
const TIME: Duration = Duration::from_mins(2);
/// The parameter that makes every fourth render fail, in a place where secrets are open already.
const BROKEN: &str =
    r#"[{"name":"valueFiles","array":["secrets/mail.yaml"]},{"name":"parameters","map":{"port":"{"}}]"#;
const WHOLE: &str =
    r#"[{"name":"valueFiles","array":["secrets/database.yaml","secrets/mail.yaml","secrets/session.yaml"]}]"#;

#[test]
#[ignore = "run by make soak; it takes two minutes"]
fn renders_side_by_side_are_alike_and_leave_nothing_behind() {
    let repository = Repository::with_example("hello");
    let before = repository.snapshot();
    let temporary = tempfile::TempDir::new().unwrap();
    let render = |parameters: &str| -> Run {
        generate_with(&shipped(), &repository, "app")
            .env("STRONGROOM_KEYS_DIR", top().join("examples/keys"))
            .env("TMPDIR", temporary.path())
            .env("ARGOCD_APP_PARAMETERS", parameters)
    };
    let expected = render(WHOLE).ok();
    assert!(expected.contains("kind: Secret"), "{expected}");

    let end = Instant::now() + TIME;
    let renders = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while Instant::now() < end {
                    let number = renders.fetch_add(1, Ordering::Relaxed);
                    if number % 4 == 3 {
                        let message = render(BROKEN).fails();
                        assert!(!message.contains(MARKER), "{message}");
                    } else {
                        assert_eq!(render(WHOLE).ok(), expected);
                    }
                }
            });
        }
    });
    eprintln!("{} renders, {AT_ONCE} at once", renders.into_inner());
    assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 0, "something was left in TMPDIR");
    assert_eq!(repository.snapshot(), before, "the repository was changed");
    assert_eq!(working_in(&repository), Vec::<String>::new(), "a process was left behind");
}

#[test]
#[ignore = "run by make soak; it takes minutes"]
fn random_sops_files_of_many_seeds_open_to_what_was_sealed() {
    let bench = Bench::new();
    for round in 0..SEEDS {
        let seed = round * 1_000;
        for sealer in [Sealer::Sops, Sealer::Product] {
            assert_same(&yaml_cases(&bench, sealer, seed, 24));
            assert_same(&json_cases(&bench, sealer, seed, 24));
            assert_flat(&bench, sealer, seed, FLAT, "env", |dice| dotenv(dice).into_bytes());
            assert_flat(&bench, sealer, seed, FLAT, "ini", |dice| ini(dice).into_bytes());
            assert_flat(&bench, sealer, seed, FLAT, "enc", binary);
        }
        eprintln!("seed {seed} is done");
    }
}

/// The processes whose working directory is in the repository.
fn working_in(repository: &Repository) -> Vec<String> {
    let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| Some(entry.ok()?.path()));
    let inside = processes.filter(|process| {
        fs::read_link(process.join("cwd")).is_ok_and(|directory| directory.starts_with(repository.path()))
    });
    inside.map(|process| process.display().to_string()).collect()
}
