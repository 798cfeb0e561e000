//! mesh-ingress-vhost
