//! `Max-Forwards`: how many more proxies may forward an `OPTIONS` or `TRACE` (RFC 9110 §7.6.2).

use http::Method;
use http::header::{HeaderMap, HeaderValue, MAX_FORWARDS};

use crate::framing::number;
use crate::{InvalidRequest, RequestRule};

/// Whether to forward or to answer a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaxForwards {
    /// Forward it.
    Forward,
    /// Answer it here, as the origin would: the count is used up.
    Answer,
}

/// Counts this hop down in `Max-Forwards` of an `OPTIONS` or `TRACE`; other methods do not have it.
///
/// ```
/// use http::{HeaderMap, Method, header::MAX_FORWARDS};
/// use mesh_ingress_headers::max_forwards::{self, MaxForwards};
///
/// let mut headers = HeaderMap::new();
/// headers.insert(MAX_FORWARDS, 1.into());
/// assert_eq!(max_forwards::check(&Method::OPTIONS, &mut headers)?, MaxForwards::Forward);
/// assert_eq!(headers[MAX_FORWARDS], "0");
/// assert_eq!(max_forwards::check(&Method::OPTIONS, &mut headers)?, MaxForwards::Answer);
/// # Ok::<(), mesh_ingress_headers::InvalidRequest>(())
/// ```
///
/// # Errors
/// When there are several counts, or one that is no plain number: the number of hops left is then
/// unknown.
pub fn check(method: &Method, headers: &mut HeaderMap) -> Result<MaxForwards, InvalidRequest> {
    if *method != Method::OPTIONS && *method != Method::TRACE {
        return Ok(MaxForwards::Forward);
    }
    let mut lines = headers.get_all(MAX_FORWARDS).iter();
    let Some(count) = lines.next() else {
        return Ok(MaxForwards::Forward);
    };
    let error = RequestRule::MaxForwards;
    if lines.next().is_some() {
        return Err(error.into());
    }
    match number(count.as_bytes()).ok_or(error)?.checked_sub(1) {
        None => Ok(MaxForwards::Answer),
        Some(left) => {
            headers.insert(MAX_FORWARDS, HeaderValue::from(left));
            Ok(MaxForwards::Forward)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(
        method: &Method,
        counts: &[&'static str],
    ) -> (Result<MaxForwards, RequestRule>, Option<String>) {
        let mut headers = HeaderMap::new();
        for count in counts {
            headers.append(MAX_FORWARDS, HeaderValue::from_static(count));
        }
        let result = check(method, &mut headers).map_err(|error| error.rule());
        let left = headers.get(MAX_FORWARDS);
        (result, left.map(|left| left.to_str().unwrap().to_owned()))
    }

    #[test]
    fn rfc9110_7_6_2_counts_down_for_options_and_trace_only() {
        for method in [Method::OPTIONS, Method::TRACE] {
            let (result, left) = checked(&method, &["10"]);
            assert_eq!(
                (result, left.as_deref()),
                (Ok(MaxForwards::Forward), Some("9"))
            );
            let (result, left) = checked(&method, &["0"]);
            assert_eq!(
                (result, left.as_deref()),
                (Ok(MaxForwards::Answer), Some("0"))
            );
            assert_eq!(checked(&method, &[]).0, Ok(MaxForwards::Forward));
        }
        let (result, left) = checked(&Method::GET, &["0"]);
        assert_eq!(
            (result, left.as_deref()),
            (Ok(MaxForwards::Forward), Some("0"))
        );
    }

    #[test]
    fn invalid_or_repeated_count_is_refused() {
        for counts in [&["x"][..], &[""], &["-1"], &["1,1"], &["1", "1"], &["1.5"]] {
            let (result, _) = checked(&Method::OPTIONS, counts);
            assert_eq!(result, Err(RequestRule::MaxForwards), "{counts:?}");
        }
    }
}
