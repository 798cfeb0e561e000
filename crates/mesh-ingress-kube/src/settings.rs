//! The settings in the annotations of an Ingress.

use http::StatusCode;
use mesh_ingress_core::{Protocol, Scheme};
use mesh_ingress_route::{Action, Redirect};

use crate::canary::Canary;
use crate::finding::{ObjectFindings, Severity};
use crate::ingress::{Ingress, report_class};
use crate::unsupported::{self, Effect};
use crate::vhost::UpstreamVhost;

const PREFIX: &str = "nginx.ingress.kubernetes.io/";

/// The action for routes that must not be served without a setting.
const CLOSED: Action = Action::Respond(StatusCode::SERVICE_UNAVAILABLE);

/// The parsed annotations.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// `None` is the backend's own name.
    pub(crate) vhost: Option<UpstreamVhost>,
    pub(crate) protocol: Protocol,
    /// The action for every request.
    pub(crate) action: Action,
    pub(crate) canary: Option<Canary>,
    /// Whether paths that are `ImplementationSpecific` are regular expressions.
    pub(crate) regex: bool,
    pub(crate) aliases: Vec<String>,
}

/// The annotations of ingress-nginx, without prefix, in their order.
#[derive(Debug)]
pub(crate) struct Annotations<'a>(Vec<(&'a str, &'a str)>);

impl Settings {
    pub(crate) fn read(ingress: &Ingress, report: &mut ObjectFindings<'_>) -> Self {
        let annotations = Annotations::of(ingress, report);
        let mut settings = Self {
            vhost: None,
            protocol: Protocol::Http1,
            action: Action::Forward,
            canary: Canary::read(&annotations, report),
            regex: false,
            aliases: Vec::new(),
        };
        let is_canary = settings.canary.is_some();
        let mut redirect = None;
        for &(name, value) in &annotations.0 {
            let field = field(name);
            match name {
                "service-upstream" => service_upstream(value, &field, report),
                "upstream-vhost" => settings.vhost = upstream_vhost(value, &field, report),
                "backend-protocol" => settings.backend_protocol(value, &field, report),
                "use-regex" => settings.regex |= switch(value, &field, report).unwrap_or(false),
                "server-alias" => settings.server_alias(value, &field, report),
                "permanent-redirect" => {
                    // As in ingress-nginx, a temporal redirect wins over a permanent one.
                    if redirect.is_none() {
                        let status =
                            annotations.redirect_status("permanent-redirect-code", 301, report);
                        redirect = Some(to_action(value, status, &field, report));
                    }
                }
                "temporal-redirect" => {
                    let status = annotations.redirect_status("temporal-redirect-code", 302, report);
                    redirect = Some(to_action(value, status, &field, report));
                }
                "permanent-redirect-code" | "temporal-redirect-code" => {}
                "configuration-snippet" | "server-snippet" => {
                    settings.snippet(value, &field, report);
                }
                name if Canary::is_setting(name) => {}
                name => settings.not_supported(name, value, &field, report),
            }
        }
        // A rewritten path is a regular expression even without `use-regex`.
        settings.regex |= annotations.get("rewrite-target").is_some();
        if let Some(redirect) = redirect
            && settings.action == Action::Forward
        {
            settings.action = redirect;
        }
        if !ingress.tls.is_empty() && annotations.get("ssl-redirect").is_none() && !is_canary {
            report.warning(
                &field("ssl-redirect"),
                "ingress-nginx redirects http to https where there is a certificate; here the cleartext \
                 listener is to do it",
            );
        }
        if is_canary {
            // A canary has the access rules and similar settings of its main Ingress.
            if matches!(settings.action, Action::Redirect(_)) {
                report.warning(
                    "metadata.annotations",
                    "a canary has no redirect of its own; it is left out",
                );
                settings.action = Action::Forward;
            }
        } else if annotations.get("upstream-vhost").is_none() && settings.action == Action::Forward
        {
            report.info(
                &field("upstream-vhost"),
                "it is not set: ingress-nginx keeps the client's Host; here each backend gets its own \
                 name, as a mesh expects (set it to $host to keep the client's)",
            );
        }
        settings
    }

    /// Whether requests are refused because an annotation cannot be honoured.
    pub(crate) fn is_closed(&self) -> bool {
        self.action == CLOSED
    }

    fn close(&mut self, field: &str, reason: &str, report: &mut ObjectFindings<'_>) {
        report.error(
            field,
            format!("{reason}; requests are answered with 503, since serving them without would be wrong"),
        );
        self.action = CLOSED;
    }

    fn backend_protocol(&mut self, value: &str, field: &str, report: &mut ObjectFindings<'_>) {
        match &*value.to_ascii_uppercase() {
            "HTTP" => self.protocol = Protocol::Http1,
            "GRPC" => self.protocol = Protocol::Http2,
            "AUTO_HTTP" => {
                report.warning(field, "AUTO_HTTP is taken for HTTP: the mesh encrypts");
            }
            protocol @ ("HTTPS" | "GRPCS") => {
                let reason = format!(
                    "{protocol} backends are not supported yet (in a mesh, leave encryption to it: \
                     TLS of the application's own hides the requests from the mesh)"
                );
                self.close(field, &reason, report);
            }
            "FCGI" => self.close(field, "FastCGI is not supported", report),
            _ => report.error(
                field,
                format!("{value:?} is not one of HTTP, GRPC, HTTPS, GRPCS, AUTO_HTTP, FCGI; taken for HTTP"),
            ),
        }
    }

    fn server_alias(&mut self, value: &str, field: &str, report: &mut ObjectFindings<'_>) {
        for alias in value
            .split(',')
            .map(str::trim)
            .filter(|alias| !alias.is_empty())
        {
            if alias.starts_with('~') {
                report.error(
                    field,
                    format!(
                        "{alias:?}: aliases by regular expression are not supported, it is left out"
                    ),
                );
            } else {
                self.aliases.push(alias.to_owned());
            }
        }
    }

    fn snippet(&mut self, value: &str, field: &str, report: &mut ObjectFindings<'_>) {
        // Directives of nginx's access phase, which restrict access.
        let denies = [
            "deny",
            "allow",
            "return",
            "auth_",
            "access_by_lua",
            "internal",
            "limit_",
        ];
        match denies.iter().find(|word| value.contains(**word)) {
            Some(word) => {
                let reason = format!(
                    "nginx directives are not understood, and {word:?} among them may keep clients out"
                );
                self.close(field, &reason, report);
            }
            None => report.error(
                field,
                "nginx directives are not understood, they have no effect",
            ),
        }
    }

    fn not_supported(
        &mut self,
        name: &str,
        value: &str,
        field: &str,
        report: &mut ObjectFindings<'_>,
    ) {
        let Some(entry) = unsupported::entry(name) else {
            report.warning(field, "this annotation is not known, it has no effect");
            return;
        };
        if entry.switch && switch(value, field, report) == Some(false) {
            return;
        }
        match entry.effect {
            // ingress-nginx uses these settings of the main Ingress.
            Effect::Closes if self.canary.is_some() => {
                report.info(
                    field,
                    "a canary has those of its main Ingress; it has no effect",
                );
            }
            Effect::Closes => self.close(field, entry.message, report),
            Effect::Lost => report.add(Severity::Error, field, entry.message),
            Effect::Differs => report.add(Severity::Warning, field, entry.message),
            Effect::Harmless => report.add(Severity::Info, field, entry.message),
        }
    }
}

impl<'a> Annotations<'a> {
    /// Collects them, and reports annotations of other controllers.
    fn of(ingress: &'a Ingress, report: &mut ObjectFindings<'_>) -> Self {
        let mut own = Vec::new();
        for (key, value) in &ingress.annotations {
            if let Some(name) = key.strip_prefix(PREFIX) {
                own.push((name, &**value));
            } else if key == "kubernetes.io/ingress.class" {
                report_class(value, key, report);
            } else if key != "kubectl.kubernetes.io/last-applied-configuration" {
                report.info(
                    key,
                    "this annotation is for another program, it has no effect here",
                );
            }
        }
        Self(own)
    }

    pub(crate) fn get(&self, name: &str) -> Option<&'a str> {
        self.0
            .iter()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| *value)
    }

    /// As in ingress-nginx, an invalid redirect status becomes the default.
    fn redirect_status(
        &self,
        name: &str,
        default: u16,
        report: &mut ObjectFindings<'_>,
    ) -> StatusCode {
        let wanted = match self.get(name) {
            Some(text) => match text.parse() {
                Ok(code @ (301 | 302 | 303 | 307 | 308)) => code,
                _ => {
                    let message = format!(
                        "{text:?} is not one of 301, 302, 303, 307, 308; {default} is used"
                    );
                    report.error(&field(name), message);
                    default
                }
            },
            None => default,
        };
        StatusCode::from_u16(wanted).unwrap_or(StatusCode::FOUND)
    }
}

/// The full name of an annotation.
pub(crate) fn field(name: &str) -> String {
    format!("{PREFIX}{name}")
}

/// A boolean as Go reads it (`strconv.ParseBool`).
fn parse_bool(value: &str) -> Option<bool> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// A value that is no boolean is an error, never "off".
pub(crate) fn switch(value: &str, field: &str, report: &mut ObjectFindings<'_>) -> Option<bool> {
    let parsed = parse_bool(value);
    if parsed.is_none() {
        let message = format!("{value:?} is not a boolean, expected \"true\" or \"false\"");
        report.error(field, message);
    }
    parsed
}

fn service_upstream(value: &str, field: &str, report: &mut ObjectFindings<'_>) {
    match parse_bool(value) {
        Some(true) => {}
        Some(false) => report.warning(
            field,
            "requests are sent to the Service's ClusterIP all the same: around it, there is no mesh",
        ),
        None => report.error(
            field,
            format!("{value:?} is not a boolean: ingress-nginx takes it for \"false\", here it is always on"),
        ),
    }
}

fn upstream_vhost(
    value: &str,
    field: &str,
    report: &mut ObjectFindings<'_>,
) -> Option<UpstreamVhost> {
    match UpstreamVhost::parse(value) {
        Ok(vhost) => Some(vhost),
        Err(reason) => {
            report.error(
                field,
                format!("{reason}; each backend gets its own name instead"),
            );
            None
        }
    }
}

fn to_action(
    value: &str,
    status: StatusCode,
    field: &str,
    report: &mut ObjectFindings<'_>,
) -> Action {
    match redirect(value, status) {
        Some(redirect) => Action::Redirect(redirect),
        None => {
            report.error(
                field,
                format!(
                    "{value:?} is not understood, expected a URI, or a scheme and host before \
                     $request_uri; requests are answered with 503"
                ),
            );
            CLOSED
        }
    }
}

/// A URI as it stands, or with the client's path and query (`$request_uri`) at its end.
fn redirect(value: &str, status: StatusCode) -> Option<Redirect> {
    let is_uri = |text: &str| {
        !text.is_empty()
            && text
                .chars()
                .all(|c| c.is_ascii_graphic() && c != '$' && c != '"')
    };
    let Some(base) = value.strip_suffix("$request_uri") else {
        return is_uri(value).then(|| Redirect::to_uri(status, value));
    };
    let (scheme, authority) = base.split_once("://")?;
    let scheme = match scheme {
        "http" => Some(Scheme::Http),
        "https" => Some(Scheme::Https),
        "$scheme" => None,
        _ => return None,
    };
    let mut redirect = Redirect::new(status);
    redirect.scheme = scheme;
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, Some(port.parse().ok()?)),
        None => (authority, None),
    };
    redirect.port = port;
    if !matches!(host, "$host" | "$http_host") {
        redirect = redirect.host(host);
    }
    Some(redirect)
}
