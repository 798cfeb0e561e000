//! Debian's nginx as an origin.

use std::net::{SocketAddr, TcpStream};

use super::{Host, Lab, Process, WAIT_TIMEOUT, poll};

/// A running nginx.
pub(crate) struct Nginx {
    process: Process,
}

/// One request as nginx's access log tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Logged {
    pub(crate) host: String,
    pub(crate) forwarded_host: String,
    /// nginx's serial number of the connection.
    pub(crate) connection: u64,
    /// How many requests have come over it, this one counted.
    pub(crate) connection_requests: u64,
}

impl Nginx {
    /// Starts one on the test's own host whose only server has these directives.
    pub(crate) fn start(lab: &Lab, addr: SocketAddr, directives: &str) -> Self {
        Self::run(lab, lab.host(), "notice", &[(addr, directives.to_owned())])
    }

    /// Starts one that tells every header line as it comes, for [`Self::header_lines`].
    /// `$http_x_forwarded_host` would show the first of several only.
    pub(crate) fn start_telling_headers(lab: &Lab, addr: SocketAddr, directives: &str) -> Self {
        Self::run(lab, lab.host(), "debug", &[(addr, directives.to_owned())])
    }

    /// Starts one on another host with several servers.
    pub(crate) fn start_on(lab: &Lab, host: &Host, servers: &[(SocketAddr, String)]) -> Self {
        Self::run(lab, host, "notice", servers)
    }

    fn run(lab: &Lab, host: &Host, level: &str, servers: &[(SocketAddr, String)]) -> Self {
        let dir = lab.path("nginx");
        std::fs::create_dir_all(&dir).expect("nginx's directory");
        let servers_text: String = servers
            .iter()
            .map(|(addr, directives)| {
                let tls = if directives.contains("ssl_certificate ") {
                    " ssl"
                } else {
                    ""
                };
                format!("server {{ listen {addr}{tls}; {directives} }}\n")
            })
            .collect();
        // One process, so that a signal reaches all there is.
        let dir = dir.display();
        let config = format!(
            "daemon off; master_process off; pid {dir}/pid; user root;
             error_log stderr {level};
             events {{ worker_connections 4096; }}
             http {{
                 log_format origin 'origin|$http_host|$http_x_forwarded_host|$connection|$connection_requests|';
                 access_log /dev/stderr origin;
                 client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy;
                 fastcgi_temp_path {dir}/fastcgi; uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;
                 keepalive_requests 1000000; client_max_body_size 0;
                 {servers_text}
             }}"
        );
        let config = lab.write("nginx.conf", &config);
        let mut command = host.command("nginx");
        command
            .args(["-e", "stderr", "-p"])
            .arg(lab.path("nginx"))
            .arg("-c")
            .arg(config);
        let mut process = Process::start("nginx", &command);
        for (addr, _) in servers {
            poll(WAIT_TIMEOUT, "nginx listens", || {
                assert!(process.is_running(), "nginx ended: {:#?}", process.lines());
                host.call(|| TcpStream::connect(addr)).ok()
            });
        }
        Self { process }
    }

    /// Waits until as many requests are logged and returns them all.
    pub(crate) fn wait_for_requests(&self, count: usize) -> Vec<Logged> {
        self.process
            .wait_for(&format!("{count} logged requests"), |lines| {
                let logged: Vec<_> = lines.iter().filter_map(|line| parse(line)).collect();
                (logged.len() >= count).then_some(logged)
            })
    }

    /// Every value that came in a header of this name on a connection, in order, one a line.
    pub(crate) fn header_lines(&self, connection: u64, name: &str) -> Vec<String> {
        let mark = format!(
            "*{connection} http header: \"{}: ",
            name.to_ascii_lowercase()
        );
        let of = |line: &String| {
            let at = line.to_ascii_lowercase().find(&mark)?;
            Some(
                line.get(at + mark.len()..)?
                    .trim_end_matches('"')
                    .to_owned(),
            )
        };
        self.process.lines().iter().filter_map(of).collect()
    }
}

fn parse(line: &str) -> Option<Logged> {
    let mut fields = line.strip_prefix("origin|")?.split('|').map(str::to_owned);
    Some(Logged {
        host: fields.next()?,
        forwarded_host: fields.next()?,
        connection: fields.next()?.parse().ok()?,
        connection_requests: fields.next()?.parse().ok()?,
    })
}
