//! Rust text as far as the rules need it: tokens without comments and texts, and paths with their
//! groups spread out.

use std::fs;
use std::path::{Path, PathBuf};

/// A word, `::`, or one other character.
pub struct Token {
    pub text: String,
    pub line: usize,
    /// Modules in this file that it stands in.
    pub inner: usize,
    /// Compiled for tests only.
    pub test: bool,
}

/// `a::b::c`; one for each name of a group `a::{b, c}`.
pub struct PathUse {
    pub segments: Vec<String>,
    pub line: usize,
    pub inner: usize,
    pub test: bool,
}

/// `receiver.name(`
pub struct Call {
    /// The last word before the dot, brackets aside.
    pub receiver: Option<String>,
    pub line: usize,
    pub test: bool,
}

/// A function under `#[tokio::test]`.
pub struct AsyncTest {
    pub line: usize,
    pub paused: bool,
    words: Vec<String>,
}

impl AsyncTest {
    /// Whether its attribute or body names this.
    pub fn mentions(&self, word: &str) -> bool {
        self.words.iter().any(|w| w == word)
    }
}

/// One file.
pub struct Source {
    pub path: String,
    pub text: String,
    pub tokens: Vec<Token>,
}

/// The root of the repository.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file of the crate and its tests.
pub fn sources() -> Vec<Source> {
    let mut all = Vec::new();
    for folder in ["src", "tests"] {
        for path in files_below(&root().join(folder)) {
            if path.extension().is_some_and(|end| end == "rs") {
                let text = fs::read_to_string(&path).expect("a source is readable");
                all.push(Source::new(&name(&path), &text));
            }
        }
    }
    assert!(all.len() > 50, "the sources were not found");
    let for_tests: Vec<_> = all.iter().flat_map(Source::modules_for_tests).collect();
    for source in &mut all {
        let module = source.path.trim_end_matches(".rs").trim_end_matches("/mod");
        let is_below = |of: &String| module == of || module.starts_with(&format!("{of}/"));
        if for_tests.iter().any(is_below) {
            source.tokens.iter_mut().for_each(|token| token.test = true);
        }
    }
    all
}

/// Every file below a folder, in order of name; nothing that a build or a run leaves behind, and
/// not the fuzzers' corpus, which is no text.
pub fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let entries = fs::read_dir(folder).expect("a folder is readable");
    for entry in entries.map(|entry| entry.expect("an entry is readable").path()) {
        let name = entry.file_name().unwrap_or_default();
        if entry.is_dir() {
            if !["target", ".git", "out", "corpus"]
                .iter()
                .any(|other| name == *other)
            {
                found.extend(files_below(&entry));
            }
        } else if name != ".git" {
            found.push(entry);
        }
    }
    found.sort();
    found
}

/// A file's path below the root.
pub fn name(path: &Path) -> String {
    let root = root();
    let below = path.strip_prefix(&root).unwrap_or(path);
    below.to_string_lossy().replace('\\', "/")
}

/// The modules of `src/lib.rs`, in its order.
pub fn rooms_in_lib() -> Vec<String> {
    let text = fs::read_to_string(root().join("src/lib.rs")).expect("src/lib.rs is readable");
    let tokens = Source::new("src/lib.rs", &text).tokens;
    let named = tokens.windows(2).filter(|pair| pair[0].text == "mod");
    named.map(|pair| pair[1].text.clone()).collect()
}

impl Source {
    pub fn new(path: &str, text: &str) -> Self {
        let mut tokens = tokens(&without_texts(text));
        let last = path.rsplit('/').next().unwrap_or(path);
        let whole = path.starts_with("tests/") || path.contains("/tests/");
        if whole || last == "tests.rs" || last.ends_with("_tests.rs") {
            tokens.iter_mut().for_each(|token| token.test = true);
        }
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
            tokens,
        }
    }

    /// A finding.
    pub fn at(&self, line: usize, message: &str) -> String {
        format!("{}:{line}: {message}", self.path)
    }

    /// `a` of `src/a.rs` and `src/a/…`; none for lib.rs and for tests.
    pub fn room(&self) -> Option<&str> {
        let below = self.path.strip_prefix("src/")?;
        let room = below.split(['/', '.']).next()?;
        (room != "lib").then_some(room)
    }

    /// How deep the file's module lies: 1 for a room.
    pub fn module_depth(&self) -> Option<usize> {
        self.room()?;
        let module = self.path.trim_end_matches(".rs").trim_end_matches("/mod");
        // Tests beside a file are a module inside it: `#[path = "a_tests.rs"] mod tests;`.
        Some(module.matches('/').count() + usize::from(module.ends_with("_tests")))
    }

    /// (line, room) of everything of this crate that is named.
    pub fn imports(&self) -> Vec<(usize, String)> {
        let ours = |path: &PathUse| match path.segments.as_slice() {
            [root, room, ..] if root == "crate" || root == "msp_gateway" => {
                Some((path.line, room.clone()))
            }
            _ => None,
        };
        self.paths().iter().filter_map(ours).collect()
    }

    /// Every path, groups spread out.
    pub fn paths(&self) -> Vec<PathUse> {
        let mut found = Vec::new();
        let mut at = 0;
        while at < self.tokens.len() {
            let before = |back: usize| at.checked_sub(back).map_or("", |at| self.text_at(at));
            let goes_on = before(1) == "::" && (is_word(before(2)) || before(2) == ">");
            if is_word(self.text_at(at)) && !goes_on {
                at = self.read_path(at, &[], &mut found);
            } else {
                at += 1;
            }
        }
        found
    }

    fn read_path(&self, mut at: usize, prefix: &[String], found: &mut Vec<PathUse>) -> usize {
        let mut segments = prefix.to_vec();
        let Some(first) = self.tokens.get(at) else {
            return at + 1;
        };
        loop {
            segments.push(self.text_at(at).to_owned());
            at += 1;
            if self.text_at(at) != "::" {
                break;
            }
            match self.text_at(at + 1) {
                "{" => {
                    at += 2;
                    while !matches!(self.text_at(at), "}" | "") {
                        at = match self.text_at(at) {
                            "," => at + 1,
                            _ => self.read_path(at, &segments, found),
                        };
                    }
                    return at + 1;
                }
                next if is_word(next) || next == "*" => at += 1,
                _ => break,
            }
        }
        found.push(PathUse {
            segments,
            line: first.line,
            inner: first.inner,
            test: first.test,
        });
        at
    }

    /// The token's text; empty past the end.
    pub fn text_at(&self, at: usize) -> &str {
        self.tokens.get(at).map_or("", |token| &token.text)
    }

    /// Every call of a method of this name.
    pub fn calls<'a>(&'a self, name: &'a str) -> impl Iterator<Item = Call> + 'a {
        let here = move |at: &usize| {
            self.text_at(*at) == name && at.checked_sub(1).is_some_and(|b| self.text_at(b) == ".")
        };
        (0..self.tokens.len()).filter(here).map(|at| {
            let mut words = self.tokens[..at].iter().rev();
            let receiver = words.find(|token| is_word(&token.text));
            Call {
                receiver: receiver.map(|token| token.text.clone()),
                line: self.tokens[at].line,
                test: self.tokens[at].test,
            }
        })
    }

    /// Whether the code names this.
    pub fn mentions(&self, word: &str) -> bool {
        self.tokens.iter().any(|token| token.text == word)
    }

    /// Whether a token stands inside `#[…]`.
    pub fn in_attribute(&self, at: usize) -> bool {
        let mut depth = 0;
        for before in (0..at).rev() {
            match self.text_at(before) {
                "]" => depth += 1,
                "[" if depth > 0 => depth -= 1,
                "[" => {
                    let hash = before.checked_sub(1).map_or("", |b| self.text_at(b));
                    return matches!(hash, "#" | "!");
                }
                ";" | "{" | "}" => return false,
                _ => {}
            }
        }
        false
    }

    /// Every `#[tokio::test]`.
    pub fn async_tests(&self) -> Vec<AsyncTest> {
        let mut found = Vec::new();
        for at in 0..self.tokens.len() {
            let head: String = (at..at + 5).map(|at| self.text_at(at)).collect();
            if head != "#[tokio::test" {
                continue;
            }
            let end = end_of_item(&self.tokens, at);
            let words = self.tokens.iter().take(end + 1).skip(at);
            let words: Vec<_> = words.map(|token| token.text.clone()).collect();
            let paused = words.windows(3).any(|w| w == ["start_paused", "=", "true"]);
            found.push(AsyncTest {
                line: self.tokens[at].line,
                paused,
                words,
            });
        }
        found
    }

    /// `src/a/b` for each `#[cfg(test)] mod b;` of `src/a.rs` or `src/a/mod.rs`.
    fn modules_for_tests(&self) -> Vec<String> {
        let module = self.path.trim_end_matches(".rs").trim_end_matches("/mod");
        let named = self
            .tokens
            .windows(3)
            .filter(|three| three[0].text == "mod" && three[2].text == ";" && three[0].test);
        named
            .map(|three| format!("{module}/{}", three[1].text))
            .collect()
    }
}

/// Whether a token is a name, a keyword or a number.
pub fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
}

/// The last token of the item whose attributes begin at `at`.
fn end_of_item(tokens: &[Token], mut at: usize) -> usize {
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text.as_str());
    // Attributes first: each is `#`, then brackets.
    while text(at) == "#" {
        at = end_of_brackets(tokens, at + 1) + 1;
    }
    while !matches!(text(at), ";" | "") {
        match text(at) {
            "{" => return end_of_brackets(tokens, at),
            "(" | "[" => at = end_of_brackets(tokens, at) + 1,
            _ => at += 1,
        }
    }
    at
}

/// The token that closes the bracket at `from`.
pub fn end_of_brackets(tokens: &[Token], from: usize) -> usize {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(from) {
        match token.text.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return at;
        }
    }
    tokens.len()
}

fn tokens(code: &str) -> Vec<Token> {
    let mut tokens: Vec<Token> = Vec::new();
    for (line, text) in code.lines().enumerate() {
        let mut rest = text.trim_start();
        while let Some(first) = rest.chars().next() {
            let word = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            let length = match word.unwrap_or(rest.len()) {
                0 if rest.starts_with("::") => 2,
                0 => first.len_utf8(),
                length => length,
            };
            tokens.push(Token {
                text: rest[..length].to_owned(),
                line: line + 1,
                inner: 0,
                test: false,
            });
            rest = rest[length..].trim_start();
        }
    }
    mark_inner(&mut tokens);
    mark_tests(&mut tokens);
    tokens
}

fn mark_inner(tokens: &mut [Token]) {
    let mut open = Vec::new();
    for at in 0..tokens.len() {
        tokens[at].inner = open.iter().filter(|is_module| **is_module).count();
        match tokens[at].text.as_str() {
            "{" => open.push(at >= 2 && tokens[at - 2].text == "mod"),
            "}" => drop(open.pop()),
            _ => {}
        }
    }
}

fn mark_tests(tokens: &mut [Token]) {
    for at in 0..tokens.len() {
        let next = tokens.iter().skip(at).take(7);
        let attribute: String = next.map(|token| token.text.as_str()).collect();
        if attribute == "#[cfg(test)]" {
            let end = end_of_item(tokens, at);
            let item = tokens.iter_mut().take(end + 1).skip(at);
            item.for_each(|token| token.test = true);
        }
    }
}

/// The text with comments and texts blanked; lines stay.
fn without_texts(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let next = |step: usize| chars.get(at + step).copied().unwrap_or(' ');
        let in_word = at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_');
        let end = match chars[at] {
            '/' if next(1) == '/' => find(&chars, at, '\n'),
            '/' if next(1) == '*' => end_of_comment(&chars, at),
            '"' => end_of_text(&chars, at, '"'),
            'r' if !in_word || matches!(chars[at - 1], 'b' | 'c') => end_of_raw(&chars, at),
            '\'' if next(1) == '\\' || next(2) == '\'' => end_of_text(&chars, at, '\''),
            _ => at,
        };
        if end > at {
            let gone = chars.iter().take(end).skip(at);
            out.extend(gone.map(|c| if *c == '\n' { '\n' } else { ' ' }));
            at = end;
        } else {
            out.push(chars[at]);
            at += 1;
        }
    }
    out
}

fn find(chars: &[char], from: usize, wanted: char) -> usize {
    let found = chars.iter().skip(from).position(|c| *c == wanted);
    found.map_or(chars.len(), |at| from + at)
}

fn end_of_comment(chars: &[char], from: usize) -> usize {
    let (mut at, mut depth) = (from, 0);
    while at < chars.len() {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => (at, depth) = (at + 2, depth + 1),
            ('*', Some('/')) => (at, depth) = (at + 2, depth - 1),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn end_of_text(chars: &[char], from: usize, quote: char) -> usize {
    let mut at = from + 1;
    while at < chars.len() && chars[at] != quote {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

/// The end of `r"…"` or `r#"…"#`; `from` itself where none begins.
fn end_of_raw(chars: &[char], from: usize) -> usize {
    let hashes = |at: usize| chars.iter().skip(at).take_while(|c| **c == '#').count();
    let opening = hashes(from + 1);
    if chars.get(from + 1 + opening) != Some(&'"') {
        return from;
    }
    let mut at = from + 2 + opening;
    while at < chars.len() {
        at = find(chars, at, '"') + 1;
        if hashes(at) >= opening {
            return at + opening;
        }
    }
    at
}

#[test]
fn texts_and_comments_are_no_code() {
    let text = "a /* b /* c */ d */ \"e \\\" f\" r#\"g \" h\"# 'i' '\\'' 'life // j\nb\"k\" l";
    let words: Vec<_> = Source::new("src/a.rs", text).tokens;
    let words: Vec<_> = words.iter().map(|t| (t.text.as_str(), t.line)).collect();
    let wanted = [("a", 1), ("'", 1), ("life", 1), ("b", 2), ("l", 2)];
    assert_eq!(words, wanted);
}

#[test]
fn groups_are_spread_out() {
    let text = "use a::{self, b::{c as d, e::*}, f};\nfn g() { ::h::i::<u8>() }";
    let source = Source::new("src/a.rs", text);
    let paths = source.paths();
    let paths: Vec<_> = paths.iter().map(|p| p.segments.join("::")).collect();
    for wanted in ["a::self", "a::b::c", "a::b::e::*", "a::f", "h::i"] {
        assert!(paths.contains(&wanted.to_owned()), "{wanted}: {paths:?}");
    }
}

#[test]
fn code_for_tests_is_known() {
    let text = "fn a() {}\n#[cfg(test)]\n#[allow(x)]\nmod t {\n fn b() {}\n}\nfn c() {}\n#[cfg(test)]\nmod kit;";
    let source = Source::new("src/a/mod.rs", text);
    let is_test = |word: &str| source.tokens.iter().any(|t| t.text == word && t.test);
    assert!(!is_test("a") && is_test("b") && !is_test("c") && is_test("kit"));
    assert_eq!(source.modules_for_tests(), ["src/a/kit"]);
}
