//! The annotations of ingress-nginx that are not supported, and the effect of each.
//!
//! An annotation that is neither in this list nor read elsewhere is reported as unknown; none is
//! silently ignored.

use Effect::{Closes, Differs, Harmless, Lost};

/// The effect of an annotation that is not supported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// It protects the backend, or changes its requests. Serving without it would be wrong, so the
    /// routes of the Ingress are answered with 503.
    Closes,
    /// Clients lose something.
    Lost,
    /// The routes are served, and behave differently.
    Differs,
    /// Nothing is lost.
    Harmless,
}

/// An annotation, without the prefix.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) name: &'static str,
    pub(crate) effect: Effect,
    /// `false` asks for what the gateway does anyway.
    pub(crate) switch: bool,
    pub(crate) message: &'static str,
}

const AUTH: &str = "authentication is not supported yet, put it in front as a layer";
const CLIENT_CERT: &str = "client certificates are not asked for here, the listener can";
const ADDRESSES: &str = "access by client address is not supported yet";
const FIREWALL: &str = "ModSecurity is not supported";
const REWRITE: &str = "rewriting paths is not supported yet";
const LIMIT: &str = "rate limits are not supported yet, put them in front as a layer";
const CORS: &str = "CORS headers are not added, put a CORS layer in front";
const MIRROR: &str = "mirroring is not supported yet";
const ERRORS: &str = "error pages of the backend are passed on as they are";
const COOKIE: &str =
    "the mesh balances: a ClusterIP has no sticky sessions, use the mesh's consistent hashing";
const BALANCE: &str = "the mesh balances, set it there";
const RETRY: &str =
    "only requests that no upstream has seen are sent again, and the mesh retries on its own";
const TIMEOUT: &str = "timeouts are set for the whole gateway, not for one Ingress";
const BODY: &str = "body size limits are set for the whole gateway, not for one Ingress";
const UPSTREAM_TLS: &str = "the mesh encrypts; TLS to backends is not supported yet";
const REDIRECT_TLS: &str =
    "clients on http are not redirected to https by a route yet, do it on the cleartext listener";
const RESPONSE: &str =
    "Location, Set-Cookie and the like are put back to the public name without being asked";
const SESSION_TLS: &str = "TLS belongs to the listener";
const BUFFER: &str = "bodies are streamed, there are no such buffers";
const LOGS: &str = "logs and traces are set for the whole gateway";

macro_rules! unsupported {
    ($($effect:ident $message:ident { $($name:literal)* } $(switches { $($switch:literal)* })?;)*) => {
        &[$(
            $(Entry { name: $name, effect: $effect, switch: false, message: $message },)*
            $($(Entry { name: $switch, effect: $effect, switch: true, message: $message },)*)?
        )*]
    };
}

const SATISFY: &str = "it combines access rules, which are not supported yet";
const GLOBAL_AUTH: &str = "there is no global authentication here to leave out or to keep";
const PASSTHROUGH: &str = "TLS is not passed through: the listener ends it or it is not TLS";
const FASTCGI: &str = "FastCGI is not supported";
const ROOT: &str = "redirects of / are not supported yet";
const WWW: &str = "redirects between a name and its www. twin are not supported yet";
const SLASH: &str = "redirects to https are not made here";
const PREFIX: &str = "X-Forwarded-Prefix is not sent yet";
const HEADERS: &str = "adding headers is not supported yet, put a layer in front";
const CONNECTION: &str = "Connection belongs to each connection, and is not passed on";
const VERSION: &str = "backends are spoken to in HTTP/1.1, or HTTP/2 for gRPC";
const PUSH: &str = "HTTP/2 push is gone from browsers";
const WEBSOCKET: &str = "WebSockets are always on";
const INTERCEPT: &str = "responses are never intercepted";
const STREAM: &str = "TCP and UDP are not served";

/// From the documentation of ingress-nginx 1.15, `annotations.md`, and its sources.
pub(crate) const CATALOGUE: &[Entry] = unsupported! {
    Closes AUTH {
        "auth-type" "auth-secret" "auth-secret-type" "auth-realm" "auth-url" "auth-method"
        "auth-signin" "auth-signin-redirect-param" "auth-response-headers" "auth-proxy-set-headers"
        "auth-request-redirect" "auth-cache-key" "auth-cache-duration" "auth-keepalive"
        "auth-keepalive-share-vars" "auth-keepalive-requests" "auth-keepalive-timeout"
        "auth-snippet"
    } switches { "auth-always-set-cookie" };
    Closes CLIENT_CERT {
        "auth-tls-secret" "auth-tls-verify-client" "auth-tls-verify-depth" "auth-tls-error-page"
        "auth-tls-match-cn"
    } switches { "auth-tls-pass-certificate-to-upstream" };
    Closes ADDRESSES { "whitelist-source-range" "allowlist-source-range" "denylist-source-range" };
    Closes FIREWALL {
        "modsecurity-snippet" "modsecurity-transaction-id"
    } switches { "enable-modsecurity" "enable-owasp-core-rules" };
    Closes REWRITE { "rewrite-target" };
    Closes FASTCGI { "fastcgi-index" "fastcgi-params-configmap" };
    Lost SATISFY { "satisfy" };
    Lost LIMIT {
        "limit-rps" "limit-rpm" "limit-connections" "limit-burst-multiplier" "limit-rate"
        "limit-rate-after" "limit-allowlist" "limit-whitelist" "global-rate-limit"
        "global-rate-limit-window" "global-rate-limit-key" "global-rate-limit-ignored-cidrs"
    };
    Lost CORS {
        "cors-allow-origin" "cors-allow-methods" "cors-allow-headers" "cors-expose-headers"
        "cors-max-age"
    } switches { "enable-cors" "cors-allow-credentials" };
    Lost PASSTHROUGH {} switches { "ssl-passthrough" };
    Lost ROOT { "app-root" };
    Lost HEADERS { "custom-headers" };
    Lost STREAM { "stream-snippet" };
    Differs MIRROR { "mirror-target" "mirror-host" "mirror-request-body" };
    Differs ERRORS { "custom-http-errors" "default-backend" };
    Differs COOKIE {
        "affinity" "affinity-mode" "affinity-canary-behavior" "session-cookie-name"
        "session-cookie-path" "session-cookie-domain" "session-cookie-expires"
        "session-cookie-max-age" "session-cookie-samesite"
    } switches {
        "session-cookie-change-on-failure" "session-cookie-conditional-samesite-none"
        "session-cookie-secure" "session-cookie-partitioned"
    };
    Differs BALANCE {
        "load-balance" "upstream-hash-by" "upstream-hash-by-subset-size"
    } switches { "upstream-hash-by-subset" };
    Differs RETRY {
        "proxy-next-upstream" "proxy-next-upstream-timeout" "proxy-next-upstream-tries"
    };
    Differs TIMEOUT { "proxy-connect-timeout" "proxy-read-timeout" "proxy-send-timeout" };
    Differs BODY { "proxy-body-size" };
    Differs UPSTREAM_TLS {
        "proxy-ssl-secret" "proxy-ssl-name" "proxy-ssl-verify" "proxy-ssl-verify-depth"
        "proxy-ssl-ciphers" "proxy-ssl-protocols" "proxy-ssl-server-name"
    } switches { "secure-backends" };
    Differs REDIRECT_TLS {} switches { "ssl-redirect" "force-ssl-redirect" };
    Differs WWW {} switches { "from-to-www-redirect" };
    Differs PREFIX { "x-forwarded-prefix" };
    Differs GLOBAL_AUTH {} switches { "enable-global-auth" };
    Harmless SLASH {} switches { "preserve-trailing-slash" };
    Harmless RESPONSE {
        "proxy-redirect-from" "proxy-redirect-to" "proxy-cookie-domain" "proxy-cookie-path"
    };
    Harmless CONNECTION { "connection-proxy-header" };
    Harmless VERSION { "proxy-http-version" };
    Harmless PUSH {} switches { "http2-push-preload" };
    Harmless WEBSOCKET { "websocket-services" };
    Harmless INTERCEPT {} switches { "disable-proxy-intercept-errors" };
    Harmless SESSION_TLS {
        "ssl-ciphers"
    } switches { "ssl-prefer-server-ciphers" };
    Harmless BUFFER {
        "client-body-buffer-size" "proxy-buffer-size" "proxy-buffers-number"
        "proxy-busy-buffers-size" "proxy-max-temp-file-size" "proxy-buffering"
        "proxy-request-buffering"
    };
    Harmless LOGS {} switches {
        "enable-access-log" "enable-rewrite-log" "enable-opentelemetry" "enable-opentracing"
        "opentelemetry-trust-incoming-span" "opentracing-trust-incoming-span" "enable-influxdb"
    };
};

/// Looks up an annotation.
pub(crate) fn entry(name: &str) -> Option<&'static Entry> {
    CATALOGUE.iter().find(|entry| entry.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_annotation_is_listed_once_and_is_in_the_readme() {
        let readme = include_str!("../README.md");
        for (i, one) in CATALOGUE.iter().enumerate() {
            let twice = CATALOGUE
                .iter()
                .skip(i + 1)
                .any(|other| other.name == one.name);
            assert!(!twice, "{} stands twice", one.name);
            let is_listed = readme.contains(&format!("`{}`", one.name));
            assert!(is_listed, "{} is not in README.md", one.name);
        }
    }
}
