//! Tests that rows are valid JSON and never change.

use std::collections::HashSet;

use super::*;

fn text(number: u64) -> String {
    let facts = CaseFacts {
        number,
        id: Some("CASE-0000001"),
        customer: Some(("org_3", "Zażółć S.A.")),
        case_type: CASE_TYPES[0],
        status: STATUSES[0],
        date: jiff::civil::date(2026, 2, 3),
    };
    case_text(7, facts)
}

#[test]
fn a_case_is_valid_json_of_a_usual_size() {
    let mut bytes = 0;
    for number in 0..2_000 {
        let row = text(number);
        let value: serde_json::Value = serde_json::from_str(&row).unwrap();
        assert_eq!(value["case_id"], "CASE-0000001");
        assert_eq!(value["customer_name"], "Zażółć S.A.");
        assert!(
            value["created_at"]
                .as_str()
                .unwrap()
                .starts_with("2026-02-03T")
        );
        assert!(
            (250..1_000).contains(&row.len()),
            "{} bytes: {row}",
            row.len()
        );
        bytes += row.len();
    }
    assert!((400..600).contains(&(bytes / 2_000)), "{}", bytes / 2_000);
}

#[test]
fn rows_are_spelt_differently_but_each_always_alike() {
    let rows: Vec<String> = (0..500).map(text).collect();
    assert_eq!(rows, (0..500).map(text).collect::<Vec<_>>());
    let has = |needle: &str| rows.iter().any(|row| row.contains(needle));
    for needle in [
        "\": ",
        "\":\"",
        "\\u0",
        "Za\u{17c}",
        "\\/",
        "12345678901234567890.123",
        "null",
        "E+2",
        "-0.0",
    ] {
        assert!(has(needle), "no row has {needle}");
    }
    let first: HashSet<&str> = rows
        .iter()
        .filter_map(|row| row.split('"').nth(1))
        .collect();
    assert!(first.len() > 8, "members come in one order");
}

#[test]
fn customers_have_all_documented_members_and_their_own_names() {
    let mut names = HashSet::new();
    for index in 0..500 {
        assert!(names.insert(customer_name(index)), "{index}");
        let members = customer_members(1, index);
        assert_eq!(members.len(), FIELDS.len());
        for (_, member) in FIELDS {
            assert!(members.iter().any(|(name, _)| *name == member), "{member}");
        }
        let row = object(&members, Style::default());
        let value: serde_json::Value = serde_json::from_str(&row).unwrap();
        assert_eq!(value["customer_name"], customer_name(index));
    }
}
