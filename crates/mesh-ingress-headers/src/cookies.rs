//! Cookie crumbs (RFC 9113 §8.2.3).

use http::header::{COOKIE, HeaderMap, HeaderValue};

/// Joins several `Cookie` lines with `; `, which is required before they go to an HTTP/1 upstream:
/// HTTP/2 clients split the field for better compression, and applications read only the first line.
/// One line or none is left as it is.
///
/// ```
/// use http::{HeaderMap, HeaderValue, header::COOKIE};
/// use mesh_ingress_headers::cookies;
///
/// let mut headers = HeaderMap::new();
/// headers.append(COOKIE, HeaderValue::from_static("a=1"));
/// headers.append(COOKIE, HeaderValue::from_static("b=2; c=3"));
/// cookies::join(&mut headers);
/// assert_eq!(headers.get_all(COOKIE).iter().collect::<Vec<_>>(), ["a=1; b=2; c=3"]);
/// ```
pub fn join(headers: &mut HeaderMap) {
    let lines = headers.get_all(COOKIE);
    let mut crumbs = lines.iter().filter(|crumb| !crumb.is_empty());
    if lines.iter().nth(1).is_none() {
        return;
    }
    let mut all = Vec::with_capacity(lines.iter().map(|crumb| crumb.len() + 2).sum());
    if let Some(first) = crumbs.next() {
        all.extend_from_slice(first.as_bytes());
    }
    for crumb in crumbs {
        all.extend_from_slice(b"; ");
        all.extend_from_slice(crumb.as_bytes());
    }
    let sensitive = lines.iter().any(HeaderValue::is_sensitive);
    // Joined valid values are a valid value.
    if let Ok(mut joined) = HeaderValue::try_from(all) {
        joined.set_sensitive(sensitive);
        headers.insert(COOKIE, joined);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(crumbs: &[&'static str]) -> Vec<String> {
        let mut headers = HeaderMap::new();
        headers.insert("host", HeaderValue::from_static("a"));
        for crumb in crumbs {
            headers.append(COOKIE, HeaderValue::from_static(crumb));
        }
        join(&mut headers);
        assert_eq!(headers["host"], "a");
        let lines = headers.get_all(COOKIE).iter();
        lines
            .map(|line| line.to_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn rfc9113_8_2_3_crumbs_become_one_line_in_their_order() {
        assert_eq!(joined(&["a=1", "b=2", "c=3"]), ["a=1; b=2; c=3"]);
        assert_eq!(joined(&["a=1", "a=1"]), ["a=1; a=1"]);
        assert_eq!(joined(&["a=1", "", "c=3"]), ["a=1; c=3"]);
        assert_eq!(joined(&["", ""]), [""]);
    }

    #[test]
    fn one_line_is_left_as_it_is() {
        assert_eq!(joined(&["a=1;b=2 ;"]), ["a=1;b=2 ;"]);
        assert!(joined(&[]).is_empty());
    }

    #[test]
    fn joined_cookie_stays_sensitive() {
        let mut headers = HeaderMap::new();
        let mut secret = HeaderValue::from_static("session=1");
        secret.set_sensitive(true);
        headers.append(COOKIE, HeaderValue::from_static("a=1"));
        headers.append(COOKIE, secret);
        join(&mut headers);
        assert!(headers[COOKIE].is_sensitive());
    }
}
