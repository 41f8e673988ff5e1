//! (to be written)
pub mod emulate;
