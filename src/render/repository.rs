//! Where the repository of an app begins: nothing outside that directory is read for a render.

use std::path::{Component, Path, PathBuf};

/// The root of the repository that holds `app_dir`, both absolute.
///
/// Argo CD unpacks the repository, or the part of it that the app's annotations name, into a directory of its own;
/// `source_path` is the app's path in the whole repository. So the root is found by taking the longest common end
/// of both paths off `app_dir`: it can never lead above the directory that was unpacked, whose name is random.
pub fn root_of(app_dir: &Path, source_path: Option<&Path>) -> Option<PathBuf> {
    match source_path {
        Some(source_path) if source_path.components().all(is_plain) => {
            let common = app_dir.components().rev().zip(names(source_path).rev());
            let depth = common.take_while(|(own, told)| own == told).count();
            app_dir.ancestors().nth(depth).map(Path::to_owned)
        }
        Some(_) => None,
        None => app_dir.ancestors().find(|directory| directory.join(".git").exists()).map(Path::to_owned),
    }
}

fn is_plain(component: Component<'_>) -> bool {
    matches!(component, Component::Normal(_) | Component::CurDir)
}

fn names(path: &Path) -> impl DoubleEndedIterator<Item = Component<'_>> {
    path.components().filter(|component| matches!(component, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_above_the_app_s_own_path_and_no_higher() {
        let cases = [
            ("/tmp/x/123/apps/shop", Some("apps/shop"), Some("/tmp/x/123")),
            ("/tmp/x/123/apps/shop", Some("./apps/shop/"), Some("/tmp/x/123")),
            // Only the common root of the annotated paths was sent.
            ("/tmp/x/123/shop", Some("apps/shop"), Some("/tmp/x/123")),
            ("/tmp/x/123", Some("."), Some("/tmp/x/123")),
            ("/tmp/x/123", Some("apps/shop"), Some("/tmp/x/123")),
            ("/tmp/x/123/apps/shop", Some("../../apps/shop"), None),
            ("/tmp/x/123/apps/shop", Some("/apps/shop"), None),
        ];
        for (app_dir, source_path, root) in cases {
            let found = root_of(Path::new(app_dir), source_path.map(Path::new));
            assert_eq!(found.as_deref(), root.map(Path::new), "{app_dir} {source_path:?}");
        }
    }

    #[test]
    fn without_a_source_path_the_nearest_git_directory_is_the_root() {
        let root = tempfile::tempdir().unwrap();
        let app = root.path().join("charts/shop");
        std::fs::create_dir_all(root.path().join(".git")).unwrap();
        std::fs::create_dir_all(&app).unwrap();
        assert_eq!(root_of(&app, None).as_deref(), Some(root.path()));
    }
}
