//! mesh-ingress
