//! The boundary: every export passes through `ffi_call!`, and every pointer of the caller is read or
//! written here and nowhere else.
//!
//! The functions are not `unsafe` themselves because all of them rest on one contract, the header's:
//! pointers are NULL where that is allowed, or valid for the length given, for the time of the call; a
//! handle is one that this library gave and that was not freed; one thread at a time changes a handle.

use std::any::Any;
use std::ffi::{c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use ceiba_core::error::{Error, Kind, Outcome, Result};

use crate::callback;
use crate::error::{HeldError, ceiba_error};
use crate::text::ceiba_slice;

/// What every exported function's body stands in. With an `error` the body gives `Result<()>` and the
/// call its code; with `else` the body gives the value and a panic gives the one after `else`.
macro_rules! ffi_call {
    (else $otherwise:expr, $body:block) => {
        $crate::boundary::infallible($otherwise, || $body)
    };
    ($error:expr, $body:block) => {
        $crate::boundary::fallible($error, || $body)
    };
}

/// Runs the body of a call that can fail; see `ffi_call!`.
#[inline]
pub(crate) fn fallible(error: *mut *mut ceiba_error, body: impl FnOnce() -> Result<()>) -> i32 {
    tell_forks();
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => 0,
        Ok(Err(failure)) => fail(error, failure),
        Err(payload) => fail(error, panicked(payload)),
    }
}

/// Runs the body of a call that cannot fail; see `ffi_call!`.
#[inline]
pub(crate) fn infallible<R>(otherwise: R, body: impl FnOnce() -> R) -> R {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|payload| {
        let _ = panicked(payload);
        otherwise
    })
}

#[cold]
fn fail(error: *mut *mut ceiba_error, failure: Error) -> i32 {
    let code = failure.kind().code();
    if !error.is_null() {
        let given = give::<ceiba_error>(HeldError::new(failure));
        // SAFETY: not NULL, so by the contract a valid place for one pointer.
        unsafe { error.write(given) };
    }
    code
}

#[cold]
fn panicked(payload: Box<dyn Any + Send>) -> Error {
    let text = match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (None, Some(text)) => text.clone(),
        (None, None) => "no text".to_owned(),
    };
    // A payload may panic again when it is dropped.
    let _ = catch_unwind(AssertUnwindSafe(|| drop(payload)));
    Error::new(Kind::Internal, format!("the call panicked: {text}")).outcome_is(Outcome::Unknown)
}

/// The error for an argument that is wrong.
#[cold]
pub(crate) fn invalid(text: impl Into<String>) -> Error {
    Error::new(Kind::InvalidArgument, text)
}

/// The error for an argument that should be JSON, with the place where it is not.
#[cold]
pub(crate) fn not_json(name: &str, error: &serde_json::Error) -> Error {
    let line = if error.line() > 1 { format!("line {}, ", error.line()) } else { String::new() };
    invalid(format!("`{name}` is not valid JSON at {line}column {}", error.column()))
}

// ---- Handles: a pointer to the opaque type is a pointer to what it holds ----

/// An opaque type of the header, and what stands behind its pointers.
pub(crate) trait Opaque {
    /// What stands behind.
    type Held;
}

macro_rules! opaque {
    ($(#[$doc:meta])* $name:ident => $held:ty) => {
        $(#[$doc])*
        pub struct $name {
            _opaque: [u8; 0],
        }
        impl $crate::boundary::Opaque for $name {
            type Held = $held;
        }
    };
}

/// Gives a value to the caller, who frees it by the noun's `_free`.
pub(crate) fn give<H: Opaque>(held: H::Held) -> *mut H {
    Box::into_raw(Box::new(held)).cast()
}

/// Takes back what `give` gave; `None` for NULL.
pub(crate) fn take_back<H: Opaque>(handle: *mut H) -> Option<Box<H::Held>> {
    if handle.is_null() {
        return None;
    }
    // SAFETY: not NULL, so by the contract from `give::<H>` and not freed before.
    Some(unsafe { Box::from_raw(handle.cast::<H::Held>()) })
}

/// Lends a part of a held value: valid as long as its owner.
pub(crate) fn lend<H: Opaque>(held: &H::Held) -> *const H {
    std::ptr::from_ref(held).cast()
}

/// What stands behind a handle; `None` for NULL.
pub(crate) fn view<'a, H: Opaque>(handle: *const H) -> Option<&'a H::Held> {
    // SAFETY: NULL, or by the contract from `give::<H>` or `lend::<H>`, and not freed during the call.
    unsafe { handle.cast::<H::Held>().as_ref() }
}

/// The same, for a call that needs it: an error that names the argument when it is NULL.
pub(crate) fn needed<'a, H: Opaque>(name: &str, handle: *const H) -> Result<&'a H::Held> {
    view(handle).ok_or_else(|| invalid(format!("`{name}` is NULL")))
}

/// The same, to change.
pub(crate) fn needed_mut<'a, H: Opaque>(name: &str, handle: *mut H) -> Result<&'a mut H::Held> {
    // SAFETY: NULL, or by the contract from `give::<H>`, not freed, and used by this call alone.
    unsafe { handle.cast::<H::Held>().as_mut() }.ok_or_else(|| invalid(format!("`{name}` is NULL")))
}

// ---- Inputs ----

/// Bytes of the caller, for the time of the call. NULL only with length 0.
#[inline]
pub(crate) fn bytes<'a>(name: &str, data: *const c_void, len: usize) -> Result<&'a [u8]> {
    if len == 0 {
        return Ok(&[]);
    }
    if data.is_null() {
        return Err(invalid(format!("`{name}` is NULL, and its length is {len}")));
    }
    if len > isize::MAX as usize {
        return Err(invalid(format!("the length of `{name}`, {len}, is more than memory can hold")));
    }
    // SAFETY: not NULL and not too long; by the contract valid for `len` bytes during the call.
    Ok(unsafe { std::slice::from_raw_parts(data.cast::<u8>(), len) })
}

/// Text of the caller, checked to be UTF-8.
#[inline]
pub(crate) fn text<'a>(name: &str, data: *const c_char, len: usize) -> Result<&'a str> {
    utf8(name, bytes(name, data.cast(), len)?)
}

#[inline]
fn utf8<'a>(name: &str, bytes: &'a [u8]) -> Result<&'a str> {
    std::str::from_utf8(bytes)
        .map_err(|error| invalid(format!("`{name}` is not UTF-8 from byte {} on", error.valid_up_to())))
}

/// An array of the caller. NULL only with count 0.
fn array<'a, T>(name: &str, items: *const T, count: usize) -> Result<&'a [T]> {
    if count == 0 {
        return Ok(&[]);
    }
    if items.is_null() {
        return Err(invalid(format!("`{name}` is NULL, and its count is {count}")));
    }
    if count > isize::MAX as usize / size_of::<T>() {
        return Err(invalid(format!("the count of `{name}`, {count}, is more than memory can hold")));
    }
    if !items.is_aligned() {
        return Err(invalid(format!("`{name}` is not aligned")));
    }
    // SAFETY: not NULL, aligned and not too long; by the contract valid for `count` items during the call.
    Ok(unsafe { std::slice::from_raw_parts(items, count) })
}

/// An array of byte strings, each checked before any is used.
pub(crate) fn byte_strings<'a>(
    name: &str,
    items: *const ceiba_slice,
    count: usize,
) -> Result<impl ExactSizeIterator<Item = &'a [u8]>> {
    let items: &'a [ceiba_slice] = array(name, items, count)?;
    for (index, item) in items.iter().enumerate() {
        if item.data.is_null() && item.len > 0 || item.len > isize::MAX as usize {
            // Told by the same words as one alone.
            bytes(&format!("{name}[{index}]"), item.data.cast(), item.len)?;
        }
    }
    Ok(items.iter().map(|item| match item.len {
        0 => &[][..],
        // SAFETY: checked above to be neither NULL nor too long; by the contract valid during the call.
        len => unsafe { std::slice::from_raw_parts(item.data, len) },
    }))
}

/// An array of texts, each checked to be UTF-8.
pub(crate) fn texts<'a>(name: &str, items: *const ceiba_slice, count: usize) -> Result<Vec<&'a str>> {
    byte_strings(name, items, count)?
        .enumerate()
        .map(|(index, bytes)| match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text),
            Err(_) => utf8(&format!("{name}[{index}]"), bytes),
        })
        .collect()
}

/// An array of handles, none of them NULL.
pub(crate) fn handles<'a, H: Opaque>(
    name: &str,
    items: *const *const H,
    count: usize,
) -> Result<Vec<&'a H::Held>> {
    array(name, items, count)?
        .iter()
        .enumerate()
        .map(|(index, item)| view(*item).ok_or_else(|| invalid(format!("`{name}[{index}]` is NULL"))))
        .collect()
}

// ---- Outputs ----

/// Writes an output; one that is NULL is left out.
pub(crate) fn put<T>(output: *mut T, value: impl FnOnce() -> T) {
    if !output.is_null() {
        // SAFETY: not NULL, so by the contract a valid place for a `T`.
        unsafe { output.write(value()) };
    }
}

/// An error, before any work is done, when an output that cannot be left out is NULL.
pub(crate) fn asked_for<T>(name: &str, output: *mut T) -> Result<()> {
    if output.is_null() {
        return Err(invalid(format!("`{name}` is NULL: there is no place for the result")));
    }
    Ok(())
}

/// What an output holds before the call: a handle to use again, or NULL.
pub(crate) fn in_place<H>(name: &str, output: *mut *mut H) -> Result<*mut H> {
    asked_for(name, output)?;
    // SAFETY: not NULL, so by the contract a valid place that holds a pointer.
    Ok(unsafe { output.read() })
}

// ---- What the host lends beyond a call ----

/// A function of the host that takes only its `user`.
pub(crate) type HostFn = extern "C" fn(user: *mut c_void);

/// The `user` pointer of a callback.
#[derive(Clone, Copy)]
pub(crate) struct User(pub(crate) *mut c_void);

// SAFETY: this library never looks behind the pointer; the contract says that callbacks run on any thread.
unsafe impl Send for User {}
// SAFETY: as above.
unsafe impl Sync for User {}

/// A release function with its `user`: called exactly once, when this is dropped.
pub(crate) struct Release {
    function: Option<HostFn>,
    user: User,
}

impl Release {
    pub(crate) fn new(function: Option<HostFn>, user: *mut c_void) -> Release {
        Release { function, user: User(user) }
    }
}

impl Drop for Release {
    fn drop(&mut self) {
        let Some(function) = self.function.take() else { return };
        let user = self.user;
        callback::off_the_runtime(move || {
            let user = user;
            function(user.0);
        });
    }
}

/// A body that the host lends until its release is called.
pub(crate) struct LentBody {
    data: *const u8,
    len: usize,
    _release: Release,
}

// SAFETY: the bytes are read only, and by the contract stay as they are until the release.
unsafe impl Send for LentBody {}
// SAFETY: as above.
unsafe impl Sync for LentBody {}

impl AsRef<[u8]> for LentBody {
    fn as_ref(&self) -> &[u8] {
        if self.len == 0 {
            return &[];
        }
        // SAFETY: checked by `lent_body`; by the contract valid until the release, which comes on drop.
        unsafe { std::slice::from_raw_parts(self.data, self.len) }
    }
}

/// A body without a copy. `release` is called also when this fails.
pub(crate) fn lent_body(data: *const c_void, len: usize, release: Release) -> Result<Bytes> {
    bytes("data", data, len)?;
    callback::ready()?;
    Ok(Bytes::from_owner(LentBody { data: data.cast(), len, _release: release }))
}

/// A copy of a body: `too_large` where memory for it cannot be had.
pub(crate) fn copied(data: &[u8]) -> Result<Bytes> {
    let mut copy = Vec::new();
    copy.try_reserve_exact(data.len()).map_err(|error| {
        Error::new(Kind::TooLarge, format!("no memory for a body of {} bytes", data.len())).caused_by(error)
    })?;
    copy.extend_from_slice(data);
    Ok(copy.into())
}

// ---- Forks ----

/// Has the core told of every fork in the child. Called by each call that can fail: it costs one load.
#[inline]
pub(crate) fn tell_forks() {
    static TOLD: AtomicBool = AtomicBool::new(false);
    if !TOLD.load(Ordering::Acquire) {
        register(&TOLD);
    }
}

#[cold]
fn register(told: &AtomicBool) {
    extern "C" fn in_child() {
        ceiba_core::runtime::after_fork_in_child();
    }
    // Two threads may both come here: a second handler only raises the generation once more, while
    // waiting for the other thread could last for ever in a child that was forked in between.
    // SAFETY: the handler is a plain function that does one atomic addition and lives as long as the
    // library, which is never unloaded (see build.rs).
    let failed = unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    told.store(failed == 0, Ordering::Release);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn a_panic_becomes_an_internal_error() {
        let mut error: *mut ceiba_error = std::ptr::null_mut();
        assert_eq!(fallible(&mut error, || panic!("on purpose")), Kind::Internal.code());
        let held = take_back(error).unwrap();
        assert!(held.text().contains("on purpose"));
        assert_eq!(fallible(std::ptr::null_mut(), || panic!("{}", 7)), Kind::Internal.code());
        assert_eq!(infallible(3, || panic!("again")), 3);
    }

    #[test]
    fn a_body_is_released_once_however_it_ends() {
        static RELEASED: AtomicUsize = AtomicUsize::new(0);
        extern "C" fn release(_: *mut c_void) {
            RELEASED.fetch_add(1, Ordering::SeqCst);
        }
        let given = || Release::new(Some(release), std::ptr::null_mut());
        let body = b"abc";
        let lent = lent_body(body.as_ptr().cast(), 3, given()).unwrap();
        let copy = lent.clone();
        drop(lent);
        assert_eq!((&copy[..], RELEASED.load(Ordering::SeqCst)), (&b"abc"[..], 0));
        drop(copy);
        assert_eq!(RELEASED.load(Ordering::SeqCst), 1);
        lent_body(std::ptr::null(), 3, given()).unwrap_err();
        assert_eq!(RELEASED.load(Ordering::SeqCst), 2);
        drop(lent_body(std::ptr::null(), 0, given()).unwrap());
        assert_eq!(RELEASED.load(Ordering::SeqCst), 3);
    }

    #[test]
    fn lengths_without_data_are_refused() {
        assert!(bytes("x", std::ptr::null(), 0).unwrap().is_empty());
        assert_eq!(bytes("x", std::ptr::null(), 1).unwrap_err().kind(), Kind::InvalidArgument);
        let place = b"a";
        let error = bytes("x", place.as_ptr().cast(), usize::MAX).unwrap_err();
        assert_eq!(error.kind(), Kind::InvalidArgument);
        let error = text("x", b"a\xff".as_ptr().cast(), 2).unwrap_err();
        assert!(error.message().contains("byte 1"), "{error}");
    }
}
