//! h2load and wrk as clients: many requests, each counted.

use std::fs;
use std::process::{Command, Stdio};

use super::client::PUBLIC_HOST;
use super::origin::Speaks;
use crate::lab::{Gateway, Lab, tool};

/// How many connections a client keeps, and how many requests are on the way on each.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Width {
    pub(crate) connections: usize,
    pub(crate) streams: usize,
}

impl Width {
    pub(crate) const fn of(speaks: Speaks) -> Self {
        let (connections, streams) = match speaks {
            Speaks::Http1 => (8, 1),
            Speaks::H2c => (4, 8),
        };
        Self {
            connections,
            streams,
        }
    }

    pub(crate) const fn requests_at_a_time(self) -> usize {
        self.connections * self.streams
    }
}

/// Sends so many requests with h2load, GET or, with a body, POST. All must be answered 200; returns
/// how many bytes of bodies came back.
pub(crate) fn h2load(
    lab: &Lab,
    speaks: Speaks,
    path: &str,
    requests: usize,
    body: Option<&[u8]>,
) -> Result<u64, String> {
    let width = Width::of(speaks);
    let mut command = Command::new(tool("h2load"));
    command.args(["--connect-to", Gateway::ADDR]);
    command.arg(format!("--requests={requests}"));
    command.arg(format!("--clients={}", width.connections));
    command.arg(format!("--max-concurrent-streams={}", width.streams));
    if speaks == Speaks::Http1 {
        command.arg("--h1");
    }
    if let Some(body) = body {
        let file = lab.path("h2load");
        fs::write(&file, body).expect("a file");
        command.arg("--data").arg(file);
    }
    let told = output(command.arg(format!("http://{PUBLIC_HOST}{path}")))?;
    let all = [
        match speaks {
            Speaks::Http1 => "Application protocol: http/1.1".to_owned(),
            Speaks::H2c => "Application protocol: h2c".to_owned(),
        },
        format!("{requests} done, {requests} succeeded, 0 failed, 0 errored, 0 timeout"),
        format!("status codes: {requests} 2xx, 0 3xx, 0 4xx, 0 5xx"),
    ];
    let bytes = told.lines().find_map(|line| {
        let (_, data) = line.strip_prefix("traffic: ")?.rsplit_once('(')?;
        data.strip_suffix(") data")?.parse().ok()
    });
    bytes
        .filter(|_| all.iter().all(|line| told.contains(line)))
        .ok_or_else(|| format!("h2load: {told}"))
}

/// POST requests whose lengths are told and in chunks by turns, each to be echoed: one that is not
/// is told.
const POSTS: &str = r#"
local turns, turn = {}, 0

function init(args)
    local file = assert(io.open(args[1], "rb"))
    body = file:read("*a")
    file:close()
    local fields = { ["Content-Type"] = "application/octet-stream" }
    turns[1] = wrk.format("POST", nil, fields, body)
    fields["Transfer-Encoding"] = "chunked"
    local chunks = {}
    for from = 1, #body, 5000 do
        local chunk = body:sub(from, from + 4999)
        chunks[#chunks + 1] = string.format("%x\r\n%s\r\n", #chunk, chunk)
    end
    turns[0] = wrk.format("POST", nil, fields) .. table.concat(chunks) .. "0\r\n\r\n"
end

function request()
    turn = turn + 1
    return turns[turn % 2]
end

function response(status, headers, echoed)
    if status == 200 and echoed ~= body then
        print("not echoed: " .. #echoed .. " of " .. #body .. " bytes")
    end
end
"#;

/// Sends requests over HTTP/1.1 with wrk for a second, which is the least it can do: GET or, with a
/// body, POST. All must be answered 200, those with a body with the same; returns how many were.
pub(crate) fn wrk(lab: &Lab, path: &str, body: Option<&[u8]>) -> Result<usize, String> {
    let mut command = Command::new(tool("wrk"));
    command.args(["--threads", "1", "--duration", "1s", "--timeout", "10s"]);
    let connections = Width::of(Speaks::Http1).connections;
    command.arg(format!("--connections={connections}"));
    command.arg("--header").arg(format!("Host: {PUBLIC_HOST}"));
    if body.is_some() {
        command.arg("--script").arg(lab.write("posts.lua", POSTS));
    }
    command.arg(format!("{}{path}", Gateway::URL));
    if let Some(body) = body {
        let file = lab.path("wrk");
        fs::write(&file, body).expect("a file");
        command.arg("--").arg(file);
    }
    let told = output(&mut command)?;
    // These lines are there only if there is something to tell.
    let complaints = ["Socket errors:", "Non-2xx", "not echoed"];
    if complaints.iter().any(|line| told.contains(line)) {
        return Err(format!("wrk: {told}"));
    }
    told.lines()
        .find_map(|line| line.trim().split_once(" requests in ")?.0.parse().ok())
        .filter(|requests| *requests > 0)
        .ok_or_else(|| format!("wrk: {told}"))
}

fn output(command: &mut Command) -> Result<String, String> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.expect("starting a program");
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(told);
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    Err(format!("{command:?}: {}: {told}{errors}", output.status))
}
