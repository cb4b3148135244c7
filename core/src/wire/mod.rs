//! Pure codecs of the wires: no input or output, no state beyond a frame.

pub mod kapokmq;
