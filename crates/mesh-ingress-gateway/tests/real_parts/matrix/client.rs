//! curl as the client, told apart by version, header section and trailers.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::origin::Speaks;
use crate::lab::{Gateway, Lab, tool};

/// The host that the client asks for.
pub(crate) const PUBLIC_HOST: &str = "shop.example.com";

pub(crate) type Fields = Vec<(String, String)>;

/// A call of curl, to be given its options.
pub(crate) struct Call {
    command: Command,
    dir: PathBuf,
}

/// The response that curl got.
#[derive(Debug)]
pub(crate) struct Answer {
    /// `HTTP/1.1` or `HTTP/2`.
    pub(crate) version: String,
    pub(crate) status: u16,
    pub(crate) headers: Fields,
    pub(crate) trailers: Fields,
    pub(crate) body: Vec<u8>,
    /// The output of `--write-out`.
    pub(crate) told: String,
}

/// The option by which curl speaks a protocol.
const fn flag(speaks: Speaks) -> &'static str {
    match speaks {
        Speaks::Http1 => "--http1.1",
        Speaks::H2c => "--http2-prior-knowledge",
    }
}

impl Call {
    pub(crate) fn new(lab: &Lab, speaks: Speaks, path: &str) -> Self {
        let dir = lab.path("curl");
        fs::create_dir_all(&dir).expect("curl's directory");
        let mut command = Command::new(tool("curl"));
        command.arg("-q").stdin(Stdio::null());
        let call = Self { command, dir };
        call.request(speaks, path)
            .option("--dump-header", "head")
            .option("--output", "body")
    }

    /// The same for a second request over the same connection, whose answer is not kept.
    pub(crate) fn then(self, speaks: Speaks, path: &str) -> Self {
        self.flag("--next")
            .request(speaks, path)
            .option("--output", "/dev/null")
    }

    fn request(self, speaks: Speaks, path: &str) -> Self {
        self.flag(flag(speaks))
            .flag("-sS")
            .option("--noproxy", "*")
            .option("--max-time", "20")
            .header(&format!("Host: {PUBLIC_HOST}"))
            .flag(&format!("{}{path}", Gateway::URL))
    }

    pub(crate) fn flag(mut self, name: &str) -> Self {
        self.command.arg(name);
        self
    }

    pub(crate) fn option(mut self, name: &str, value: &str) -> Self {
        self.command.arg(name).arg(value);
        self
    }

    pub(crate) fn header(self, line: &str) -> Self {
        self.option("--header", line)
    }

    /// Sends these bytes, their length told beforehand.
    pub(crate) fn body(self, media_type: &str, body: &[u8]) -> Self {
        fs::write(self.dir.join("sent"), body).expect("a file");
        self.option("--data-binary", "@sent")
            .header(&format!("Content-Type: {media_type}"))
    }

    /// Sends these bytes from a pipe, so that curl does not know how many come.
    pub(crate) fn body_of_unknown_length(mut self, media_type: &str, body: &[u8]) -> Self {
        let path = self.dir.join("sent");
        fs::write(&path, body).expect("a file");
        self.command.stdin(File::open(path).expect("a file"));
        self.option("--request", "POST")
            .option("--upload-file", "-")
            .header(&format!("Content-Type: {media_type}"))
    }

    pub(crate) fn send(mut self) -> Result<Answer, String> {
        for name in ["head", "body"] {
            fs::write(self.dir.join(name), "").expect("a file");
        }
        let output = self.command.current_dir(&self.dir).output();
        let output = output.expect("starting curl");
        if !output.status.success() {
            let told = String::from_utf8_lossy(&output.stderr);
            return Err(format!("curl: {}: {told}", output.status));
        }
        let read = |name: &str| fs::read(self.dir.join(name)).expect("a file");
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        Answer::parse(&String::from_utf8_lossy(&read("head")), read("body"), told)
    }
}

impl Answer {
    /// curl writes each section with the empty line after it: interim responses, the header
    /// section, trailers.
    fn parse(dumped: &str, body: Vec<u8>, told: String) -> Result<Self, String> {
        let mut final_head = None;
        let mut trailers = Fields::new();
        for section in dumped.split("\r\n\r\n").filter(|text| !text.is_empty()) {
            let mut lines = section.trim_start().lines().peekable();
            let status_line = lines.next_if(|line| line.starts_with("HTTP/"));
            let fields = lines.filter_map(|line| {
                let (name, value) = line.split_once(':')?;
                Some((name.to_ascii_lowercase(), value.trim().to_owned()))
            });
            match status_line {
                Some(line) => {
                    let mut words = line.split(' ').map(str::to_owned);
                    let version = words.next().unwrap_or_default();
                    let status = words.next().and_then(|code| code.parse().ok());
                    let status = status.ok_or_else(|| format!("no status in {line:?}"))?;
                    if status >= 200 {
                        final_head = Some((version, status, fields.collect()));
                    }
                }
                None => trailers.extend(fields),
            }
        }
        let (version, status, headers) =
            final_head.ok_or_else(|| format!("no response in {dumped:?}"))?;
        Ok(Self {
            version,
            status,
            headers,
            trailers,
            body,
            told,
        })
    }

    /// All values of a header field.
    pub(crate) fn header(&self, name: &str) -> Vec<&str> {
        values(&self.headers, name)
    }

    /// All values of a trailer field.
    pub(crate) fn trailer(&self, name: &str) -> Vec<&str> {
        values(&self.trailers, name)
    }
}

fn values<'a>(fields: &'a Fields, name: &str) -> Vec<&'a str> {
    fields
        .iter()
        .filter(|(key, _)| key == name)
        .map(|(_, value)| value.as_str())
        .collect()
}
