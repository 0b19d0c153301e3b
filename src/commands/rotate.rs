//! `strongroom rotate` and `updatekeys`: an encrypted file gets a new data key, or other master keys.

use std::io::{self, Write};
use std::path::PathBuf;

use crate::commands::amend::open;
use crate::commands::encrypt::creation_of;
use crate::commands::files::{self, Content};
use crate::commands::terminal::ask;
use crate::commands::{Failure, assembly};
use crate::config::{Operator, Rotate, UpdateKeys};
use crate::environment::Environment;
use crate::render::Renderer;
use crate::secret::Secret;
use crate::sops::keys::SealedKey;
use crate::sops::keys::wrap::Wrappers;

type Groups = Vec<Vec<SealedKey>>;

/// The file with a new data key, or nothing where it was written.
pub(super) async fn rotate(
    args: &Rotate,
    operator: &Operator,
    renderer: &Renderer,
    environment: &Environment,
) -> Result<Secret<Vec<u8>>, Failure> {
    let file = &args.existing.file;
    let doing = format!("rotate {}", file.display());
    let failed = |error| Failure::of(&doing, &error);
    let (added, removed) = (args.added().map_err(failed)?, args.removed().map_err(failed)?);
    let wrappers = assembly::wrappers(operator, environment, &added)?;
    let changes = !added.is_empty() || !removed.is_empty();
    if changes && !file.exists() {
        return Err(Failure::new(
            format!("failed to {doing}: there is no such file to add or remove keys of"),
            49,
        ));
    }
    let opened = open(&args.existing, renderer).await?;
    let mut groups = opened.envelope.groups.clone();
    if let Some(first) = groups.first_mut() {
        for key in added {
            if first.iter().all(|there| label(there) != label(&key)) {
                first.push(key);
            }
        }
    }
    let stays =
        |key: &SealedKey| removed.iter().all(|gone| (gone.kind(), gone.id()) != (key.kind(), key.id()));
    for group in &mut groups {
        group.retain(stays);
    }
    let sealed = opened.rotate(&groups, &wrappers).await.map_err(|error| Failure::of(&doing, &error))?;
    let path = if args.in_place { Some(file) } else { args.output.as_ref() };
    files::give(sealed, path, Content::Ciphertext)
}

/// Gives every file the master keys that its rule names. One that fails does not keep the others from theirs.
pub(super) async fn update_keys(
    args: &UpdateKeys,
    renderer: &Renderer,
    wrappers: &Wrappers,
) -> Result<Secret<Vec<u8>>, Failure> {
    let mut failures = Vec::new();
    for file in &args.files {
        failures.extend(update(file, args, renderer, wrappers).await.err());
    }
    match failures.len() {
        0 => Ok(Secret::default()),
        1 if args.files.len() == 1 => Err(failures.remove(0)),
        _ => {
            let messages: Vec<_> = failures.iter().map(ToString::to_string).collect();
            Err(Failure::new(messages.join("\n"), 1))
        }
    }
}

async fn update(
    file: &PathBuf,
    args: &UpdateKeys,
    renderer: &Renderer,
    wrappers: &Wrappers,
) -> Result<(), Failure> {
    let doing = format!("update the keys of {}", file.display());
    let failed = |reason: &str| Failure::new(format!("failed to {doing}: {reason}"), 1);
    if !file.is_file() {
        return Err(failed("there is no such file"));
    }
    let rule = creation_of(file, args.config.as_ref())?;
    let rule = rule
        .ok_or_else(|| failed("no .sops.yaml with creation rules is there\nhelp: name one with --config"))?;
    let opened = open(&args.existing(file), renderer).await?;
    let old = &opened.envelope;
    let threshold = old.threshold.unwrap_or(rule.groups.len()).min(rule.groups.len());
    let threshold = Some(threshold).filter(|_| rule.groups.len() > 1);
    let said = old.threshold.filter(|_| old.groups.len() > 1);
    let Some(difference) = difference(&old.groups, &rule.groups, (said, threshold)) else {
        tell(&format!("{} is up to date\n", file.display()));
        return Ok(());
    };
    tell(&format!("{}:\n{difference}", file.display()));
    if !args.yes && !agreed().await.ok_or_else(|| failed("nobody agreed\nhelp: --yes agrees to all"))? {
        tell(&format!("{} stays as it is\n", file.display()));
        return Ok(());
    }
    let sealed = opened.rewrap(&rule.groups, threshold, wrappers).await;
    let sealed = sealed.map_err(|error| Failure::of(&doing, &error))?;
    files::give(sealed, Some(file), Content::Ciphertext).map(drop)
}

/// Whether the person says yes; `None` where nobody answers.
async fn agreed() -> Option<bool> {
    loop {
        match ask("Is this okay? (y/n): ").await?.trim() {
            "y" => return Some(true),
            "n" => return Some(false),
            _ => {}
        }
    }
}

/// What happens to the keys, a line for each; `None` where nothing does.
fn difference(old: &Groups, new: &Groups, (before, after): (Option<usize>, Option<usize>)) -> Option<String> {
    let mut changes = before != after;
    let mut lines = String::new();
    if before != after {
        let line = |sign, threshold: Option<usize>| {
            threshold.map(|number| format!("{sign} shamir_threshold: {number}\n")).unwrap_or_default()
        };
        lines += &(line("+++", after) + &line("---", before));
    }
    for at in 0..old.len().max(new.len()) {
        let labels =
            |groups: &Groups| groups.get(at).map_or_else(Vec::new, |group| group.iter().map(label).collect());
        let (old, new): (Vec<String>, Vec<String>) = (labels(old), labels(new));
        lines += &format!("Group {}\n", at + 1);
        for key in &new {
            let sign = if old.contains(key) { "   " } else { "+++" };
            changes |= sign == "+++";
            lines += &format!("{sign} {key}\n");
        }
        for key in old.iter().filter(|key| !new.contains(key)) {
            changes = true;
            lines += &format!("--- {key}\n");
        }
    }
    changes.then_some(lines)
}

/// What a master key is called, with all that makes it another one.
fn label(key: &SealedKey) -> String {
    let SealedKey::Kms { arn, role, context, profile, .. } = key else { return key.id() };
    let role = role.as_ref().map(|role| format!("+{role}")).unwrap_or_default();
    let pairs: Vec<_> = context.iter().map(|(name, value)| format!("{name}:{value}")).collect();
    let behind = [pairs.join(","), profile.clone().unwrap_or_default()];
    let used = if behind[1].is_empty() { usize::from(!behind[0].is_empty()) } else { 2 };
    let behind: String = behind[..used].iter().map(|part| format!("|{part}")).collect();
    format!("{arn}{role}{behind}")
}

fn tell(text: &str) {
    // Nobody is left to tell when stderr is closed.
    let _ = io::stderr().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sops::keys::named;

    fn group(names: &[&str]) -> Vec<SealedKey> {
        names.iter().map(|name| named::age(name).unwrap()).collect()
    }

    #[test]
    fn what_comes_and_goes_is_told_by_group() {
        let old = vec![group(&["a", "b"])];
        assert_eq!(difference(&old, &vec![group(&["b", "a"])], (None, None)), None);
        let new = vec![group(&["a", "c"]), group(&["d"])];
        let expected = "+++ shamir_threshold: 2\nGroup 1\n    a\n+++ c\n--- b\nGroup 2\n+++ d\n";
        assert_eq!(difference(&old, &new, (None, Some(2))).as_deref(), Some(expected));
        assert_eq!(difference(&new, &new, (Some(2), Some(2))), None);
        assert!(
            difference(&new, &new, (Some(2), Some(1))).unwrap().starts_with("+++ shamir_threshold: 1\n---")
        );
    }

    #[test]
    fn a_key_of_kms_with_another_context_is_another_key() {
        let context = [("app".to_owned(), "x".to_owned())];
        for (key, expected) in [
            (named::kms("arn:k", &[], None), "arn:k"),
            (named::kms("arn:k+arn:r", &context, None), "arn:k+arn:r|app:x"),
            (named::kms("arn:k", &[], Some("p")), "arn:k||p"),
        ] {
            assert_eq!(label(&key), expected);
        }
    }
}
