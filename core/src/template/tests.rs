use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::*;

fn message(args: Value) -> Message {
    Message::new("the body").with(|fields| {
        fields.args = Some(args);
        fields.template = Some("welcome".into());
        fields.recipients = vec!["a@example.com".into(), "b@example.com".into()];
        fields.attributes.insert("trace".into(), "7".into());
    })
}

fn render(escape: Escape, text: &str, args: Value) -> Result<String> {
    Template::escaped("t", text, escape)?.render(&Values::of(&message(args)))
}

#[test]
fn the_values_of_a_message_are_at_hand() {
    let text = "{{ name }} {{ args.name }} {{ body }} {{ recipients|join(\",\") }} {{ template }} {{ attributes.trace }}";
    let rendered = render(Escape::None, text, json!({"name": "Zoë", "body": "not this"})).unwrap();
    assert_eq!(rendered, "Zoë Zoë the body a@example.com,b@example.com welcome 7");
    assert_eq!(render(Escape::None, "{{ args[1] }}", json!([1, "two"])).unwrap(), "two");
    let more = Values::with(&message(json!({})), [("recipient", json!("c"))]);
    assert_eq!(Template::parse("t", "{{ recipient }}").unwrap().render(&more).unwrap(), "c");
}

#[test]
fn values_are_added_to_those_that_there_are() {
    let values = Values::of(&message(json!({"name": "Zoë", "recipient": "none"})));
    let template = Template::parse("t", "{{ name }} {{ recipient }} {{ recipients|join('+') }}").unwrap();
    let more = values.and([("recipient", json!("c")), ("recipients", json!(["c", "d"]))]);
    assert_eq!(template.render(&more).unwrap(), "Zoë c c+d");
    assert_eq!(template.render(&values).unwrap(), "Zoë none a@example.com+b@example.com");
}

#[test]
fn a_missing_value_is_named() {
    for (text, name) in [
        ("one\n{{ who }}", "`who`"),
        ("{{ args.who }}", "`args.who`"),
        ("{{ who|upper }}", "`who`"),
        ("{% for x in who %}{% endfor %}", "`who`"),
        ("{% if who %}{% endif %}", "`who`"),
        ("{{ a.b.c }}", "`a.b`"),
    ] {
        for escape in [Escape::None, Escape::Html, Escape::Json, Escape::Form] {
            let error = render(escape, text, json!({"a": {}})).unwrap_err();
            assert_eq!((error.kind(), error.retryable()), (Kind::InvalidArgument, false), "{error}");
            assert!(error.message().contains(name), "{escape:?} {text}: {error}");
            assert!(error.message().contains("`t`") && error.message().contains("line"), "{error}");
        }
    }
    assert_eq!(render(Escape::None, "{{ who|default(\"you\") }}", json!({})).unwrap(), "you");
    // A body that is no text has no value.
    let binary = Message::new(vec![0xff]);
    let error = Template::parse("t", "{{ body }}").unwrap().render(&Values::of(&binary)).unwrap_err();
    assert!(error.message().contains("`body`"), "{error}");
}

#[test]
fn values_are_escaped_as_asked() {
    let args = json!({"x": "<a href=\"x\"> & \u{2028}'\n", "n": 3, "l": [1, "b"]});
    let of = |escape, text: &str| render(escape, text, args.clone()).unwrap();
    assert_eq!(of(Escape::None, "<{{ x }}>"), "<<a href=\"x\"> & \u{2028}'\n>");
    assert_eq!(
        of(Escape::Html, "<b>{{ x }}</b>"),
        "<b>&lt;a href=&quot;x&quot;&gt; &amp; \u{2028}&#x27;\n</b>"
    );
    let rendered = of(Escape::Json, "{\"x\": {{ x }}, \"n\": {{ n }}, \"l\": {{ l }}}");
    assert_eq!(serde_json::from_str::<Value>(&rendered).unwrap(), args);
    assert_eq!(
        of(Escape::Form, "x={{ x }}&n={{ n }}"),
        "x=%3Ca%20href%3D%22x%22%3E%20%26%20%E2%80%A8%27%0A&n=3"
    );
    assert_eq!(of(Escape::Html, "{{ x|safe }}"), of(Escape::None, "{{ x }}"));
}

#[test]
fn broken_templates_are_refused_when_they_are_compiled() {
    for text in [
        "{{ a",
        "{% for %}",
        "{% if a %}",
        "{{ a|nofilter }}",
        "{% include \"/etc/passwd\" %}",
        "{% import \"x\" as y %}",
        "{% extends \"x\" %}",
        "{% macro m() %}{% endmacro %}",
        "{{ debug() }}",
        "{{ namespace() }}",
        "{{ a.b() }}",
        "{{ a ~ b }}",
        "{{ a + b }}",
        "{{ a * 2 }}",
        "{% set a %}{{ a }}{% endset %}",
        "{% filter upper %}a{% endfilter %}",
        "{% set a = [b, b] %}",
        "{% with a = {\"x\": b} %}{% endwith %}",
        "{% for a in [b, b] %}{% endfor %}",
        "{% for a in b recursive %}{% endfor %}",
        "{% for a in b %}{% set c = a %}{% endfor %}",
        "{% autoescape false %}{% endautoescape %}",
        "{% set a = ((b, b),) %}",
        "{{ \"a\" * 100000000 }}",
        "{{ a|batch(1000000000) }}",
        "{{ a|indent(1000000000) }}",
        "{{ \"%999999999d\"|format(1) }}",
    ] {
        let error = match Template::parse("t", text) {
            Err(error) => {
                assert_eq!(error.kind(), Kind::InvalidConfig, "{text}: {error}");
                error
            }
            // An unknown filter is told when it is reached.
            Ok(template) => {
                assert!(text.contains('|'), "{text} was taken");
                template.render(&Values::of(&message(json!({"a": "x"})))).unwrap_err()
            }
        };
        assert!(error.message().contains("the template `t`: line 1"), "{text}: {error}");
    }
    let long = "x".repeat(MAX_TEXT + 1);
    assert_eq!(Template::parse("t", &long).unwrap_err().kind(), Kind::InvalidConfig);
}

#[test]
fn numbers_still_add_up() {
    let args = json!({"n": 3, "price": 2.5, "l": [{"n": 1}, {"n": 2}]});
    let text = "{{ n + 1 }} {{ price|float * n|int }} {{ l|length * 2 }} {{ -n }} \
                {% for x in l %}{{ loop.index + 1 }}{{ loop.cycle('a', 'b') }}{% endfor %} {{ l|map(attribute='n')|join('-') }}\
                {% for i in range(3) %}{{ i }}{% endfor %}{% with t = n - 1 %} {{ t }}{% endwith %}";
    assert_eq!(render(Escape::None, text, args).unwrap(), "4 7.5 4 -3 2a3b 1-2012 2");
}

// Everything here would take hours or more memory than there is, were it not bounded.
#[test]
fn a_bomb_ends_as_an_error() {
    let long = "x".repeat(1 << 20);
    let many: Vec<u32> = (0..10_000).collect();
    let args = json!({"long": long, "many": many, "x": "x\"\\&<"});
    let doubled = "{% set x = x|tojson %}".repeat(64);
    let replaced = "{% set x = x|replace('x', long) %}".repeat(64);
    let joined = "{% set x = [x, x]|join(x) %}".repeat(64);
    for text in [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% for a in range(99999) %}{% for b in range(99999) %}xxxxxxxxxxxxxxxx{% endfor %}{% endfor %}",
        "{% for a in many %}{{ long }}{% endfor %}",
        "{% for a in many %}{{ many|join(long) }}{% endfor %}",
        "{% for a in many %}{{ (many|sort)[0] }}{% endfor %}",
        "{% for a in many %}{{ (long|upper)[0] }}{% endfor %}",
        "{% for a in many %}{{ (long|list)[0] }}{% endfor %}",
        &(doubled + "{{ x }}"),
        &(replaced + "{{ x }}"),
        &(joined + "{{ x }}"),
        "{{ x|tojson(indent=4000000000) }}",
        &format!("{{{{ [{}][:]|join }}}}", "long,".repeat(40_000)),
        &format!("{{{{ [{}][1:]|list|length }}}}", "long,".repeat(40_000)),
        &format!("{{{{ [{}]|reverse|join }}}}", "long,".repeat(40_000)),
        &format!("{{% for a in many %}}{{{{ {}0 }}}}{{% endfor %}}", "long|length + ".repeat(200)),
        "{{ range(99999999999) }}",
        "{{ 9 ** 9 ** 9 }}",
    ] {
        let start = Instant::now();
        let error = render(Escape::None, text, args.clone()).unwrap_err();
        assert!(
            matches!(error.kind(), Kind::InvalidArgument | Kind::TooLarge | Kind::InvalidConfig),
            "{error}"
        );
        assert!(!error.retryable());
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "{:?} for {}",
            start.elapsed(),
            &text[..40.min(text.len())]
        );
    }
    // Operators are no filters: with values this large there are fewer steps.
    let huge = "x".repeat(16 << 20);
    let other = format!("{}y", &huge[1..]);
    let args = json!({"a": huge, "b": other, "many": many});
    for text in [
        "{% for i in many %}{% for j in many %}{% if a == b %}1{% endif %}{% endfor %}{% endfor %}",
        "{% for i in many %}{% for j in many %}{{ a[16000000:16000001] }}{% endfor %}{% endfor %}",
        "{% for i in many %}{% for j in many %}{% if 'y' in a %}1{% endif %}{% endfor %}{% endfor %}",
        "{% for i in many %}{% for j in many %}{% if a is endingwith 'y' %}1{% endif %}{% endfor %}{% endfor %}",
    ] {
        let start = Instant::now();
        let error = render(Escape::None, text, args.clone()).unwrap_err();
        assert_eq!(error.kind(), Kind::InvalidArgument, "{error}");
        assert!(start.elapsed() < Duration::from_secs(30), "{:?} for {text}", start.elapsed());
    }
    let nested = format!("{}x{}", "{% if true %}".repeat(2000), "{% endif %}".repeat(2000));
    Template::parse("t", &nested).unwrap_err();
    let nested = format!("{{{{ {}1{} }}}}", "(".repeat(5000), ")".repeat(5000));
    Template::parse("t", &nested).unwrap_err();
}
