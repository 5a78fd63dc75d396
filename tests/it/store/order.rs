//! Tries every order of events in a world of the explorer.

use std::collections::HashSet;

/// A world in which events happen.
pub trait Explored: Sized {
    /// What may happen.
    type Event: Copy + std::fmt::Debug;

    /// Returns a copy, in which something else may happen.
    fn copy(&self) -> Self;

    /// Returns a hash of everything that decides what can happen from here on.
    fn state(&self) -> [u8; 32];

    /// Returns everything that can happen next.
    fn events(&self) -> Vec<Self::Event>;
}

/// What an exploration came to.
pub struct Tried<X, E> {
    /// Number of different states.
    pub states: usize,
    /// The wrong thing, and the events that led to it.
    pub wrong: Option<(X, Vec<E>)>,
}

/// More states than any world has that ends in time.
const STATES_MAX: usize = 3_000_000;

/// Tries every order of events from `start` on, each state once, until `happen` returns something
/// wrong.
pub fn every_order<W: Explored, X>(
    start: W,
    mut happen: impl FnMut(&mut W, W::Event) -> Option<X>,
) -> Tried<X, W::Event> {
    let mut seen = HashSet::new();
    let mut open = vec![(start, Vec::new())];
    while let Some((world, history)) = open.pop() {
        if !seen.insert(world.state()) {
            continue;
        }
        assert!(seen.len() < STATES_MAX, "no end: {history:?}");
        for event in world.events() {
            let mut next = world.copy();
            let wrong = happen(&mut next, event);
            let mut history = history.clone();
            history.push(event);
            if let Some(wrong) = wrong {
                return Tried {
                    states: seen.len(),
                    wrong: Some((wrong, history)),
                };
            }
            open.push((next, history));
        }
    }
    Tried {
        states: seen.len(),
        wrong: None,
    }
}
