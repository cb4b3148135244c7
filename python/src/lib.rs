//! The Python module of ceiba, `ceiba._ceiba`: the calls by id, and the values they take and return.
//!
//! The package `ceiba` around it adds the classes, the exceptions and the log thread. Every call that waits
//! releases the interpreter's lock and looks for signals ten times a second.

mod broker;
mod completion;
mod consumer;
mod delivery;
mod failure;
mod host;
mod input;
mod json;
mod log;
mod message;
mod process;
mod producer;
mod raised;
mod state;
mod strategy;
mod wait;

use pyo3::prelude::*;

#[pymodule]
mod _ceiba {
    use pyo3::prelude::*;

    #[pymodule_export]
    use crate::broker::Broker;
    #[pymodule_export]
    use crate::completion::{Completion, completions, completions_fd, set_completion_capacity};
    #[pymodule_export]
    use crate::consumer::{
        consumer_ack, consumer_ack_many, consumer_close, consumer_nack, consumer_nack_many, consumer_open,
        consumer_receive, consumer_status,
    };
    #[pymodule_export]
    use crate::delivery::Delivery;
    #[pymodule_export]
    use crate::host::{HostCall, HostCalls, register_host, unregister_host};
    #[pymodule_export]
    use crate::log::{_log_close, _log_level, _log_take};
    #[pymodule_export]
    use crate::message::{Message, Receipt};
    #[pymodule_export]
    use crate::process::{_after_fork, _at_exit, _config_id, metrics, open_file, set_workers, shutdown};
    #[pymodule_export]
    use crate::producer::{
        producer_cancel, producer_close, producer_control, producer_flush, producer_open, producer_send,
        producer_send_batch, producer_status, producer_submit, producer_submit_many, producer_submit_message,
    };
    #[pymodule_export]
    use crate::strategy::{Run, Strategy, Wakes};

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
