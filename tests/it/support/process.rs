//! A child process: its log line by line, its exit, its signals.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;

use serde_json::Value;
use tokio::sync::watch;

use super::{within, within_times};

/// A running `ringback`, or what it is tested with. Dropped, it is ended; dropped by a failing test,
/// its log is printed.
pub struct Process {
    pid: u32,
    farewell: &'static str,
    stderr: watch::Receiver<Vec<String>>,
    stdout: watch::Receiver<Vec<String>>,
    exit: watch::Receiver<Option<ExitStatus>>,
}

/// How a process ended and what it said.
pub struct Ended {
    pub status: ExitStatus,
    pub stdout: Vec<String>,
    pub stderr: Vec<String>,
}

impl Ended {
    /// The lines a person has to read: everything but log lines below `ERROR`.
    pub fn complaints(&self) -> Vec<&str> {
        let harmless = |line: &str| {
            serde_json::from_str::<Value>(line).is_ok_and(|line| {
                line["level"].as_str().is_some_and(|level| !level.eq_ignore_ascii_case("error"))
            })
        };
        self.stderr
            .iter()
            .map(String::as_str)
            .filter(|line| !line.trim().is_empty() && !harmless(line))
            .collect()
    }
}

impl Process {
    /// Starts the built program without any `RINGBACK_…` variable of the surroundings.
    pub fn start(args: &[String], env: &[(String, String)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringback"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("RINGBACK_") {
                command.env_remove(name);
            }
        }
        command.args(args).envs(env.iter().map(|(name, value)| (name, value)));
        Self::of(command, "KILL")
    }

    /// Starts any command; `farewell` is the signal that ends it.
    pub fn of(mut command: Command, farewell: &'static str) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program is there and starts");
        let pid = child.id();
        let (stdout_reader, stdout) = follow(child.stdout.take().expect("stdout is piped"));
        let (stderr_reader, stderr) = follow(child.stderr.take().expect("stderr is piped"));
        let (ended, exit) = watch::channel(None);
        thread::spawn(move || {
            let status = child.wait().expect("a child can be waited for");
            stdout_reader.join().expect("the stdout reader does not panic");
            stderr_reader.join().expect("the stderr reader does not panic");
            ended.send_replace(Some(status));
        });
        Self { pid, farewell, stderr, stdout, exit }
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The first thing `pick` finds in a JSON log line, past or coming.
    pub async fn logged<T>(&mut self, what: &str, pick: impl Fn(&Value) -> Option<T>) -> T {
        self.said(what, |line| pick(&serde_json::from_str(line).ok()?)).await
    }

    /// The first thing `pick` finds in a line of stderr, past or coming.
    pub async fn said<T>(&mut self, what: &str, pick: impl Fn(&str) -> Option<T>) -> T {
        let find = |lines: &Vec<String>| lines.iter().find_map(|line| pick(line));
        let seen = within(what, self.stderr.wait_for(|lines| find(lines).is_some())).await;
        let found = seen.ok().and_then(|lines| find(&lines));
        found.unwrap_or_else(|| panic!("the process ended before {what}:\n{}", self.log()))
    }

    /// Everything it wrote to stderr so far.
    pub fn log(&self) -> String {
        self.stderr.borrow().join("\n")
    }

    /// Everything it wrote to stdout so far.
    pub fn output(&self) -> String {
        self.stdout.borrow().join("\n")
    }

    /// Sends `signal`, such as `TERM`; a process that is gone already is left alone.
    pub fn signal(&self, signal: &str) {
        if self.exit.borrow().is_none() {
            let sent = Command::new("kill").args(["-s", signal, &self.pid.to_string()]).output();
            sent.expect("the command `kill` is there");
        }
    }

    pub fn is_running(&self) -> bool {
        self.exit.borrow().is_none()
    }

    /// Waits for the end.
    pub async fn ended(&mut self) -> Ended {
        self.ended_within(1).await
    }

    /// Waits for the end so many times as long.
    pub async fn ended_within(&mut self, times: u32) -> Ended {
        let status = {
            let exit = within_times(times, "the program ended", self.exit.wait_for(Option::is_some)).await;
            (*exit.expect("the exit is sent before its sender goes")).expect("waited for until it is there")
        };
        Ended { status, stdout: self.stdout.borrow().clone(), stderr: self.stderr.borrow().clone() }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(self.farewell);
        if thread::panicking() {
            eprintln!("--- log of process {} ---\n{}\n---", self.pid, self.log());
        }
    }
}

/// Reads lines to their end on a thread of its own.
fn follow(from: impl Read + Send + 'static) -> (thread::JoinHandle<()>, watch::Receiver<Vec<String>>) {
    let (lines, receiver) = watch::channel(Vec::new());
    let reader = thread::spawn(move || {
        for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
            lines.send_modify(|lines| lines.push(String::from_utf8_lossy(&line).into_owned()));
        }
    });
    (reader, receiver)
}

/// Runs the program to its end.
pub async fn run(args: &[&str]) -> Ended {
    let args: Vec<String> = args.iter().map(ToString::to_string).collect();
    Process::start(&args, &[]).ended().await
}
