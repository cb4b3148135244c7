//! Topics inside the process.
