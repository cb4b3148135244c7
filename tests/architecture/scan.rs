//! Reads Rust sources as tokens: enough to see paths, modules and keywords, and nothing of comments or texts.

/// One token and the line it is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) text: String,
    pub(crate) line: usize,
}

/// A path that starts at `crate`, `super` or `self`, from the root of its crate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reference {
    pub(crate) path: Vec<String>,
    pub(crate) line: usize,
}

/// Splits a source into identifiers, `::` and single signs. Comments and literals are left out.
pub(crate) fn tokens(source: &str) -> Vec<Token> {
    let chars: Vec<char> = source.chars().collect();
    let mut tokens = Vec::new();
    let (mut at, mut line) = (0, 1);
    let peek = |at: usize| chars.get(at).copied().unwrap_or('\0');
    while at < chars.len() {
        let sign = chars[at];
        let from = at;
        if sign == '/' && peek(at + 1) == '/' {
            while at < chars.len() && chars[at] != '\n' {
                at += 1;
            }
        } else if sign == '/' && peek(at + 1) == '*' {
            at = end_of_comment(&chars, at);
        } else if let Some(end) = end_of_text(&chars, at) {
            at = end;
        } else if sign == '\'' {
            at = end_of_char(&chars, at);
        } else if sign.is_alphabetic() || sign == '_' {
            while peek(at).is_alphanumeric() || peek(at) == '_' {
                at += 1;
            }
            tokens.push(Token { text: chars[from..at].iter().collect(), line });
        } else if sign == ':' && peek(at + 1) == ':' {
            tokens.push(Token { text: "::".to_owned(), line });
            at += 2;
        } else {
            if !sign.is_whitespace() {
                tokens.push(Token { text: sign.to_string(), line });
            }
            at += 1;
        }
        line += chars[from..at].iter().filter(|sign| **sign == '\n').count();
    }
    tokens
}

fn end_of_comment(chars: &[char], from: usize) -> usize {
    let (mut at, mut depth) = (from, 0usize);
    while at < chars.len() {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => (depth, at) = (depth + 1, at + 2),
            ('*', Some('/')) => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

// Plain, byte, C and raw texts.
fn end_of_text(chars: &[char], from: usize) -> Option<usize> {
    let mut at = from;
    while matches!(chars.get(at), Some('b' | 'c')) && at < from + 1 {
        at += 1;
    }
    let raw = chars.get(at) == Some(&'r');
    at += usize::from(raw);
    let mut hashes = 0;
    while raw && chars.get(at) == Some(&'#') {
        hashes += 1;
        at += 1;
    }
    if chars.get(at) != Some(&'"') {
        return None;
    }
    at += 1;
    while let Some(sign) = chars.get(at) {
        at += 1;
        if *sign == '\\' && !raw {
            at += 1;
        } else if *sign == '"' && (0..hashes).all(|hash| chars.get(at + hash) == Some(&'#')) {
            return Some(at + hashes);
        }
    }
    Some(at)
}

// A character, or a lifetime: after that its name is read like any other.
fn end_of_char(chars: &[char], from: usize) -> usize {
    match (chars.get(from + 1), chars.get(from + 2)) {
        (Some('\\'), _) => {
            let mut at = from + 3;
            while at < chars.len() && chars[at] != '\'' {
                at += 1;
            }
            at + 1
        }
        (Some(_), Some('\'')) => from + 3,
        _ => from + 1,
    }
}

/// Every path to another module of the same crate, wherever it stands, in the file of module `module`.
pub(crate) fn references(source: &str, module: &[String]) -> Vec<Reference> {
    let tokens = tokens(source);
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text.as_str());
    let mut found = Vec::new();
    let mut depth = 0usize;
    let mut inline: Vec<(String, usize)> = Vec::new();
    for at in 0..tokens.len() {
        match text(at) {
            "{" => {
                depth += 1;
                if at >= 2 && text(at - 2) == "mod" {
                    inline.push((text(at - 1).to_owned(), depth));
                }
            }
            "}" => {
                if inline.last().is_some_and(|(_, opened)| *opened == depth) {
                    inline.pop();
                }
                depth = depth.saturating_sub(1);
            }
            first @ ("crate" | "super" | "self")
                if text(at + 1) == "::" && (at == 0 || text(at - 1) != "::") =>
            {
                let mut base: Vec<String> = match first {
                    "crate" => Vec::new(),
                    _ => module.iter().cloned().chain(inline.iter().map(|(name, _)| name.clone())).collect(),
                };
                if first == "super" {
                    base.pop();
                }
                let mut paths = Vec::new();
                tree(&tokens, at + 2, base, &mut paths);
                found.extend(paths.into_iter().map(|path| Reference { path, line: tokens[at].line }));
            }
            _ => {}
        }
    }
    found
}

// One branch of a path or of a `use`; returns where it ended.
fn tree(tokens: &[Token], mut at: usize, mut path: Vec<String>, found: &mut Vec<Vec<String>>) -> usize {
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text.as_str());
    loop {
        match text(at) {
            "{" => {
                at += 1;
                while !matches!(text(at), "}" | "") {
                    at = tree(tokens, at, path.clone(), found);
                    while !matches!(text(at), "," | "}" | "") {
                        at += 1;
                    }
                    at += usize::from(text(at) == ",");
                }
                return at + 1;
            }
            "super" => _ = path.pop(),
            "self" | "*" | "" => {}
            name if name.starts_with(|sign: char| sign.is_alphabetic() || sign == '_') => {
                path.push(name.to_owned());
            }
            _ => return at,
        }
        at += 1;
        if text(at) != "::" {
            found.push(path);
            return at;
        }
        at += 1;
        if text(at) == "<" {
            found.push(path);
            return at;
        }
    }
}

/// Lines that hold more than space and comments.
pub(crate) fn lines_of_code(source: &str, comment: &[&str]) -> usize {
    let code = |line: &&str| {
        let line = line.trim();
        !line.is_empty() && !comment.iter().any(|mark| line.starts_with(mark))
    };
    source.lines().filter(code).count()
}
