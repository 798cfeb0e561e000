//! Routes as text: on command lines, in logs, in errors.

use std::fmt;
use std::str::FromStr;

use mesh_ingress_core::{ParseError, ServiceRef};

use crate::action::Action;
use crate::backend::Backend;
use crate::host::{HostRule, WildcardScope};
use crate::path::PathMatch;
use crate::route::Route;

impl FromStr for Route {
    type Err = ParseError;

    /// Parses the [text form](Route#text-form).
    fn from_str(input: &str) -> Result<Self, ParseError> {
        parse(input).map_err(|reason| ParseError::new("route", input, reason))
    }
}

fn parse(input: &str) -> Result<Route, String> {
    // Paths may contain '=', Services do not, so the last one separates them.
    let (matched, services) = input
        .rsplit_once('=')
        .ok_or("it has no '=', expected host/path=name.namespace:port")?;
    if services.starts_with('/') {
        return Err(format!(
            "it has no service after the path {services:?}, \
             expected host=/path=name.namespace:port"
        ));
    }
    let (host, path) = parse_path(matched)?;
    HostRule::parse(host, WildcardScope::default()).map_err(|error| error.to_string())?;
    path.compile().map_err(|error| error.to_string())?;
    let mut route = Route::host(host).path(path);
    for service in services.split(',') {
        route = route.to_backend(parse_backend(service)?);
    }
    Ok(route)
}

/// Host names have none of the characters that begin a path.
fn parse_path(text: &str) -> Result<(&str, PathMatch), String> {
    let Some(at) = text.find(['/', '=', '~']) else {
        return Ok((text, PathMatch::default()));
    };
    let (host, path) = text.split_at(at);
    if let Some(exact) = path.strip_prefix('=') {
        return Ok((host, PathMatch::Exact(exact.into())));
    }
    if let Some(pattern) = path.strip_prefix('~') {
        return regex(pattern).map(|path| (host, path));
    }
    Ok(match path.strip_suffix('*') {
        Some(prefix) => (host, PathMatch::StringPrefix(prefix.into())),
        None => (host, PathMatch::Prefix(path.into())),
    })
}

#[cfg(feature = "regex")]
fn regex(pattern: &str) -> Result<PathMatch, String> {
    crate::pattern::of_path(pattern).map_err(|error| error.to_string())?;
    Ok(PathMatch::Regex(pattern.into()))
}

#[cfg(not(feature = "regex"))]
fn regex(pattern: &str) -> Result<PathMatch, String> {
    Err(format!(
        "regular expressions such as {pattern:?} are not built in (cargo feature \"regex\")"
    ))
}

fn parse_backend(text: &str) -> Result<Backend, String> {
    let (service, weight) = match text.split_once('@') {
        Some((service, weight)) => (service, Some(weight)),
        None => (text, None),
    };
    let service: ServiceRef = service
        .parse()
        .map_err(|error: ParseError| error.to_string())?;
    let backend = Backend::new(service);
    let Some(weight) = weight else {
        return Ok(backend);
    };
    // `parse` alone would accept "+5".
    match weight.parse() {
        Ok(number) if weight.bytes().all(|b| b.is_ascii_digit()) => Ok(backend.weight(number)),
        _ => Err(format!(
            "weight {weight:?} is not a number between 0 and {}",
            u32::MAX
        )),
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.default_name())?;
        match self.action() {
            Action::Forward => f.write_str("=")?,
            Action::Redirect(redirect) => {
                return write!(f, " answers {}", redirect.status.as_u16());
            }
            Action::Respond(status) => return write!(f, " answers {}", status.as_u16()),
        }
        let weights = self
            .backends()
            .iter()
            .any(|backend| backend.get_weight() != 1);
        for (i, backend) in self.backends().iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(f, "{comma}{}", backend.service())?;
            if weights {
                write!(f, "@{}", backend.get_weight())?;
            }
        }
        Ok(())
    }
}

impl Route {
    /// Host, path and conditions.
    pub(crate) fn default_name(&self) -> String {
        let method = self.get_method().map(|method| format!("{method} "));
        let mut name = format!(
            "{}{}{}",
            method.unwrap_or_default(),
            self.get_host(),
            self.get_path()
        );
        let headers = self
            .get_headers()
            .iter()
            .map(|header| format!("{}{}", header.name, header.value));
        let query = self
            .get_query()
            .iter()
            .map(|param| format!("?{}{}", param.name, param.value));
        let conditions: Vec<_> = headers.chain(query).collect();
        if !conditions.is_empty() {
            name += &format!(" [{}]", conditions.join(", "));
        }
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_round_trips() {
        for text in [
            "shop.example.com/=web.default:80",
            "*/=web.default:80",
            "*.example.com/api/=api.default:http",
            "shop.example.com=/login=auth.default:80",
            "shop.example.com/img*=img.default:80",
            "shop.example.com/a=b/c=img.default:80",
            "*/=web.default:80@90,new.default:80@10",
            "*/=web.default:80,new.default:80",
        ] {
            assert_eq!(text.parse::<Route>().unwrap().to_string(), text);
        }
        let short: Route = "shop.example.com=web.default:80".parse().unwrap();
        assert_eq!(short.to_string(), "shop.example.com/=web.default:80");
    }

    #[test]
    fn error_names_the_invalid_part_of_a_route() {
        for (text, reason) in [
            (
                "shop",
                "it has no '=', expected host/path=name.namespace:port",
            ),
            ("", "it has no '='"),
            ("=web.default:80", "invalid host \"\": it is empty"),
            ("/api=web.default:80", "invalid host \"\": it is empty"),
            ("shop:80/=web.default:80", "leave the port \":80\" out"),
            (
                "shop/=web",
                "invalid service reference \"web\": it has no port",
            ),
            ("shop/=", "invalid service reference \"\""),
            ("shop=/login", "it has no service after the path \"/login\""),
            ("shop/=web.default:80@", "weight \"\" is not a number"),
            ("shop/=web.default:80@+5", "weight \"+5\" is not a number"),
            (
                "shop/=web.default:80@4294967296",
                "is not a number between 0 and 4294967295",
            ),
            ("shop/=web.default:80,", "invalid service reference \"\""),
            ("shop/a b=web.default:80", "' ' at position 3"),
            ("shop==web.default:80", "invalid path \"\""),
            ("http://shop/=web.default:80", "leave the port"),
        ] {
            let error = text.parse::<Route>().unwrap_err().to_string();
            assert!(error.contains(reason), "{text:?}: {error}");
            assert!(
                error.starts_with(&format!("invalid route {text:?}: ")),
                "{error}"
            );
        }
    }

    #[test]
    fn default_names_show_the_conditions() {
        let route = Route::host("a.example")
            .path_exact("/x")
            .method(http::Method::GET)
            .header("x-canary", "always")
            .query("v", "2");
        assert_eq!(route.get_name(), "GET a.example=/x [x-canary=always, ?v=2]");
        assert_eq!(route.name("canary").get_name(), "canary");
    }
}
