//! Where keys are found: the operator's keys folder, and the places that sops itself looks at for age.
//!
//! A file of the folder is recognised by its content, whatever it is called. A mounted Kubernetes Secret is such a
//! folder: its files are links through `..data`, so entries that start with `..` are passed over. A file that is
//! no usable key is noted, and the others are loaded all the same. Nothing here is ever written.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::environment::Environment;
use crate::secret::Secret;
use crate::sops::keys::KeyUnwrap;
use crate::sops::keys::age::AgeKeys;
use crate::sops::keys::age::plugin::Plugins;
use crate::sops::keys::gpg::Gpg;
use crate::sops::keys::pgp::PgpKeys;
use crate::sops::keys::pgp::seal::PgpRecipients;

/// A key file is a few KB; a whole keyring exported from gpg may be more.
const FILE_LIMIT: u64 = 4 * 1024 * 1024;
const FILES_LIMIT: usize = 1000;
/// Folders inside the folder, as a projected volume makes them.
pub const DEPTH_LIMIT: usize = 3;

const AGE_BLOCK: &str = "AGE ENCRYPTED FILE";
const PUBLIC_BLOCK: &str = "PGP PUBLIC KEY BLOCK";
const SECRET_BLOCK: &str = "PGP PRIVATE KEY BLOCK";
const SSH_BLOCKS: [&str; 2] = ["OPENSSH PRIVATE KEY", "RSA PRIVATE KEY"];

/// The keys that were found, and what was noticed on the way.
#[derive(Debug, Default)]
pub struct LocalKeys {
    age: AgeKeys,
    pgp: PgpKeys,
    places: Vec<String>,
    problems: Vec<String>,
}

impl LocalKeys {
    /// Keys of any kind that are protected by a passphrase are unlocked with this one.
    pub fn with_passphrase(passphrase: Option<&Secret<String>>) -> Self {
        Self {
            age: AgeKeys::with_passphrase(passphrase),
            pgp: PgpKeys::with_passphrase(passphrase),
            ..Self::default()
        }
    }

    /// Age identities that need a plugin are used, where there are `plugins`, and refused otherwise.
    #[must_use]
    pub fn with_plugins(self, plugins: Option<Plugins>) -> Self {
        Self { age: self.age.with_plugins(plugins), ..self }
    }

    /// Loads every key of the folder at `path`. A folder that is not there holds no keys.
    pub fn add_folder(&mut self, path: &Path) {
        let place = path.display().to_string();
        let mut files = Vec::new();
        match list(path, 0, &mut files) {
            Ok(()) => {}
            Err(error) => return self.places.push(format!("keys folder {place}: {}", error.kind())),
        }
        files.sort();
        if files.len() > FILES_LIMIT {
            self.problems.push(format!("{place} holds more than {FILES_LIMIT} files; the rest is not read"));
        }
        let before = (self.age.len(), self.pgp.len());
        for file in files.iter().take(FILES_LIMIT) {
            self.add_file(file);
        }
        let (age, pgp) = (self.age.len() - before.0, self.pgp.len() - before.1);
        self.places.push(format!("keys folder {place}: {}", counted(age, pgp)));
    }

    /// Loads the age identities that sops would find: `SOPS_AGE_KEY`, `SOPS_AGE_KEY_FILE`,
    /// `SOPS_AGE_SSH_PRIVATE_KEY_FILE`, `sops/age/keys.txt` of the user's configuration, and the user's SSH keys.
    ///
    /// Variables that name a command are noted and not run.
    pub fn add_environment(&mut self, environment: &Environment) {
        let before = self.age.len();
        if let Some(text) = environment.get("SOPS_AGE_KEY") {
            let problems = self.age.add_identities(text);
            self.problems.extend(problems.into_iter().map(|problem| format!("SOPS_AGE_KEY: {problem}")));
        }
        for name in ["SOPS_AGE_KEY_FILE", "SOPS_AGE_SSH_PRIVATE_KEY_FILE"] {
            if let Some(path) = environment.get(name) {
                self.add_file(Path::new(path));
            }
        }
        for name in ["SOPS_AGE_KEY_CMD", "SOPS_AGE_SSH_PRIVATE_KEY_CMD"] {
            if environment.get(name).is_some() {
                self.problems.push(format!("{name} is not run; put the key into the keys folder"));
            }
        }
        for path in usual_places(environment).into_iter().filter(|path| path.is_file()) {
            self.add_file(&path);
        }
        let found = self.age.len() - before;
        if found > 0 {
            self.places.push(format!("environment and home: {}", counted(found, 0)));
        }
    }

    /// Loads whatever the file at `path` holds.
    pub fn add_file(&mut self, path: &Path) {
        let outcome = read(path).and_then(|content| self.add_content(content.expose()));
        let problems = outcome.unwrap_or_else(|problem| vec![problem]);
        for problem in problems {
            tracing::warn!(file = %path.display(), problem, "a key file is not used");
            self.problems.push(format!("{}: {problem}", path.display()));
        }
    }

    /// What was loaded from where, and what could not be used, one line each.
    pub fn notes(&self) -> Vec<String> {
        let problems = self.problems.iter().map(|problem| format!("not used: {problem}"));
        self.places.iter().cloned().chain(problems).collect()
    }

    /// The holders that open data keys with these keys.
    pub fn into_holders(self) -> Vec<Arc<dyn KeyUnwrap>> {
        vec![Arc::new(self.age), Arc::new(self.pgp)]
    }

    /// Problems of parts of the file, or the one problem of the whole file.
    fn add_content(&mut self, content: &[u8]) -> Result<Vec<String>, String> {
        if content.first().is_some_and(|byte| byte & 0x80 != 0) {
            return self.pgp.add(content).map(|()| Vec::new());
        }
        if content.starts_with(b"age-encryption.org/") {
            return self.age.add_locked_identities(content);
        }
        let text = std::str::from_utf8(content).map_err(|_| "not a key".to_owned())?;
        let locked = blocks(text, AGE_BLOCK);
        let pgp = blocks(text, SECRET_BLOCK);
        let ssh: Vec<_> = SSH_BLOCKS.iter().flat_map(|label| blocks(text, label)).collect();
        let mut problems = Vec::new();
        problems.extend(pgp.iter().filter_map(|block| self.pgp.add(block.as_bytes()).err()));
        problems.extend(ssh.iter().filter_map(|block| self.age.add_ssh_key(block).err()));
        for block in &locked {
            let outcome = self.age.add_locked_identities(block.as_bytes());
            problems.extend(outcome.unwrap_or_else(|problem| vec![problem]));
        }
        if !pgp.is_empty() || !ssh.is_empty() || !locked.is_empty() {
            Ok(problems)
        } else if text.lines().any(|line| line.trim_start().to_ascii_uppercase().starts_with("AGE-")) {
            Ok(self.age.add_identities(text))
        } else {
            Err(unusable(text).to_owned())
        }
    }
}

/// The public halves of all OpenPGP keys of the folder at `path`, for sealing.
pub fn recipients_of(path: &Path, gpg: Option<Gpg>) -> PgpRecipients {
    let mut recipients = PgpRecipients::new(gpg);
    let mut files = Vec::new();
    // A folder that is not there holds no keys.
    let _ = list(path, 0, &mut files);
    files.sort();
    for content in files.iter().take(FILES_LIMIT).filter_map(|file| read(file).ok()) {
        if content.expose().first().is_some_and(|byte| byte & 0x80 != 0) {
            recipients.add(content.expose());
        } else if let Ok(text) = std::str::from_utf8(content.expose()) {
            let armored = [SECRET_BLOCK, PUBLIC_BLOCK].into_iter().flat_map(|label| blocks(text, label));
            armored.for_each(|block| recipients.add(block.as_bytes()));
        }
    }
    recipients
}

/// Why a text file without any secret key is not used.
fn unusable(text: &str) -> &'static str {
    if text.contains("-----BEGIN PGP PUBLIC KEY BLOCK-----") {
        "it holds an OpenPGP public key only; export the secret key (gpg --export-secret-keys --armor)"
    } else if text.contains("PRIVATE KEY-----") {
        "this format of private key is not supported; SSH keys must be in OpenSSH's or PEM (RSA) format"
    } else if text.trim().is_empty() {
        "it is empty"
    } else {
        "not an OpenPGP secret key, age identity or SSH private key"
    }
}

/// Every `-----BEGIN label----- … -----END label-----` of `text`.
fn blocks<'a>(text: &'a str, label: &str) -> Vec<&'a str> {
    let (begin, end) = (format!("-----BEGIN {label}-----"), format!("-----END {label}-----"));
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(from) = rest.find(&begin) {
        let block = &rest[from..];
        let to = block.find(&end).map_or(block.len(), |at| at + end.len());
        // The line break belongs to the block: the SSH parser wants it.
        let to = to + block[to..].find(|c| c != '\r' && c != '\n').unwrap_or(block.len() - to).min(2);
        found.push(&block[..to]);
        rest = &block[to..];
    }
    found
}

fn list(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(b"..") || files.len() > FILES_LIMIT {
            continue;
        }
        let path = entry.path();
        if !path.is_dir() {
            files.push(path);
        } else if depth + 1 < DEPTH_LIMIT {
            list(&path, depth + 1, files)?;
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<Secret<Vec<u8>>, String> {
    let told = |error: std::io::Error| error.kind().to_string();
    let file = fs::File::open(path).map_err(told)?;
    let metadata = file.metadata().map_err(told)?;
    if !metadata.is_file() {
        return Err("not a regular file".to_owned());
    }
    if metadata.len() > FILE_LIMIT {
        return Err("too large for a key".to_owned());
    }
    // Room for all of it at once: growing would leave copies behind.
    let mut content = Secret::new(Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0) + 1));
    file.take(FILE_LIMIT).read_to_end(content.expose_mut()).map_err(told)?;
    Ok(content)
}

/// Where sops looks without being told.
fn usual_places(environment: &Environment) -> Vec<PathBuf> {
    let home = environment.get("HOME").map(PathBuf::from);
    let config = environment
        .get("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| home.as_ref().map(|home| home.join(".config")));
    let mut places: Vec<_> = config.map(|config| config.join("sops/age/keys.txt")).into_iter().collect();
    places.extend(home.iter().flat_map(|home| [home.join(".ssh/id_ed25519"), home.join(".ssh/id_rsa")]));
    places
}

fn counted(age: usize, pgp: usize) -> String {
    let one = |n: usize, singular: &str, plural: &str| match n {
        1 => format!("1 {singular}"),
        n => format!("{n} {plural}"),
    };
    match (age, pgp) {
        (0, 0) => "no keys".to_owned(),
        (age, 0) => one(age, "age identity", "age identities"),
        (0, pgp) => one(pgp, "OpenPGP key", "OpenPGP keys"),
        (age, pgp) => {
            format!(
                "{}, {}",
                one(age, "age identity", "age identities"),
                one(pgp, "OpenPGP key", "OpenPGP keys")
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::sops::keys::testing::fixture;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in files {
            fs::write(folder.path().join(name), content).unwrap();
        }
        folder
    }

    fn loaded(folder: &Path) -> LocalKeys {
        let mut keys = LocalKeys::default();
        keys.add_folder(folder);
        keys
    }

    #[test]
    fn keys_are_recognised_by_content_whatever_the_file_is_called() {
        let several =
            [fixture("pgp-rsa2048.key.asc"), fixture("pgp-public.asc"), fixture("pgp-expired.key.asc")];
        let folder = folder(&[
            ("a.txt", several.join("\nsome text\n").as_str()),
            ("b", &fixture("age-identities.txt")),
            ("c.yaml", &fixture("ssh-ed25519.key")),
            ("d.pem", &fixture("ssh-rsa.key")),
        ]);
        let keys = loaded(folder.path());
        assert_eq!((keys.pgp.len(), keys.age.len()), (2, 4));
        let expected = format!("keys folder {}: 4 age identities, 2 OpenPGP keys", folder.path().display());
        assert_eq!(keys.notes(), [expected]);
    }

    #[test]
    fn binary_openpgp_keys_are_recognised() {
        let mut packets = Vec::new();
        let armored = fixture("pgp-curve25519.key.asc");
        sequoia_openpgp::armor::Reader::from_bytes(armored.as_bytes(), None)
            .read_to_end(&mut packets)
            .unwrap();
        let folder = folder(&[]);
        fs::write(folder.path().join("secring.gpg"), packets).unwrap();
        assert_eq!(loaded(folder.path()).pgp.len(), 1);
    }

    #[test]
    fn a_mounted_secret_is_read_through_its_links_and_each_key_once() {
        let folder = folder(&[]);
        let data = folder.path().join("..2026");
        fs::create_dir(&data).unwrap();
        fs::write(data.join("age.txt"), fixture("age-identities.txt")).unwrap();
        symlink("..2026", folder.path().join("..data")).unwrap();
        symlink("..data/age.txt", folder.path().join("age.txt")).unwrap();
        symlink("..data/age.txt", folder.path().join("again.txt")).unwrap();
        let keys = loaded(folder.path());
        assert_eq!((keys.age.len(), keys.problems.len()), (2, 0));
    }

    #[test]
    fn one_bad_file_does_not_spoil_the_rest_and_is_named() {
        let truncated = fixture("pgp-rsa2048.key.asc");
        let folder = folder(&[
            ("1-good", &fixture("age-identities.txt")),
            ("2-noise", "password: STRONGROOM-MARKER"),
            ("3-public", &fixture("pgp-public.asc")),
            ("4-cut", &truncated[..600]),
            ("5-locked", &fixture("ssh-locked.key")),
            ("6-pq", "AGE-SECRET-KEY-PQ-1STRONGROOM-MARKER"),
            ("7-empty", "\n"),
            ("8-age", "-----BEGIN AGE ENCRYPTED FILE-----\nSTRONGROOM-MARKER\n"),
            ("9-pkcs8", "-----BEGIN PRIVATE KEY-----\nSTRONGROOM-MARKER\n"),
        ]);
        symlink("nowhere", folder.path().join("z-dangling")).unwrap();
        let keys = loaded(folder.path());
        assert_eq!(keys.age.len(), 2);
        let path = folder.path().display().to_string();
        let problems: Vec<_> =
            keys.problems.iter().map(|problem| problem.replace(&path, "").replace('/', "")).collect();
        assert_eq!(
            problems,
            [
                "2-noise: not an OpenPGP secret key, age identity or SSH private key",
                "3-public: it holds an OpenPGP public key only; export the secret key (gpg --export-secret-keys --armor)",
                "4-cut: the OpenPGP key is damaged",
                "5-locked: the SSH key is protected by a passphrase; name the file that holds it in STRONGROOM_PASSPHRASE_FILE",
                "6-pq: line 1: the age identity is damaged",
                "7-empty: it is empty",
                "8-age: the age identity is protected by a passphrase; name the file that holds it in STRONGROOM_PASSPHRASE_FILE",
                "9-pkcs8: this format of private key is not supported; SSH keys must be in OpenSSH's or PEM (RSA) format",
                "z-dangling: entity not found",
            ]
        );
        assert!(!keys.notes().join("\n").contains("MARKER"));
        assert!(!format!("{keys:?}").contains("MARKER"));
    }

    #[test]
    fn locked_keys_of_every_kind_are_unlocked_with_one_passphrase() {
        let armored = fixture("age-locked.txt");
        let mut binary = Vec::new();
        ::age::armor::ArmoredReader::new(armored.as_bytes()).read_to_end(&mut binary).unwrap();
        let with = |name: &str, content: &[u8]| {
            let folder = folder(&[("locked.key", &fixture("ssh-locked.key"))]);
            fs::write(folder.path().join(name), content).unwrap();
            let mut keys = LocalKeys::with_passphrase(Some(&Secret::new("STRONGROOM-MARKER".to_owned())));
            keys.add_folder(folder.path());
            (keys.age.len(), keys.problems)
        };
        assert_eq!(with("armored", armored.as_bytes()), (3, Vec::new()));
        assert_eq!(with("binary", &binary), (3, Vec::new()));
    }

    #[test]
    fn a_folder_that_is_not_there_holds_no_keys() {
        let keys = loaded(Path::new("/nonexistent/keys"));
        assert_eq!(keys.notes(), ["keys folder /nonexistent/keys: entity not found"]);
    }

    #[test]
    fn the_variables_and_places_of_sops_are_looked_at() {
        let home = folder(&[("key.txt", &fixture("age-identities.txt")), ("ssh", &fixture("ssh-rsa.key"))]);
        fs::create_dir(home.path().join(".ssh")).unwrap();
        fs::write(home.path().join(".ssh/id_ed25519"), fixture("ssh-ed25519.key")).unwrap();
        let at = |name: &str| home.path().join(name).into_os_string();
        let environment = Environment::from_iter([
            ("HOME", home.path().as_os_str().to_owned()),
            ("SOPS_AGE_KEY", "# comment\nSTRONGROOM-MARKER".into()),
            ("SOPS_AGE_KEY_FILE", at("key.txt")),
            ("SOPS_AGE_SSH_PRIVATE_KEY_FILE", at("ssh")),
            ("SOPS_AGE_KEY_CMD", "touch /tmp/STRONGROOM-MARKER".into()),
        ]);
        let mut keys = LocalKeys::default();
        keys.add_environment(&environment);
        assert_eq!(
            keys.notes(),
            [
                "environment and home: 4 age identities",
                "not used: SOPS_AGE_KEY: line 2: not an age identity",
                "not used: SOPS_AGE_KEY_CMD is not run; put the key into the keys folder",
            ]
        );
    }
}
