//! JSON values to and from Python objects, without the `json` module.

use ceiba_core::error::{Error, Kind};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};
use serde_json::{Map, Number, Value};

use crate::failure::{Failure, invalid, type_name};

/// How deep a value may nest.
const DEPTH: usize = 64;

/// Reads a value; `name` leads the path in messages.
pub(crate) fn from_python(name: &str, value: &Bound<'_, PyAny>) -> Result<Value, Failure> {
    read(name, value, DEPTH)
}

/// A body in JSON, of a `dict`.
pub(crate) fn body(value: &Bound<'_, PyAny>) -> Result<Vec<u8>, Failure> {
    // The reader is that of configs, whose kind would mislead here.
    let refused = |failure| match failure {
        Failure::Core(error) => invalid(error.message().to_owned()),
        other => other,
    };
    let value = read("data", value, DEPTH).map_err(refused)?;
    serde_json::to_vec(&value).map_err(|error| invalid(error.to_string()))
}

fn wrong(text: String) -> Failure {
    Failure::Core(Error::new(Kind::InvalidConfig, text))
}

fn read(path: &str, value: &Bound<'_, PyAny>, depth: usize) -> Result<Value, Failure> {
    let Some(depth) = depth.checked_sub(1) else {
        return Err(wrong(format!("`{path}` nests more than {DEPTH} deep")));
    };
    let text = |text: &Bound<'_, PyString>| {
        let text = text.to_str().map(str::to_owned);
        text.map_err(|_| wrong(format!("`{path}` has a text with lone surrogates")))
    };
    if value.is_none() {
        return Ok(Value::Null);
    }
    if let Ok(flag) = value.cast::<PyBool>() {
        return Ok(Value::Bool(flag.is_true()));
    }
    if let Ok(string) = value.cast::<PyString>() {
        return Ok(Value::String(text(string)?));
    }
    if let Ok(number) = value.cast::<PyInt>() {
        let number =
            number.extract::<i64>().map(Number::from).or_else(|_| number.extract::<u64>().map(Number::from));
        return number.map(Value::Number).map_err(|_| wrong(format!("`{path}` is a number out of range")));
    }
    if let Ok(number) = value.cast::<PyFloat>() {
        let number = Number::from_f64(number.value());
        return number.map(Value::Number).ok_or_else(|| wrong(format!("`{path}` is not a finite number")));
    }
    if let Ok(dict) = value.cast::<PyDict>() {
        let mut object = Map::new();
        for (key, value) in dict.iter() {
            let Ok(key) = key.cast::<PyString>() else {
                let name = type_name(&key);
                return Err(wrong(format!("a key of `{path}` is a {name}: keys are str")));
            };
            let key = text(key)?;
            let value = read(&format!("{path}.{key}"), &value, depth)?;
            object.insert(key, value);
        }
        return Ok(Value::Object(object));
    }
    let items: Option<Vec<Bound<'_, PyAny>>> = if let Ok(list) = value.cast::<PyList>() {
        Some(list.iter().collect())
    } else {
        value.cast::<PyTuple>().ok().map(|tuple| tuple.iter().collect())
    };
    if let Some(items) = items {
        let items = items.iter().enumerate().map(|(at, item)| read(&format!("{path}[{at}]"), item, depth));
        return items.collect::<Result<Vec<_>, _>>().map(Value::Array);
    }
    if value.hasattr("__fspath__")? {
        return read(path, &value.call_method0("__fspath__")?, depth);
    }
    let name = type_name(value);
    Err(wrong(format!("`{path}` is a {name}: values are None, bool, int, float, str, list, tuple or dict")))
}

/// Makes the Python object of a value.
pub(crate) fn to_python<'py>(py: Python<'py>, value: &Value) -> PyResult<Bound<'py, PyAny>> {
    Ok(match value {
        Value::Null => py.None().into_bound(py),
        Value::Bool(flag) => PyBool::new(py, *flag).to_owned().into_any(),
        Value::Number(number) => {
            if let Some(number) = number.as_u64() {
                number.into_pyobject(py)?.into_any()
            } else if let Some(number) = number.as_i64() {
                number.into_pyobject(py)?.into_any()
            } else {
                PyFloat::new(py, number.as_f64().unwrap_or(f64::NAN)).into_any()
            }
        }
        Value::String(text) => PyString::new(py, text).into_any(),
        Value::Array(items) => {
            let list = PyList::empty(py);
            for item in items {
                list.append(to_python(py, item)?)?;
            }
            list.into_any()
        }
        Value::Object(object) => {
            let dict = PyDict::new(py);
            for (key, value) in object {
                dict.set_item(key, to_python(py, value)?)?;
            }
            dict.into_any()
        }
    })
}
