//! XML as MNS writes it: elements and text. Attributes are passed over but for what they must be; types of documents and
//! entities of their own are refused, and depth, size and number of elements are bounded.

use std::borrow::Cow;
use std::fmt::Write as _;

use quick_xml::Reader;
use quick_xml::events::{BytesRef, BytesStart, Event};

/// The longest document that is read. Sixteen bodies of 64 KiB may each have become six times as long.
pub const MAX_DOCUMENT: usize = 8 << 20;
/// How deep elements may stand in others: the deepest that have a meaning are five deep.
pub const MAX_DEPTH: usize = 16;
/// The most elements of a document: a list of a thousand queues with their attributes has fewer.
pub const MAX_ELEMENTS: usize = 64 << 10;

/// The namespace of all that MNS writes.
pub const NAMESPACE: &str = "http://mns.aliyuncs.com/doc/v1/";
/// That of refusals: the Java SDK knows them by it alone.
const OF_REFUSALS: &str = "http://mns.aliyuncs.com/doc/v1";

/// What is wrong with a document: never a part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

/// An element: its name without a prefix, its text, and the elements in it. What needed no change is a view.
#[derive(Debug, Default)]
pub(super) struct Node<'a> {
    pub(super) name: &'a str,
    pub(super) text: Cow<'a, str>,
    pub(super) children: Vec<Node<'a>>,
    // Its own text has what no XML has.
    spoilt: bool,
}

impl<'a> Node<'a> {
    /// The first element of this name in it.
    pub(super) fn child(&self, name: &str) -> Option<&Node<'a>> {
        self.children.iter().find(|child| child.name == name)
    }

    /// Whether all text in it is text that XML has: in a document that was read strictly it is.
    pub(super) fn is_sound(&self) -> bool {
        !self.spoilt && self.children.iter().all(Node::is_sound)
    }

    /// The text of the first element of this name in it, taken out.
    pub(super) fn take(&mut self, name: &str) -> Option<Cow<'a, str>> {
        let child = self.children.iter_mut().find(|child| child.name == name)?;
        Some(std::mem::take(&mut child.text))
    }

    /// The same where it is not empty.
    pub(super) fn take_filled(&mut self, name: &str) -> Option<Cow<'a, str>> {
        self.take(name).filter(|text| !text.is_empty())
    }

    /// The number in the first element of this name, where there is one.
    pub(super) fn number(&self, name: &str) -> Result<Option<u64>, Malformed> {
        match self.child(name).map(|child| child.text.trim()) {
            None | Some("") => Ok(None),
            Some(text) => text.parse().map(Some).map_err(|_| Malformed("a number is none")),
        }
    }

    /// The number of what a caller asks for. One that is below zero or too large is the largest there is, which lies
    /// outside of every range: it is then refused as what it is, and not the document.
    pub(super) fn asked(&self, name: &str) -> Result<Option<u32>, Malformed> {
        let Some(text) = self.child(name).map(|child| child.text.trim()) else { return Ok(None) };
        let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
        match text.parse() {
            _ if text.is_empty() => Ok(None),
            Ok(number) => Ok(Some(number)),
            Err(_) if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                Ok(Some(u32::MAX))
            }
            Err(_) => Err(Malformed("a number is none")),
        }
    }

    /// The same of a number that is not long.
    pub(super) fn short(&self, name: &str) -> Result<Option<u32>, Malformed> {
        let short = |number| u32::try_from(number).map_err(|_| Malformed("a number is too large"));
        self.number(name)?.map(short).transpose()
    }

    /// The truth in the first element of this name.
    pub(super) fn switch(&self, name: &str) -> Result<Option<bool>, Malformed> {
        match self.child(name).map(|child| child.text.trim()) {
            None | Some("") => Ok(None),
            Some(text) if text.eq_ignore_ascii_case("true") => Ok(Some(true)),
            Some(text) if text.eq_ignore_ascii_case("false") => Ok(Some(false)),
            Some(_) => Err(Malformed("what is true or false is neither")),
        }
    }
}

/// Reads a document.
///
/// # Errors
/// What is wrong with it.
pub(super) fn read(document: &[u8]) -> Result<Node<'_>, Malformed> {
    read_into(Tree::default(), document)
}

/// Reads a document of several things of which one may have text that no XML has: [`Node::is_sound`] tells which.
///
/// # Errors
/// What is wrong with it as a whole.
pub(super) fn read_each(document: &[u8]) -> Result<Node<'_>, Malformed> {
    read_into(Tree { tolerant: true, ..Tree::default() }, document)
}

fn read_into<'a>(mut tree: Tree<'a>, document: &'a [u8]) -> Result<Node<'a>, Malformed> {
    if document.len() > MAX_DOCUMENT {
        return Err(Malformed("the document is too long"));
    }
    let text = std::str::from_utf8(document).map_err(|_| Malformed("the document is not UTF-8"))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = Reader::from_str(text);
    loop {
        let event = reader.read_event().map_err(|_| Malformed("the document is not well formed"))?;
        let end = usize::try_from(reader.buffer_position()).unwrap_or(usize::MAX);
        match event {
            Event::Start(start) => {
                let name = name(text, end.checked_sub(1), &start)?;
                tree.open(name)?;
            }
            Event::Empty(start) => {
                let name = name(text, end.checked_sub(2), &start)?;
                tree.open(name)?;
                tree.close()?;
            }
            Event::End(_) => tree.close()?,
            Event::Text(text) => {
                let text = text.xml10_content();
                tree.judge(legal(&text))?;
                tree.text(text)?;
            }
            Event::CData(text) => {
                let text = text.xml10_content();
                tree.judge(legal(&text))?;
                tree.text(text)?;
            }
            Event::GeneralRef(reference) => {
                if let Some(sign) = tree.judge(resolve(&reference))? {
                    tree.character(sign)?;
                }
            }
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
            Event::DocType(_) => return Err(Malformed("a document type is not read")),
            Event::Eof => return tree.finish(),
        }
    }
}

// The name of a tag as the document has it: the event's own lives no longer than the event.
fn name<'a>(text: &'a str, end: Option<usize>, start: &BytesStart<'_>) -> Result<&'a str, Malformed> {
    let wrong = Malformed("an element has no name");
    let end = end.ok_or(wrong)?;
    let begin = end.checked_sub(start.len()).ok_or(wrong)?;
    let length = start.name().as_ref().len();
    let name = text.get(begin..begin + length).ok_or(wrong)?;
    let name = name.rsplit_once(':').map_or(name, |(_, local)| local);
    if name.is_empty() {
        return Err(wrong);
    }
    for attribute in start.attributes() {
        attribute.map_err(|_| Malformed("an attribute is not well formed"))?;
    }
    Ok(name)
}

// Entities of its own would let a short document stand for a long one.
fn resolve(reference: &BytesRef<'_>) -> Result<char, Malformed> {
    if reference.is_char_ref() {
        let wrong = Malformed("a character's number is none");
        let found = reference.resolve_char_ref().map_err(|_| wrong)?.ok_or(wrong)?;
        return if is_legal(found) { Ok(found) } else { Err(wrong) };
    }
    match &*reference.xml10_content() {
        "amp" => Ok('&'),
        "lt" => Ok('<'),
        "gt" => Ok('>'),
        "quot" => Ok('"'),
        "apos" => Ok('\''),
        _ => Err(Malformed("an entity is not one of the five that XML has")),
    }
}

fn is_legal(sign: char) -> bool {
    matches!(sign, '\t' | '\n' | '\r' | ' '..='\u{fffd}' | '\u{10000}'..)
}

fn legal(text: &str) -> Result<(), Malformed> {
    if is_text(text) { Ok(()) } else { Err(Malformed("a character is none that XML has")) }
}

/// Whether XML can carry a text: it has no way to write most control characters.
pub fn is_text(text: &str) -> bool {
    let plain = |byte: u8| byte >= b' ' || matches!(byte, b'\t' | b'\n' | b'\r');
    // The two that are left out beside them begin with this byte.
    text.bytes().all(|byte| plain(byte) && byte != 0xef) || text.chars().all(is_legal)
}

#[derive(Default)]
struct Tree<'a> {
    open: Vec<Node<'a>>,
    root: Option<Node<'a>>,
    elements: usize,
    // What is wrong with text is noted at its element.
    tolerant: bool,
}

impl<'a> Tree<'a> {
    fn open(&mut self, name: &'a str) -> Result<(), Malformed> {
        self.elements += 1;
        if self.elements > MAX_ELEMENTS {
            return Err(Malformed("the document has too many elements"));
        }
        if self.open.len() >= MAX_DEPTH {
            return Err(Malformed("elements stand too deep in others"));
        }
        if self.root.is_some() {
            return Err(Malformed("the document has more than one root"));
        }
        self.open.push(Node { name, ..Node::default() });
        Ok(())
    }

    fn close(&mut self) -> Result<(), Malformed> {
        let node = self.open.pop().ok_or(Malformed("an element ends that did not begin"))?;
        match self.open.last_mut() {
            Some(parent) => parent.children.push(node),
            None => self.root = Some(node),
        }
        Ok(())
    }

    fn judge<T>(&mut self, found: Result<T, Malformed>) -> Result<Option<T>, Malformed> {
        match (found, self.open.last_mut()) {
            (Ok(found), _) => Ok(Some(found)),
            (Err(_), Some(node)) if self.tolerant => {
                node.spoilt = true;
                Ok(None)
            }
            (Err(malformed), _) => Err(malformed),
        }
    }

    fn text(&mut self, text: Cow<'a, str>) -> Result<(), Malformed> {
        match self.open.last_mut() {
            Some(node) if node.text.is_empty() => node.text = text,
            Some(node) => node.text.to_mut().push_str(&text),
            None if text.trim_matches([' ', '\t', '\r', '\n']).is_empty() => {}
            None => return Err(Malformed("there is text outside of the root")),
        }
        Ok(())
    }

    fn character(&mut self, sign: char) -> Result<(), Malformed> {
        let node = self.open.last_mut().ok_or(Malformed("there is text outside of the root"))?;
        node.text.to_mut().push(sign);
        Ok(())
    }

    fn finish(self) -> Result<Node<'a>, Malformed> {
        if !self.open.is_empty() {
            return Err(Malformed("the document ends within an element"));
        }
        self.root.ok_or(Malformed("the document is empty"))
    }
}

/// Writes elements.
pub(super) struct Writer(String);

impl Writer {
    /// A request: elements alone.
    pub(super) fn request(room: usize) -> Writer {
        Writer(String::with_capacity(room))
    }

    /// An answer, with its declaration; the root is opened with the namespace.
    pub(super) fn answer(root: &str, room: usize) -> Writer {
        Writer::within(NAMESPACE, root, room)
    }

    /// A refusal, the same way.
    pub(super) fn refusal(root: &str, room: usize) -> Writer {
        Writer::within(OF_REFUSALS, root, room)
    }

    fn within(namespace: &str, root: &str, room: usize) -> Writer {
        let mut text = String::with_capacity(room);
        let _ = write!(text, "<?xml version=\"1.0\" ?>\n<{root} xmlns=\"{namespace}\">");
        Writer(text)
    }

    pub(super) fn open(&mut self, name: &str) {
        self.0.push('<');
        self.0.push_str(name);
        self.0.push('>');
    }

    pub(super) fn close(&mut self, name: &str) {
        self.0.push_str("</");
        self.0.push_str(name);
        self.0.push('>');
    }

    pub(super) fn leaf(&mut self, name: &str, text: &str) {
        self.open(name);
        escape(text, &mut self.0);
        self.close(name);
    }

    pub(super) fn some(&mut self, name: &str, text: Option<&str>) {
        if let Some(text) = text {
            self.leaf(name, text);
        }
    }

    pub(super) fn number(&mut self, name: &str, number: Option<impl Into<u64>>) {
        if let Some(number) = number {
            self.open(name);
            let _ = write!(self.0, "{}", number.into());
            self.close(name);
        }
    }

    pub(super) fn into_text(self) -> String {
        self.0
    }

    pub(super) fn finish(mut self, root: &str) -> String {
        self.close(root);
        self.0
    }
}

/// Escapes a text: white space too, which readers may change otherwise. What XML cannot carry becomes the sign of a
/// character that is missing.
fn escape(text: &str, into: &mut String) {
    let mut begin = 0;
    for (at, byte) in text.bytes().enumerate() {
        let replaced = match byte {
            b'"' => "&#34;",
            b'\'' => "&#39;",
            b'&' => "&amp;",
            b'<' => "&lt;",
            b'>' => "&gt;",
            b'\t' => "&#x9;",
            b'\n' => "&#xA;",
            b'\r' => "&#xD;",
            0..b' ' => "\u{fffd}",
            // U+FFFE and U+FFFF.
            0xef if matches!(text.as_bytes().get(at + 1..at + 3), Some([0xbf, 0xbe | 0xbf])) => {
                into.push_str(text.get(begin..at).unwrap_or_default());
                into.push('\u{fffd}');
                begin = at + 3;
                continue;
            }
            _ => continue,
        };
        into.push_str(text.get(begin..at).unwrap_or_default());
        into.push_str(replaced);
        begin = at + 1;
    }
    into.push_str(text.get(begin..).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_plain_xml_is_refused() {
        let deep = format!("{}{}", "<a>".repeat(MAX_DEPTH + 1), "</a>".repeat(MAX_DEPTH + 1));
        let many = format!("<a>{}</a>", "<b/>".repeat(MAX_ELEMENTS));
        let long = format!("<a>{}</a>", "x".repeat(MAX_DOCUMENT));
        for (wrong, why) in [
            ("<!DOCTYPE a [<!ENTITY b \"c\">]><a>&b;</a>", "document type"),
            ("<!DOCTYPE a SYSTEM \"file:///etc/passwd\"><a/>", "document type"),
            ("<a>&b;</a>", "entity"),
            ("<a>&nbsp;</a>", "entity"),
            ("<a>&#0;</a>", "number"),
            ("<a>&#xFFFE;</a>", "number"),
            ("<a>&#x110000;</a>", "number"),
            ("<a>\u{1}</a>", "character"),
            ("<a>\u{ffff}</a>", "character"),
            ("<a><![CDATA[\u{2}]]></a>", "character"),
            ("<a>", "within"),
            ("<a><b></a>", "well formed"),
            ("</a>", "well formed"),
            ("<a/><b/>", "one root"),
            ("x<a/>", "outside"),
            ("<a/>x", "outside"),
            ("", "empty"),
            ("<!-- -->", "empty"),
            ("<a b></a>", "attribute"),
            ("< a/>", "name"),
            (&deep, "deep"),
            (&many, "many"),
            (&long, "long"),
        ] {
            let shown: String = wrong.chars().take(60).collect();
            let Err(Malformed(text)) = read(wrong.as_bytes()) else { panic!("{shown} was read") };
            assert!(text.contains(why), "{shown}: {text}");
        }
        assert!(read(b"<a>\xff</a>").is_err());
    }

    #[test]
    fn text_is_read_as_it_was_meant() {
        let document = "\u{feff}<?xml version=\"1.0\" ?>\n<n:a xmlns:n=\"u\">1<!-- x -->2<![CDATA[<3>]]>&#x34;&amp;\r\n<b/></n:a>\n";
        let node = read(document.as_bytes()).unwrap();
        assert_eq!((node.name, &*node.text), ("a", "12<3>4&\n"));
        assert_eq!(node.children.len(), 1);
    }

    #[test]
    fn what_is_escaped_is_read_again() {
        let text = "a\"'&<>\t\n\r\r\nü𝄞]]>  ";
        let mut written = Writer::request(0);
        written.open("r");
        written.leaf("t", text);
        let written = written.finish("r");
        assert_eq!(read(written.as_bytes()).unwrap().take("t").unwrap(), text);
        let mut odd = String::new();
        escape("\u{0}a\u{fffe}\u{fffd}\u{ffff}b", &mut odd);
        assert_eq!(odd, "\u{fffd}a\u{fffd}\u{fffd}\u{fffd}b");
        assert!(is_text(text) && is_text("\u{fffd}ﷺ") && !is_text("\u{0}") && !is_text("\u{ffff}"));
    }
}
