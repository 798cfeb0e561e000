//! Shared ownership of a transport.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use replace_with::replace_with_or_abort_and_return;

use super::Transport;
use mesh_ingress_io::Conn;

/// A [`Transport`] that the body of a request may use. The driver of the connection owns it: when the
/// driver has ended there is no socket any more, even if somebody still has a body.
#[derive(Debug)]
pub(in crate::http1) enum SharedTransport {
    /// No request has had a body yet, and most connections never carry one: there is nobody to lock
    /// against. Eight locks a request would cost a hundredth of it even if nobody contends, because each
    /// waits for earlier writes to memory.
    Owned(Box<Transport>),
    /// A request has had a body, and another may.
    Shared(Arc<Mutex<Transport>>),
}

/// The access to a [`SharedTransport`] that the body of a request has.
#[derive(Debug)]
pub(in crate::http1) struct TransportHandle(Weak<Mutex<Transport>>);

/// Exclusive access to a transport.
#[derive(Debug)]
pub(in crate::http1) enum TransportGuard<'t> {
    Owned(&'t mut Transport),
    Shared(MutexGuard<'t, Transport>),
}

impl TransportHandle {
    /// Calls `f` with the transport, if that is still there.
    pub(in crate::http1) fn with<T>(&self, f: impl FnOnce(&mut Transport) -> T) -> Option<T> {
        let transport = self.0.upgrade()?;
        let mut transport = transport.lock().unwrap_or_else(PoisonError::into_inner);
        Some(f(&mut transport))
    }
}

impl SharedTransport {
    pub(in crate::http1) fn new(transport: Box<Transport>) -> Self {
        Self::Owned(transport)
    }

    #[inline]
    pub(in crate::http1) fn lock(&mut self) -> TransportGuard<'_> {
        match self {
            Self::Owned(transport) => TransportGuard::Owned(transport),
            Self::Shared(transport) => {
                TransportGuard::Shared(transport.lock().unwrap_or_else(PoisonError::into_inner))
            }
        }
    }

    /// A handle for the body of a request.
    pub(in crate::http1) fn handle(&mut self) -> TransportHandle {
        // In place: with a third state in between, every user would have to handle that.
        replace_with_or_abort_and_return(self, |shared| {
            let transport = match shared {
                Self::Owned(transport) => Arc::new(Mutex::new(*transport)),
                Self::Shared(transport) => transport,
            };
            (
                TransportHandle(Arc::downgrade(&transport)),
                Self::Shared(transport),
            )
        })
    }

    /// The connection, if nobody else uses it and nothing has been read or waits to be written.
    pub(in crate::http1) fn into_conn(mut self) -> Result<Conn, Self> {
        if !self.lock().is_pristine() {
            return Err(self);
        }
        match self {
            Self::Owned(transport) => Ok(transport.conn),
            Self::Shared(transport) => match Arc::try_unwrap(transport) {
                Ok(transport) => {
                    let transport = transport.into_inner();
                    Ok(transport.unwrap_or_else(PoisonError::into_inner).conn)
                }
                Err(transport) => Err(Self::Shared(transport)),
            },
        }
    }

    /// The transport, if nobody else uses it at this moment.
    pub(in crate::http1) fn into_inner(self) -> Option<Transport> {
        match self {
            Self::Owned(transport) => Some(*transport),
            Self::Shared(transport) => {
                let transport = Arc::into_inner(transport)?;
                Some(
                    transport
                        .into_inner()
                        .unwrap_or_else(PoisonError::into_inner),
                )
            }
        }
    }
}

impl Deref for TransportGuard<'_> {
    type Target = Transport;

    #[inline]
    fn deref(&self) -> &Transport {
        match self {
            Self::Owned(transport) => transport,
            Self::Shared(transport) => transport,
        }
    }
}

impl DerefMut for TransportGuard<'_> {
    #[inline]
    fn deref_mut(&mut self) -> &mut Transport {
        match self {
            Self::Owned(transport) => transport,
            Self::Shared(transport) => transport,
        }
    }
}
