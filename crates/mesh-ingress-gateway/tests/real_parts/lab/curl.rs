//! curl as the client.

use std::ffi::OsStr;
use std::process::Command;

use super::tool;

/// A call of curl, to be given its options.
pub(crate) struct Curl {
    command: Command,
}

/// The response that curl got. Of several responses on the way (`100 Continue`), the last one.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Curl {
    /// A call of one URL, bounded to two minutes.
    pub(crate) fn get(url: &str) -> Self {
        let mut command = Command::new(tool("curl"));
        // No ~/.curlrc and no proxy of the environment: only what a test says.
        command.args([
            "-q",
            "--noproxy",
            "*",
            "-sS",
            "--max-time",
            "120",
            "--include",
            url,
        ]);
        Self { command }
    }

    /// Adds an option without a value, such as `--http2-prior-knowledge`.
    pub(crate) fn flag(mut self, name: &str) -> Self {
        self.command.arg(name);
        self
    }

    /// Adds an option with its value.
    pub(crate) fn option(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.arg(name).arg(value);
        self
    }

    pub(crate) fn host(self, host: &str) -> Self {
        self.option("-H", format!("Host: {host}"))
    }

    /// Runs it and panics unless there is a response.
    pub(crate) fn send(self) -> Response {
        Response::parse(self.run())
    }

    /// Runs it; nothing if there is no response.
    pub(crate) fn try_send(mut self) -> Option<Response> {
        let output = self.command.output().expect("starting curl");
        output
            .status
            .success()
            .then(|| Response::parse(output.stdout))
    }

    /// Runs it, drops the body and returns its length.
    pub(crate) fn send_counting_body(self) -> u64 {
        let this = self
            .flag("--no-include")
            .flag("--fail")
            .option("--output", "/dev/null")
            .option("--write-out", "%{size_download}");
        let size = String::from_utf8(this.run()).expect("a number");
        size.parse()
            .unwrap_or_else(|error| panic!("{size:?}: {error}"))
    }

    /// Gets another URL over the same connection afterwards; the status of both.
    pub(crate) fn statuses_with(self, url: &str) -> [u16; 2] {
        let this = self.flag(url).flag("--no-include");
        let this = this
            .option("--output", "/dev/null")
            .option("--output", "/dev/null");
        let told = this
            .option("--write-out", "%{http_code} %{num_connects}\n")
            .run();
        let told = String::from_utf8(told).expect("numbers");
        let lines: Vec<_> = told
            .lines()
            .filter_map(|line| line.split_once(' '))
            .collect();
        let [(first, "1"), (second, "0")] = lines.as_slice() else {
            panic!("two responses over one connection, not {told:?}");
        };
        [first, second].map(|status| status.parse().expect("a status"))
    }

    fn run(mut self) -> Vec<u8> {
        let output = self.command.output().expect("starting curl");
        assert!(
            output.status.success(),
            "curl: {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        output.stdout
    }
}

impl Response {
    fn parse(mut bytes: Vec<u8>) -> Self {
        loop {
            let end = bytes
                .windows(4)
                .position(|four| four == b"\r\n\r\n")
                .expect("a header section");
            let body = bytes.split_off(end + 4);
            let head = String::from_utf8_lossy(&bytes);
            let mut lines = head.lines();
            let status_line = lines.next().unwrap_or_default();
            let status = status_line
                .split(' ')
                .nth(1)
                .and_then(|code| code.parse().ok());
            let status = status.unwrap_or_else(|| panic!("no status in {status_line:?}"));
            if (100..200).contains(&status) && status != 101 {
                bytes = body;
                continue;
            }
            let headers = lines
                .filter_map(|line| line.split_once(": "))
                .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
                .collect();
            return Self {
                status,
                headers,
                body,
            };
        }
    }

    /// The first value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}
