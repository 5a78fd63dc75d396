//! `POST /admin/purge`

use super::{PurgeRequest, PurgeTarget};
use crate::domain::json::{Value, parse_object, quoted};
use crate::domain::query::BodyProblem;
use crate::domain::{CustomerId, Kind};
use crate::problem::{Code, Problem};

/// Reads `{"customer":…}`, `{"kind":…}` or `{"all":true}`, with or without `"soft"`.
pub(super) fn read(body: &[u8]) -> Result<PurgeRequest, Problem> {
    if body.is_empty() {
        return Err(wrong("the body is empty"));
    }
    let members =
        parse_object(body).map_err(|problem| Problem::invalid_body(&BodyProblem::Json(problem)))?;
    let mut target = None;
    let mut soft = true;
    for (name, value) in members {
        let one = match (&*name, value) {
            ("soft", Value::Bool(said)) => {
                soft = said;
                continue;
            }
            ("all", Value::Bool(true)) => PurgeTarget::All,
            ("customer", Value::Text(id)) => PurgeTarget::Customer(
                CustomerId::parse(&id).map_err(|why| wrong(&format!("\"customer\" {why}")))?,
            ),
            ("kind", Value::Text(word)) => Kind::ALL
                .into_iter()
                .find(|kind| kind.as_str() == &*word)
                .map(PurgeTarget::Kind)
                .ok_or_else(|| wrong(&format!("\"kind\" must be {}", Kind::listed("or"))))?,
            (name, _) => {
                return Err(wrong(&format!(
                    "\"{}\" is unknown or of the wrong type",
                    quoted(name)
                )));
            }
        };
        if target.replace(one).is_some() {
            return Err(wrong("it names more than one thing to purge"));
        }
    }
    match target {
        Some(target) => Ok(PurgeRequest { target, soft }),
        None => Err(wrong("it names nothing to purge")),
    }
}

fn wrong(why: &str) -> Problem {
    Problem::new(
        Code::InvalidBody,
        format!(
            "The purge is not valid: {why}. Send {{\"customer\":\"…\"}}, {{\"kind\":\"…\"}} or {{\"all\":true}}; add \"soft\":false to end page tokens too."
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn purges_are_read_strictly() {
        let of = |text: &str| read(text.as_bytes()).ok().map(|p| (p.target, p.soft));
        assert_eq!(of(r#"{"all":true}"#), Some((PurgeTarget::All, true)));
        assert_eq!(
            of(r#"{"kind":"cases","soft":false}"#),
            Some((PurgeTarget::Kind(Kind::Cases), false))
        );
        assert_eq!(
            of(r#"{"customer":"org_1"}"#),
            Some((
                PurgeTarget::Customer(CustomerId::parse("org_1").unwrap()),
                true
            ))
        );
        for bad in [
            "",
            "[]",
            "{}",
            r#"{"soft":false}"#,
            r#"{"all":false}"#,
            r#"{"all":true,"kind":"cases"}"#,
            r#"{"kind":"case"}"#,
            r#"{"customer":""}"#,
            r#"{"customer":1}"#,
            r#"{"all":true,"soft":"no"}"#,
            r#"{"all":true,"hard":true}"#,
            r#"{"all":true,"all":true}"#,
        ] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }
}
