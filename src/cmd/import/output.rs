//! Where manifests go: to standard output, or one file each, none of them overwritten.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// A manifest that could not be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the folder {path} cannot be made: {source}; give --output a folder that can be written to")]
    Folder { path: PathBuf, source: std::io::Error },
    #[error("{0} is there already and is not overwritten: remove it, or give --output another folder")]
    Exists(PathBuf),
    #[error("{path} cannot be written: {source}")]
    Write { path: PathBuf, source: std::io::Error },
}

/// Where documents go.
#[derive(Debug)]
pub(super) struct Output<'a> {
    folder: Option<&'a Path>,
}

impl<'a> Output<'a> {
    pub(super) fn new(folder: Option<&'a Path>) -> Result<Self, Error> {
        if let Some(path) = folder {
            std::fs::create_dir_all(path)
                .map_err(|source| Error::Folder { path: path.to_owned(), source })?;
        }
        Ok(Self { folder })
    }

    /// Refuses files that are there already, before any is written.
    pub(super) fn expect_none_of(&self, mut files: impl Iterator<Item = String>) -> Result<(), Error> {
        let Some(folder) = self.folder else { return Ok(()) };
        let there = files.find_map(|file| Some(folder.join(file)).filter(|path| path.exists()));
        there.map_or(Ok(()), |path| Err(Error::Exists(path)))
    }

    pub(super) fn document(&mut self, file: &str, text: &str) -> Result<(), Error> {
        self.write(file, text, 0o644)
    }

    /// A document that only its owner may read.
    pub(super) fn secret(&mut self, file: &str, text: &str) -> Result<(), Error> {
        self.write(file, text, 0o600)
    }

    fn write(&mut self, file: &str, text: &str, mode: u32) -> Result<(), Error> {
        let Some(folder) = self.folder else {
            return std::io::stdout()
                .write_all(text.as_bytes())
                .map_err(|source| Error::Write { path: PathBuf::from("standard output"), source });
        };
        let path = folder.join(file);
        let opened = OpenOptions::new().write(true).create_new(true).mode(mode).open(&path);
        match opened.and_then(|mut file| file.write_all(text.as_bytes())) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Err(Error::Exists(path)),
            Err(source) => Err(Error::Write { path, source }),
        }
    }
}
