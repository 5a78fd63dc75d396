//! Tests of when a fault applies, and how often.

use super::*;

fn hits(faults: &Faults, operation: SimOperation, requests: usize) -> Vec<usize> {
    (0..requests)
        .filter(|_| faults.plan(operation).instead.is_some())
        .collect()
}

#[test]
fn times_and_after_count_the_requests_of_the_target() {
    let faults = Faults::new(1);
    let fault = SimFault::on(SimOperation::Continue, FaultKind::DropBefore)
        .times(2)
        .after(3);
    assert_eq!(faults.add(vec![fault]), Ok(1));
    assert!(hits(&faults, SimOperation::Search, 10).is_empty());
    assert_eq!(hits(&faults, SimOperation::Continue, 10), [3, 4]);
    assert_eq!(
        faults.add(vec![SimFault::on_any(FaultKind::DropBefore).times(0)]),
        Ok(1)
    );
    assert!(hits(&faults, SimOperation::Billing, 3).is_empty());
}

#[test]
fn a_probability_is_kept_and_repeats_with_the_seed() {
    let run = |seed| {
        let faults = Faults::new(seed);
        faults
            .add(vec![
                SimFault::on_any(FaultKind::DropBefore).probability(0.1),
            ])
            .unwrap();
        hits(&faults, SimOperation::Search, 10_000)
    };
    assert!((800..1_200).contains(&run(1).len()));
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
    let faults = Faults::new(1);
    faults
        .add(vec![
            SimFault::on_any(FaultKind::DropBefore).probability(0.0),
            SimFault::on(SimOperation::Customers, FaultKind::DropBefore).probability(1.0),
        ])
        .unwrap();
    assert!(hits(&faults, SimOperation::Search, 100).is_empty());
    assert_eq!(hits(&faults, SimOperation::Customers, 100).len(), 100);
}

#[test]
fn faults_of_pages_are_not_used_up_by_other_requests() {
    let faults = Faults::new(1);
    faults
        .add(vec![
            SimFault::on_any(FaultKind::RepeatPage).times(1),
            SimFault::on_any(FaultKind::ShortPage).times(1),
        ])
        .unwrap();
    assert!(!faults.plan(SimOperation::Customers).twists.short);
    let search = faults.plan(SimOperation::Search).twists;
    assert!(search.short && !search.repeat);
    assert!(faults.plan(SimOperation::Continue).twists.repeat);
    assert!(!faults.plan(SimOperation::Continue).twists.repeat);
}

#[test]
fn faults_meet_and_are_cleared() {
    let faults = Faults::new(1);
    let latency = FaultKind::Latency { ms: 20 };
    faults
        .add(vec![
            SimFault::on_any(latency.clone()),
            SimFault::on_any(latency),
            SimFault::on_any(FaultKind::DropAfter),
        ])
        .unwrap();
    let plan = faults.plan(SimOperation::Billing);
    assert_eq!(plan.latency, Duration::from_millis(40));
    assert_eq!(plan.after, [FaultKind::DropAfter]);
    faults.clear();
    assert!(faults.plan(SimOperation::Billing).after.is_empty());
    let many = vec![SimFault::on_any(FaultKind::DropAfter); ACTIVE_MAX + 1];
    assert!(faults.add(many).is_err());
}
