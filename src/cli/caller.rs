//! `msp-gateway caller new`: a caller key, and the stanza that admits it.

use std::io::Write;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use crate::access::{CallerKeyHash, Role};
use crate::config::{CallerName, parsed};
use crate::domain::CustomerId;

/// What every caller key begins with, so that people and secret scanners recognise one.
pub const KEY_PREFIX: &str = "mspgw_";
/// Random bytes in a key: 256 bits cannot be guessed, so a fast hash of it may be stored.
const KEY_BYTES: usize = 32;

/// Makes a key. Prints it alone on the first line of `out`, an empty line, then the `[[callers]]`
/// stanza. `customers` is a comma-separated list of customer ids or `*`; `None` means all. Returns
/// the exit code: 0 fine, 1 refused, 2 wrong usage.
pub fn run_new(
    name: &str,
    customers: Option<&str>,
    role: Option<&str>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> i32 {
    let (code, line) = match wanted(name, customers, role) {
        Err(line) => (2, line),
        Ok(caller) => match new_key() {
            None => (1, "this machine provides no random numbers".to_owned()),
            Some(key) => match write!(out, "{}\n\n{}", *key, caller.stanza(&key))
                .and_then(|()| out.flush())
            {
                Ok(()) => return 0,
                Err(why) => (1, super::unwritten(&why)),
            },
        },
    };
    // If this cannot be printed, the exit code still shows the failure.
    let _ = writeln!(err, "{line}");
    code
}

/// Returns a new caller key from the system's random numbers. `None` if there are none.
pub fn new_key() -> Option<Zeroizing<String>> {
    let mut bytes = Zeroizing::new([0_u8; KEY_BYTES]);
    aws_lc_rs::rand::fill(bytes.as_mut_slice()).ok()?;
    let digits = Zeroizing::new(URL_SAFE_NO_PAD.encode(bytes.as_slice()));
    Some(Zeroizing::new(format!("{KEY_PREFIX}{}", *digits)))
}

struct Wanted {
    name: String,
    role: Role,
    /// `None`: all.
    customers: Option<Vec<CustomerId>>,
}

fn wanted(name: &str, customers: Option<&str>, role: Option<&str>) -> Result<Wanted, String> {
    let name = parsed::<CallerName>(name).map_err(|must_be| format!("NAME {must_be}"))?;
    let role = role.map_or(Ok(Role::Reader), |word| {
        parsed::<Role>(word).map_err(|must_be| format!("--role {must_be}"))
    })?;
    let customers = match customers {
        None | Some("*") => None,
        Some(list) => Some(
            list.split(',')
                .map(CustomerId::parse)
                .collect::<Result<Vec<_>, _>>()
                .map_err(|problem| {
                    format!(
                        "--customers must be * or customer ids separated by commas: an id {problem}"
                    )
                })?,
        ),
    };
    Ok(Wanted {
        name,
        role,
        customers,
    })
}

impl Wanted {
    fn stanza(&self, key: &str) -> String {
        // Names and ids hold nothing that TOML would need escaped.
        let customers = match &self.customers {
            None => "\"*\"".to_owned(),
            Some(ids) => ids
                .iter()
                .map(|id| format!("\"{id}\""))
                .collect::<Vec<_>>()
                .join(", "),
        };
        format!(
            "[[callers]]\nname = \"{}\"\nkey_hash = \"{}\"\nrole = \"{}\"\ncustomers = [{customers}]\nbilling = {}\n",
            self.name,
            CallerKeyHash::of(key.as_bytes()),
            self.role.as_str(),
            self.customers.is_none(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Audience;

    fn new(name: &str, customers: Option<&str>, role: Option<&str>) -> (i32, String, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = run_new(name, customers, role, &mut out, &mut err);
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (code, text(out), text(err))
    }

    #[test]
    fn the_stanza_admits_the_key() {
        let (code, out, err) = new("dash", Some("org_1,org_2"), Some("operator"));
        assert_eq!((code, err.as_str()), (0, ""));
        let (key, stanza) = out.split_once("\n\n").unwrap();
        assert!(key.starts_with(KEY_PREFIX) && key.len() == KEY_PREFIX.len() + 43);
        let text = format!("wiv.api_key_env = \"K\"\n{stanza}");
        let settings = crate::config::from_text("c", &text, []).unwrap();
        let [caller] = settings.callers.as_slice() else {
            panic!("one caller");
        };
        assert!(caller.keys == [CallerKeyHash::of(key.as_bytes())]);
        assert_eq!((caller.role, caller.billing), (Role::Operator, false));
        let ids = ["org_1", "org_2"].map(|id| CustomerId::parse(id).unwrap());
        assert_eq!(caller.audience, Audience::only(ids));
        assert_ne!(new("dash", None, None).1, new("dash", None, None).1);
    }

    #[test]
    fn all_customers_is_the_default_and_shows_billing() {
        let (_, out, _) = new("dash", None, None);
        assert!(
            out.contains("customers = [\"*\"]\nbilling = true\n"),
            "{out}"
        );
    }

    #[test]
    fn bad_arguments_are_wrong_usage() {
        for (name, customers, role) in [
            ("Dash", None, None),
            ("open", None, None),
            ("", None, None),
            ("dash", Some(""), None),
            ("dash", Some("a,,b"), None),
            ("dash", Some("*,a"), None),
            ("dash", Some("a b"), None),
            ("dash", None, Some("admin")),
        ] {
            let (code, out, err) = new(name, customers, role);
            assert_eq!(
                (code, out.as_str(), err.lines().count()),
                (2, "", 1),
                "{name}"
            );
        }
    }
}
