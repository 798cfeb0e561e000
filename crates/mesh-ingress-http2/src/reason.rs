//! Error codes: why a stream or a connection ends.

use std::fmt;

/// An error code (RFC 9113 §7).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Reason(u32);

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $code:literal;)*) => {
        impl Reason {
            $($(#[$doc])* pub const $name: Self = Self($code);)*

            /// Its name in RFC 9113; `None` for an unknown code.
            #[must_use]
            pub fn name(self) -> Option<&'static str> {
                match self {
                    $(Self::$name => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }
    };
}

reasons! {
    /// No error: a graceful end.
    NO_ERROR = 0;
    /// The peer violated the protocol.
    PROTOCOL_ERROR = 1;
    /// An internal error.
    INTERNAL_ERROR = 2;
    /// The peer exceeded a flow-control window.
    FLOW_CONTROL_ERROR = 3;
    /// Settings were not acknowledged in time.
    SETTINGS_TIMEOUT = 4;
    /// A frame arrived on a closed stream.
    STREAM_CLOSED = 5;
    /// A frame has an invalid size.
    FRAME_SIZE_ERROR = 6;
    /// The stream was not processed: the request may be retried.
    REFUSED_STREAM = 7;
    /// The stream is no longer needed.
    CANCEL = 8;
    /// The HPACK state cannot be maintained.
    COMPRESSION_ERROR = 9;
    /// The connection of a `CONNECT` was reset or closed.
    CONNECT_ERROR = 10;
    /// The peer causes excessive load.
    ENHANCE_YOUR_CALM = 11;
    /// The transport does not meet the security requirements.
    INADEQUATE_SECURITY = 12;
    /// HTTP/1.1 is required.
    HTTP_1_1_REQUIRED = 13;
}

impl Reason {
    /// The number.
    #[must_use]
    pub fn code(self) -> u32 {
        self.0
    }
}

impl From<u32> for Reason {
    fn from(code: u32) -> Self {
        Self(code)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "error {}", self.0),
        }
    }
}

impl fmt::Debug for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
