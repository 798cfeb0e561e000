//! Nothing to see here: the programs of this package are its targets.
