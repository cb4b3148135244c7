//! The Python module of ceiba.
