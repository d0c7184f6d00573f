//! The file that holds the master keys: one line a key, `<id>:<base64 of 32 bytes>`, first line seals.
//!
//! Made at the first start with mode 0600. Refuses to guess: a file that is missing although the store
//! already exists, or that cannot be read as keys, stops the start and changes nothing.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rand::Rng;
use zeroize::Zeroizing;

use super::{KEY_BYTES, KeyRing};

#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    #[error("cannot read the key file {path}: {source}")]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("cannot create the key file {path}: {source}")]
    Uncreatable { path: PathBuf, source: io::Error },
    #[error("line {line} of the key file {path} is not `<number>:<base64 of 32 bytes>`")]
    Malformed { path: PathBuf, line: usize },
    #[error("the key file {path} names key {id} twice")]
    Repeated { path: PathBuf, id: u32 },
    #[error("the key file {path} is there already; `ringback keys rotate sealing` adds a key to it")]
    Exists { path: PathBuf },
    #[error("the key file {path} has no number left for a further key")]
    Full { path: PathBuf },
    #[error("the key file {path} holds no key")]
    Empty { path: PathBuf },
    #[error(
        "the key file {path} is missing, but the store exists and is sealed with it; put the file back \
         (a new key could not open a single task)"
    )]
    Missing { path: PathBuf },
}

/// Reads the ring from `path`.
///
/// # Errors
/// The file is missing, unreadable or malformed.
pub fn load(path: &Path) -> Result<KeyRing, KeyFileError> {
    load_or_create(path, false)
}

/// Makes a key file with one fresh key.
///
/// # Errors
/// It is there already, or cannot be created.
pub fn create_new(path: &Path) -> Result<(), KeyFileError> {
    create(path).map(drop).map_err(|error| match error {
        KeyFileError::Uncreatable { path, source } if source.kind() == io::ErrorKind::AlreadyExists => {
            KeyFileError::Exists { path }
        }
        error => error,
    })
}

/// Puts a fresh key before the others, so that it seals from the next reading on and the others still
/// open. The file changes in one step: whoever reads it meanwhile reads the old one or the new one.
///
/// # Errors
/// The file cannot be read or written; then it is as it was.
pub fn add_key(path: &Path) -> Result<u32, KeyFileError> {
    let ring = load(path)?;
    let full = || KeyFileError::Full { path: path.to_owned() };
    let id = ring.ids().into_iter().max().unwrap_or(0).checked_add(1).ok_or_else(full)?;
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    rand::rng().fill_bytes(&mut key[..]);
    let add = || -> io::Result<()> {
        let mut text = Zeroizing::new(String::new());
        File::open(path)?.read_to_string(&mut text)?;
        let line = Zeroizing::new(format!("{id}:{}\n", STANDARD.encode(&key[..])));
        let at = first_key_at(&text);
        replace(path, &[&text[..at], &line, &text[at..]])
    };
    add().map_err(|source| KeyFileError::Uncreatable { path: path.to_owned(), source })?;
    Ok(id)
}

/// Writes the file in one step, so that neither a full disk nor a power cut leaves half of it: a file that
/// holds no key would bar every later start. The store must never outlive its key, so file and directory
/// entry are durable when this returns.
fn replace(path: &Path, parts: &[&str]) -> io::Result<()> {
    let beside = path.with_extension("keys-new");
    // What an interrupted change left was never in use.
    match std::fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    for part in parts {
        file.write_all(part.as_bytes())?;
    }
    file.sync_all()?;
    std::fs::rename(&beside, path)?;
    File::open(directory_of(path))?.sync_all()
}

/// Where the first line that holds a key begins.
fn first_key_at(text: &str) -> usize {
    let is_key = |line: &str| !line.trim().is_empty() && !line.trim().starts_with('#');
    text.split_inclusive('\n').take_while(|line| !is_key(line)).map(str::len).sum()
}

/// Reads the ring from `path`; with `may_create` and no file there, makes one with a fresh key.
///
/// # Errors
/// The file is missing, unreadable or malformed, or cannot be created.
pub fn load_or_create(path: &Path, may_create: bool) -> Result<KeyRing, KeyFileError> {
    let mut text = Zeroizing::new(String::new());
    match File::open(path).and_then(|mut file| file.read_to_string(&mut text)) {
        Ok(_) => parse(path, &text),
        Err(error) if error.kind() == io::ErrorKind::NotFound && may_create => create(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(KeyFileError::Missing { path: path.to_owned() })
        }
        Err(source) => Err(KeyFileError::Unreadable { path: path.to_owned(), source }),
    }
}

fn create(path: &Path) -> Result<KeyRing, KeyFileError> {
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    rand::rng().fill_bytes(&mut key[..]);
    let line = Zeroizing::new(format!(
        "# Ringback master keys. Whoever has them can read the store; without them nobody can.\n1:{}\n",
        STANDARD.encode(&key[..])
    ));
    let write = || -> io::Result<()> {
        if path.exists() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        replace(path, &[&line])
    };
    write().map_err(|source| KeyFileError::Uncreatable { path: path.to_owned(), source })?;
    Ok(KeyRing::new(&[(1, key)]))
}

/// Where a file's entry is; a bare file name's parent is an empty path, which cannot be opened.
fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn parse(path: &Path, text: &str) -> Result<KeyRing, KeyFileError> {
    let mut keys: Vec<(u32, Zeroizing<[u8; KEY_BYTES]>)> = Vec::new();
    for (index, line) in text.lines().map(str::trim).enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let malformed = || KeyFileError::Malformed { path: path.to_owned(), line: index + 1 };
        let (id, key) = line.split_once(':').ok_or_else(malformed)?;
        let id = id.trim().parse().map_err(|_| malformed())?;
        let bytes = Zeroizing::new(STANDARD.decode(key.trim()).map_err(|_| malformed())?);
        let key = <[u8; KEY_BYTES]>::try_from(&bytes[..]).map_err(|_| malformed())?;
        if keys.iter().any(|(other, _)| *other == id) {
            return Err(KeyFileError::Repeated { path: path.to_owned(), id });
        }
        keys.push((id, Zeroizing::new(key)));
    }
    if keys.is_empty() {
        return Err(KeyFileError::Empty { path: path.to_owned() });
    }
    Ok(KeyRing::new(&keys))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_first_start_makes_a_private_file_and_the_second_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        let sealed = load_or_create(&path, true).unwrap().seal_node_secret(b"x");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let again = load_or_create(&path, false).unwrap();
        assert_eq!(&again.open_node_secret(sealed).unwrap()[..], b"x");
    }

    #[test]
    fn the_directory_of_a_bare_file_name_is_the_current_one() {
        assert_eq!(directory_of(Path::new("keys")), Path::new("."));
        assert_eq!(directory_of(Path::new("/etc/ringback/keys")), Path::new("/etc/ringback"));
    }

    #[test]
    fn a_missing_or_malformed_file_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        assert!(matches!(load_or_create(&path, false), Err(KeyFileError::Missing { .. })));
        for (text, line) in [("1:AAAA\n", 1), ("# c\n\nx\n", 3), ("-1:AAAA\n", 1)] {
            std::fs::write(&path, text).unwrap();
            assert!(
                matches!(load_or_create(&path, true), Err(KeyFileError::Malformed { line: at, .. }) if at == line)
            );
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
        std::fs::write(&path, "# nothing\n").unwrap();
        assert!(matches!(load_or_create(&path, true), Err(KeyFileError::Empty { .. })));
    }

    #[test]
    fn a_further_key_seals_the_older_ones_still_open_and_the_file_stays_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ringback.keys");
        create_new(&path).unwrap();
        assert!(matches!(create_new(&path), Err(KeyFileError::Exists { .. })));
        let sealed = load(&path).unwrap().seal_node_secret(b"x");
        std::fs::write(path.with_extension("keys-new"), "left by an interrupted rotation").unwrap();
        assert_eq!(add_key(&path).unwrap(), 2);
        assert_eq!(add_key(&path).unwrap(), 3);
        let ring = load(&path).unwrap();
        assert_eq!(ring.ids(), [3, 2, 1]);
        assert_eq!(&ring.open_node_secret(sealed).unwrap()[..], b"x");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("# ") && text.lines().count() == 4, "{} lines", text.lines().count());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
