//! The configuration files: the same work for each proxy.
//!
//! Each proxy sends the Service's name as `Host` and the client's identity
//! (X-Forwarded-{For,Host,Proto,Port}, X-Real-IP, X-Request-ID), keeps connections open on both
//! sides, writes no access log, and has as many workers as it is told. Beyond that, defaults.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use super::lab::{MANY, PUBLIC_HOST, Services, VHOST, host_of};
use super::subject::{Kind, Setup};

/// The origin: nginx, answering at once.
pub(crate) fn origin(
    dir: &Path,
    http1: SocketAddr,
    http2: SocketAddr,
    more: &[Ipv4Addr],
) -> String {
    let mut listen = format!("listen {http1} backlog=4096;");
    for address in more {
        let _ = write!(listen, " listen {address}:{};", http1.port());
    }
    let dir = dir.display();
    let body = "x".repeat(1024);
    // Read by check.rs.
    let told: String = [
        ("protocol", "server_protocol"),
        ("requests", "connection_requests"),
        ("host", "http_host"),
        ("content-length", "content_length"),
        ("x-forwarded-for", "http_x_forwarded_for"),
        ("x-forwarded-host", "http_x_forwarded_host"),
        ("x-forwarded-proto", "http_x_forwarded_proto"),
        ("x-forwarded-port", "http_x_forwarded_port"),
        ("x-real-ip", "http_x_real_ip"),
        ("x-request-id", "http_x_request_id"),
    ]
    .map(|(name, variable)| format!("{name}: ${variable}\\n"))
    .concat();
    let locations = format!(
        r#"
    location = /1k {{ default_type text/plain; return 200 "{body}"; }}
    location = /64k {{ default_type text/plain; root {dir}; }}
    location = /1m {{ default_type text/plain; root {dir}; }}
    location = /post {{ default_type text/plain; client_max_body_size 1m; return 200 "ok"; }}
    location = /told {{ default_type text/plain; client_max_body_size 1m; return 200 "{told}"; }}"#
    );
    format!(
        r#"worker_processes 1; daemon off; pid {dir}/origin.pid; error_log stderr error;
events {{ worker_connections 16384; }}
http {{
  access_log off; sendfile on; keepalive_requests 1000000000; keepalive_timeout 1h;
  client_body_temp_path {dir}/origin-body; proxy_temp_path {dir}/origin-proxy;
  fastcgi_temp_path {dir}/origin-fcgi; uwsgi_temp_path {dir}/origin-uwsgi; scgi_temp_path {dir}/origin-scgi;
  server {{ {listen} {locations} }}
  server {{ listen {http2} http2 backlog=4096; {locations} }}
}}
"#
    )
}

pub(crate) fn nginx(name: &str, kind: Kind, setup: &Setup<'_>) -> String {
    let (dir, listen, workers) = (setup.lab.dir.display(), setup.listen, setup.workers);
    // Since 1.25.1 `http2` is a directive; as a word of `listen` it is deprecated.
    let (h2, http2_on) = match (setup.h2, kind) {
        (false, _) => ("", ""),
        (true, Kind::Nginx) => ("http2", ""),
        (true, _) => ("", "http2 on;"),
    };
    // Since 1.29.4; Debian stable's is in no scenario with an HTTP/2 origin.
    let protocol = if setup.h2_origin { "2" } else { "1.1" };
    // A socket a worker, as ours.
    let reuse = if workers > 1 { "reuseport" } else { "" };
    let (map, upgrade) = if setup.websocket {
        (
            "map $http_upgrade $upgrade_or_not { default upgrade; '' ''; }",
            "proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $upgrade_or_not;",
        )
    } else {
        ("", r#"proxy_set_header Connection "";"#)
    };
    let mut servers = String::new();
    let mut server = |number: &str, host: &str, vhost: &str, upstream: SocketAddr, listen: &str| {
        let _ = write!(
            servers,
            r#"
  upstream u{number} {{ server {upstream}; keepalive 256; keepalive_requests 1000000000; }}
  server {{
    {listen} {http2_on} server_name {host};
    location / {{
      proxy_pass http://u{number}; proxy_http_version {protocol}; {upgrade}
      proxy_set_header Host {vhost};
      proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Forwarded-Host $host;
      proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header X-Forwarded-Port $server_port;
      proxy_set_header X-Real-IP $remote_addr; proxy_set_header X-Request-ID $request_id;
    }}
  }}"#
        );
    };
    let with_options = format!("listen {listen} backlog=4096 {h2} {reuse};");
    if setup.services != Services::One {
        for number in 0..MANY {
            server(
                &number.to_string(),
                &host_of(number),
                &setup.services.vhost_of(number),
                setup.origin_of(number),
                &if number == 0 {
                    with_options.clone()
                } else {
                    format!("listen {listen};")
                },
            );
        }
    } else {
        server("", PUBLIC_HOST, VHOST, setup.origin(), &with_options);
    }
    format!(
        r#"worker_processes {workers}; daemon off; pid {dir}/{name}.pid; error_log stderr error;
events {{ worker_connections 16384; }}
http {{
  access_log off; keepalive_requests 1000000000;
  # Nothing goes to disk: bodies fit in memory or are passed on as they come.
  client_max_body_size 0; client_body_buffer_size 64k; proxy_max_temp_file_size 0;
  server_names_hash_max_size 8192; server_names_hash_bucket_size 128;
  client_body_temp_path {dir}/{name}-body; proxy_temp_path {dir}/{name}-proxy;
  fastcgi_temp_path {dir}/{name}-fcgi; uwsgi_temp_path {dir}/{name}-uwsgi; scgi_temp_path {dir}/{name}-scgi;
  {map}{servers}
}}
"#
    )
}

pub(crate) fn haproxy(setup: &Setup<'_>) -> String {
    let (listen, workers) = (setup.listen, setup.workers);
    let (front, back) = (
        if setup.h2 { "proto h2" } else { "" },
        if setup.h2_origin { "proto h2" } else { "" },
    );
    let (mut choice, mut backends) = (String::new(), String::new());
    if setup.services != Services::One {
        for number in 0..MANY {
            let upstream = setup.origin_of(number);
            let _ = write!(
                backends,
                "\nbackend b-{}\n  http-request set-header Host {}\n  server s {upstream}\n",
                host_of(number),
                setup.services.vhost_of(number)
            );
        }
        // The name of a backend is that of the public host.
        choice.push_str("use_backend b-%[req.hdr(x-forwarded-host),lower]");
    } else {
        let upstream = setup.origin();
        choice.push_str("default_backend b");
        let _ = write!(
            backends,
            "\nbackend b\n  http-request set-header Host {VHOST}\n  server s {upstream} {back}\n"
        );
    }
    format!(
        r"global
  nbthread {workers}
  maxconn 16000
  no strict-limits
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  timeout tunnel 1h
  option forwardfor
  http-reuse always
frontend f
  bind {listen} backlog 4096 {front}
  http-request set-header X-Forwarded-Host %[req.hdr(host)]
  http-request set-header X-Forwarded-Proto http
  http-request set-header X-Forwarded-Port %[dst_port]
  http-request set-header X-Real-IP %[src]
  http-request set-header X-Request-ID %[uuid]
  {choice}
{backends}"
    )
}

pub(crate) fn envoy(setup: &Setup<'_>) -> String {
    let (address, port) = (setup.listen.ip(), setup.listen.port());
    let protocol = if setup.h2_origin {
        "http2_protocol_options"
    } else {
        "http_protocol_options"
    };
    let upgrades = if setup.websocket {
        "[{ upgrade_type: websocket }]"
    } else {
        "[]"
    };
    let (mut hosts, mut clusters) = (String::new(), String::new());
    let mut route = |name: &str, host: &str, vhost: &str, upstream: SocketAddr| {
        let (ip, port) = (upstream.ip(), upstream.port());
        let _ = write!(
            hosts,
            r"
            - name: {name}
              domains: [{host}]
              routes:
              - match: {{ prefix: / }}
                route: {{ cluster: {name}, host_rewrite_literal: {vhost}, append_x_forwarded_host: true, timeout: 60s }}"
        );
        let _ = write!(
            clusters,
            r#"
  - name: {name}
    type: STATIC
    connect_timeout: 5s
    load_assignment: {{ cluster_name: {name}, endpoints: [ {{ lb_endpoints: [ {{ endpoint: {{ address: {{ socket_address: {{ address: {ip}, port_value: {port} }} }} }} }} ] }} ] }}
    circuit_breakers: {{ thresholds: [ {{ max_connections: 20000, max_pending_requests: 20000, max_requests: 20000 }} ] }}
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{ {protocol}: {{}} }}"#
        );
    };
    if setup.services != Services::One {
        for number in 0..MANY {
            route(
                &format!("web-{number}"),
                &host_of(number),
                &setup.services.vhost_of(number),
                setup.origin_of(number),
            );
        }
    } else {
        route("web", PUBLIC_HOST, VHOST, setup.origin());
    }
    format!(
        r#"static_resources:
  listeners:
  - address: {{ socket_address: {{ address: {address}, port_value: {port} }} }}
    tcp_backlog_size: 4096
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: f
          codec_type: AUTO
          use_remote_address: true
          append_x_forwarded_port: true
          upgrade_configs: {upgrades}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{ "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }}
          route_config:
            request_headers_to_add:
            - header: {{ key: X-Real-IP, value: "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%" }}
            virtual_hosts:{hosts}
  clusters:{clusters}
"#
    )
}
