//! Empty: this package has example targets only.
