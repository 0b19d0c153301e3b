//! All that helm reads of a chart, for whoever wants to know whether two charts are the same.

use std::cell::Cell;
use std::io::{self, BufReader, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;

use super::{ARCHIVE, ARCHIVE_DEPTH, ARCHIVE_LIMIT, ChartError, Metered, Walk};

/// A file that is larger is no part of any chart that is worth keeping a render of, in bytes.
const FILE_LIMIT: u64 = 32 << 20;

/// Gives `file` every file of the chart in `directory`, with its path in the chart and its content; a packed chart as it is
/// and then, under its own path, each file in it. `false` when one of them is too large to be looked at.
///
/// `directory` is in the repository at `root`, and was confined to it by [`super::Chart::confine`].
pub fn each_file(
    root: &Path,
    directory: &Path,
    mut file: impl FnMut(&str, &[u8]),
) -> Result<bool, ChartError> {
    let unpacked = Cell::new(ARCHIVE_LIMIT);
    let mut all = true;
    Walk::through(root, directory, |found| {
        let io = |source| ChartError::Io { path: found.spelled.clone(), source };
        let Some(content) = read(found.open()?).map_err(io)? else {
            all = false;
            return Ok(());
        };
        file(&found.inside, &content);
        if found.name().ends_with(ARCHIVE) {
            let broken = |source| ChartError::Archive { path: found.spelled.clone(), source };
            all &= unpack(&content, &found.inside, &unpacked, ARCHIVE_DEPTH, &mut file).map_err(broken)?;
        }
        Ok(())
    })?;
    Ok(all)
}

fn read(file: impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut content = Vec::new();
    file.take(FILE_LIMIT + 1).read_to_end(&mut content)?;
    Ok((content.len() as u64 <= FILE_LIMIT).then_some(content))
}

fn unpack(
    packed: &[u8],
    inside: &str,
    left: &Cell<usize>,
    depth: usize,
    file: &mut impl FnMut(&str, &[u8]),
) -> io::Result<bool> {
    if depth == 0 {
        return Ok(false);
    }
    let mut archive = tar::Archive::new(Metered { inner: MultiGzDecoder::new(BufReader::new(packed)), left });
    for entry in archive.entries()? {
        let entry = entry?;
        let path = format!("{inside}/{}", entry.path()?.display());
        let Some(content) = read(entry)? else { return Ok(false) };
        file(&path, &content);
        if path.ends_with(ARCHIVE) && !unpack(&content, &path, left, depth - 1, file)? {
            return Ok(false);
        }
    }
    Ok(true)
}
