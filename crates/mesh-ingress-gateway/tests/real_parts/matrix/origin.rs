//! The origins on the wire: nginx, haproxy and Envoy in front of the application.
//!
//! Each tells the application how a request came to it, in the fields of [`Seen`].

use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;

use http::HeaderMap;
use serde_json::{Value, json};

use super::app::{App, GRPC, GRPC_TRAILERS, WEBSOCKET};
use crate::lab::{Lab, Process, WAIT_TIMEOUT, poll, tool};

/// The nginx since which a cleartext port speaks HTTP/1.1 and HTTP/2.
const ONE_PORT_FOR_BOTH: [u32; 3] = [1, 25, 1];
/// The nginx since which trailers are passed on over HTTP/1.1 (`proxy_pass_trailers`). Before, only
/// those of gRPC upstreams were, and only over HTTP/2.
const PASSES_TRAILERS: [u32; 3] = [1, 27, 2];
/// How nginx tells what is in [`Seen`]. What has no value is not sent.
const TOLD_BY_NGINX: [(&str, &str); 5] = [
    ("Version", "$server_protocol"),
    ("Host", "$http_host"),
    ("Peer", "$remote_addr:$remote_port"),
    ("Length", "$http_content_length"),
    ("Coding", "$http_transfer_encoding"),
];

/// A program that serves HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Software {
    /// Debian's nginx.
    Nginx,
    /// An nginx that speaks HTTP/1.1 and HTTP/2 on one cleartext port.
    NginxMainline,
    Haproxy,
    Envoy,
}

/// The protocol on one side of the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speaks {
    Http1,
    /// HTTP/2 without TLS, with prior knowledge.
    H2c,
}

/// A request as the origin told it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// `HTTP/1.1` or `HTTP/2`.
    pub(crate) version: String,
    /// `Host` or `:authority`.
    pub(crate) host: String,
    /// The gateway's end of the connection.
    pub(crate) peer: SocketAddr,
    /// `Content-Length`.
    pub(crate) length: Option<String>,
    /// `Transfer-Encoding`.
    pub(crate) coding: Option<String>,
}

/// A running origin.
pub(crate) struct Server {
    _process: Process,
}

impl Software {
    /// Starts it; it serves one protocol on an address.
    pub(crate) fn start(self, lab: &Lab, speaks: Speaks, addr: SocketAddr) -> Server {
        let (name, command) = match self {
            Self::Nginx | Self::NginxMainline => ("nginx", self.nginx(lab, speaks, addr)),
            Self::Haproxy => ("haproxy", haproxy(lab, speaks, addr)),
            Self::Envoy => ("envoy", envoy(lab, addr)),
        };
        let mut process = Process::start(name, &command);
        poll(WAIT_TIMEOUT, &format!("{name} listens"), || {
            assert!(process.is_running(), "{name} ended: {:#?}", process.lines());
            TcpStream::connect(addr).ok()
        });
        Server { _process: process }
    }

    /// In which protocol WebSockets are opened on an address of this one, if they can be.
    ///
    /// nginx has no extended CONNECT (RFC 8441), and before 1.25.1 its cleartext HTTP/2 port takes
    /// nothing but HTTP/2.
    pub(crate) fn websockets(self, speaks: Speaks) -> Option<Speaks> {
        match (self, speaks) {
            (_, Speaks::Http1) => Some(Speaks::Http1),
            (Self::Haproxy | Self::Envoy, Speaks::H2c) => Some(Speaks::H2c),
            (Self::Nginx | Self::NginxMainline, Speaks::H2c) => {
                (self.nginx_version() >= ONE_PORT_FOR_BOTH).then_some(Speaks::Http1)
            }
        }
    }

    /// Whether it tells `Transfer-Encoding`. Envoy takes the field away before anything could read
    /// it; that a body has come without `Content-Length` says the same (RFC 9112 §6.3).
    pub(crate) fn tells_coding(self) -> bool {
        self != Self::Envoy
    }

    fn nginx_program(self) -> PathBuf {
        tool(match self {
            Self::NginxMainline => "nginx-mainline",
            _ => "nginx",
        })
    }

    fn nginx_version(self) -> [u32; 3] {
        let output = Command::new(self.nginx_program()).arg("-v").output();
        let told = String::from_utf8(output.expect("nginx -v").stderr).expect("text");
        let version = told
            .trim()
            .split_once("nginx/")
            .map(|(_, version)| version.split([' ', '.']).map_while(|n| n.parse().ok()));
        let numbers: Vec<_> = version.into_iter().flatten().collect();
        numbers
            .try_into()
            .unwrap_or_else(|_| panic!("no version in {told:?}"))
    }

    fn nginx(self, lab: &Lab, speaks: Speaks, addr: SocketAddr) -> Command {
        let dir = lab.path("nginx");
        std::fs::create_dir_all(&dir).expect("nginx's directory");
        let listen = match speaks {
            Speaks::Http1 => format!("listen {addr};"),
            Speaks::H2c if self.nginx_version() >= ONE_PORT_FOR_BOTH => {
                format!("listen {addr}; http2 on;")
            }
            Speaks::H2c => format!("listen {addr} http2;"),
        };
        let app = App::ADDR;
        let tell = |directive: &str| {
            TOLD_BY_NGINX
                .map(|(name, variable)| format!("{directive} X-Seen-{name} {variable}; "))
                .concat()
        };
        let told = tell("proxy_set_header");
        let grpc = match speaks {
            Speaks::H2c => format!("grpc_pass grpc://{app}; {}", tell("grpc_set_header")),
            // "TE: trailers" is what makes the application send any (RFC 9110 §6.5.1); a location
            // that sets a field of its own inherits none.
            Speaks::Http1 if self.nginx_version() >= PASSES_TRAILERS => format!(
                "proxy_pass http://app; proxy_pass_trailers on;
                 proxy_set_header Connection te; proxy_set_header TE trailers;
                 proxy_set_header Host $http_host; {told}"
            ),
            Speaks::Http1 => {
                let add = GRPC_TRAILERS
                    .map(|(name, value)| format!("add_trailer {name} \"{value}\"; "))
                    .concat();
                format!("proxy_pass http://app; {add}")
            }
        };
        let dir = dir.display();
        let config = format!(
            "daemon off; master_process off; pid {dir}/pid; user root;
             error_log stderr notice;
             events {{ worker_connections 1024; }}
             http {{
                 access_log off;
                 client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy;
                 fastcgi_temp_path {dir}/fastcgi; uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;
                 keepalive_requests 1000000;
                 upstream app {{ server {app}; keepalive 64; }}
                 proxy_http_version 1.1;
                 proxy_set_header Connection $hop;
                 proxy_set_header Upgrade $http_upgrade;
                 proxy_set_header Host $http_host;
                 {told}
                 map $http_upgrade $hop {{ default Upgrade; '' ''; }}
                 server {{
                     {listen}
                     location / {{ proxy_pass http://app; }}
                     location = {WEBSOCKET} {{ proxy_pass http://app; }}
                     location = {GRPC} {{ {grpc} }}
                 }}
             }}"
        );
        let config = lab.write("nginx.conf", &config);
        let mut command = Command::new(self.nginx_program());
        command.args(["-e", "stderr", "-p"]).arg(lab.path("nginx"));
        command.arg("-c").arg(config);
        command
    }
}

impl Speaks {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Http1 => "HTTP/1.1",
            Self::H2c => "h2c",
        }
    }

    /// The gateway's name of it.
    pub(crate) const fn upstream_protocol(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::H2c => "h2c",
        }
    }

    /// The version an origin tells.
    pub(crate) const fn version(self) -> &'static str {
        match self {
            Self::Http1 => "HTTP/1.1",
            Self::H2c => "HTTP/2",
        }
    }
}

impl Seen {
    /// Reads what the origin told, which must be one value each.
    pub(crate) fn read(headers: &HeaderMap) -> Result<Self, String> {
        let one = |name: &str| {
            let values: Vec<_> = headers.get_all(name).iter().collect();
            match values.as_slice() {
                [value] => Ok(String::from_utf8_lossy(value.as_bytes()).into_owned()),
                values => Err(format!("{name}: {values:?}")),
            }
        };
        // A missing value is left out, empty or, by Envoy, a dash.
        let maybe = |name: &str| match headers.contains_key(name) {
            true => one(name).map(|value| Some(value).filter(|v| !["", "-"].contains(&v.as_str()))),
            false => Ok(None),
        };
        // Some say 2, some 2.0.
        let version = one("x-seen-version")?;
        let peer = one("x-seen-peer")?;
        Ok(Self {
            version: version.replace("HTTP/2.0", "HTTP/2"),
            host: one("x-seen-host")?,
            peer: peer.parse().map_err(|error| format!("{peer:?}: {error}"))?,
            length: maybe("x-seen-length")?,
            coding: maybe("x-seen-coding")?,
        })
    }
}

fn haproxy(lab: &Lab, speaks: Speaks, addr: SocketAddr) -> Command {
    let proto = match speaks {
        Speaks::Http1 => "h1",
        Speaks::H2c => "h2",
    };
    let app = App::ADDR;
    let config = format!(
        "global
             maxconn 1000
         defaults
             mode http
             timeout connect 5s
             timeout client 30s
             timeout server 30s
             timeout tunnel 30s
         frontend origin
             bind {addr} proto {proto}
             http-request set-header x-seen-version HTTP/%[req.ver]
             http-request set-header x-seen-peer %[src]:%[src_port]
             http-request set-header x-seen-length %[req.fhdr(content-length)]
             http-request set-header x-seen-coding %[req.fhdr(transfer-encoding)]
             # More than one is one value too many.
             http-request del-header x-seen-host
             http-request add-header x-seen-host %[req.fhdr(host,1)]
             http-request add-header x-seen-host %[req.fhdr(host,2)] if {{ req.fhdr_cnt(host) gt 1 }}
             default_backend app
         backend app
             server app {app}\n"
    );
    let mut command = Command::new(tool("haproxy"));
    command
        .args(["-db", "-f"])
        .arg(lab.write("haproxy.cfg", &config));
    command
}

/// Envoy takes whichever protocol a connection begins with.
fn envoy(lab: &Lab, addr: SocketAddr) -> Command {
    let config = lab.write("envoy.json", &envoy_config(addr).to_string());
    let mut command = Command::new(tool("envoy"));
    command.args(["--concurrency", "1", "--log-level", "warning"]);
    command.args(["--disable-hot-restart", "--config-path"]);
    command.arg(config);
    command
}

fn envoy_config(addr: SocketAddr) -> Value {
    let app: SocketAddr = App::ADDR.parse().expect("an address");
    let tell = |name: &str, value: &str| {
        json!({
            "header": { "key": name, "value": value },
            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
        })
    };
    let connection_manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "origin",
        "codec_type": "AUTO",
        "http_protocol_options": { "enable_trailers": true },
        "http2_protocol_options": { "allow_connect": true },
        "upgrade_configs": [{ "upgrade_type": "websocket" }],
        "use_remote_address": false,
        "server_header_transformation": "PASS_THROUGH",
        "http_filters": [{
            "name": "envoy.filters.http.router",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
            },
        }],
        "route_config": {
            "request_headers_to_add": [
                tell("x-seen-version", "%PROTOCOL%"),
                tell("x-seen-host", "%REQ(:AUTHORITY)%"),
                // Without "direct" it would be what X-Forwarded-For tells.
                tell("x-seen-peer", "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%"),
                tell("x-seen-length", "%REQ(CONTENT-LENGTH)%"),
            ],
            "virtual_hosts": [{
                "name": "app",
                "domains": ["*"],
                "routes": [{ "match": { "prefix": "/" }, "route": { "cluster": "app" } }],
            }],
        },
    });
    json!({
        "static_resources": {
            "listeners": [{
                "name": "origin",
                "address": socket(addr),
                "filter_chains": [{ "filters": [{
                    "name": "envoy.filters.network.http_connection_manager",
                    "typed_config": connection_manager,
                }] }],
            }],
            "clusters": [{
                "name": "app",
                "type": "STATIC",
                "load_assignment": {
                    "cluster_name": "app",
                    "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": socket(app) } }] }],
                },
                "typed_extension_protocol_options": {
                    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                        "explicit_http_config": {
                            "http_protocol_options": { "enable_trailers": true },
                        },
                    },
                },
            }],
        },
    })
}

fn socket(addr: SocketAddr) -> Value {
    json!({ "socket_address": { "address": addr.ip(), "port_value": addr.port() } })
}
