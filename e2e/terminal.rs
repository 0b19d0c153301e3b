//! What a command shows on a terminal, which `script` gives it, and does not show elsewhere; and what a shell and `man` are told
//! of the commands.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::path::Path;

use clap::CommandFactory as _;
use strongroom::config::Cli;

use support::process::Run;
use support::product::{program, strongroom};
use support::repository::Repository;
use support::tools::{on_path, tool};
use support::wrapped_helm::WrappedHelm;

const GREEN: &str = "\u{1b}[32m";
const RED: &str = "\u{1b}[31m";

/// A helm that takes longer than a person likes to wait.
fn slow_helm() -> WrappedHelm {
    WrappedHelm::new(&format!("/bin/sleep 2\nexec '{}' \"$@\"", tool("helm").display()))
}

fn repository() -> Repository {
    let repository = Repository::with_secret_chart();
    repository.write("values.yaml", "password: ref+echo://STRONGROOM-MARKER\n");
    repository
}

/// What the terminal is sent when `arguments` run on it, with `variables`. Nothing of the result is, when it goes to a file.
fn on_terminal(repository: &Repository, helm: &Path, arguments: &str, variables: &[(&str, &str)]) -> String {
    let command = format!("'{}' {arguments}", program().display());
    Run::new(on_path("script"))
        .args(["--quiet", "--return", "--command", &command, "/dev/null"])
        .directory(repository.path())
        .env("SHELL", "/bin/sh")
        .env("STRONGROOM_HELM", helm)
        .env("TERM", "xterm")
        .envs(variables.iter().copied())
        .output()
        .stdout
}

/// What stands on the last line once all is sent.
fn left(sent: &str) -> String {
    let mut line: Vec<char> = Vec::new();
    let mut at = 0;
    for c in sent.rsplit('\n').next().unwrap().chars() {
        match c {
            '\r' => at = 0,
            c => {
                line.resize(line.len().max(at + 1), ' ');
                line[at] = c;
                at += 1;
            }
        }
    }
    line.into_iter().collect::<String>().trim_end().to_owned()
}

#[test]
fn work_over_a_second_says_what_it_waits_for_and_takes_it_back() {
    let (repository, helm) = (repository(), slow_helm());
    for command in ["template", "check", "explain"] {
        let arguments = format!("{command} app app -f values.yaml >result");
        let sent = on_terminal(&repository, &helm.path(), &arguments, &[]);
        assert!(sent.contains("waiting for helm … 1 s"), "{command}: {sent:?}");
        assert_eq!(left(&sent), "", "{command}: {sent:?}");
        let result = std::fs::read_to_string(repository.path().join("result")).unwrap();
        assert!(result.contains("app") && !result.contains(['\r', '…', '\u{1b}']), "{command}: {result}");
    }
}

#[test]
fn a_failure_stands_alone_once_it_is_known() {
    let (repository, helm) =
        (repository(), WrappedHelm::new("/bin/sleep 2; echo 'Error: broken' >&2; exit 1"));
    let sent = on_terminal(&repository, &helm.path(), "template app app -f values.yaml", &[]);
    let (before, message) = sent.split_once("strongroom: failed").unwrap();
    assert!(before.contains("waiting for helm") && left(before).is_empty(), "{sent:?}");
    assert!(message.contains("broken"), "{sent:?}");
}

#[test]
fn what_is_no_terminal_is_not_written_to() {
    let (repository, helm) = (repository(), slow_helm());
    let run = Run::new(program()).directory(repository.path()).env("STRONGROOM_HELM", helm.path());
    let output = run.env("TERM", "xterm").args(["check", "app", "app", "-f", "values.yaml"]).output();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", output.stderr);
    assert!(!output.stdout.contains('\u{1b}'), "{}", output.stdout);
    let sent = on_terminal(&repository, &helm.path(), "check app app -f values.yaml", &[("TERM", "dumb")]);
    assert!(sent.contains("opened") && !sent.contains("waiting") && !sent.contains('\u{1b}'), "{sent:?}");
}

#[test]
fn colours_are_for_terminals_that_are_not_told_otherwise() {
    let (repository, helm) = (repository(), tool("helm"));
    let check = |values: &str, variables: &[(&str, &str)]| {
        on_terminal(&repository, &helm, &format!("check app app --set password={values}"), variables)
    };
    assert!(check("ref+echo://x", &[]).contains(GREEN));
    assert!(check("ref+file:///nothing", &[]).contains(RED));
    assert!(!check("ref+echo://x", &[("NO_COLOR", "1")]).contains('\u{1b}'));
    let explain = on_terminal(&repository, &helm, "explain app app -f values.yaml", &[]);
    assert!(explain.contains("\u{1b}[2m# values.yaml:1 (ref+echo://"), "{explain:?}");
}

#[test]
fn a_reader_that_has_read_enough_is_no_failure_to_tell() {
    // More than a pipe holds.
    let command = format!("'{}' version --licences | head -n 1", program().display());
    let output = Run::new(on_path("bash")).env("PATH", "/usr/bin:/bin").args(["-c", &command]).output();
    assert_eq!(output.everything(), "The licences of what is linked into this program.\n");
}

#[test]
fn bash_completes_commands_and_flags() {
    let complete = |line: &str| {
        let words = line.split(' ').count();
        // Of bash-completion, and no more than this of it is asked for.
        let script = format!(
            "source /dev/stdin\nCOMP_WORDS=({line} ) COMP_CWORD={last}\n\
             _strongroom strongroom \"${{COMP_WORDS[{last}]}}\" \"${{COMP_WORDS[{last}-1]}}\"\necho \"${{COMPREPLY[@]}}\"",
            last = words - 1
        );
        let completion = strongroom().args(["completion", "bash"]).ok();
        Run::new(on_path("bash")).args(["-uc", &script]).stdin(completion).ok()
    };
    assert_eq!(complete("strongroom expl"), "explain\n");
    assert_eq!(complete("strongroom check --applic"), "--application\n");
    assert_eq!(complete("strongroom nothing-like-it"), "\n");
}

#[test]
fn every_command_has_a_manual_page_that_tells_its_flags() {
    let mut cli = Cli::command();
    cli.build();
    assert!(strongroom().arg("man").ok().contains(".TH strongroom 1"));
    for command in
        cli.get_subcommands().filter(|command| !command.is_hide_set() && command.get_name() != "help")
    {
        let name = command.get_name();
        let page = strongroom().args(["man", name]).ok();
        assert!(page.contains(&format!(".TH strongroom-{name} 1")), "{name}: {page}");
        for flag in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
            let long = flag.get_long().unwrap_or_default().replace('-', "\\-");
            assert!(page.contains(&long), "{name}: nothing is said of {long}");
        }
    }
    assert!(strongroom().args(["man", "nothing"]).fails().contains("there is no command nothing"));
}
