//! mesh-ingress-resolve
