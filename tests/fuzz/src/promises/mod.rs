//! What must hold for any bytes whatever, one file a target. A promise panics when it is broken.

pub mod cache_control;
pub mod config;
pub mod csv;
pub mod ids;
pub mod query;
pub mod route;
pub mod search;
pub mod stack;
pub mod token;
pub mod vendor_page;

/// Holds the product to something, for these bytes.
pub type Promise = fn(&[u8]);

/// Every promise, by the name of its target and its folder in the corpus.
pub const ALL: [(&str, Promise); 10] = [
    ("cache_control", cache_control::hold),
    ("config", config::hold),
    ("csv", csv::hold),
    ("ids", ids::hold),
    ("query", query::hold),
    ("route", route::hold),
    ("search", search::hold),
    ("stack", stack::hold),
    ("token", token::hold),
    ("vendor_page", vendor_page::hold),
];

/// Bytes taken one after another; zero once they have run out.
pub struct Taker<'a>(pub &'a [u8]);

impl<'a> Taker<'a> {
    pub fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    pub fn word(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.byte())
    }
}

/// What `text` stands for where `%` and two hex digits are a byte, and `+` a space if `form`;
/// written apart from the product. `None` where that is nothing, or no UTF-8.
pub fn unescaped(text: &str, form: bool) -> Option<String> {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                let (high, low) = (digit()?, digit()?);
                u8::try_from(high * 16 + low).ok()?
            }
            b'+' if form => b' ',
            other => other,
        });
    }
    String::from_utf8(out).ok()
}
