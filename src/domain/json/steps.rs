//! JSON as text: stepping over it without building values, and finding a text in any spelling.

/// Start and end of a value, in bytes from the first byte of the object around it.
pub type MemberPlace = (u32, u32);

/// Steps over JSON without building values, many bytes at a time where possible. Everything it
/// steps over is valid JSON. Where it stops, the text may still be valid and needs the full reader.
#[derive(Clone, Copy, Debug)]
pub struct Steps<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Steps<'a> {
    /// Starts at the beginning of a text.
    pub fn at_start_of(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    fn rest(&self) -> &'a [u8] {
        self.text.as_bytes().get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Returns the number of bytes stepped over.
    pub fn at(&self) -> usize {
        self.at
    }

    /// Returns the text between this position and the other one.
    pub fn until(&self, other: &Self) -> Option<&'a str> {
        self.text.get(self.at..other.at)
    }

    /// Steps over white space.
    pub fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    /// Steps over white space and this byte, if the byte comes next.
    pub fn takes(&mut self, byte: u8) -> bool {
        self.skip_space();
        let comes = self.peek() == Some(byte);
        self.at += usize::from(comes);
        comes
    }

    /// Returns whether only white space is left.
    pub fn is_over(mut self) -> bool {
        self.skip_space();
        self.peek().is_none()
    }

    /// Steps over a member name and its colon. Returns `None` if the name contains escapes.
    pub fn name(&mut self) -> Option<&'a str> {
        if !self.takes(b'"') {
            return None;
        }
        let len = plain_len(self.rest());
        let name = self.text.get(self.at..self.at + len)?;
        self.at += len;
        (self.peek()? == b'"').then(|| self.at += 1)?;
        self.takes(b':').then_some(name)
    }

    /// Steps over an object that is nested at most `depth` levels deep. Returns the places of the
    /// members with these names. `None` if the text is not an object, if a name has escapes (it may
    /// be one of these in another spelling), or if one of these names occurs twice.
    #[inline]
    pub fn object<const N: usize>(
        &mut self,
        names: &[&str; N],
        depth: usize,
    ) -> Option<[Option<MemberPlace>; N]> {
        let mut places = [None; N];
        self.skip_space();
        let start = self.at;
        let depth = depth.checked_sub(1)?;
        if !self.takes(b'{') {
            return None;
        }
        if self.takes(b'}') {
            return Some(places);
        }
        loop {
            let name = self.name()?;
            self.skip_space();
            let from = u32::try_from(self.at - start).ok()?;
            self.value(depth)?;
            let at = names.iter().position(|wanted| *wanted == name);
            if let Some(place) = at.and_then(|at| places.get_mut(at)) {
                let to = u32::try_from(self.at - start).ok()?;
                if place.replace((from, to)).is_some() {
                    return None;
                }
            }
            if !self.takes(b',') {
                return self.takes(b'}').then_some(places);
            }
        }
    }

    /// Steps over a value that is nested at most `depth` levels deep. Returns its text.
    pub fn value(&mut self, depth: usize) -> Option<&'a str> {
        self.skip_space();
        let start = self.at;
        match self.peek()? {
            b'"' => {
                self.at += 1;
                self.string()?;
            }
            b'{' => {
                let depth = depth.checked_sub(1)?;
                self.at += 1;
                if !self.takes(b'}') {
                    loop {
                        if !self.takes(b'"') {
                            return None;
                        }
                        self.string()?;
                        if !self.takes(b':') {
                            return None;
                        }
                        self.value(depth)?;
                        if !self.takes(b',') {
                            break;
                        }
                    }
                    self.takes(b'}').then_some(())?;
                }
            }
            b'[' => {
                let depth = depth.checked_sub(1)?;
                self.at += 1;
                if !self.takes(b']') {
                    loop {
                        self.value(depth)?;
                        if !self.takes(b',') {
                            break;
                        }
                    }
                    self.takes(b']').then_some(())?;
                }
            }
            b't' => self.word("true")?,
            b'f' => self.word("false")?,
            b'n' => self.word("null")?,
            _ => self.number()?,
        }
        self.text.get(start..self.at)
    }

    fn word(&mut self, word: &str) -> Option<()> {
        let comes = self.rest().starts_with(word.as_bytes());
        comes.then(|| self.at += word.len())
    }

    /// Steps over the rest of a string, after its first quote.
    fn string(&mut self) -> Option<()> {
        loop {
            self.at += plain_len(self.rest());
            match self.rest() {
                [b'"', ..] => {
                    self.at += 1;
                    return Some(());
                }
                [
                    b'\\',
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't',
                    ..,
                ] => self.at += 2,
                [b'\\', b'u', a, b, c, d, ..]
                    if [a, b, c, d].iter().all(|digit| digit.is_ascii_hexdigit()) =>
                {
                    self.at += 6;
                }
                _ => return None,
            }
        }
    }

    fn number(&mut self) -> Option<()> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek()? {
            b'0' => self.at += 1,
            b'1'..=b'9' => self.digits()?,
            _ => return None,
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        Some(())
    }

    /// Steps over one or more digits.
    fn digits(&mut self) -> Option<()> {
        let first = self.at;
        while self.peek().is_some_and(|b| b.is_ascii_digit()) {
            self.at += 1;
        }
        (self.at > first).then_some(())
    }
}

/// Length from which a string counts as long. Most strings are short: names, ids, days.
const LONG: usize = 32;

/// Returns how many bytes at the start of the text need no escape and do not end the string.
fn plain_len(text: &[u8]) -> usize {
    let (mut at, mut rest) = (0, text);
    while at < LONG
        && let Some((word, after)) = rest.split_first_chunk()
    {
        if let Some(len) = first_special(*word) {
            return at + len;
        }
        at += word.len();
        rest = after;
    }
    let end = memchr::memchr2(b'"', b'\\', rest).unwrap_or(rest.len());
    let plain = rest.get(..end).unwrap_or_default();
    // This loop has no early exit, so that compilers turn it into vector instructions.
    match plain.iter().fold(false, |any, byte| any | (*byte < b' ')) {
        true => at + plain.iter().position(|byte| *byte < b' ').unwrap_or(end),
        false => at + end,
    }
}

/// Returns the position of the first of eight bytes that needs an escape or ends the string.
fn first_special(bytes: [u8; 8]) -> Option<usize> {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    const HIGH: u64 = ONES << 7;
    let word = u64::from_le_bytes(bytes);
    // Sets the high bit of each byte below `n`. Bytes after the first such byte may be wrong.
    let below = |word: u64, n: u8| word.wrapping_sub(ONES * u64::from(n)) & !word & HIGH;
    let is = |byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
    let found = is(b'"') | is(b'\\') | below(word, b' ');
    (found != 0).then(|| (found.trailing_zeros() / 8) as usize)
}

/// Returns whether this JSON contains `text`, either as it is or with escapes: `\/` and `\u002f`
/// are also a slash.
pub fn repeats(json: &[u8], text: &[u8]) -> bool {
    let Some(first) = text.first() else {
        return false;
    };
    if memchr::memmem::find(json, text).is_some() {
        return true;
    }
    // The text can now only occur with escapes. Two bytes rule out most positions.
    memchr::memchr(b'\\', json).is_some()
        && memchr::memchr2_iter(*first, b'\\', json).any(|at| {
            json.get(at..)
                .is_some_and(|rest| begins_escaped(rest, text))
        })
}

fn begins_escaped(mut json: &[u8], mut text: &[u8]) -> bool {
    while !text.is_empty() {
        let mut encoded = [0; 4];
        let (said, rest): (&[u8], _) = match json {
            [b'\\', b'u', rest @ ..] => {
                let Some((digits, rest)) = rest.split_first_chunk::<4>() else {
                    return false;
                };
                let digits = std::str::from_utf8(digits).unwrap_or_default();
                // Surrogate pairs are skipped: no secret contains a character that needs one.
                let Some(letter) = u32::from_str_radix(digits, 16)
                    .ok()
                    .and_then(char::from_u32)
                else {
                    return false;
                };
                (letter.encode_utf8(&mut encoded).as_bytes(), rest)
            }
            [b'\\', byte @ (b'"' | b'\\' | b'/'), rest @ ..] => (std::slice::from_ref(byte), rest),
            [byte, rest @ ..] => (std::slice::from_ref(byte), rest),
            [] => return false,
        };
        let Some(after) = text.strip_prefix(said) else {
            return false;
        };
        (json, text) = (rest, after);
    }
    true
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::super::DEPTH_MAX;
    use super::*;

    #[test]
    fn a_text_is_found_in_any_spelling() {
        let found = |json: &str, text: &str| repeats(json.as_bytes(), text.as_bytes());
        for json in [
            r#"{"a":"Bearer ab/c+=="}"#,
            r#"{"a":"ab\/c+=="}"#,
            r#"["\u0061\u0062/c\u002B=\u003d"]"#,
            r#"{"\u0061b\u002fc+==":1}"#,
        ] {
            assert!(found(json, "ab/c+=="), "{json}");
        }
        for json in [
            r#"["ab/c+="]"#,
            r#"["\u0061\u0062"]"#,
            r#"["ab\/c+\u003"#,
            "",
            "\\",
            "\\u",
        ] {
            assert!(!found(json, "ab/c+=="), "{json}");
        }
        assert!(found(r#""x\u00e9\"y\\z""#, "é\"y\\z"));
        // What is no JSON is searched as it stands.
        assert!(found(r"key ab\c", r"ab\c"));
        assert!(!found("abc", ""));
    }

    proptest::proptest! {
        #[test]
        fn what_stands_for_itself_is_counted(
            text in proptest::collection::vec(proptest::prop_oneof![
                400 => b'#'..b'[', 2 => 0u8..=255, 1 => proptest::strategy::Just(b'"'),
            ], 0..200),
        ) {
            let special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..0x20);
            let len = text.iter().position(special).unwrap_or(text.len());
            proptest::prop_assert_eq!(plain_len(&text), len);
        }
    }

    /// Whether the steps pass a text as one value.
    fn passed(text: &str) -> bool {
        let mut steps = Steps::at_start_of(text);
        steps.value(DEPTH_MAX).is_some() && steps.is_over()
    }

    #[test]
    fn steps_pass_json_and_nothing_else() {
        let long = "é".repeat(100);
        for good in [
            "{}",
            " [ ] ",
            "0",
            "-0.5e-07",
            "1E+9",
            "12.25",
            "true",
            "false",
            "null",
            "\"\"",
            r#"{"a":[1,{"b":null}],"a":"\u00e9\"\\\/\b\f\n\r\t"}"#,
            r#" { "a" : [ 1 , "x" ] , "" : { } } "#,
            r#""\ud800""#,
            &format!("[\"{long}\",\"{}\\\"{long}\"]", &long[..30]),
        ] {
            assert!(passed(good), "{good}");
            assert!(serde_json::from_str::<&RawValue>(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            " ",
            "{",
            "[",
            "[1,]",
            "[,1]",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{,}",
            "{a:1}",
            "{\"a\":1 \"b\":2}",
            "[1 2]",
            "01",
            "-",
            "1.",
            ".5",
            "1e",
            "1e+",
            "+1",
            "tru",
            "nul",
            "\"",
            "\"\\x\"",
            "\"\\u12g4\"",
            "\"\\u12",
            "\"a\nb\"",
            "1 2",
            "{} {}",
            "[1]]",
            "\u{feff}1",
            &format!("\"{long}\u{1}\""),
            &format!("\"{long}"),
        ] {
            assert!(!passed(bad), "{bad}");
            assert!(serde_json::from_str::<&RawValue>(bad).is_err(), "{bad}");
        }
        let nested = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert!(passed(&nested(DEPTH_MAX)) && !passed(&nested(DEPTH_MAX + 1)));
    }

    proptest::proptest! {
        #[test]
        fn steps_pass_what_the_reader_takes(
            pieces in proptest::collection::vec(proptest::sample::select(vec![
                "{", "}", "[", "]", ",", ":", "\"", "\\", "u00e9", "a", "\"a\"", "\"b\":", "1", "0", "-",
                ".", "e", "null", "true", " ", "\n", "é", "\u{1}", "\\\"", "0123456789012345678901234567",
            ]), 0..12),
        ) {
            let text: String = pieces.concat();
            let taken = serde_json::from_str::<&RawValue>(&text).is_ok();
            proptest::prop_assert_eq!(passed(&text), taken, "{}", text);
        }
    }
}
