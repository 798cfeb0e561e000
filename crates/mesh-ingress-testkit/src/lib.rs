//! mesh-ingress-testkit
