//! Host rules, and the host of a request in comparable form.

use mesh_ingress_core::ParseError;

/// The longest name DNS can have, in bytes (RFC 1035 §2.3.4).
const MAX_HOST: usize = 253;

/// How many labels the `*` of a wildcard host covers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WildcardScope {
    /// One: `*.example.com` covers `a.example.com`, not `a.b.example.com`. The rule of Ingress.
    #[default]
    OneLabel,
    /// One or more: `*.example.com` covers `a.b.example.com`, too. The rule of the Gateway API.
    ManyLabels,
}

/// A compiled host rule.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum HostRule {
    Any,
    /// Lower-case, without trailing dot.
    Exact(Box<[u8]>),
    /// The part after `*.`, lower-case, without trailing dot.
    Wildcard(Box<[u8]>, WildcardScope),
}

impl HostRule {
    pub(crate) fn parse(text: &str, scope: WildcardScope) -> Result<Self, ParseError> {
        if text == "*" {
            return Ok(Self::Any);
        }
        parse(text, scope).map_err(|reason| ParseError::new("host", text, reason))
    }
}

fn parse(text: &str, scope: WildcardScope) -> Result<HostRule, String> {
    if text.is_empty() {
        return Err("it is empty, expected a name such as shop.example.com, or * for any".into());
    }
    let (wildcard, name) = match text.strip_prefix("*.") {
        Some(name) => (true, name),
        None => (false, text),
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    let lower = || name.to_ascii_lowercase().into_bytes().into_boxed_slice();
    if !wildcard && is_ip_v6(name) {
        return Ok(HostRule::Exact(lower()));
    }
    if let Some((host, port)) = name.split_once(':') {
        return Err(format!(
            "leave the port \":{port}\" out: routes match {host:?} whatever the port"
        ));
    }
    if let Some(at) = name.find('*') {
        return Err(format!(
            "'*' at position {} must stand alone as the first label, as in *.example.com",
            at + 1 + (text.len() - name.len())
        ));
    }
    for label in name.split('.') {
        check_label(label)?;
    }
    if name.len() > MAX_HOST {
        return Err(format!(
            "it has {} characters, a DNS name has at most {MAX_HOST}",
            name.len()
        ));
    }
    Ok(match wildcard {
        true => HostRule::Wildcard(lower(), scope),
        false => HostRule::Exact(lower()),
    })
}

fn is_ip_v6(name: &str) -> bool {
    name.strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'))
        .is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok())
}

fn check_label(label: &str) -> Result<(), String> {
    if label.is_empty() {
        return Err("it has an empty label (two dots in a row, or one at the beginning)".into());
    }
    if let Some(c) = label
        .chars()
        .find(|c| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '_'))
    {
        let hint = match c {
            '/' => ", give the path with path_prefix or path_exact",
            c if !c.is_ascii() => ", write the name in its ASCII form (xn--…)",
            _ => "",
        };
        return Err(format!("{c:?} does not belong in a host name{hint}"));
    }
    if label.len() > 63 {
        return Err(format!(
            "label {label:?} has {} characters, a DNS label has at most 63",
            label.len()
        ));
    }
    if label.starts_with('-') || label.ends_with('-') {
        return Err(format!("label {label:?} begins or ends with '-'"));
    }
    Ok(())
}

/// The host of a request, lower-case, without port and trailing dot.
pub(crate) struct HostKey<'h>(&'h [u8]);

/// A stack buffer for a host.
pub(crate) type HostBuffer = [u8; MAX_HOST];

impl<'h> HostKey<'h> {
    /// `None` for a text that no rule can name; such a request can still match routes for any host.
    /// `buffer` is used for a host with upper-case letters, which few clients send.
    pub(crate) fn of(host: &'h str, buffer: &'h mut HostBuffer) -> Option<Self> {
        let name = without_port(host);
        let name = name.strip_suffix('.').unwrap_or(name).as_bytes();
        let buffer = buffer.get_mut(..name.len())?;
        if !name.iter().any(u8::is_ascii_uppercase) {
            return Some(Self(name));
        }
        buffer.copy_from_slice(name);
        buffer.make_ascii_lowercase();
        Some(Self(buffer))
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.0
    }

    /// The parent domains, the longest first.
    pub(crate) fn parents(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.as_bytes();
        std::iter::from_fn(move || {
            let dot = rest.iter().position(|b| *b == b'.')?;
            // A wildcard never stands for an empty label.
            if dot == 0 {
                return None;
            }
            rest = rest.get(dot + 1..)?;
            Some(rest)
        })
    }
}

fn without_port(host: &str) -> &str {
    let end = match host.strip_prefix('[') {
        Some(literal) => literal.find(']').map(|at| at + 2),
        None => host.bytes().position(|b| b == b':'),
    };
    end.and_then(|end| host.get(..end)).unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_names_the_invalid_part_of_a_host() {
        for (text, reason) in [
            ("", "it is empty"),
            ("shop.example.com:80", "leave the port \":80\" out"),
            ("*.", "empty label"),
            ("**", "'*' at position 1"),
            ("shop.*.com", "'*' at position 6"),
            ("*.*.com", "'*' at position 3"),
            ("*shop.example.com", "'*' at position 1"),
            ("a..b", "empty label"),
            (".a", "empty label"),
            ("a/b", "'/' does not belong in a host name, give the path"),
            ("bücher.example", "ASCII form (xn--"),
            ("a b", "' ' does not belong"),
            ("-a.b", "begins or ends with '-'"),
            ("[::g]", "leave the port"),
            ("http://a", "leave the port"),
        ] {
            let error = HostRule::parse(text, WildcardScope::OneLabel)
                .unwrap_err()
                .to_string();
            assert!(error.contains(reason), "{text:?}: {error}");
        }
        let long_label = "a".repeat(64);
        let long_name = ["abc"; 64].join(".");
        for text in [long_label, long_name] {
            assert!(HostRule::parse(&text, WildcardScope::OneLabel).is_err());
        }
    }

    #[test]
    fn case_and_trailing_dot_do_not_matter() {
        let rule = |text| HostRule::parse(text, WildcardScope::OneLabel).unwrap();
        assert_eq!(rule("Shop.Example.COM."), rule("shop.example.com"));
        assert_eq!(rule("*.Example.com"), rule("*.example.com."));
        assert_ne!(rule("*.example.com"), rule("example.com"));
        for (host, key) in [
            ("Shop.Example.com:8443", "shop.example.com"),
            ("shop.example.com.", "shop.example.com"),
            ("shop.example.com.:80", "shop.example.com"),
            ("[::1]:80", "[::1]"),
            ("[::A]", "[::a]"),
            ("10.0.0.1:80", "10.0.0.1"),
            ("", ""),
        ] {
            assert_eq!(
                HostKey::of(host, &mut [0; MAX_HOST]).unwrap().as_bytes(),
                key.as_bytes()
            );
        }
        assert!(HostKey::of(&"a".repeat(254), &mut [0; MAX_HOST]).is_none());
    }

    #[test]
    fn parents_are_longest_first() {
        let all = |host| {
            let mut buffer = [0; MAX_HOST];
            let key = HostKey::of(host, &mut buffer).unwrap();
            key.parents()
                .map(|p| String::from_utf8(p.to_vec()).unwrap())
                .collect::<Vec<_>>()
        };
        assert_eq!(all("a.b.c"), ["b.c", "c"]);
        assert_eq!(all(".b.c"), [""; 0]);
        assert_eq!(all("a..c"), [".c"]);
        assert_eq!(all("a"), [""; 0]);
    }
}
