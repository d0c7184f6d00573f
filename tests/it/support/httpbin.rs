//! An upstream nobody here wrote: `httpbin` from the Python index, served by gunicorn.

use std::process::Command;

use super::process::Process;

/// How to call the interpreter that has both.
const VARIABLE: &str = "RINGBACK_HTTPBIN_PYTHON";

/// A running httpbin.
pub struct Httpbin {
    url: String,
    _process: Process,
}

impl Httpbin {
    pub async fn start() -> Self {
        let Ok(python) = std::env::var(VARIABLE) else {
            panic!(
                "{VARIABLE} names no Python with httpbin. `./test` prepares one; by hand, type:\n\
                 python3 -m venv target/httpbin && target/httpbin/bin/pip install -r tests/httpbin/requirements.txt \
                 && export {VARIABLE}=$PWD/target/httpbin/bin/python"
            )
        };
        let mut command = Command::new(python);
        command.args([
            "-m",
            "gunicorn",
            "--worker-class",
            "gthread",
            "--threads",
            "8",
            "--no-control-socket",
        ]);
        command.args(["--bind", "127.0.0.1:0", "httpbin:app"]);
        let mut process = Process::of(command, "TERM");
        let url = process.said("httpbin listens", |line| {
            let (_, address) = line.split_once("Listening at: ")?;
            Some(address.split(' ').next()?.to_owned())
        });
        Self { url: url.await, _process: process }
    }

    pub fn url(&self) -> &str {
        &self.url
    }
}
