//! What a template may be made of.
//!
//! Each step of a rendering could double a text or a list, and a bound on steps would bound no memory. So whatever
//! makes a value larger than what it is made of is refused here, but for the filters, which are charged for what
//! they make: text joined by `~`, text or lists added and repeated, a block whose output becomes a value, a list
//! of values that gets a name.

use minijinja::machinery::ast::{BinOpKind, CallArg, Expr, Stmt, UnaryOpKind};
use minijinja::machinery::parse;

use super::described;

/// Whether one of its steps can read the whole of a value; what is wrong, with the line, when a template is not of this
/// shape.
pub(super) fn check(name: &str, text: &str) -> Result<bool, String> {
    let root = parse(text, name, Default::default()).map_err(|error| described(&error))?;
    let mut scans = false;
    statement(&root, false, &mut scans)?;
    Ok(scans)
}

// A part of a text is found by counting its signs, and two values are compared and searched from their start.
fn is_scan(value: &Expr<'_>) -> bool {
    match value {
        Expr::Slice(_) | Expr::Compare(_) => true,
        Expr::Test(test) => !matches!(
            test.name,
            "defined"
                | "undefined"
                | "none"
                | "boolean"
                | "number"
                | "integer"
                | "float"
                | "string"
                | "sequence"
                | "iterable"
                | "mapping"
                | "odd"
                | "even"
                | "divisibleby"
        ),
        Expr::BinOp(operation) => matches!(
            operation.op,
            BinOpKind::Eq
                | BinOpKind::Ne
                | BinOpKind::Lt
                | BinOpKind::Lte
                | BinOpKind::Gt
                | BinOpKind::Gte
                | BinOpKind::In
        ),
        // A sign at a place.
        Expr::GetItem(_) => true,
        _ => false,
    }
}

fn refuse(line: impl Into<u64>, what: &str) -> Result<(), String> {
    Err(format!("line {}: {what}", line.into()))
}

fn body(statements: &[Stmt<'_>], in_loop: bool, scans: &mut bool) -> Result<(), String> {
    statements.iter().try_for_each(|inner| statement(inner, in_loop, scans))
}

fn statement(statement: &Stmt<'_>, in_loop: bool, scans: &mut bool) -> Result<(), String> {
    match statement {
        Stmt::Template(template) => body(&template.children, in_loop, scans),
        Stmt::EmitRaw(_) => Ok(()),
        Stmt::EmitExpr(emit) => expression(&emit.expr, scans),
        Stmt::ForLoop(each) => {
            if each.recursive {
                return refuse(each.span().start_line, "a loop may not be recursive");
            }
            named(&each.iter, scans)?;
            each.filter_expr.iter().try_for_each(|value| expression(value, scans))?;
            body(&each.body, true, scans)?;
            body(&each.else_body, in_loop, scans)
        }
        Stmt::IfCond(cond) => {
            expression(&cond.expr, scans)?;
            body(&cond.true_body, in_loop, scans)?;
            body(&cond.false_body, in_loop, scans)
        }
        Stmt::WithBlock(with) => {
            with.assignments.iter().try_for_each(|(_, value)| named(value, scans))?;
            body(&with.body, in_loop, scans)
        }
        Stmt::Set(set) if in_loop => {
            refuse(set.span().start_line, "`set` may not be used within a loop: use `with`")
        }
        Stmt::Set(set) => named(&set.expr, scans),
        Stmt::SetBlock(set) => refuse(set.span().start_line, "`set` takes a value, not a block"),
        Stmt::AutoEscape(escape) => {
            refuse(escape.span().start_line, "`autoescape` may not be used: the filter `safe` marks a value")
        }
        Stmt::FilterBlock(filter) => refuse(filter.span().start_line, "`filter` may not be used as a block"),
        Stmt::Do(call) => refuse(call.span().start_line, "`do` may not be used"),
    }
}

// A value that gets a name: were lists of values allowed, each name could hold the one before twice.
fn named(value: &Expr<'_>, scans: &mut bool) -> Result<(), String> {
    expression(value, scans)?;
    if holds_list(value) {
        let what = "a list or a map of values may not get a name: put it to use where it is made";
        return refuse(value.span().start_line, what);
    }
    Ok(())
}

fn holds_list(value: &Expr<'_>) -> bool {
    match value {
        Expr::List(list) => list.as_const().is_none(),
        Expr::Tuple(tuple) => tuple.as_const().is_none(),
        Expr::Map(map) => map.as_const().is_none(),
        _ => inner(value).into_iter().any(holds_list),
    }
}

fn expression(value: &Expr<'_>, scans: &mut bool) -> Result<(), String> {
    *scans |= is_scan(value);
    let line = value.span().start_line;
    match value {
        Expr::BinOp(operation) => match operation.op {
            BinOpKind::Concat => {
                return refuse(
                    line,
                    "`~` may not be used: write the parts one after the other, or `join` them",
                );
            }
            // Text plus a number is an error, and so is a list plus a number.
            BinOpKind::Add if !is_number(&operation.left) && !is_number(&operation.right) => {
                return refuse(line, "`+` needs a number: put `|int` or `|float` behind one side");
            }
            BinOpKind::Mul if !is_number(&operation.left) || !is_number(&operation.right) => {
                return refuse(line, "`*` needs two numbers: put `|int` or `|float` behind each side");
            }
            _ => {}
        },
        Expr::Call(call) => match &call.expr {
            Expr::Var(function) if function.id == "range" => {}
            Expr::GetAttr(method)
                if method.name == "cycle" && matches!(&method.expr, Expr::Var(of) if of.id == "loop") => {}
            _ => return refuse(line, "there are no functions but `range` and `loop.cycle`"),
        },
        _ => {}
    }
    inner(value).into_iter().try_for_each(|value| expression(value, scans))
}

fn is_number(value: &Expr<'_>) -> bool {
    match value {
        Expr::Const(constant) => constant.value.is_number(),
        Expr::UnaryOp(operation) => matches!(operation.op, UnaryOpKind::Neg),
        Expr::Filter(filter) => matches!(filter.name, "int" | "float" | "length" | "count" | "round" | "abs"),
        Expr::BinOp(operation) => match operation.op {
            BinOpKind::Sub | BinOpKind::Div | BinOpKind::FloorDiv | BinOpKind::Rem | BinOpKind::Pow => true,
            BinOpKind::Add => is_number(&operation.left) || is_number(&operation.right),
            BinOpKind::Mul => is_number(&operation.left) && is_number(&operation.right),
            _ => false,
        },
        _ => false,
    }
}

// The expressions that this one is made of.
fn inner<'a, 'b>(value: &'a Expr<'b>) -> Vec<&'a Expr<'b>> {
    fn args<'a, 'b>(args: &'a [CallArg<'b>]) -> impl Iterator<Item = &'a Expr<'b>> {
        args.iter().map(|arg| match arg {
            CallArg::Pos(value)
            | CallArg::Kwarg(_, value)
            | CallArg::PosSplat(value)
            | CallArg::KwargSplat(value) => value,
        })
    }
    match value {
        Expr::Var(_) | Expr::Const(_) => Vec::new(),
        Expr::Slice(slice) => {
            std::iter::once(&slice.expr).chain(&slice.start).chain(&slice.stop).chain(&slice.step).collect()
        }
        Expr::UnaryOp(operation) => vec![&operation.expr],
        Expr::BinOp(operation) => vec![&operation.left, &operation.right],
        Expr::Compare(compare) => {
            std::iter::once(&compare.expr).chain(compare.ops.iter().map(|op| &op.expr)).collect()
        }
        Expr::IfExpr(either) => {
            [&either.test_expr, &either.true_expr].into_iter().chain(&either.false_expr).collect()
        }
        Expr::Filter(filter) => filter.expr.iter().chain(args(&filter.args)).collect(),
        Expr::Test(test) => std::iter::once(&test.expr).chain(args(&test.args)).collect(),
        Expr::GetAttr(attribute) => vec![&attribute.expr],
        Expr::GetItem(item) => vec![&item.expr, &item.subscript_expr],
        Expr::Call(call) => std::iter::once(&call.expr).chain(args(&call.args)).collect(),
        Expr::List(list) => list.items.iter().collect(),
        Expr::Tuple(tuple) => tuple.items.iter().collect(),
        Expr::Map(map) => map.keys.iter().chain(&map.values).collect(),
    }
}
