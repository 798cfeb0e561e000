//! A set of 5xx statuses.

use std::fmt;

use http::StatusCode;

use mesh_ingress_core::InvalidSetting;

/// The first of the server errors, and bit 0 of the set.
const FIRST: u16 = 500;

/// A set of server errors (5xx), looked up without a search.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct ServerErrors(u128);

impl ServerErrors {
    /// The statuses of a gateway that could not reach an upstream: 502, 503 and 504. An application
    /// that failed sends 500, and would do so again.
    pub(crate) const GATEWAY: Self = Self(1 << 2 | 1 << 3 | 1 << 4);

    /// A set of these statuses; fails for any but a 5xx.
    pub(crate) fn of(
        setting: &'static str,
        statuses: impl IntoIterator<Item = StatusCode>,
    ) -> Result<Self, InvalidSetting> {
        let mut set = 0;
        for status in statuses {
            let bit = bit(status).ok_or_else(|| {
                InvalidSetting::new(setting, format_args!("{} is no 5xx", status.as_u16()))
            })?;
            set |= bit;
        }
        Ok(Self(set))
    }

    pub(crate) fn contains(self, status: StatusCode) -> bool {
        bit(status).is_some_and(|bit| self.0 & bit != 0)
    }
}

fn bit(status: StatusCode) -> Option<u128> {
    let offset = status.as_u16().checked_sub(FIRST)?;
    (offset < 100).then(|| 1 << offset)
}

impl fmt::Debug for ServerErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let members = (0..100).filter(|offset| self.0 & (1 << offset) != 0);
        f.debug_set()
            .entries(members.map(|offset| FIRST + offset))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: u16) -> StatusCode {
        StatusCode::from_u16(code).unwrap()
    }

    #[test]
    fn set_contains_only_its_members() {
        let set = ServerErrors::of("s", [status(500), status(521), status(599)]).unwrap();
        let held: Vec<_> = (100..1000)
            .filter(|&code| set.contains(status(code)))
            .collect();
        assert_eq!(held, [500, 521, 599]);
        assert_eq!(format!("{set:?}"), "{500, 521, 599}");
        let gateway = [502, 503, 504].map(status);
        assert_eq!(ServerErrors::of("s", gateway), Ok(ServerErrors::GATEWAY));
    }

    #[test]
    fn other_statuses_than_5xx_are_refused() {
        for code in [100, 200, 429, 499, 600, 628] {
            let error = ServerErrors::of("statuses", [status(502), status(code)]).unwrap_err();
            assert_eq!(error.setting(), "statuses");
            assert_eq!(
                error.to_string(),
                format!("invalid statuses: {code} is no 5xx")
            );
        }
    }
}
