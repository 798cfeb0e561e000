//! Why a stream or a connection ends.

use std::fmt;

/// An error code (RFC 9113 §7).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Reason(u32);

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $code:literal;)*) => {
        impl Reason {
            $($(#[$doc])* pub const $name: Self = Self($code);)*

            /// Its name in RFC 9113; `None` for one that is not there.
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
    /// Nothing is wrong.
    NO_ERROR = 0;
    /// The other end has broken the rules.
    PROTOCOL_ERROR = 1;
    /// This end is broken, or what is behind it.
    INTERNAL_ERROR = 2;
    /// More has been sent than there was a window for.
    FLOW_CONTROL_ERROR = 3;
    /// Settings were not acknowledged in time.
    SETTINGS_TIMEOUT = 4;
    /// A frame came on a stream that has ended.
    STREAM_CLOSED = 5;
    /// A frame has a size that it cannot have.
    FRAME_SIZE_ERROR = 6;
    /// Nothing has been done with the stream: it may be sent again.
    REFUSED_STREAM = 7;
    /// Nobody needs the stream any more.
    CANCEL = 8;
    /// The tables of HPACK do not agree any more.
    COMPRESSION_ERROR = 9;
    /// What a `CONNECT` was connected to has broken.
    CONNECT_ERROR = 10;
    /// The other end causes too much work.
    ENHANCE_YOUR_CALM = 11;
    /// The transport is not safe enough.
    INADEQUATE_SECURITY = 12;
    /// HTTP/1.1 is wanted.
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
