//! The filters and tests of templates: those of minijinja whose results are bounded, each charged for what it makes.

use minijinja::value::{Rest, Value, ValueKind, ValueOrKwargs};
use minijinja::{Environment, ErrorKind, State, filters, functions, tests};

type Outcome = Result<Value, minijinja::Error>;

/// The bytes that the filters of one rendering may read and make, all together.
const MAX_WORK: usize = 64 << 20;
/// The bytes that one filter may make.
const MAX_RESULT: usize = 16 << 20;
/// What one value of a list counts, in bytes.
const ITEM: usize = 32;

/// What is left of [`MAX_WORK`].
struct Left(usize);

pub(super) fn add(environment: &mut Environment<'static>) {
    let mut filter = |name: &'static str, filter: Value| {
        environment.add_filter(name, move |state: &mut State, args: Rest<ValueOrKwargs>| -> Outcome {
            apply(name, &filter, state, &args.into_values())
        });
    };
    filter("safe", Value::from_function(filters::safe));
    filter("escape", Value::from_function(filters::escape));
    filter("e", Value::from_function(filters::escape));
    filter("lower", Value::from_function(filters::lower));
    filter("upper", Value::from_function(filters::upper));
    filter("title", Value::from_function(filters::title));
    filter("capitalize", Value::from_function(filters::capitalize));
    filter("replace", Value::from_function(filters::replace));
    filter("length", Value::from_function(filters::length));
    filter("count", Value::from_function(filters::length));
    filter("items", Value::from_function(filters::items));
    filter("dictsort", Value::from_function(filters::dictsort));
    filter("reverse", Value::from_function(filters::reverse));
    filter("trim", Value::from_function(filters::trim));
    filter("join", Value::from_function(filters::join));
    filter("split", Value::from_function(filters::split));
    filter("lines", Value::from_function(filters::lines));
    filter("default", Value::from_function(filters::default));
    filter("d", Value::from_function(filters::default));
    filter("round", Value::from_function(filters::round));
    filter("abs", Value::from_function(filters::abs));
    filter("int", Value::from_function(filters::int));
    filter("float", Value::from_function(filters::float));
    filter("string", Value::from_function(filters::string));
    filter("bool", Value::from_function(filters::bool));
    filter("list", Value::from_function(filters::list));
    filter("first", Value::from_function(filters::first));
    filter("last", Value::from_function(filters::last));
    filter("min", Value::from_function(filters::min));
    filter("max", Value::from_function(filters::max));
    filter("sort", Value::from_function(filters::sort));
    filter("unique", Value::from_function(filters::unique));
    filter("select", Value::from_function(filters::select));
    filter("reject", Value::from_function(filters::reject));
    filter("selectattr", Value::from_function(filters::selectattr));
    filter("rejectattr", Value::from_function(filters::rejectattr));
    filter("map", Value::from_function(filters::map));
    filter("tojson", Value::from_function(filters::tojson));

    environment.add_function("range", functions::range);
    environment.add_test("defined", tests::is_defined);
    environment.add_test("undefined", tests::is_undefined);
    environment.add_test("none", tests::is_none);
    environment.add_test("boolean", tests::is_boolean);
    environment.add_test("number", tests::is_number);
    environment.add_test("integer", tests::is_integer);
    environment.add_test("float", tests::is_float);
    environment.add_test("string", tests::is_string);
    environment.add_test("sequence", tests::is_sequence);
    environment.add_test("iterable", tests::is_iterable);
    environment.add_test("mapping", tests::is_mapping);
    environment.add_test("odd", tests::is_odd);
    environment.add_test("even", tests::is_even);
    environment.add_test("divisibleby", tests::is_divisibleby);
    environment.add_test("startingwith", tests::is_startingwith);
    environment.add_test("endingwith", tests::is_endingwith);
    environment.add_test("eq", tests::is_eq);
    environment.add_test("equalto", tests::is_eq);
    environment.add_test("ne", tests::is_ne);
    environment.add_test("lt", tests::is_lt);
    environment.add_test("le", tests::is_le);
    environment.add_test("gt", tests::is_gt);
    environment.add_test("ge", tests::is_ge);
    environment.add_test("in", tests::is_in);
}

fn apply(name: &str, filter: &Value, state: &mut State, args: &[Value]) -> Outcome {
    match name {
        // These look at their input and read none of it.
        "first" | "default" | "d" | "bool" => {}
        // These read a text, and of a list nothing.
        "length" | "count" | "safe" | "int" | "float" => {
            for text in args.iter().filter_map(Value::as_str) {
                charge(state, text.len())?;
            }
        }
        _ => {
            for arg in args {
                charge(state, size(arg))?;
            }
        }
    }
    let makes = estimate(name, args);
    if makes > MAX_RESULT {
        return Err(too_much(name));
    }
    let made = filter.call(state, args)?;
    charge(state, makes.max(size(&made)))?;
    Ok(made)
}

// What the filter could make at most, where that is more than some times its input.
fn estimate(name: &str, args: &[Value]) -> usize {
    let length = |place: usize| args.get(place).map_or(0, size);
    let count = |place: usize| args.get(place).and_then(Value::len).unwrap_or(0);
    match name {
        "replace" => {
            let from = length(1).max(1);
            let places = (length(0) / from).saturating_add(1);
            places.saturating_mul(length(2)).saturating_add(length(0))
        }
        "join" => count(0).saturating_mul(length(1)).saturating_add(length(0)),
        // One value for each sign or line.
        "split" | "lines" | "list" | "sort" | "unique" => length(0).saturating_mul(ITEM),
        // Indentation could be of any width.
        "tojson" if args.len() > 1 => usize::MAX,
        "tojson" | "escape" | "e" => length(0).saturating_mul(6),
        _ => 0,
    }
}

// Bytes of a text, or of a list with its texts, a part of a list among them. Values are trees: the shape of a template
// lets none share parts. What is more than may be used in all is not measured to its end.
fn size(value: &Value) -> usize {
    let mut left = MAX_WORK + 1;
    measure(value, &mut left);
    MAX_WORK + 1 - left
}

fn measure(value: &Value, left: &mut usize) {
    match value.kind() {
        ValueKind::String | ValueKind::Bytes => {
            *left = left.saturating_sub(value.as_str().map_or(ITEM, str::len));
        }
        kind @ (ValueKind::Seq | ValueKind::Map | ValueKind::Iterable) => match value.try_iter() {
            Ok(items) => {
                for item in items {
                    *left = left.saturating_sub(ITEM);
                    if *left == 0 {
                        return;
                    }
                    if kind == ValueKind::Map
                        && let Ok(inner) = value.get_item(&item)
                    {
                        measure(&inner, left);
                    }
                    measure(&item, left);
                }
            }
            Err(_) => *left = left.saturating_sub(ITEM),
        },
        _ => *left = left.saturating_sub(ITEM),
    }
}

fn charge(state: &mut State, bytes: usize) -> Result<(), minijinja::Error> {
    let left = state.get_or_insert_extension(Left(MAX_WORK));
    match left.0.checked_sub(bytes) {
        Some(rest) => {
            left.0 = rest;
            Ok(())
        }
        None => Err(too_much("filters")),
    }
}

fn too_much(name: &str) -> minijinja::Error {
    minijinja::Error::new(ErrorKind::InvalidOperation, format!("`{name}` would make too long a value"))
}
