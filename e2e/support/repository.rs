//! A repository with an application in it, made for one test.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::tools::top;

/// A temporary folder that looks like a checked-out repository, gone when dropped.
#[derive(Debug)]
pub struct Repository {
    folder: TempDir,
}

/// The chart of the stories: one Secret with `.Values.password`.
const SECRET_TEMPLATE: &str = "\
apiVersion: v1
kind: Secret
metadata:
  name: {{ .Release.Name }}
data:
  password: {{ .Values.password | b64enc | quote }}
";

impl Repository {
    /// With a `.git` and nothing else.
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("strongroom-e2e-").tempdir().unwrap();
        fs::create_dir(folder.path().join(".git")).unwrap();
        Self { folder }
    }

    /// With a chart in `app` whose one template is a Secret with `password: {{ .Values.password | b64enc | quote }}`.
    pub fn with_secret_chart() -> Self {
        let repository = Self::new();
        repository.write("app/Chart.yaml", "apiVersion: v2\nname: app\nversion: 0.1.0\n");
        repository.write("app/templates/secret.yaml", SECRET_TEMPLATE);
        repository
    }

    /// With a copy of `examples/<name>` in `app`.
    pub fn with_example(name: &str) -> Self {
        let repository = Self::new();
        copy(&top().join("examples").join(name), &repository.path().join("app"));
        repository
    }

    /// The repository's root, without symlinks.
    pub fn path(&self) -> PathBuf {
        self.folder.path().canonicalize().unwrap()
    }

    /// Writes one file, with the folders above it, and returns its path.
    pub fn write(&self, path: impl AsRef<Path>, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    /// Every file in it with its content, every link with its target: two calls that give the same show that a run in between left nothing behind.
    pub fn snapshot(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut files = Vec::new();
        list(&self.path(), &mut files);
        files.sort();
        files
    }
}

/// Copies a folder with everything in it.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Adds every file below a folder, with content.
pub fn list(folder: &Path, files: &mut Vec<(PathBuf, Vec<u8>)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        if kind.is_dir() {
            list(&path, files);
        } else if kind.is_symlink() {
            let target = fs::read_link(&path).unwrap();
            files.push((path, target.into_os_string().into_encoded_bytes()));
        } else {
            let content = fs::read(&path).unwrap();
            files.push((path, content));
        }
    }
}
