//! One walk of a search among all gateways that share a store.
//!
//! When a walk gets its turn in this process, it claims its search in the store. If another gateway
//! has the claim, the walk becomes a *follower*: it reports what its readers want, looks at each
//! ring and every 250 ms, and loads the rows that the other gateway stored. Once the claim is free
//! and rows are still wanted, the follower claims the search and continues with a new scroll.
//!
//! ```text
//! take_claim ─▶ mine ─▶ catch_up ─▶ the walk ──▶ deposed ─┐
//!     ▲  └────▶ taken ─▶ follow ─▶ the rows are there     │
//!     │                    │ claim free, rows wanted      │
//!     └────────────────────┴──────────────────────────────┘
//! ```
//!
//! While the store is away, the walk continues alone and its rows are in this process only.

use std::future::pending;

use super::frozen::{End, State};
use super::keep::{RowsKept, chunks_of};
use super::load::{Loaded, Loader};
use super::walk::{Shadow, Stage, Walk, wanted_lane};
use crate::admission::{Lane, Payer};
use crate::cache::{Standing, Wanted};
use crate::clock::{Duration, Instant, sleep};
use crate::metrics::WalkOutcome;
use crate::store::claims::{LINE_LOOK_EVERY, LineLook};
use crate::store::fleet::LineWant;
use crate::store::{
    Fence, KeptEnd, KeptPlace, KeptSnapshot, LineClaim, LineTurn, RecordName, StoreHealth,
    load_after,
};

/// Looks in a row without a reply after which a follower continues alone.
const LATE_MAX: u32 = 3;
/// The assumed wait of readers without a deadline.
const WANT_LEFT: Duration = Duration::from_secs(30);
/// How long one look reports that a walk waits for its turn.
const TURN_LEFT: Duration = Duration::from_secs(2);

/// How long a walk continues alone before it calls the store again.
const ALONE: Duration = Duration::from_secs(1);

/// The right by which a walk calls the vendor.
pub(super) enum WalkRight {
    /// There is no store, or no other gateway shares it.
    Sole,
    /// The store is away or accepts nothing, so other gateways may walk the search too. The walk
    /// claims it again with the first page after this time.
    Alone(Instant),
    /// This gateway holds the claim.
    Claimed(LineClaim),
}

impl WalkRight {
    /// Waits until readers of other gateways want something or the claim is lost.
    pub async fn changed(&self) {
        match self {
            Self::Claimed(claim) => claim.changed().await,
            Self::Sole | Self::Alone(_) => pending().await,
        }
    }
}

/// What other gateways want of a walk besides rows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Elsewhere {
    Nothing,
    /// A walk of another gateway waits for the end of this one.
    Turn,
}

/// The result of loading rows from the store.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pulled {
    /// All rows up to the end.
    Whole,
    /// More rows may come.
    Open,
    /// The store no longer has the snapshot.
    Gone,
}

impl Walk {
    pub(super) fn fence(&self) -> Option<Fence> {
        match &self.right {
            WalkRight::Claimed(claim) => claim.fence(),
            WalkRight::Sole | WalkRight::Alone(_) => None,
        }
    }

    /// Claims the search, or follows the gateway with the claim. Returns whether the walk has to
    /// call the vendor; otherwise the walk is over.
    pub(super) async fn take_claim(&mut self) -> bool {
        let kept = self.store.kept.clone();
        if !kept.is_shared() {
            return true;
        }
        let (mut followed, mut late) = (false, 0);
        loop {
            if matches!(self.stage, Stage::Over) {
                return false;
            }
            match kept.claim_line(self.lineage.key.fingerprint()).await {
                LineTurn::Mine(claim) => {
                    self.right = WalkRight::Claimed(claim);
                    let walks = self.catch_up().await;
                    if !walks {
                        self.right = self.alone();
                    } else if followed && matches!(self.stage, Stage::Comparing { .. }) {
                        tracing::info!(search = %self.lineage.key, "a walk is taken over");
                        self.store.metrics.walk(WalkOutcome::TakenOver);
                    }
                    return walks;
                }
                LineTurn::Taken => late = 0,
                // One late reply is no reason to walk a search that another gateway walks.
                LineTurn::Alone if followed && late < LATE_MAX && self.store_answers() => {
                    late += 1;
                    sleep(LINE_LOOK_EVERY).await;
                }
                LineTurn::Alone => {
                    self.right = self.alone();
                    return true;
                }
            }
            followed = true;
            if !self.follow().await {
                return false;
            }
        }
    }

    fn alone(&self) -> WalkRight {
        WalkRight::Alone(self.store.clock.now() + ALONE)
    }

    fn store_answers(&self) -> bool {
        self.store.kept.health() == StoreHealth::Ok
    }

    /// Follows another gateway. Returns whether its claim has ended and this gateway wants it;
    /// otherwise the walk is over.
    async fn follow(&mut self) -> bool {
        let mut late = 0;
        let mut current = None;
        let identity = *self.lineage.key.fingerprint();
        let now = self.store.clock.now();
        let mut bell = self.store.kept.listen_to_line(&identity, now).await;
        loop {
            if matches!(self.stage, Stage::Comparing { .. }) && self.leave_if_unwanted() {
                return false;
            }
            let target = self.target.clone();
            let demand = target.demand.notified();
            let mut demand = std::pin::pin!(demand);
            demand.as_mut().enable();
            let want = self.want_of_line(current);
            bell.looks(self.store.clock.now());
            match self.store.kept.look_at_line(&identity, want).await {
                Some(look) => {
                    late = 0;
                    current = look.current;
                    if self.take_what_is_kept(&look).await {
                        return false;
                    }
                    let waits = match &self.stage {
                        Stage::Checking { wanted, .. } => *wanted != Wanted::Later,
                        _ => true,
                    };
                    if look.left.is_zero() {
                        return true;
                    }
                    self.target.lock().elsewhere_until = Some(self.store.clock.now() + look.left);
                    if !waits {
                        // The rows in memory are served stale meanwhile.
                        self.end_turn();
                        return false;
                    }
                }
                None => {
                    late += 1;
                    if late > LATE_MAX || !self.store_answers() {
                        return true;
                    }
                }
            }
            tokio::select! {
                () = demand => {}
                () = bell.rung_within(LINE_LOOK_EVERY) => {}
            }
        }
    }

    /// Loads the rows that another gateway stored before this one calls the vendor. Returns whether
    /// the call is still necessary.
    async fn catch_up(&mut self) -> bool {
        let identity = self.lineage.key.fingerprint();
        let look = self.store.kept.look_at_line(identity, LineWant::default());
        let Some(mut look) = look.await else {
            return true;
        };
        // The claim is ours.
        look.left = Duration::ZERO;
        if self.take_what_is_kept(&look).await {
            return false;
        }
        !(matches!(self.stage, Stage::Comparing { .. }) && self.leave_if_unwanted())
    }

    /// Loads the rows or ages that another gateway stored. Returns whether the walk is over.
    async fn take_what_is_kept(&mut self, look: &LineLook) -> bool {
        match self.stage {
            Stage::Comparing { .. } => self.pull(look).await == Pulled::Whole,
            Stage::Checking { .. } => {
                let refreshed = self.is_refreshed(look).await;
                if refreshed {
                    self.end_turn();
                }
                refreshed
            }
            Stage::Growing { .. } | Stage::Renewed { .. } | Stage::Over => false,
        }
    }

    /// Loads the rows of the target that the store has beyond its own. A target without rows
    /// becomes the copy of the current snapshot.
    async fn pull(&mut self, look: &LineLook) -> Pulled {
        let target = self.target.clone();
        let _keeping = target.keeping.lock().await;
        let part = self.target.kept.lock().clone();
        if part.off {
            return Pulled::Open;
        }
        let Some(name) = part.place.map(|place| place.name).or(look.current) else {
            return Pulled::Open;
        };
        let found = match self.store.kept.look_at_snapshot(name).await {
            Ok(Some(found)) => found,
            Ok(None) if look.left.is_zero() && part.place.is_some() => {
                return self.forget_place();
            }
            Ok(None) | Err(_) => return Pulled::Open,
        };
        let open = found.standing.end == KeptEnd::Open;
        let grows = open && !look.left.is_zero();
        if part.place.is_none() {
            self.cannot_adopt = !self.store.adopt(&self.target, &found, grows);
            if self.cannot_adopt {
                return Pulled::Open;
            }
        }
        self.load(found).await
    }

    /// Records that the store has lost the target, which is stored again with the next rows.
    fn forget_place(&self) -> Pulled {
        let mut part = self.target.kept.lock();
        *part = part.after_loss();
        Pulled::Gone
    }

    async fn load(&mut self, found: KeptSnapshot) -> Pulled {
        let target = self.target.clone();
        let standing = found.standing.clone();
        let Some(place) = target.kept.lock().place else {
            return Pulled::Open;
        };
        let place = match self.place_to_load_from(place, standing.chunks) {
            Some(place) => place,
            None => {
                // It lost rows that this copy has, as after a failover, or has others. The next
                // rows to be stored show which.
                target.kept.lock().unsure = true;
                return Pulled::Open;
            }
        };
        self.store.take_ages(&target, &found);
        let mut loader = Loader::after(self.store.clone(), target.clone(), found, &place);
        let whole = loop {
            let loaded = loader.load_next().await;
            let rows = target.size().0;
            let mut part = target.kept.lock();
            part.place = Some(loader.place());
            part.rows = rows;
            match loaded {
                Loaded::More => {}
                Loaded::Whole => break true,
                Loaded::Damaged => {
                    part.off = true;
                    break false;
                }
                Loaded::Away => break false,
            }
        };
        let end = match standing.end {
            KeptEnd::Complete => End::Complete,
            KeptEnd::Cut => End::Cut("pagination.walk_rows_max"),
            KeptEnd::Broken => End::Broken,
            KeptEnd::Open => return Pulled::Open,
        };
        if !whole {
            return Pulled::Open;
        }
        target.kept.lock().ended = true;
        self.ending = Some(end);
        self.tell();
        self.store.make_room();
        Pulled::Whole
    }

    /// Returns the place in the target after which rows of the store follow. `None` if the store
    /// does not have more chunks than the target.
    fn place_to_load_from(&self, place: KeptPlace, stored: u32) -> Option<KeptPlace> {
        let is_level = self.target.size().0 == self.target.kept.lock().rows;
        let copy = || chunks_of(&self.target).iter().map(|(at, _)| *at).collect();
        let (chunks, chain) = load_after((place.chunks, place.chain), is_level, copy, stored)?;
        Some(KeptPlace {
            name: place.name,
            chunks,
            chain,
        })
    }

    /// Returns whether another gateway has already refreshed the rows, and applies its ages or
    /// rows.
    async fn is_refreshed(&self, look: &LineLook) -> bool {
        let Stage::Checking {
            turn,
            wanted,
            whole,
            ..
        } = &self.stage
        else {
            return false;
        };
        let (since, wanted, whole) = (turn.since(), *wanted, *whole);
        let Some(current) = look.current else {
            return false;
        };
        let Ok(Some(found)) = self.store.kept.look_at_snapshot(current).await else {
            return false;
        };
        let now = self.store.clock.now();
        let Some((ages, true)) = self.store.ages_of(&found, self.lifetimes, now) else {
            return false;
        };
        let born = if whole { ages.whole } else { ages.head };
        let serves = match wanted {
            Wanted::Now => born >= since,
            Wanted::Soon | Wanted::Later => {
                let judged = self.lifetimes.judge(born, self.target.draw, now);
                judged.standing() == Standing::Fresh
            }
        };
        if !serves {
            return false;
        }
        let is_own = self.target.kept.lock().place.map(|place| place.name) == Some(current);
        if !is_own {
            return self.store.take_current(&self.lineage.key, found).await;
        }
        self.store.take_ages(&self.target, &found);
        let look = self.target.look(whole, now);
        look.standing() == Standing::Fresh || wanted == Wanted::Now && !look.purged
    }

    /// Ends a refresh that is not necessary.
    fn end_turn(&mut self) {
        if let Stage::Checking { turn, .. } = std::mem::replace(&mut self.stage, Stage::Over) {
            turn.end();
        }
    }

    /// Returns what the readers of this gateway want of the line. `current` was its current
    /// snapshot at the last look.
    fn want_of_line(&self, current: Option<RecordName>) -> LineWant {
        let turn = LineWant {
            left: TURN_LEFT,
            turn: true,
            ..LineWant::default()
        };
        if let Stage::Checking { wanted, .. } = &self.stage {
            return match wanted {
                Wanted::Later => LineWant::default(),
                Wanted::Soon | Wanted::Now => turn,
            };
        }
        let place = self.target.kept.lock().place;
        let is_current = current.is_none() || place.is_none_or(|at| Some(at.name) == current);
        // Rows from before a purge, say: more of them would not help.
        let is_useless = place.is_none() && self.cannot_adopt;
        if !is_current || is_useless {
            return turn;
        }
        let now = self.store.clock.now();
        let state = self.target.lock();
        if state.forced && place.is_none() {
            return turn;
        }
        let left = state.wanted_until.map_or(WANT_LEFT, |until| {
            until.saturating_duration_since(now).min(WANT_LEFT)
        });
        let (lane, rows) = match wanted_lane(&state) {
            Some(Lane::Interactive) => (0, state.wanted_pages),
            Some(Lane::Healing) => (1, state.wanted_healed),
            Some(_) => (2, state.wanted_export),
            None => return LineWant::default(),
        };
        let small = |rows: usize| u32::try_from(rows).unwrap_or(u32::MAX);
        LineWant {
            rows: small(rows),
            furthest: small(state.furthest),
            lane,
            left: left.max(LINE_LOOK_EVERY * 2),
            turn: false,
        }
    }

    /// Records in the target, whose state is locked, what readers of other gateways want.
    pub(super) fn hear(&self, state: &mut State) -> Elsewhere {
        let WalkRight::Claimed(claim) = &self.right else {
            return Elsewhere::Nothing;
        };
        let Some((want, until)) = claim.take_heard() else {
            return Elsewhere::Nothing;
        };
        let wants_rows = want.rows > 0 && !want.left.is_zero();
        if self.target.is_ended() {
            // Nobody asks for rows from before a purge. They wait for a search after it.
            return match wants_rows || want.turn {
                true => Elsewhere::Turn,
                false => Elsewhere::Nothing,
            };
        }
        if wants_rows && state.end == End::Growing {
            let large = |rows: u32| match rows {
                u32::MAX => usize::MAX,
                rows => usize::try_from(rows).unwrap_or(usize::MAX),
            };
            let rows = large(want.rows);
            let wanted = match want.lane {
                0 => &mut state.wanted_pages,
                1 => &mut state.wanted_healed,
                _ => &mut state.wanted_export,
            };
            *wanted = rows.max(*wanted);
            state.furthest = state
                .furthest
                .max(large(want.furthest).min(state.rows.len()));
            state.wanted_until = state.wanted_until.max(Some(until));
            state.payer.get_or_insert_with(Payer::elsewhere);
            // A reader of another gateway counts as a use of the scroll.
            self.target.touch(1);
        }
        match want.turn {
            true => Elsewhere::Turn,
            false => Elsewhere::Nothing,
        }
    }

    /// Returns whether a continuation may be sent.
    pub(super) async fn may_send(&self) -> bool {
        match &self.right {
            WalkRight::Claimed(claim) => claim.may_send().await,
            WalkRight::Sole | WalkRight::Alone(_) => true,
        }
    }

    /// Stores the new page. An expired claim that no other gateway took is claimed again, and so is
    /// a search that was walked alone while the store was away.
    pub(super) async fn keep_page(&mut self, begun: u64) -> RowsKept {
        let shared = self.store.kept.is_shared();
        let can_claim = shared && !self.target.kept.lock().off;
        let now = self.store.clock.now();
        if can_claim && matches!(self.right, WalkRight::Alone(until) if until <= now) {
            self.right = self.alone();
            self.reclaim().await;
        }
        let target = self.target.clone();
        let (end, fence) = (self.ending, self.fence());
        let mut keeping = self.store.keep_rows(&target, begun, end, fence).await;
        if keeping == RowsKept::Deposed && self.reclaim().await {
            let fence = self.fence();
            keeping = self.store.keep_rows(&target, begun, end, fence).await;
        }
        match keeping {
            RowsKept::Alone if shared => {
                // Other gateways would wait for rows that never come.
                self.right = self.alone();
            }
            RowsKept::Deposed => {
                if let WalkRight::Claimed(claim) = &self.right {
                    claim.lose();
                }
            }
            RowsKept::Kept | RowsKept::Alone | RowsKept::Unsure => {}
        }
        keeping
    }

    /// Claims the search again. After that, the rows in the store have to be compared with the
    /// target.
    async fn reclaim(&mut self) -> bool {
        if let WalkRight::Claimed(claim) = &self.right {
            claim.lose();
        }
        let kept = self.store.kept.clone();
        let turn = kept.claim_line(self.lineage.key.fingerprint()).await;
        let LineTurn::Mine(claim) = turn else {
            return false;
        };
        self.right = WalkRight::Claimed(claim);
        self.target.kept.lock().unsure = true;
        true
    }

    /// Gives up a walk that another gateway continues. Drops rows that no reader has seen.
    pub(super) fn step_down(&mut self) {
        self.right = self.alone();
        self.ending = None;
        let mut state = self.target.lock();
        let told = state.told;
        if told < state.rows.len() {
            state.truncate(told);
        }
        drop(state);
        self.begin_comparing();
        if let Stage::Checking { shadow, .. } = &mut self.stage {
            *shadow = Shadow::default();
        }
    }
}
