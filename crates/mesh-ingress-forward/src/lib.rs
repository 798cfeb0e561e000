//! mesh-ingress-forward
