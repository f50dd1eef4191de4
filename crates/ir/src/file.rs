//! Writes a file whole or not at all: beside its place first, then renamed into it.
//!
//! A reader, or a run that is stopped midway, sees the old file or the new one and never half of either. The
//! temporary file deletes itself on every error.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use crate::{Error, ErrorKind, Result};

/// Replaces the file at `path`, whole or not at all.
///
/// # Errors
/// `ErrorKind::Io` naming `path`, with nothing left behind, if its directory is missing or not writable, or
/// `path` is a directory.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    replace(path, bytes)
        .map_err(|error| Error::caused_by(ErrorKind::Io, format!("cannot write {}", path.display()), error))
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    // `create_new`, not the crate's own way, which makes a file that only its owner may read.
    let mut file = tempfile::Builder::new().prefix(".kiln-").make_in(directory, |path| File::create_new(path))?;
    file.as_file_mut().write_all(bytes)?;
    file.as_file().sync_all()?; // else a crash after the rename could leave an empty file
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_and_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.txt");
        write_file(&path, b"long old text").unwrap();
        write_file(&path, b"new").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1);
    }

    #[test]
    fn a_missing_directory_is_named_and_not_made() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("none").join("a.txt");
        let error = write_file(&path, b"x").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
        let start = format!("cannot write {}: ", path.display());
        assert!(error.to_string().starts_with(&start) && !error.to_string().contains(".kiln-"), "{error}");
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0);
    }

    #[test]
    fn a_directory_in_the_way_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("taken");
        std::fs::create_dir(&path).unwrap();
        let error = write_file(&path, b"x").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(error.to_string().contains("taken"), "{error}");
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1);
        let file = dir.path().join("file");
        std::fs::write(&file, b"kept").unwrap();
        assert_eq!(write_file(&file.join("a.txt"), b"x").unwrap_err().kind(), ErrorKind::Io);
        assert_eq!(std::fs::read(&file).unwrap(), b"kept");
        assert_eq!(write_file(Path::new(""), b"x").unwrap_err().kind(), ErrorKind::Io);
    }

    #[cfg(unix)]
    #[test]
    fn a_result_is_not_private() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let (ours, plain) = (dir.path().join("a"), dir.path().join("b"));
        write_file(&ours, b"x").unwrap();
        std::fs::write(&plain, b"x").unwrap();
        let mode = |path| std::fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(ours), mode(plain));
    }
}
