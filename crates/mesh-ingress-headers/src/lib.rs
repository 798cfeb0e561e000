//! mesh-ingress-headers
