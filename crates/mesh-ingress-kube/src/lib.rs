//! mesh-ingress-kube
