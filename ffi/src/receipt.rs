//! How calls ended: a receipt for one, results for many.

use ceiba_core::error::{Error, Result};
use ceiba_core::message::{Disposition, Receipt};

use crate::boundary::{give, lend, take_back, view};
use crate::error::{CEIBA_ERR_INVALID_ARGUMENT, CEIBA_OK, HeldError, ceiba_error};
use crate::text::{ceiba_slice, ceiba_string};

opaque! {
    /// What a finished send returned. One that came through a `ceiba_receipt **` is the caller's: free it
    /// with ceiba_receipt_free(). One asked of results or completions belongs to them.
    ceiba_receipt => Receipt
}

/// The other side's id of the message; empty where its wire gives none. Valid until the receipt is freed.
///
/// Any thread; never fails.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_receipt_message_id(receipt: *const ceiba_receipt) -> ceiba_slice {
    ffi_call!(else ceiba_slice::empty(), {
        let id = view(receipt).and_then(|receipt| receipt.message_id.as_deref());
        id.map_or_else(ceiba_slice::empty, ceiba_slice::of)
    })
}

/// What a consumer of the same queue takes the message back by, with ceiba_consumer_ack(), before it was ever received:
/// MNS gives one for a delayed message. Empty where there is none. Valid until the receipt is freed.
///
/// Any thread; never fails.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_receipt_code(receipt: *const ceiba_receipt) -> ceiba_slice {
    ffi_call!(else ceiba_slice::empty(), {
        let code = view(receipt).and_then(|receipt| receipt.code.as_deref());
        code.map_or_else(ceiba_slice::empty, ceiba_slice::of)
    })
}

/// The provider that sent it, such as "kapokmq". Valid until the receipt is freed.
///
/// Any thread; never fails.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_receipt_provider(receipt: *const ceiba_receipt) -> ceiba_slice {
    ffi_call!(else ceiba_slice::empty(), {
        view(receipt).map_or_else(ceiba_slice::empty, |receipt| ceiba_slice::of(receipt.provider))
    })
}

/// What the caller should know though the send succeeded; empty if nothing. Valid until the receipt is freed.
///
/// Any thread; never fails.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_receipt_warning(receipt: *const ceiba_receipt) -> ceiba_slice {
    ffi_call!(else ceiba_slice::empty(), {
        let warning = view(receipt).and_then(|receipt| receipt.warning.as_deref());
        warning.map_or_else(ceiba_slice::empty, ceiba_slice::of)
    })
}

/// How many attempts were made: at least 1. 0 for NULL.
///
/// Any thread; never fails.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_receipt_attempts(receipt: *const ceiba_receipt) -> u32 {
    ffi_call!(else 0, { view(receipt).map_or(0, |receipt| receipt.attempts) })
}

/// Whether the message is stored, to be sent later, rather than sent.
///
/// Any thread; never fails.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_receipt_stored(receipt: *const ceiba_receipt) -> bool {
    ffi_call!(else false, {
        view(receipt).is_some_and(|receipt| receipt.disposition == Disposition::Stored)
    })
}

/// How many recipients or members ceiba_receipt_json() tells of one by one; 0 where there was one alone.
///
/// Any thread; never fails.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_receipt_part_count(receipt: *const ceiba_receipt) -> usize {
    ffi_call!(else 0, {
        view(receipt).and_then(|receipt| receipt.parts.as_deref()).map_or(0, <[_]>::len)
    })
}

/// Everything about the receipt as a JSON object, which the caller frees: `provider`, `attempts`, `stored`, where
/// there is one `message_id`, `code` and `warning`, and as `parts` how each recipient or member ended: `of`, `name`, and
/// `message_id` or `error`. NULL for NULL.
///
/// Any thread; never fails.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_receipt_json(receipt: *const ceiba_receipt) -> *mut ceiba_string {
    ffi_call!(else std::ptr::null_mut(), {
        view(receipt).map_or(std::ptr::null_mut(), |receipt| give(receipt.to_json().to_string()))
    })
}

/// Frees a receipt. NULL does nothing.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_receipt_free(receipt: *mut ceiba_receipt) {
    ffi_call!(else (), { drop(take_back(receipt)) })
}

/// How each of several calls ended.
pub(crate) struct Results(Vec<Result<Option<Receipt>, HeldError>>);

impl Results {
    /// Of sends.
    pub(crate) fn of_sends(results: Vec<Result<Receipt>>) -> Results {
        Results::of(results.into_iter().map(|result| result.map(Some)))
    }

    /// Of acks, which have no receipts.
    pub(crate) fn of_acks(results: Vec<Result<()>>) -> Results {
        Results::of(results.into_iter().map(|result| result.map(|()| None)))
    }

    fn of(results: impl Iterator<Item = Result<Option<Receipt>, Error>>) -> Results {
        Results(results.map(|result| result.map_err(HeldError::new)).collect())
    }
}

opaque! {
    /// How each of several calls ended, in their order. The caller frees it with ceiba_results_free().
    ceiba_results => Results
}

/// How many results there are: one for each input.
///
/// Any thread; never fails.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_results_count(results: *const ceiba_results) -> usize {
    ffi_call!(else 0, { view(results).map_or(0, |results| results.0.len()) })
}

/// The code of one: CEIBA_OK or one of CEIBA_ERR_*. CEIBA_ERR_INVALID_ARGUMENT when there is none at `index`.
///
/// Any thread; never fails.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_results_code(results: *const ceiba_results, index: usize) -> i32 {
    ffi_call!(else CEIBA_ERR_INVALID_ARGUMENT, {
        match view(results).and_then(|results| results.0.get(index)) {
            Some(Ok(_)) => CEIBA_OK,
            Some(Err(error)) => error.code(),
            None => CEIBA_ERR_INVALID_ARGUMENT,
        }
    })
}

/// The error of one, NULL where it succeeded. It belongs to the results.
///
/// Any thread; never fails.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_results_error(results: *const ceiba_results, index: usize) -> *const ceiba_error {
    ffi_call!(else std::ptr::null(), {
        match view(results).and_then(|results| results.0.get(index)) {
            Some(Err(error)) => lend(error),
            _ => std::ptr::null(),
        }
    })
}

/// The receipt of one; NULL where it failed, and for acks. It belongs to the results.
///
/// Any thread; never fails.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_results_receipt(results: *const ceiba_results, index: usize) -> *const ceiba_receipt {
    ffi_call!(else std::ptr::null(), {
        match view(results).and_then(|results| results.0.get(index)) {
            Some(Ok(Some(receipt))) => lend(receipt),
            _ => std::ptr::null(),
        }
    })
}

/// Frees results, with the errors and receipts in them. NULL does nothing.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_results_free(results: *mut ceiba_results) {
    ffi_call!(else (), { drop(take_back(results)) })
}
