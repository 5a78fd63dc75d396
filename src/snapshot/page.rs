//! The body of a page: the vendor's envelope around sliced rows. Nothing is re-serialised.

use bytes::Bytes;

use super::frozen::CutPage;
use crate::domain::json::write_text;
use crate::upstream::EnvelopeMember;

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
