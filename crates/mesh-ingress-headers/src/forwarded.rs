//! Forwarding headers: telling upstreams about the client, and trusting listed peers only.

mod element;
mod policy;

pub use self::policy::{ForwardedPolicy, ForwardedPolicyBuilder};

/// A header field about the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ForwardedField {
    /// `X-Forwarded-For`: the chain of addresses, the nearest last.
    For,
    /// `X-Forwarded-Host`: the authority as the client wrote it.
    Host,
    /// `X-Forwarded-Proto`: `http` or `https`.
    Proto,
    /// `X-Forwarded-Port`: the port the client connected to.
    Port,
    /// `X-Real-IP`: the address of the client alone.
    RealIp,
    /// `Forwarded` (RFC 7239): all of the above in one field.
    Forwarded,
}

/// A set of fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EmittedFields(u8);

impl EmittedFields {
    const fn of(fields: &[ForwardedField]) -> Self {
        let mut bits = 0;
        let mut rest = fields;
        while let [field, tail @ ..] = rest {
            bits |= 1 << *field as u8;
            rest = tail;
        }
        Self(bits)
    }

    pub(crate) fn has(self, field: ForwardedField) -> bool {
        self.0 & (1 << field as u8) != 0
    }

    fn set(&mut self, field: ForwardedField, on: bool) {
        let bit = 1 << field as u8;
        self.0 = if on { self.0 | bit } else { self.0 & !bit };
    }
}
