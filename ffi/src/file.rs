//! Many clients from one file.

use std::ffi::c_char;
use std::fs::File;
use std::io::Read;

use ceiba_core::config::Role;
use ceiba_core::error::{Error, Kind, Result};
use ceiba_core::{calls, runtime};
use serde_json::{Value, json};

use crate::boundary::{give, put, text};
use crate::error::ceiba_error;
use crate::queue::{ceiba_queue, of_this_process};
use crate::text::ceiba_string;

/// The largest configuration file, in bytes.
const LARGEST: u64 = 16 << 20;

/// Opens every client of a configuration file, {"clients": [{"id": "a", "role": "producer", …}, …]}, or
/// none: when one fails, those opened before it are closed again, and the error names the client. A file may also
/// be the config of one client, with its `id`.
///
/// `queue` (may be NULL) is given to every producer, as in ceiba_producer_open(). `ids_json` may be NULL;
/// else it gets a JSON array, which the caller frees: [{"role": "producer", "id": "a"}, …].
///
/// Any thread; blocks. CEIBA_ERR_INVALID_CONFIG also when the file cannot be read; otherwise the errors of
/// ceiba_producer_open().
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_open_file(
    path: *const c_char,
    path_len: usize,
    queue: *const ceiba_queue,
    ids_json: *mut *mut ceiba_string,
    error: *mut *mut ceiba_error,
) -> i32 {
    ffi_call!(error, {
        let config = read(text("path", path, path_len)?)?;
        let queue = of_this_process(queue)?;
        let opened = runtime::block_on(calls::open_file(&config, queue))?;
        put(ids_json, || {
            let clients: Vec<Value> = opened
                .iter()
                .map(|(role, id)| {
                    let role = match role {
                        Role::Producer => "producer",
                        Role::Consumer => "consumer",
                    };
                    json!({"role": role, "id": &**id})
                })
                .collect();
            give(Value::Array(clients).to_string())
        });
        Ok(())
    })
}

fn read(path: &str) -> Result<String> {
    let unreadable = |error: std::io::Error| {
        Error::new(Kind::InvalidConfig, format!("the configuration file `{path}` cannot be read"))
            .caused_by(error)
    };
    let mut config = String::new();
    let file = File::open(path).map_err(unreadable)?;
    let read = file.take(LARGEST + 1).read_to_string(&mut config).map_err(unreadable)?;
    if read as u64 > LARGEST {
        return Err(Error::new(
            Kind::InvalidConfig,
            format!("the configuration file `{path}` is over {LARGEST} bytes"),
        ));
    }
    Ok(config)
}
