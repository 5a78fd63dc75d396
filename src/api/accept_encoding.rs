//! Reads `Accept-Encoding`, as RFC 9110 section 12.5.3 says.

use http::{HeaderMap, header};

use crate::cache::Coding;

/// A weight in thousandths, 0 to 1000.
type Weight = u16;

/// The content codings that a caller accepts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Accepted {
    /// Whether the header was sent. Without it, every coding is accepted.
    said: bool,
    named: [Option<Weight>; Coding::ALL.len()],
    identity: Option<Weight>,
    others: Option<Weight>,
}

impl Accepted {
    /// Reads every `Accept-Encoding`. Ignores unknown codings and invalid weights. If a coding has
    /// two weights, the first one counts.
    pub fn of(headers: &HeaderMap) -> Self {
        let mut this = Self::default();
        for value in headers.get_all(header::ACCEPT_ENCODING) {
            this.said = true;
            let Ok(text) = value.to_str() else { continue };
            for member in text.split(',') {
                this.hear(member);
            }
        }
        this
    }

    fn hear(&mut self, member: &str) {
        let (name, weight) = match member.split_once(';') {
            None => (member.trim(), Some(1000)),
            Some((name, parameter)) => (name.trim(), weight(parameter.trim())),
        };
        let Some(weight) = weight else { return };
        // RFC 9110 section 8.4.1.3: x-gzip is gzip.
        let name = match name.get(..2) {
            Some(start) if start.eq_ignore_ascii_case("x-") => name.get(2..).unwrap_or(""),
            _ => name,
        };
        let mut known = Coding::ALL.iter().zip(&mut self.named);
        if let Some((_, named)) = known.find(|(c, _)| name.eq_ignore_ascii_case(c.as_str())) {
            named.get_or_insert(weight);
        } else if name.eq_ignore_ascii_case("identity") {
            self.identity.get_or_insert(weight);
        } else if name == "*" {
            self.others.get_or_insert(weight);
        }
    }

    fn weight_of(&self, coding: Coding) -> Weight {
        let mut known = Coding::ALL.iter().zip(&self.named);
        let named = known.find(|(c, _)| **c == coding).and_then(|(_, w)| *w);
        named.or(self.others).unwrap_or(0)
    }

    /// Returns whether the caller accepts the body in at least one form. If it accepts a coding
    /// that is not ready yet, and no plain body, it gets the plain one anyway, as RFC 9110 section
    /// 12.4.1 allows. No answer waits for a coding.
    pub fn takes_some_form(&self) -> bool {
        self.takes_plain() || Coding::ALL.into_iter().any(|coding| self.takes(coding))
    }

    /// Returns whether the caller accepts a plain body.
    pub fn takes_plain(&self) -> bool {
        self.identity.or(self.others) != Some(0)
    }

    /// Returns whether the caller accepts this coding.
    pub fn takes(&self, coding: Coding) -> bool {
        !self.said || self.weight_of(coding) > 0
    }

    /// Returns the codings to prefer over a plain body, the highest weight first. Of equal weights,
    /// the coding that we prefer comes first. Empty if the caller named none, or prefers the plain
    /// body.
    pub fn codings(&self) -> Codings {
        let plain = self.identity.or(self.others).unwrap_or(0).max(1);
        let mut out = Codings::default();
        if self.said {
            for coding in Coding::ALL {
                let weight = self.weight_of(coding);
                if weight >= plain {
                    out.add(coding, weight);
                }
            }
        }
        out
    }
}

/// Codings in order of preference.
#[derive(Clone, Copy, Debug, Default)]
pub struct Codings {
    held: [Option<(Coding, Weight)>; Coding::ALL.len()],
}

impl Codings {
    /// Inserts a coding behind those with an equal or a higher weight.
    fn add(&mut self, coding: Coding, weight: Weight) {
        let lighter = |held: &Option<(Coding, Weight)>| held.is_none_or(|(_, old)| weight > old);
        let at = self.held.iter().position(lighter);
        if let Some(behind) = at.and_then(|at| self.held.get_mut(at..)) {
            behind.rotate_right(1);
            if let Some(place) = behind.first_mut() {
                *place = Some((coding, weight));
            }
        }
    }

    /// Returns the codings in order.
    pub fn iter(&self) -> impl Iterator<Item = Coding> {
        self.held
            .iter()
            .map_while(|held| held.map(|(coding, _)| coding))
    }
}

/// Parses `q=0.5` into thousandths.
fn weight(parameter: &str) -> Option<Weight> {
    let (name, value) = parameter.split_once('=')?;
    if !name.trim_end().eq_ignore_ascii_case("q") {
        return None;
    }
    let value = value.trim_start();
    let (whole, part) = value.split_once('.').unwrap_or((value, ""));
    if part.len() > 3 || !part.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let mut thousandths: Weight = 0;
    for at in 0..3 {
        let digit = part.as_bytes().get(at).map_or(0, |b| b - b'0');
        thousandths = thousandths * 10 + Weight::from(digit);
    }
    match whole {
        "0" => Some(thousandths),
        "1" if thousandths == 0 => Some(1000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn of(values: &[&str]) -> Accepted {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(
                header::ACCEPT_ENCODING,
                HeaderValue::from_str(value).unwrap(),
            );
        }
        Accepted::of(&headers)
    }

    fn wanted(text: &str) -> String {
        let codings: Vec<_> = of(&[text]).codings().iter().map(Coding::as_str).collect();
        codings.join(" ")
    }

    #[test]
    fn weights_rank_the_codings() {
        for (text, expected) in [
            ("", ""),
            ("gzip", "gzip"),
            ("GZip", "gzip"),
            ("x-gzip", "gzip"),
            ("gzip, deflate, br, zstd", "zstd br gzip"),
            ("gzip;q=1.0, br;q=0.9, zstd;q=0.8", "gzip br zstd"),
            ("br;q=0.001", "br"),
            ("gzip;q=0", ""),
            ("gzip;q=0.000, br", "br"),
            ("gzip ; q = 0.5 , br", "br gzip"),
            ("*", "zstd br gzip"),
            ("*;q=0", ""),
            ("gzip;q=0, *", "zstd br"),
            ("gzip, *;q=0", "gzip"),
            ("*;q=0.5, gzip;q=0.9", "gzip zstd br"),
            ("identity", ""),
            ("identity, gzip", "gzip"),
            ("identity;q=0.5, gzip;q=0.4", ""),
            ("identity;q=0.5, gzip;q=0.5", "gzip"),
            ("identity;q=1, *;q=0.5", ""),
            ("identity;q=0", ""),
            ("identity;q=0, gzip;q=0.1", "gzip"),
            ("deflate, compress", ""),
            ("gzip;q=2, br;q=1.001, zstd;q=.5", ""),
            ("gzip;q=0.1234, br;q=-1, zstd;q=", ""),
            ("gzip;level=9, br;q=1.000", "br"),
            ("gzip;q=0, gzip", ""),
            (",, ,gzip,", "gzip"),
        ] {
            assert_eq!(wanted(text), expected, "{text}");
        }
        let both = of(&["br", "gzip;q=0.5"]);
        let both: Vec<_> = both.codings().iter().collect();
        assert_eq!(both, [Coding::Brotli, Coding::Gzip]);
    }

    #[test]
    fn who_says_nothing_takes_everything_and_is_sent_the_plain_body() {
        let nothing = of(&[]);
        assert!(nothing.takes_plain() && nothing.takes(Coding::Gzip));
        assert_eq!(nothing.codings().iter().count(), 0);
        let empty = of(&[""]);
        assert!(empty.takes_plain() && !empty.takes(Coding::Gzip));
        for (text, plain, gzip) in [
            ("gzip", true, true),
            ("br", true, false),
            ("identity;q=0", false, false),
            ("*;q=0", false, false),
            ("*;q=0, identity", true, false),
            ("identity;q=0, *", false, true),
        ] {
            let accepted = of(&[text]);
            assert_eq!(accepted.takes_plain(), plain, "{text}");
            assert_eq!(accepted.takes(Coding::Gzip), gzip, "{text}");
        }
        for (text, some) in [
            ("identity;q=0", false),
            ("*;q=0", false),
            ("identity;q=0, deflate", false),
            ("identity;q=0, gzip;q=0", false),
            ("identity;q=0, br", true),
            ("identity;q=0, *;q=0.1", true),
            ("gzip;q=0, br;q=0, zstd;q=0", true),
            ("*;q=0, identity;q=0.1", true),
            ("", true),
        ] {
            assert_eq!(of(&[text]).takes_some_form(), some, "{text}");
        }
    }
}
