//! The edge between a node and its files: `faults/edge.c`, built here, loaded into a real node, and steered.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use tempfile::TempDir;

use super::node::Setup;

/// Kinds of calls that can fail, as the library numbers them.
pub const WRITE: i64 = 1;
pub const SYNC: i64 = 2;
pub const READ: i64 = 4;
/// Opening, truncating, removing, renaming, making directories.
pub const NAMES: i64 = 8 | 16 | 32 | 64 | 128;

/// Error numbers of Linux.
pub const EIO: i64 = 5;
pub const ENOSPC: i64 = 28;

/// When a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    Before = 0,
    After = 1,
    /// Half of the bytes are written, then the error comes.
    Half = 2,
}

/// Which calls fail, and how.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    pub kinds: i64,
    /// From 1, counted since the fault was set.
    pub first: i64,
    pub count: i64,
    pub error: i64,
    pub when: When,
}

/// What of the tree cannot be opened for writing.
#[derive(Clone, Copy)]
pub enum ReadOnly {
    Everything = 1,
    Database = 2,
}

/// Numbers in the control file, in the library's order.
#[derive(Clone, Copy)]
enum Slot {
    ClockMs,
    Kinds,
    First,
    Count,
    Error,
    Mode,
    Seen,
    Hits,
    Budget,
    ReadOnly,
}

const SLOTS: usize = 10;

/// The steering of one node's edge.
pub struct Edge {
    dir: TempDir,
    control: File,
}

impl Edge {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let path = dir.path().join("control");
        std::fs::write(&path, [0; SLOTS * 8]).expect("the temporary directory can be written");
        let control = File::options().read(true).write(true).open(&path).expect("it was just made");
        let edge = Self { dir, control };
        edge.set(Slot::Budget, -1);
        edge
    }

    /// Loads the library into this node; everything below the directory that holds its data directory is
    /// at the edge.
    pub fn before(&self, setup: Setup) -> Setup {
        let root = setup.data_dir().parent().expect("the data directory has a parent").display().to_string();
        setup
            .env("LD_PRELOAD", &library().display().to_string())
            .env("FAULTS_ROOT", &root)
            .env("FAULTS_CONTROL", &self.dir.path().join("control").display().to_string())
    }

    /// Also writes down what the node does to its files and sends.
    pub fn recording(&self, setup: Setup) -> Setup {
        self.before(setup).env("FAULTS_TRACE", &self.trace().display().to_string())
    }

    pub fn trace(&self) -> PathBuf {
        self.dir.path().join("trace")
    }

    /// From now on these calls fail.
    pub fn fail(&self, fault: Fault) {
        self.heal();
        self.set(Slot::Seen, 0);
        self.set(Slot::Hits, 0);
        self.set(Slot::First, fault.first);
        self.set(Slot::Count, fault.count);
        self.set(Slot::Error, fault.error);
        self.set(Slot::Mode, fault.when as i64);
        self.set(Slot::Kinds, fault.kinds);
    }

    /// Every call of these kinds fails until healed.
    pub fn fail_all(&self, kinds: i64, error: i64, when: When) {
        self.fail(Fault { kinds, first: 1, count: i64::MAX, error, when });
    }

    pub fn heal(&self) {
        self.set(Slot::Kinds, 0);
    }

    /// How many calls failed since the fault was set.
    pub fn hits(&self) -> i64 {
        self.get(Slot::Hits)
    }

    /// Files may grow by so many bytes in all, then the disk is full.
    pub fn space(&self, bytes: u64) {
        self.set(Slot::Budget, i64::try_from(bytes).expect("not that much"));
    }

    pub fn space_left(&self) -> i64 {
        self.get(Slot::Budget)
    }

    pub fn read_only(&self, what: ReadOnly) {
        self.set(Slot::ReadOnly, what as i64);
    }

    /// Moves the wall clock so many hours away from the machine's.
    pub fn set_clock(&self, hours: i64) {
        self.set(Slot::ClockMs, hours * 3_600_000);
    }

    fn set(&self, slot: Slot, value: i64) {
        let written = self.control.write_all_at(&value.to_ne_bytes(), slot as u64 * 8);
        written.expect("the control file can be written");
    }

    fn get(&self, slot: Slot) -> i64 {
        let mut value = [0; 8];
        self.control.read_exact_at(&mut value, slot as u64 * 8).expect("the control file can be read");
        i64::from_ne_bytes(value)
    }
}

/// The library, built once a run by the machine's C compiler.
fn library() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/faults/edge.c");
        let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("edge-{}.so", std::process::id()));
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-o"])
            .args([library.as_os_str(), source.as_os_str()])
            .args(["-ldl", "-lpthread"])
            .output()
            .expect("a C compiler is there; on Debian: sudo apt-get install -y build-essential");
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        library
    })
}
