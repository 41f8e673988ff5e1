//! The model of the queue protocol stands in `tests/protocol_model`: a package of its own, because it walks millions of states
//! and is compiled for speed, which would cost every other test a minute of building.
