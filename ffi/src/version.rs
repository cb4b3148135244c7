//! The version of the interface and of the library.

use std::ffi::c_char;

/// The version of the interface that this header describes. It goes up when a program built with an older
/// header could no longer run; compare it with ceiba_abi_version() at start.
pub const CEIBA_ABI_VERSION: u32 = 1;

/// The version of the interface that the loaded library has.
///
/// Any thread; never fails.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_abi_version() -> u32 {
    ffi_call!(else 0, { CEIBA_ABI_VERSION })
}

/// The version of the library, such as "0.1.0": a static text that ends with a zero byte.
///
/// Any thread; never fails.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_version() -> *const c_char {
    ffi_call!(else c"".as_ptr(), { VERSION.as_ptr() })
}

// The text is this crate's own and holds no zero byte but its last.
const VERSION: &std::ffi::CStr =
    match std::ffi::CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
        Ok(version) => version,
        Err(_) => c"",
    };
