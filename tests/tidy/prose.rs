//! The rules for comments and names that can be checked: width, verbs, and one name for one type.
//!
//! Whether a sentence is plain English no test can say. These rules find what makes a comment
//! unreadable most often: a line that is too long, a reference to "above", a function that is
//! described by a noun, and a type name that means two things.

use std::collections::BTreeMap;

use crate::source::{Source, sources};
use crate::{bites, hold};

/// Widest comment line, in characters. Tables, code blocks and single long words are excepted.
const COLUMNS_MAX: usize = 100;

/// First words of a comment that end in "s" and are no verbs, or that are too often meant as nouns.
const NO_VERBS: [&str; 24] = [
    "as",
    "across",
    "always",
    "bills",
    "bytes",
    "callers",
    "cases",
    "has",
    "headers",
    "is",
    "its",
    "keys",
    "less",
    "milliseconds",
    "minutes",
    "nobody's",
    "others",
    "ours",
    "pages",
    "rows",
    "seconds",
    "this",
    "us",
    "whose",
];

/// Returns the text of a line's comment, without its mark and with its indentation.
fn comment(line: &str) -> Option<&str> {
    let text = line.trim_start().strip_prefix("//")?;
    Some(text.strip_prefix(['/', '!']).unwrap_or(text))
}

fn too_wide(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    let mut in_code = false;
    for (at, line) in source.text.lines().enumerate() {
        let Some(text) = comment(line) else {
            in_code = false;
            continue;
        };
        let text = text.trim();
        if text.starts_with("```") {
            in_code = !in_code;
        }
        // A URL or a path cannot be wrapped.
        let one_word = text.split_whitespace().count() <= 2;
        let excepted = in_code || text.starts_with('|') || one_word;
        if !excepted && line.chars().count() > COLUMNS_MAX {
            found.push(source.at(at + 1, "a comment is over 100 columns"));
        }
    }
    found
}

/// Turns of phrase that leave open which thing or caller is meant, or that no engineer uses. They
/// are compared in lower case, as whole words.
const UNPLAIN: [&str; 14] = [
    "anew",
    "by and by",
    "comes about",
    "for so long",
    "hears of",
    "lately",
    "let go of",
    "lets go",
    "of late",
    "see above",
    "so many",
    "tells of",
    "who asks",
    "whoever",
];

fn unplain(source: &Source) -> Vec<String> {
    // This file and its snippets name what they look for.
    if source.path == "tests/tidy/prose.rs" {
        return Vec::new();
    }
    let mut found = Vec::new();
    for (at, line) in source.text.lines().enumerate() {
        let Some(text) = comment(line) else { continue };
        let words = text.split(|c: char| !c.is_alphanumeric());
        let words: Vec<_> = words.filter(|word| !word.is_empty()).collect();
        let plain = format!(" {} ", words.join(" ").to_lowercase());
        let said = UNPLAIN
            .iter()
            .find(|said| plain.contains(&format!(" {said} ")));
        found.extend(said.map(|said| source.at(at + 1, &format!("\"{said}\""))));
    }
    found
}

/// Returns whether a comment begins with a verb in the third person, such as "Returns", or with
/// "From now on". A noun phrase such as "The last row" or "Whether it is full" does not.
fn begins_with_a_verb(text: &str) -> bool {
    let word = text.split([' ', ',', '.', ':', '\'']).next().unwrap_or("");
    let word = word.to_ascii_lowercase();
    text.starts_with("From now on") || (word.ends_with('s') && !NO_VERBS.contains(&word.as_str()))
}

/// Public functions whose comment does not begin with a verb. A name that is a whole documented
/// value, such as an associated constant, is no function and is not looked at.
fn verbless(source: &Source) -> Vec<String> {
    if !source.path.starts_with("src/") {
        return Vec::new();
    }
    let lines: Vec<&str> = source.text.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        if !is_public_function(line) {
            continue;
        }
        let above = lines[..at].iter().enumerate().rev();
        let of_item = above.take_while(|(_, line)| {
            let line = line.trim_start();
            line.starts_with("///") || line.starts_with("#[") || line.starts_with(")]")
        });
        let docs =
            of_item.filter_map(|(at, line)| Some((at, line.trim_start().strip_prefix("///")?)));
        if let Some((first, text)) = docs.last()
            && !begins_with_a_verb(text.trim())
        {
            found.push(source.at(first + 1, "begins without a verb, such as \"Returns\""));
        }
    }
    found
}

/// Returns whether a line declares a function that other files may call.
fn is_public_function(line: &str) -> bool {
    let Some(rest) = line.trim_start().strip_prefix("pub") else {
        return false;
    };
    let rest = match rest.strip_prefix('(') {
        Some(inside) => inside.split_once(')').map_or("", |(_, rest)| rest),
        None => rest,
    };
    let mut words = rest.split_whitespace();
    let name = words.find(|word| !["const", "async"].contains(word));
    name == Some("fn")
}

/// Returns the public types of a source, with their lines.
fn public_types(source: &Source) -> Vec<(String, usize)> {
    if !source.path.starts_with("src/") {
        return Vec::new();
    }
    let text = |at: usize| {
        source
            .tokens
            .get(at)
            .map_or("", |token| token.text.as_str())
    };
    let mut found = Vec::new();
    for at in 0..source.tokens.len() {
        if text(at) != "pub" {
            continue;
        }
        let mut next = at + 1;
        if text(next) == "(" {
            next += source.tokens[next..]
                .iter()
                .take_while(|t| t.text != ")")
                .count()
                + 1;
        }
        if ["struct", "enum", "trait", "type", "union"].contains(&text(next)) {
            // A macro's type has the name that is given to the macro.
            if text(next + 1) != "$" {
                found.push((text(next + 1).to_owned(), source.tokens[next].line));
            }
        }
    }
    found
}

/// Returns every public type that has the name of another one, with the places of both.
fn defined_twice(sources: &[Source]) -> Vec<String> {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for source in sources {
        for (name, line) in public_types(source) {
            places
                .entry(name)
                .or_default()
                .push(format!("{}:{line}", source.path));
        }
    }
    let twice = places.into_iter().filter(|(_, places)| places.len() > 1);
    twice
        .map(|(name, places)| format!("`{name}`: {}", places.join(", ")))
        .collect()
}

#[test]
fn comments_are_wrapped() {
    hold("Comments are wrapped at 100 columns:", too_wide);
    let wide = format!("fn f() {{}}\n    // {}", "word ".repeat(20));
    assert!(bites(too_wide, "src/a.rs", &wide, 2));
    let doc = format!("/// {}", "word ".repeat(20));
    assert!(bites(too_wide, "tests/it/a.rs", &doc, 1));
    for fine in [
        format!("/// ```text\n/// {}\n/// ```", "word ".repeat(20)),
        format!("/// | {} |", "word ".repeat(20)),
        format!("// https://example.com/{}", "x".repeat(100)),
        format!("const A: &str = \"{}\";", "word ".repeat(20)),
    ] {
        assert_eq!(too_wide(&Source::new("src/a.rs", &fine)), [""; 0], "{fine}");
    }
}

#[test]
fn comments_are_in_plain_words() {
    hold(
        "A comment names what it means, in the words of engineers:",
        unplain,
    );
    for bad in ["See above.", "Whoever\twaits.", "It is read anew, later."] {
        let text = format!("\n/// {bad}\nfn f() {{}}");
        assert!(bites(unplain, "src/a.rs", &text, 2), "{bad}");
    }
    let fine = "/// How many, of lateness.\nlet lately = \"anew\";";
    assert_eq!(unplain(&Source::new("src/a.rs", fine)), [""; 0]);
}

#[test]
fn comments_of_functions_begin_with_a_verb() {
    hold("A function's comment says what it does:", verbless);
    for bad in [
        "/// The last row.\npub fn f() {}",
        "/// Whether it is full.\npub(super) fn f() {}",
        "/// `None` where nothing is kept.\n#[must_use]\npub const fn f() {}",
        "/// Bytes of all rows.\n/// More.\npub(crate) async fn f() {}",
        "/// See [`g`].\npub fn f() {}",
    ] {
        assert!(bites(verbless, "src/a.rs", bad, 1), "{bad}");
    }
    for fine in [
        "/// Returns the last row.\npub fn f() {}",
        "/// From now on, keeps rows.\npub fn f() {}",
        "/// The last row.\nfn f() {}",
        "/// The last row.\npub struct F;",
        "pub fn f() {}",
    ] {
        assert_eq!(verbless(&Source::new("src/a.rs", fine)), [""; 0], "{fine}");
    }
}

#[test]
fn no_public_type_has_the_name_of_another() {
    let found = defined_twice(&sources());
    assert!(
        found.is_empty(),
        "\nOne name, one type:\n  {}\n",
        found.join("\n  ")
    );
    let of = |texts: [&str; 2]| {
        let [one, other] = texts;
        defined_twice(&[Source::new("src/a.rs", one), Source::new("src/b.rs", other)])
    };
    let twice = of(["pub struct Place;", "\npub(super) enum Place {}"]);
    assert_eq!(twice, ["`Place`: src/a.rs:1, src/b.rs:2"]);
    assert_eq!(of(["pub struct Place;", "struct Place;"]), [""; 0]);
    assert_eq!(of(["pub struct Place;", "// pub struct Place;"]), [""; 0]);
}
