//! `upstream-vhost`: a name, or a template of nginx variables.

use mesh_ingress_core::{ServiceRef, Vhost, VhostPolicy};

/// The value of `upstream-vhost`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum UpstreamVhost {
    /// The client's own host: `$host`, `$http_host`.
    Client,
    /// A template of text and variables of the backend.
    Name(Vec<Piece>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    Text(String),
    ServiceName,
    ServicePort,
    Namespace,
    IngressName,
}

impl UpstreamVhost {
    /// Reads a value as nginx does: `$name` and `${name}` are variables.
    pub(crate) fn parse(value: &str) -> Result<Self, String> {
        if matches!(
            value,
            "$host"
                | "${host}"
                | "$http_host"
                | "${http_host}"
                | "$best_http_host"
                | "${best_http_host}"
        ) {
            return Ok(Self::Client);
        }
        let mut pieces = Vec::new();
        let mut rest = value;
        while let Some((text, after)) = rest.split_once('$') {
            if !text.is_empty() {
                pieces.push(Piece::Text(text.to_owned()));
            }
            let (name, after) = variable(after)
                .ok_or_else(|| format!("{value:?} has a '$' that begins no variable"))?;
            pieces.push(match name {
                "service_name" => Piece::ServiceName,
                "service_port" => Piece::ServicePort,
                "namespace" => Piece::Namespace,
                "ingress_name" => Piece::IngressName,
                other => {
                    return Err(format!(
                        "variable ${other} is not supported; supported are $service_name, $namespace, \
                         $service_port, $ingress_name, and $host alone"
                    ));
                }
            });
            rest = after;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        Ok(Self::Name(pieces))
    }

    /// The policy for one backend.
    pub(crate) fn of(&self, service: &ServiceRef, ingress: &str) -> Result<VhostPolicy, String> {
        let pieces = match self {
            Self::Client => return Ok(VhostPolicy::Preserve),
            Self::Name(pieces) => pieces,
        };
        let mut text = String::new();
        for piece in pieces {
            match piece {
                Piece::Text(piece) => text += piece,
                Piece::ServiceName => text += service.name(),
                Piece::ServicePort => text += &service.port().to_string(),
                Piece::Namespace => text += service.namespace(),
                Piece::IngressName => text += ingress,
            }
        }
        match text.parse::<Vhost>() {
            Ok(vhost) => Ok(VhostPolicy::Override(vhost)),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// The name of a variable, and what follows it.
fn variable(text: &str) -> Option<(&str, &str)> {
    if let Some(braced) = text.strip_prefix('{') {
        return braced.split_once('}');
    }
    let end = text
        .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(value: &str) -> Result<VhostPolicy, String> {
        let service: ServiceRef = "web.shop:8080".parse().unwrap();
        UpstreamVhost::parse(value)?.of(&service, "main")
    }

    #[test]
    fn templates_are_expanded_for_each_backend() {
        for (value, name) in [
            ("web.shop.svc.cluster.local", "web.shop.svc.cluster.local"),
            (
                "$service_name.$namespace.svc.cluster.local",
                "web.shop.svc.cluster.local",
            ),
            (
                "${service_name}.${namespace}.svc.cluster.local",
                "web.shop.svc.cluster.local",
            ),
            (
                "${service_name}-x.$namespace:$service_port",
                "web-x.shop:8080",
            ),
            ("$ingress_name", "main"),
        ] {
            let wanted = VhostPolicy::Override(name.parse().unwrap());
            assert_eq!(of(value), Ok(wanted), "{value}");
        }
        for value in ["$host", "${http_host}", "$best_http_host"] {
            assert_eq!(of(value), Ok(VhostPolicy::Preserve), "{value}");
        }
    }

    #[test]
    fn error_names_the_unknown_variable() {
        for (value, reason) in [
            ("$arg_x.example.com", "variable $arg_x is not supported"),
            ("$service_namex", "variable $service_namex is not supported"),
            ("$host:8080", "variable $host is not supported"),
            ("$", "a '$' that begins no variable"),
            ("a.$.b", "a '$' that begins no variable"),
            ("${service_name", "a '$' that begins no variable"),
            ("a b", "invalid virtual host \"a b\""),
            ("", "it is empty"),
        ] {
            let error = of(value).unwrap_err();
            assert!(error.contains(reason), "{value}: {error}");
        }
    }
}
