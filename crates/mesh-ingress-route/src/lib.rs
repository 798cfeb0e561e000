//! mesh-ingress-route
