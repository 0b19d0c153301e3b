//! age's post-quantum keys and plugins, against the real age and the real sops.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use support::MARKER;
use support::desk::Desk;
use support::keys::{AgeKey, KeysFolder};
use support::process::Run;
use support::product::{generate, program};
use support::repository::Repository;
use support::tools::on_path;

#[test]
fn post_quantum_keys_open_and_seal_as_those_of_sops() {
    let (desk, other) = (Desk::of(AgeKey::post_quantum()), AgeKey::post_quantum());
    let plain = format!("a: {MARKER}\n");
    desk.repository.write("ours.yaml", &plain);
    desk.repository.write("theirs.yaml", &plain);
    // As sops, each key has a sealed data key of its own, so an older key may stand beside it.
    let recipients = format!("{},{}", desk.age.recipient, AgeKey::new().recipient);
    desk.product().args(["encrypt", "-i", "--age", &recipients, "ours.yaml"]).ok();
    desk.sops().args(["encrypt", "-i", "--age", &recipients, "theirs.yaml"]).ok();
    for name in ["ours.yaml", "theirs.yaml"] {
        assert!(desk.read(name).contains(&desk.age.recipient) && !desk.read(name).contains(MARKER));
        assert_eq!(desk.sops().args(["decrypt", name]).ok(), plain, "{name}");
        assert_eq!(desk.product().args(["decrypt", name]).ok().replace('"', ""), plain, "{name}");
        let keys = KeysFolder::new().with("key.txt", &other.identity);
        let output = desk.product().env("STRONGROOM_KEYS_DIR", keys.path()).args(["decrypt", name]).output();
        assert_eq!(output.status.code(), Some(128), "{name}: {}", output.stderr);
        assert!(output.stderr.contains("no age identity for it is loaded"), "{}", output.stderr);
    }
    let sealed = desk.read("theirs.yaml");
    let armor = sealed.find("-----BEGIN AGE").unwrap();
    for (at, c) in sealed.char_indices().skip(armor + 120).step_by(97).take(16) {
        if c.is_ascii_alphanumeric() {
            let mut changed = sealed.clone();
            changed.replace_range(at..=at, if c == 'A' { "B" } else { "A" });
            desk.repository.write("changed.yaml", changed);
            for run in [desk.product(), desk.sops()] {
                let output = run.args(["decrypt", "changed.yaml"]).output();
                assert_eq!(output.status.code(), Some(128), "byte {at}: {}", output.stderr);
            }
        }
    }
}

/// Speaks the protocol of age's plugins: seals by saying the file key as it is, under the plugin's own name. One that is
/// called `asks` wants to know a word first, `fails` says why it does not, `ends` says nothing.
const PLUGIN: &str = r#"#!/bin/sh
name=${0##*/age-plugin-}
: >"$0.ran"
body() { body=; while IFS= read -r line; do body=$body$line; [ ${#line} -eq 64 ] || break; done; }
say() { printf '%s\n' "$@"; read -r arrow answer; body; }
end() { printf '%s\n' '-> done' ''; exit; }
while read -r arrow command rest; do
    body
    case $command in
        wrap-file-key) key=$body ;;
        recipient-stanza) [ "${rest%% *}:${rest#* }" = "0:$name" ] && key=$body ;;
        done) break ;;
    esac
done
case $name in
    asks)
        say '-> msg' 'dG91Y2ggaXQ'
        say '-> request-secret' 'dGhlIFBJTg'
        [ "$answer:$body" = ok:U1RST05HUk9PTS1NQVJLRVI ] || { say '-> error internal' 'd3JvbmcgUElO'; end; } ;;
    fails) say '-> error internal' 'YnJva2Vu'; end ;;
    ends) exit 1 ;;
esac
case $1 in
    --age-plugin=recipient-v1) say "-> recipient-stanza 0 $name" "$key" ;;
    --age-plugin=identity-v1) [ -z "$key" ] || say '-> file-key 0' "$key" ;;
esac
end
"#;

/// A folder with a plugin in it, for `PATH`.
struct Plugin {
    folder: tempfile::TempDir,
    name: &'static str,
}

impl Plugin {
    fn new(name: &'static str) -> Self {
        let plugin = Self { folder: tempfile::tempdir().unwrap(), name };
        let path = plugin.folder.path().join(format!("age-plugin-{name}"));
        fs::write(&path, PLUGIN).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        plugin
    }

    fn path(&self) -> String {
        format!("{}:/usr/bin:/bin", self.folder.path().display())
    }

    fn recipient(&self) -> String {
        word(&format!("age1{}", self.name))
    }

    /// A desk with an identity of the plugin.
    fn desk(&self) -> Desk {
        Desk::of(AgeKey { identity: identity(self.name), recipient: self.recipient() })
    }

    /// Whether it was run since this was asked last.
    fn ran(&self) -> bool {
        fs::remove_file(self.folder.path().join(format!("age-plugin-{}.ran", self.name))).is_ok()
    }
}

fn identity(plugin: &str) -> String {
    word(&format!("age-plugin-{plugin}-")).to_uppercase()
}

fn word(prefix: &str) -> String {
    age_core::primitives::bech32_encode(bech32::Hrp::parse(prefix).unwrap(), b"1")
}

#[test]
fn a_plugin_seals_and_opens_as_for_sops() {
    let (plugin, other, plain) = (Plugin::new("test"), AgeKey::new(), format!("a: {MARKER}\n"));
    let desk = plugin.desk();
    let recipients = format!("{},{}", other.recipient, plugin.recipient());
    desk.repository.write("ours.yaml", &plain);
    desk.repository.write("theirs.yaml", &plain);
    let encrypt = ["encrypt", "-i", "--age", &recipients];
    desk.product().env("PATH", plugin.path()).args(encrypt).arg("ours.yaml").ok();
    desk.sops().env("PATH", plugin.path()).args(encrypt).arg("theirs.yaml").ok();
    for name in ["ours.yaml", "theirs.yaml"] {
        assert!(desk.read(name).contains(&plugin.recipient()) && !desk.read(name).contains(MARKER));
        let decrypt = |run: Run| run.env("PATH", plugin.path()).args(["decrypt", name]).ok().replace('"', "");
        assert_eq!(decrypt(desk.sops()), plain, "{name}");
        assert_eq!(decrypt(desk.product()), plain, "{name}");
    }
}

#[test]
fn a_render_for_argo_cd_runs_no_plugin_and_says_so() {
    let plugin = Plugin::new("test");
    let desk = Desk { repository: Repository::with_secret_chart(), ..plugin.desk() };
    desk.repository.write("app/values.yaml", "password: x\n");
    desk.repository.write("app/secrets.yaml", format!("password: {MARKER}\n"));
    let encrypt = ["encrypt", "-i", "--age", &plugin.recipient(), "app/secrets.yaml"];
    desk.product().env("PATH", plugin.path()).args(encrypt).ok();
    assert!(plugin.ran());
    let template = ["template", "app", "app", "-f", "app/secrets.yaml", "--reveal"];
    let shown = desk.product().env("PATH", plugin.path()).args(template).ok();
    assert!(shown.contains("U1RST05HUk9PTS1NQVJLRVI=") && plugin.ran(), "{shown}");
    let parameters = r#"[{"name": "valueFiles", "array": ["secrets.yaml"]}]"#;
    let told = generate(&desk.repository, "app")
        .env("ARGOCD_APP_PARAMETERS", parameters)
        .env("STRONGROOM_KEYS_DIR", desk.keys.path())
        .env("PATH", plugin.path())
        .fails();
    for expected in [
        "no age identity for it is loaded",
        "key.txt: line 1: age plugins are programs, which run for commands of a terminal only",
    ] {
        assert!(told.contains(expected), "{told}");
    }
    assert!(!plugin.ran());
}

#[test]
fn a_plugin_that_does_not_do_its_work_says_why() {
    for (name, sealing, opening) in [
        ("fails", "age-plugin-fails failed: ", "broken"),
        ("ends", "age-plugin-ends ended before it answered", "age-plugin-ends ended before it answered"),
        ("asks", "age-plugin-asks failed: ", "wrong PIN"),
    ] {
        let plugin = Plugin::new(name);
        let desk = plugin.desk();
        desk.repository.write("a.yaml", format!("a: {MARKER}\n"));
        let encrypt = ["encrypt", "--age", &plugin.recipient(), "a.yaml"];
        let told = desk.product().env("PATH", plugin.path()).args(encrypt).fails();
        assert!(told.contains(sealing) && !told.contains(MARKER), "{told}");
        // What nobody can open: sealed by a plugin that works, under the name of this one.
        let other = Plugin::new("test");
        desk.product()
            .env("PATH", other.path())
            .args(["encrypt", "-i", "--age", &other.recipient(), "a.yaml"])
            .ok();
        desk.repository.write("a.yaml", desk.read("a.yaml").replace(&other.recipient(), &plugin.recipient()));
        let told = desk.product().env("PATH", plugin.path()).args(["decrypt", "a.yaml"]).fails();
        assert!(told.contains(opening) && !told.contains(MARKER), "{told}");
    }
    let plugin = Plugin::new("test");
    let desk = Desk::of(AgeKey { identity: identity("other"), recipient: plugin.recipient() });
    desk.repository.write("a.yaml", format!("a: {MARKER}\n"));
    let encrypt = |path: &str| {
        let run = desk.product().env("PATH", path).args(["encrypt", "--age", &plugin.recipient(), "a.yaml"]);
        run.directory(plugin.folder.path()).arg("--output").arg("/dev/null").fails()
    };
    fs::write(plugin.folder.path().join("a.yaml"), "a: 1\n").unwrap();
    assert!(encrypt("/usr/bin").contains("the plugin age-plugin-test is not in PATH"));
    let here = encrypt(".:/usr/bin");
    assert!(here.contains("age-plugin-test is found in the current folder, where it is not run"), "{here}");
    assert!(!plugin.ran());
    desk.product()
        .env("PATH", plugin.path())
        .args(["encrypt", "-i", "--age", &plugin.recipient(), "a.yaml"])
        .ok();
    let told = desk.product().env("PATH", plugin.path()).args(["decrypt", "a.yaml"]).fails();
    assert!(told.contains("the plugin age-plugin-other is not in PATH"), "{told}");
    let other = Plugin::new("other");
    let told = desk.product().env("PATH", other.path()).args(["decrypt", "a.yaml"]).fails();
    assert!(told.contains("age-plugin-other has no key that opens it"), "{told}");
}

#[test]
fn what_a_plugin_asks_is_answered_on_the_terminal_and_not_shown_there() {
    let plugin = Plugin::new("asks");
    let desk = plugin.desk();
    desk.repository.write("a.yaml", "a: plain\n");
    let encrypt = format!("encrypt -i --age {} a.yaml", plugin.recipient());
    for arguments in [encrypt.as_str(), "decrypt a.yaml >result"] {
        let command = format!("'{}' {arguments}", program().display());
        let mut child = Run::new(on_path("script"))
            .args(["--quiet", "--return", "--command", &command, "/dev/null"])
            .directory(desk.repository.path())
            .env("STRONGROOM_KEYS_DIR", desk.keys.path())
            .env("SHELL", "/bin/sh")
            .env("PATH", plugin.path())
            .into_command()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (mut input, mut output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut shown = Vec::new();
        let mut next = [0];
        while !shown.ends_with(b"age-plugin-asks: the PIN\r\n") && output.read(&mut next).unwrap() == 1 {
            shown.push(next[0]);
        }
        writeln!(input, "{MARKER}").unwrap();
        output.read_to_end(&mut shown).unwrap();
        let (shown, status) = (String::from_utf8(shown).unwrap(), child.wait().unwrap());
        assert!(status.success(), "{arguments}: {shown}");
        assert!(shown.starts_with("age-plugin-asks: touch it\r\n") && !shown.contains(MARKER), "{shown}");
    }
    assert_eq!(desk.read("result"), "a: \"plain\"\n");
}
