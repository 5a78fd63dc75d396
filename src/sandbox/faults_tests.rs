//! Tests of when a fault applies, and how often.

use super::*;

fn hits(faults: &Faults, operation: Operation, requests: usize) -> Vec<usize> {
    (0..requests)
        .filter(|_| faults.plan(operation).instead.is_some())
        .collect()
}

#[test]
fn times_and_after_count_the_requests_of_the_target() {
    let faults = Faults::new(1);
    let fault = Fault::on(Operation::Continue, Kind::DropBefore)
        .times(2)
        .after(3);
    assert_eq!(faults.add(vec![fault]), Ok(1));
    assert!(hits(&faults, Operation::Search, 10).is_empty());
    assert_eq!(hits(&faults, Operation::Continue, 10), [3, 4]);
    assert_eq!(
        faults.add(vec![Fault::on_any(Kind::DropBefore).times(0)]),
        Ok(1)
    );
    assert!(hits(&faults, Operation::Billing, 3).is_empty());
}

#[test]
fn a_probability_is_kept_and_repeats_with_the_seed() {
    let run = |seed| {
        let faults = Faults::new(seed);
        faults
            .add(vec![Fault::on_any(Kind::DropBefore).probability(0.1)])
            .unwrap();
        hits(&faults, Operation::Search, 10_000)
    };
    assert!((800..1_200).contains(&run(1).len()));
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
    let faults = Faults::new(1);
    faults
        .add(vec![
            Fault::on_any(Kind::DropBefore).probability(0.0),
            Fault::on(Operation::Customers, Kind::DropBefore).probability(1.0),
        ])
        .unwrap();
    assert!(hits(&faults, Operation::Search, 100).is_empty());
    assert_eq!(hits(&faults, Operation::Customers, 100).len(), 100);
}

#[test]
fn faults_of_pages_are_not_used_up_by_other_requests() {
    let faults = Faults::new(1);
    faults
        .add(vec![
            Fault::on_any(Kind::RepeatPage).times(1),
            Fault::on_any(Kind::ShortPage).times(1),
        ])
        .unwrap();
    assert!(!faults.plan(Operation::Customers).twists.short);
    let search = faults.plan(Operation::Search).twists;
    assert!(search.short && !search.repeat);
    assert!(faults.plan(Operation::Continue).twists.repeat);
    assert!(!faults.plan(Operation::Continue).twists.repeat);
}

#[test]
fn faults_meet_and_are_cleared() {
    let faults = Faults::new(1);
    let latency = Kind::Latency { ms: 20 };
    faults
        .add(vec![
            Fault::on_any(latency.clone()),
            Fault::on_any(latency),
            Fault::on_any(Kind::DropAfter),
        ])
        .unwrap();
    let plan = faults.plan(Operation::Billing);
    assert_eq!(plan.latency, Duration::from_millis(40));
    assert_eq!(plan.after, [Kind::DropAfter]);
    faults.clear();
    assert!(faults.plan(Operation::Billing).after.is_empty());
    let many = vec![Fault::on_any(Kind::DropAfter); ACTIVE_MAX + 1];
    assert!(faults.add(many).is_err());
}
