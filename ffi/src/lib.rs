//! The C library of ceiba.
