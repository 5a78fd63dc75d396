//! Tests that the same seed gives the same world.

use std::collections::HashSet;

use jiff::civil::date;

use super::*;

fn small() -> Options {
    Options {
        customers: 20,
        cases: 1_000,
        ..Options::default()
    }
}

fn texts(world: &World, filter: &Filter) -> Vec<String> {
    let selection = world.select(filter);
    selection
        .rows(0, selection.len())
        .iter()
        .map(|case| world.text(case).to_owned())
        .collect()
}

fn value(row: &str) -> serde_json::Value {
    serde_json::from_str(row).unwrap()
}

#[test]
fn the_documented_world_is_skewed() {
    let world = World::new(&Options::default());
    assert_eq!(world.customers().len(), 60);
    let counts: Vec<usize> = (0..60).map(|index| world.case_count(index)).collect();
    assert_eq!(counts.iter().sum::<usize>(), 20_000);
    assert!(counts[0] > 3_000, "{counts:?}");
    assert!(
        counts.iter().filter(|count| **count > 1_000).count() >= 3,
        "{counts:?}"
    );
    assert!(
        counts.iter().filter(|count| **count == 0).count() >= 6,
        "{counts:?}"
    );
}

#[test]
fn one_seed_one_world() {
    let all = Filter::default();
    let first = texts(&World::new(&small()), &all);
    assert_eq!(first, texts(&World::new(&small()), &all));
    assert_ne!(
        first,
        texts(&World::new(&Options { seed: 2, ..small() }), &all)
    );
    assert_eq!(first.len(), 1_000);
}

#[test]
fn newest_first_within_three_years_and_ids_once() {
    let world = World::new(&small());
    let rows = texts(&world, &Filter::default());
    let days: Vec<String> = rows
        .iter()
        .map(|row| value(row)["created_at"].as_str().unwrap()[..10].to_owned())
        .collect();
    assert!(days.windows(2).all(|pair| pair[0] >= pair[1]));
    assert!(days[0].as_str() <= "2026-11-20");
    assert!(days[999].as_str() > "2023-11-20");
    let ids: HashSet<String> = rows
        .iter()
        .map(|row| value(row)["case_id"].to_string())
        .collect();
    assert_eq!(ids.len(), 1_000);
}

#[test]
fn filters_agree_with_reading_everything() {
    let world = World::new(&small());
    let all = texts(&world, &Filter::default());
    let (first, last) = (date(2025, 1, 10), date(2025, 6, 30));
    let wanted: Vec<String> = all
        .iter()
        .filter(|row| {
            let row = value(row);
            let day: Date = row["created_at"].as_str().unwrap()[..10].parse().unwrap();
            row["customer_id"] == "org_2" && first <= day && day <= last
        })
        .cloned()
        .collect();
    assert!(wanted.len() > 3);
    let mut filter = Filter {
        customer_id: Some("org_2".into()),
        range: Some((first, last)),
        ..Filter::default()
    };
    assert_eq!(texts(&world, &filter), wanted);
    filter.status = Some("To Do".into());
    let to_do: Vec<String> = wanted
        .iter()
        .filter(|row| value(row)["status"] == "To Do")
        .cloned()
        .collect();
    assert_eq!(texts(&world, &filter), to_do);
    // The range includes both ends.
    let edge = value(&all[500])["created_at"].as_str().unwrap()[..10]
        .parse()
        .unwrap();
    let day = Filter {
        range: Some((edge, edge)),
        ..Filter::default()
    };
    assert!(texts(&world, &day).contains(&all[500]));
    for unknown in ["org_0", "org_21", "org_01", "org_+1", "", "ORG_1"] {
        let filter = Filter {
            customer_id: Some(unknown.into()),
            ..Filter::default()
        };
        assert!(texts(&world, &filter).is_empty(), "{unknown}");
    }
}

#[test]
fn a_selection_never_sees_what_is_inserted_later() {
    let world = World::new(&small());
    let all = Filter::default();
    let before = world.select(&all);
    assert_eq!(world.insert(30, Some("org_20"), None), Some(30));
    assert_eq!(world.insert(5, None, Some(date(2024, 5, 5))), Some(5));
    assert_eq!(world.insert(1, Some("org_99"), None), None);
    assert_eq!(before.len(), 1_000);
    let rows = texts(&world, &all);
    assert_eq!(rows.len(), 1_035);
    assert_eq!(value(&rows[0])["customer_id"], "org_20");
    assert_eq!(world.case_count(19), 30);
    let day = Filter {
        range: Some((date(2024, 5, 5), date(2024, 5, 5))),
        ..Filter::default()
    };
    assert!(texts(&world, &day).len() >= 5);
    world.reset();
    assert_eq!(world.select(&all).len(), 1_000);
}

#[test]
fn ids_may_repeat_across_customers_and_be_absent() {
    let world = World::new(&Options {
        case_ids: CaseIds::PerCustomer,
        without_case_id_every: 10,
        without_customer_id_every: 7,
        ..small()
    });
    let _ = world.insert(20, Some("org_1"), None);
    let rows: Vec<serde_json::Value> = texts(&world, &Filter::default())
        .iter()
        .map(|row| value(row))
        .collect();
    assert_eq!(
        rows.iter()
            .filter(|row| row.get("case_id").is_none())
            .count(),
        100
    );
    assert_eq!(
        rows.iter()
            .filter(|row| row.get("customer_id").is_none())
            .count(),
        142
    );
    let ids: Vec<String> = rows
        .iter()
        .filter_map(|row| Some(row.get("case_id")?.to_string()))
        .collect();
    assert!(ids.iter().collect::<HashSet<_>>().len() < ids.len());
}

#[test]
fn sizes_are_bounded_and_may_be_nothing() {
    let world = World::new(&Options {
        customers: 0,
        cases: 0,
        ..Options::default()
    });
    assert_eq!(world.customers().len(), 1);
    assert_eq!(world.select(&Filter::default()).len(), 0);
    assert_eq!(world.insert(5, None, None), Some(5));
    assert_eq!(
        (room(5), room(CASES_MAX), room(CASES_MAX + 1)),
        (CASES_MAX - 5, 0, 0)
    );
}
