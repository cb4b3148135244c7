//! The C library of ceiba: every exported function, one file per noun. `include/ceiba.h` is made from
//! these sources and carries their comments; the conventions stand at its top.
//!
//! - `boundary`: the macro that every export passes through, and all that touches a pointer of the caller
//! - `version`, `text`, `error`, `runtime`: numbers, texts, errors, the life of the library
//! - `message`, `receipt`, `send`, `submit`, `queue`: the way out
//! - `receive`: the way in
//! - `callback`, `log`: calls of the host's functions, on threads of their own
//! - `file`, `broker`: clients by configuration file, the embedded broker

// C names are the public names here.
#![allow(non_camel_case_types)]

#[allow(unsafe_code)]
#[macro_use]
mod boundary;

mod callback;

// These need `unsafe` for `#[unsafe(no_mangle)]` alone; tests/header.rs holds them to that. Their order is
// that of the header; the empty lines keep it.

#[allow(unsafe_code)]
mod version;

#[allow(unsafe_code)]
mod text;

#[allow(unsafe_code)]
mod error;

#[allow(unsafe_code)]
mod runtime;

#[allow(unsafe_code)]
mod log;

#[allow(unsafe_code)]
mod message;

#[allow(unsafe_code)]
mod receipt;

#[allow(unsafe_code)]
mod send;

#[allow(unsafe_code)]
mod submit;

#[allow(unsafe_code)]
mod queue;

#[allow(unsafe_code)]
mod receive;

#[allow(unsafe_code)]
mod file;

#[allow(unsafe_code)]
mod host;

#[allow(unsafe_code)]
mod broker;

#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
