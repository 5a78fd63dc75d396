//! The queue before a vendor: lanes by urgency, and within a lane the callers in turn.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Lane;

/// Id of a waiting call.
pub type WaiterId = u64;

/// The waiters of one lane, grouped by caller. The caller in front is served next and then goes to
/// the back. So a caller with a hundred waiters delays another caller by one place, not by a
/// hundred.
#[derive(Debug, Default)]
struct LaneQueue {
    turns: VecDeque<(Arc<str>, VecDeque<WaiterId>)>,
}

impl LaneQueue {
    fn len(&self) -> usize {
        self.turns.iter().map(|(_, waiters)| waiters.len()).sum()
    }

    fn of(&self, caller: &str) -> usize {
        self.turns
            .iter()
            .find(|(name, _)| &**name == caller)
            .map_or(0, |(_, waiters)| waiters.len())
    }

    fn push(&mut self, caller: &Arc<str>, id: WaiterId) {
        match self.turns.iter_mut().find(|(name, _)| name == caller) {
            Some((_, waiters)) => waiters.push_back(id),
            None => self
                .turns
                .push_back((Arc::clone(caller), VecDeque::from([id]))),
        }
    }

    fn pop(&mut self) -> Option<WaiterId> {
        let (caller, mut waiters) = self.turns.pop_front()?;
        let id = waiters.pop_front();
        if !waiters.is_empty() {
            self.turns.push_back((caller, waiters));
        }
        id
    }

    fn remove(&mut self, id: WaiterId) -> bool {
        let before = self.len();
        for (_, waiters) in &mut self.turns {
            waiters.retain(|other| *other != id);
        }
        self.turns.retain(|(_, waiters)| !waiters.is_empty());
        self.len() != before
    }

    /// Returns how many waiters go before the next one of `caller`, if no other one comes.
    fn ahead_of(&self, caller: &str) -> usize {
        let own = self.of(caller);
        let others = self.turns.iter().filter(|(name, _)| &**name != caller);
        own + others
            .map(|(_, waiters)| waiters.len().min(own + 1))
            .sum::<usize>()
    }

    /// Returns the caller with the most waiters.
    fn longest(&mut self) -> Option<&mut (Arc<str>, VecDeque<WaiterId>)> {
        self.turns.iter_mut().max_by_key(|(_, w)| w.len())
    }
}

/// The queue of one vendor credential.
#[derive(Debug, Default)]
pub struct Queue {
    lanes: [LaneQueue; Lane::ORDER.len()],
}

impl Queue {
    /// Returns the number of waiters.
    pub fn len(&self) -> usize {
        self.lanes.iter().map(LaneQueue::len).sum()
    }

    /// Returns whether no call waits.
    pub fn is_empty(&self) -> bool {
        self.lanes.iter().all(|lane| lane.turns.is_empty())
    }

    /// Returns the number of waiters in a lane.
    pub fn len_of(&self, lane: Lane) -> usize {
        let lanes = Lane::ORDER.iter().zip(&self.lanes);
        lanes
            .filter(|(other, _)| other.as_str() == lane.as_str())
            .map(|(_, queue)| queue.len())
            .sum()
    }

    /// Puts a waiter at the end of its caller's line.
    pub fn push(&mut self, lane: Lane, caller: &Arc<str>, id: WaiterId) {
        if let Some(queue) = self.lanes.get_mut(lane as usize) {
            queue.push(caller, id);
        }
    }

    /// Returns the next waiter and its lane.
    pub fn front(&self) -> Option<(Lane, WaiterId)> {
        Lane::ORDER
            .iter()
            .zip(&self.lanes)
            .find_map(|(lane, queue)| {
                let (_, waiters) = queue.turns.front()?;
                Some((*lane, *waiters.front()?))
            })
    }

    /// Removes and returns the next waiter.
    pub fn pop(&mut self) -> Option<WaiterId> {
        self.lanes.iter_mut().find_map(LaneQueue::pop)
    }

    /// Removes a waiter. Returns whether it was in the queue.
    pub fn remove(&mut self, id: WaiterId) -> bool {
        self.lanes.iter_mut().any(|lane| lane.remove(id))
    }

    /// Returns how many waiters would go before a new one.
    pub fn ahead_of(&self, lane: Lane, caller: &str) -> usize {
        let more_urgent = self.lanes.iter().take(lane as usize).map(LaneQueue::len);
        let same = self
            .lanes
            .get(lane as usize)
            .map_or(0, |queue| queue.ahead_of(caller));
        more_urgent.sum::<usize>() + same
    }

    /// Removes the waiter that must give way to a new one when the queue is full: the newest of the
    /// least urgent lane, or, in the same lane, of the caller with the most waiters. Returns `None`
    /// if the new one is refused instead.
    pub fn displace_for(&mut self, lane: Lane, caller: &str) -> Option<WaiterId> {
        let own = self.lanes.get(lane as usize)?.of(caller);
        let (least, queue) = Lane::ORDER
            .iter()
            .zip(&mut self.lanes)
            .rev()
            .find(|(_, queue)| !queue.turns.is_empty())?;
        let (_, waiters) = queue.longest()?;
        let gives_way = *least > lane || (*least == lane && waiters.len() > own + 1);
        let id = if gives_way {
            waiters.back().copied()
        } else {
            None
        }?;
        self.remove(id);
        Some(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(queue: &mut Queue) -> Vec<WaiterId> {
        std::iter::from_fn(|| queue.pop()).collect()
    }

    #[test]
    fn urgent_lanes_go_first_and_callers_take_turns() {
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let mut queue = Queue::default();
        queue.push(Lane::Export, &a, 90);
        for id in 1..=3 {
            queue.push(Lane::Interactive, &a, id);
        }
        queue.push(Lane::Interactive, &b, 11);
        queue.push(Lane::ReadAhead, &b, 80);
        queue.push(Lane::Refresh, &b, 70);
        queue.push(Lane::Healing, &b, 20);
        assert_eq!((queue.len(), queue.len_of(Lane::Interactive)), (8, 5));
        assert_eq!(queue.front(), Some((Lane::Interactive, 1)));
        assert_eq!(order(&mut queue), [1, 11, 2, 3, 20, 70, 80, 90]);
        assert!(queue.is_empty());
    }

    #[test]
    fn what_goes_before_a_newcomer_is_what_then_goes_before_it() {
        let callers: Vec<Arc<str>> = vec!["a".into(), "b".into(), "c".into()];
        let mut rng = fastrand::Rng::with_seed(7);
        for _ in 0..200 {
            let mut queue = Queue::default();
            for id in 0..rng.u64(0..20) {
                let lane = Lane::ALL[rng.usize(0..4)];
                queue.push(lane, &callers[rng.usize(0..3)], id);
            }
            let (lane, caller) = (Lane::ALL[rng.usize(0..4)], &callers[rng.usize(0..3)]);
            let ahead = queue.ahead_of(lane, caller);
            queue.push(lane, caller, 1000);
            let place = order(&mut queue).iter().position(|id| *id == 1000).unwrap();
            // Turns may already have passed the new waiter's caller, so the estimate may be one
            // round too high or too low, but not more.
            assert!(place.abs_diff(ahead) <= callers.len(), "{place} {ahead}");
        }
    }

    #[test]
    fn a_newcomer_whose_turn_is_last_is_told_exactly_what_goes_before_it() {
        let callers: Vec<Arc<str>> = vec!["a".into(), "b".into(), "c".into()];
        let mut queue = Queue::default();
        queue.push(Lane::Interactive, &callers[0], 0);
        queue.push(Lane::Export, &callers[0], 1);
        // Three waiters of a, two of b, one of c, in this order.
        for (n, caller) in callers.iter().enumerate() {
            for id in 0..3 - n {
                queue.push(Lane::Refresh, caller, 10 * (n as u64 + 1) + id as u64);
            }
        }
        assert_eq!(queue.len(), 8);
        let lengths = Lane::ALL.map(|lane| queue.len_of(lane));
        assert_eq!(lengths, [1, 6, 0, 1]);
        // Ahead of d: the urgent one and one of each. Ahead of c: the urgent one, two of a, two of
        // b, and c's own.
        assert_eq!(queue.ahead_of(Lane::Refresh, "d"), 4);
        assert_eq!(queue.ahead_of(Lane::Refresh, "c"), 6);
        assert_eq!(queue.ahead_of(Lane::ReadAhead, "c"), 7);
        assert_eq!(queue.ahead_of(Lane::Interactive, "c"), 1);
        queue.push(Lane::Refresh, &callers[2], 99);
        assert!(queue.remove(11) && !queue.remove(98));
        assert_eq!(order(&mut queue), [0, 10, 20, 30, 12, 21, 99, 1]);
    }

    #[test]
    fn nobody_gives_way_to_who_would_then_have_more() {
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let mut queue = Queue::default();
        assert_eq!(queue.displace_for(Lane::Interactive, "a"), None);
        queue.push(Lane::Refresh, &b, 1);
        queue.push(Lane::Refresh, &a, 2);
        queue.push(Lane::Refresh, &a, 3);
        // a has two and b has one. With the new one, b would have as many as a.
        assert_eq!(queue.displace_for(Lane::Refresh, "b"), None);
        queue.push(Lane::Refresh, &a, 4);
        assert_eq!(queue.displace_for(Lane::Refresh, "b"), Some(4));
        assert_eq!(queue.displace_for(Lane::Refresh, "c"), Some(3));
        assert_eq!(queue.displace_for(Lane::Refresh, "c"), None);
        // In a less urgent lane, the caller with the most waiters gives way, even with its only
        // one, and even if it is the new waiter's caller.
        assert_eq!(queue.displace_for(Lane::Interactive, "a"), Some(2));
        assert_eq!(queue.displace_for(Lane::Interactive, "b"), Some(1));
        assert!(queue.is_empty());
    }

    #[test]
    fn the_full_queue_makes_room_for_the_urgent_and_the_modest() {
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let mut queue = Queue::default();
        for id in 0..4 {
            queue.push(Lane::Interactive, &a, id);
        }
        queue.push(Lane::Export, &b, 9);
        assert_eq!(queue.displace_for(Lane::Interactive, "a"), Some(9));
        assert_eq!(queue.displace_for(Lane::Interactive, "a"), None);
        assert_eq!(queue.displace_for(Lane::Export, "b"), None);
        assert_eq!(queue.displace_for(Lane::Interactive, "b"), Some(3));
        assert_eq!(queue.len(), 3);
    }

    #[test]
    fn who_leaves_is_gone() {
        let a: Arc<str> = "a".into();
        let mut queue = Queue::default();
        queue.push(Lane::Refresh, &a, 1);
        assert!(queue.remove(1));
        assert!(!queue.remove(1));
        assert!(queue.is_empty());
        assert_eq!(queue.front(), None);
    }
}
