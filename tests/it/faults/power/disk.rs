//! A disk as it may be after a power cut: what was synced, and any part of the rest.
//!
//! As strict as POSIX allows: a file's content is durable when the file was synced, its name when the
//! directory was. Names become durable in the order they were made; contents in any order, by sectors.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

const SECTOR: usize = 512;

/// One record of the edge. Paths are relative to the root.
pub enum Op {
    Open {
        inode: u64,
        created: bool,
        path: PathBuf,
    },
    Write {
        inode: u64,
        at: usize,
        data: Vec<u8>,
    },
    Truncate {
        inode: u64,
        size: usize,
    },
    Sync(u64),
    /// A sync that failed: what it was for is never written out.
    Forget(u64),
    Name(Name),
    SyncNames(PathBuf),
    Sent(Vec<u8>),
}

/// A change of names.
#[derive(Clone)]
pub enum Name {
    File(PathBuf, usize),
    Directory(PathBuf),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf),
}

/// Reads a record; its last entry may be cut off.
pub fn read(record: &[u8]) -> Vec<Op> {
    // The first thing a node changes is to make its data directory, below the root.
    let first = record.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"M "));
    let data_dir = std::str::from_utf8(first.expect("a node makes its data directory")).expect("a path");
    let root = Path::new(data_dir).parent().expect("it is below the root").to_owned();
    let below = |path: &str| Path::new(path).strip_prefix(&root).expect("it is below the root").to_owned();
    let mut ops = Vec::new();
    let mut rest = record;
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let line = std::str::from_utf8(&rest[..end]).expect("heads of records are text");
        rest = &rest[end + 1..];
        let words: Vec<&str> = line.split(' ').collect();
        let number = |index: usize| words[index].parse::<usize>().expect("a number");
        let mut payload = |length: usize| {
            let (data, after) = rest.split_at_checked(length)?;
            rest = after;
            Some(data.to_vec())
        };
        let inode = || words[1].parse().expect("a number");
        ops.push(match words[0] {
            "O" => Op::Open { inode: inode(), created: words[2] == "1", path: below(words[3]) },
            "W" => match payload(number(3)) {
                Some(data) => Op::Write { inode: inode(), at: number(2), data },
                None => break,
            },
            "T" => Op::Truncate { inode: inode(), size: number(2) },
            "S" => Op::Sync(inode()),
            "L" => Op::Forget(inode()),
            "U" => Op::Name(Name::Remove(below(words[1]))),
            "R" => Op::Name(Name::Rename(below(words[1]), below(words[2]))),
            "M" => Op::Name(Name::Directory(below(words[1]))),
            "D" => Op::SyncNames(below(words[1])),
            "N" => match payload(number(1)) {
                Some(data) => Op::Sent(data),
                None => break,
            },
            other => panic!("an unknown record: {other}"),
        });
    }
    ops
}

/// What the cut takes of what was not synced.
#[derive(Clone, Copy, Debug)]
pub enum Lost {
    Everything,
    /// By this seed.
    Some(u64),
}

#[derive(Clone, Default)]
pub struct Disk {
    files: Vec<Content>,
    /// The file that an inode number stands for now.
    inodes: HashMap<u64, usize>,
    names: Names,
    pending: Vec<Name>,
}

#[derive(Clone, Default)]
struct Content {
    durable: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Write(usize, std::rc::Rc<[u8]>),
    Truncate(usize),
}

/// `None` is a directory.
type Names = BTreeMap<PathBuf, Option<usize>>;

impl Disk {
    pub fn apply(&mut self, op: &Op) {
        match op {
            Op::Open { inode, created: true, path } => {
                self.inodes.insert(*inode, self.files.len());
                self.pending.push(Name::File(path.clone(), self.files.len()));
                self.files.push(Content::default());
            }
            Op::Open { created: false, .. } | Op::Sent(_) => {}
            Op::Write { inode, at, data } => self.change(*inode, Change::Write(*at, data.as_slice().into())),
            Op::Truncate { inode, size } => self.change(*inode, Change::Truncate(*size)),
            Op::Sync(inode) => {
                if let Some(file) = self.inodes.get(inode) {
                    let file = &mut self.files[*file];
                    for change in std::mem::take(&mut file.pending) {
                        make(&mut file.durable, &change);
                    }
                }
            }
            Op::Forget(inode) => {
                if let Some(file) = self.inodes.get(inode) {
                    self.files[*file].pending.clear();
                }
            }
            Op::Name(name) => self.pending.push(name.clone()),
            Op::SyncNames(directory) => {
                let (synced, rest) =
                    self.pending.drain(..).partition(|name| name.path().parent() == Some(directory));
                self.pending = rest;
                let synced: Vec<Name> = synced;
                for name in &synced {
                    name.make(&mut self.names);
                }
            }
        }
    }

    /// Files that were there before the record began are not the node's.
    fn change(&mut self, inode: u64, change: Change) {
        if let Some(file) = self.inodes.get(&inode) {
            self.files[*file].pending.push(change);
        }
    }

    /// Writes to `to` what is left after a power cut.
    pub fn cut(&self, lost: Lost, to: &Path) {
        let mut chance = match lost {
            Lost::Everything => None,
            Lost::Some(seed) => Some(StdRng::seed_from_u64(seed)),
        };
        let mut names = self.names.clone();
        if let Some(rng) = &mut chance {
            let kept = rng.random_range(0..=self.pending.len());
            for name in &self.pending[..kept] {
                name.make(&mut names);
            }
        }
        for (path, file) in &names {
            let path = to.join(path);
            match file {
                None => std::fs::create_dir_all(path).expect("a directory can be made"),
                // A name in a directory whose own name is lost is lost with it.
                Some(_) if !path.parent().is_some_and(Path::is_dir) => {}
                Some(file) => {
                    std::fs::write(path, self.files[*file].left(chance.as_mut()))
                        .expect("a file can be made");
                }
            }
        }
    }
}

impl Content {
    fn left(&self, chance: Option<&mut StdRng>) -> Vec<u8> {
        let mut left = self.durable.clone();
        let Some(rng) = chance else { return left };
        for change in &self.pending {
            match change {
                Change::Truncate(_) if rng.random() => make(&mut left, change),
                Change::Truncate(_) => {}
                Change::Write(at, data) => {
                    // Whole writes come and go, and some are torn.
                    let (whole, torn) = (rng.random::<bool>(), rng.random_range(0..4) == 0);
                    let mut from = 0;
                    while from < data.len() {
                        let to = (from + SECTOR - (at + from) % SECTOR).min(data.len());
                        if if torn { rng.random() } else { whole } {
                            make(&mut left, &Change::Write(at + from, data[from..to].into()));
                        }
                        from = to;
                    }
                }
            }
        }
        left
    }
}

fn make(content: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Truncate(size) => content.resize(*size, 0),
        Change::Write(at, data) => {
            content.resize(content.len().max(at + data.len()), 0);
            content[*at..at + data.len()].copy_from_slice(data);
        }
    }
}

impl Name {
    fn path(&self) -> &Path {
        match self {
            Self::File(path, _) | Self::Directory(path) | Self::Remove(path) | Self::Rename(_, path) => path,
        }
    }

    fn make(&self, names: &mut Names) {
        match self {
            Self::File(path, file) => drop(names.insert(path.clone(), Some(*file))),
            Self::Directory(path) => drop(names.insert(path.clone(), None)),
            Self::Remove(path) => drop(names.remove(path)),
            Self::Rename(from, to) => {
                if let Some(file) = names.remove(from) {
                    names.insert(to.clone(), file);
                }
            }
        }
    }
}
