//! How far a page reaches, and its body: the vendor's envelope around sliced rows. Nothing is
//! re-serialised.

use bytes::Bytes;

use super::frozen::{CutPage, End};
use crate::domain::json::write_text;
use crate::upstream::EnvelopeMember;

/// How far a page reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageReach {
    /// The page can be cut.
    Rows {
        /// The row after its last one.
        last: usize,
        /// Whether more rows follow.
        more: bool,
    },
    /// More rows must come first.
    NeedMore,
    /// There are no such rows, and none will come.
    Gone,
    /// A walk reached one of its own limits before these rows. Its setting is named.
    Limit(&'static str),
}

/// Returns how far the page of `size` rows from `first` on reaches in a list of which `known` rows
/// are known.
pub fn reach(end: End, known: usize, first: usize, size: usize) -> PageReach {
    let past = first.saturating_add(size);
    let rows = |last, more| PageReach::Rows { last, more };
    match end {
        _ if known > past => rows(past, true),
        End::Growing => PageReach::NeedMore,
        End::Complete if first < known || first == 0 => rows(known.min(past), false),
        End::Complete => PageReach::Gone,
        // An announcement stays true: rows exist beyond the page, although no reader will see them.
        End::Broken | End::Cut(_) if known >= past => rows(past, true),
        End::Broken => PageReach::Gone,
        End::Cut(setting) => PageReach::Limit(setting),
    }
}

/// Renders a page. `token` is the page token of the next page, if there is one.
pub fn render(page: &CutPage, token: Option<&str>) -> Bytes {
    let rows: usize = page.pieces.iter().map(|piece| piece.len() + 1).sum();
    let mut out: Vec<u8> = Vec::with_capacity(rows + 512);
    out.push(b'{');
    for (at, member) in page.envelope.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        match member {
            EnvelopeMember::Data => {
                out.extend_from_slice(b"\"data\":[");
                for (at, piece) in page.pieces.iter().enumerate() {
                    if at > 0 {
                        out.push(b',');
                    }
                    out.extend_from_slice(piece);
                }
                out.push(b']');
            }
            EnvelopeMember::NextPageKey => match token {
                None => out.extend_from_slice(b"\"next_page_key\":null"),
                Some(token) => {
                    out.extend_from_slice(b"\"next_page_key\":{\"scroll_id\":\"");
                    out.extend_from_slice(token.as_bytes());
                    out.extend_from_slice(b"\"}");
                }
            },
            EnvelopeMember::Other(name, raw) => {
                let mut text = String::with_capacity(name.len() + 3);
                write_text(name, &mut text);
                out.extend_from_slice(text.as_bytes());
                out.push(b':');
                out.extend_from_slice(raw.as_bytes());
            }
        }
    }
    out.push(b'}');
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(pieces: &[&'static str], envelope: Vec<EnvelopeMember>, token: Option<&str>) -> String {
        let pieces = pieces.iter().map(|piece| Bytes::from(*piece)).collect();
        let page = CutPage {
            pieces,
            rows: 0,
            next: None,
            envelope: envelope.into(),
        };
        String::from_utf8(render(&page, token).to_vec()).unwrap()
    }

    #[test]
    fn rows_stand_in_the_vendors_envelope_as_they_came() {
        let envelope = || {
            vec![
                EnvelopeMember::Other("total \"x\"".into(), "1.50".into()),
                EnvelopeMember::Data,
                EnvelopeMember::NextPageKey,
                EnvelopeMember::Other("ok".into(), "{ }".into()),
            ]
        };
        assert_eq!(
            body(
                &["{\"a\":1},{\"a\":2}", "{ \"a\":3}"],
                envelope(),
                Some("t0k_en")
            ),
            "{\"total \\\"x\\\"\":1.50,\"data\":[{\"a\":1},{\"a\":2},{ \"a\":3}],\"next_page_key\":{\"scroll_id\":\"t0k_en\"},\"ok\":{ }}"
        );
        let bare = vec![EnvelopeMember::NextPageKey, EnvelopeMember::Data];
        assert_eq!(
            body(&[], bare, None),
            "{\"next_page_key\":null,\"data\":[]}"
        );
        assert_eq!(body(&["1"], Vec::new(), None), "{}");
    }
}
