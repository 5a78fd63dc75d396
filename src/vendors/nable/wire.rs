//! The forms of N-able's answers: which are good, and what their members are called.

use serde_json::value::RawValue;

use crate::domain::json::Members;
use crate::upstream::body::{BodyFault, malformed};

pub(super) fn grade(text: &str, is_good: fn(&Members<'_>) -> bool) -> Result<bool, BodyFault> {
    let members =
        serde_json::from_str(text).map_err(|_| malformed("the body is not a JSON object"))?;
    Ok(is_good(&members))
}

/// Returns a services or clients array, at the top or in the wrapper. Empty arrays are good:
/// nothing was billable.
pub(super) fn has_billing(members: &Members<'_>) -> bool {
    let direct = |members: &Members<'_>| {
        members.0.iter().any(|(name, raw)| {
            (is_named(name, SERVICES) || is_named(name, CLIENTS)) && is_array(raw)
        })
    };
    direct(members)
        || members.0.iter().any(|(name, raw)| {
            is_named(name, SERVICES)
                && serde_json::from_str(raw.get()).is_ok_and(|inner| direct(&inner))
        })
}

pub(super) fn has_invoices(members: &Members<'_>) -> bool {
    members
        .0
        .iter()
        .any(|(name, raw)| is_named(name, INVOICES) && is_array(raw))
}

/// The list of a contract's billable services, and the object around the whole bill.
pub(super) const SERVICES: &str = "billableservices";
/// The list of billed clients.
pub(super) const CLIENTS: &str = "clients";
/// The list of a month's invoices.
pub(super) const INVOICES: &str = "invoicesready";

/// Returns whether a member has this name, given in small letters alone.
///
/// The vendor's pages write the same name with spaces and without, in several cases, and with `PSA`
/// before it or not: "Billable Services", "BillableServices", "PSA Billable services".
pub(super) fn is_named(name: &str, plain: &str) -> bool {
    let letters = || {
        let kept = name.chars().filter(char::is_ascii_alphanumeric);
        kept.map(|c| c.to_ascii_lowercase())
    };
    let skipped = match letters().take(3).eq("psa".chars()) {
        true => 3,
        false => 0,
    };
    letters().eq(plain.chars()) || letters().skip(skipped).eq(plain.chars())
}

fn is_array(raw: &RawValue) -> bool {
    raw.get().starts_with('[')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn soft_failures_lack_both_arrays() {
        for (text, good) in [
            (r#"{"Billable Services":[],"AccountName":"x"}"#, true),
            (r#"{"BillableServices":[{}]}"#, true),
            (r#"{"billable services":[{}]}"#, true),
            (r#"{"PSA Billable services":[]}"#, true),
            (r#"{"PSABillableServices":[]}"#, true),
            (
                r#"{"PSA_Billable-Services":{"billable services":[]}}"#,
                true,
            ),
            (r#"{"Clients":[]}"#, true),
            (r#"{"PSABillableServices":{"Clients":[]}}"#, true),
            (r#"{"PSABillableServices":{"Billable Services":[]}}"#, true),
            (r#"{"AccountName":"Best MSP","Cid":"1"}"#, false),
            (r#"{"Billable Services":null,"Clients":{}}"#, false),
            (r#"{"Billable Services":""}"#, false),
            (r#"{"PSABillableServices":{"Cid":1}}"#, false),
            (r#"{"PSABillableServices":"x"}"#, false),
            (r#"{"PSA":[]}"#, false),
            (r#"{"Other":{"Clients":[]}}"#, false),
            ("{}", false),
        ] {
            assert_eq!(grade(text, has_billing), Ok(good), "{text}");
        }
        for bad in ["", "[]", "null", "\"x\"", "{", "<a/>"] {
            assert!(grade(bad, has_billing).is_err(), "{bad}");
        }
        assert_eq!(grade(r#"{"InvoicesReady":[]}"#, has_invoices), Ok(true));
        assert_eq!(grade(r#"{"InvoicesReady":{}}"#, has_invoices), Ok(false));
        assert_eq!(grade(r#"{"Clients":[]}"#, has_invoices), Ok(false));
    }
}
