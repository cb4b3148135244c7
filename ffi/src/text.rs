//! Views of bytes, and texts that the caller owns.

use crate::boundary::{take_back, view};

/// A view of bytes: text, or the body of a message. It ends at `len`, not at a zero byte.
///
/// A view that a function returns belongs to what it was asked of and is valid until that is freed; its
/// `data` is never NULL, also when `len` is 0.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ceiba_slice {
    /// The first byte.
    pub data: *const u8,
    /// How many there are.
    pub len: usize,
}

impl ceiba_slice {
    /// A view of these bytes.
    pub(crate) fn of(bytes: impl AsRef<[u8]>) -> ceiba_slice {
        let bytes = bytes.as_ref();
        if bytes.is_empty() {
            return ceiba_slice::empty();
        }
        ceiba_slice { data: bytes.as_ptr(), len: bytes.len() }
    }

    /// A view of nothing. It points at a real byte, because some hosts refuse pointers into nowhere.
    pub(crate) fn empty() -> ceiba_slice {
        static NOTHING: u8 = 0;
        ceiba_slice { data: &raw const NOTHING, len: 0 }
    }
}

opaque! {
    /// A text that a function returned. Free it with ceiba_string_free().
    ceiba_string => String
}

/// The text, UTF-8: a view, valid until the string is freed. Empty for NULL.
///
/// Any thread; never fails.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_string_value(string: *const ceiba_string) -> ceiba_slice {
    ffi_call!(else ceiba_slice::empty(), { view(string).map_or_else(ceiba_slice::empty, ceiba_slice::of) })
}

/// Frees a string. NULL does nothing.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_string_free(string: *mut ceiba_string) {
    ffi_call!(else (), { drop(take_back(string)) })
}
