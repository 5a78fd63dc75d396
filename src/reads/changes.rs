//! What changed in a search since a caller last asked: new and changed rows, rows that are gone,
//! and a token for the next question.
//!
//! wiv has no feed of changes. The gateway holds what a search gave before (`states`) and what it
//! gives now (a snapshot), so it can tell the difference. Only complete snapshots are compared: a
//! list without its end would look as if rows were gone. A stream that cannot end with its `sync`
//! line is cut.
//!
//! Whoever waits asks for the snapshot as any caller does, now and then. So those who wait are
//! demand for one refresh in each period of freshness, however many they are.

use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::{mpsc, watch};

use super::answer::{Account, Asker};
use super::cases::Cases;
use super::export::{ExportPiece, ExportStream, write_in_one_line};
use super::states::{Difference, States, ViewState, hash_of, hex, is_nameless};
use super::{Ingredients, ReadError};
use crate::cache::{CacheNote, Directives, Standing};
use crate::clock::{self, Clock, Duration, Instant};
use crate::domain::{CustomerId, DateRange, Kind, SearchQuery, Shortage, Vendor};
use crate::metrics::{Metrics, StoreUsage};
use crate::snapshot::{End, Growth, PageFailure, Sealer, Snapshot, SyncClaims, View, Want};

/// Rows looked at between two turns of others.
const ROWS_PER_TURN: usize = 250;
/// Bytes of lines handed on at once, but for one line that is longer.
const PIECE_BYTES: usize = 64 * 1024;
/// Pieces that may wait for a slow reader.
const PIECES_AHEAD: usize = 2;
/// A list whose next row does not come for so long is given up: the vendor has no budget for it.
const STALL_MAX: Duration = Duration::from_secs(5 * 60);
/// Lists that broke while they were read, before that is told.
const BROKEN_MAX: usize = 3;
/// How often those who wait look whether something is new. A change is told so much later at most.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What is asked.
#[derive(Clone, Debug)]
pub struct ChangesRequest {
    /// The search; with a token, what of it was repeated.
    pub customer: Option<CustomerId>,
    /// Its days, likewise.
    pub range: Option<DateRange>,
    /// The token of the state that the caller holds.
    pub since: Option<String>,
    /// How long to wait for something to differ.
    pub wait: Duration,
}

/// Answers `GET /v1/cases/changes`.
pub struct Changes {
    cases: Arc<Cases>,
    sealer: Arc<ArcSwap<Sealer>>,
    states: Arc<States>,
    clock: Clock,
    metrics: Arc<Metrics>,
    leaving: watch::Sender<bool>,
}

impl Changes {
    pub(super) fn new(of: &Ingredients, cases: Arc<Cases>) -> Self {
        Self {
            cases,
            sealer: of.sealer.clone(),
            states: Arc::new(States::new(
                of.changes_bytes_max,
                of.store.clone(),
                of.clock.clone(),
            )),
            clock: of.clock.clone(),
            metrics: of.metrics.clone(),
            leaving: watch::Sender::new(false),
        }
    }

    /// Ends all waits, because the gateway leaves.
    pub fn leave(&self) {
        self.leaving.send_replace(true);
    }

    /// Tells when the gateway leaves.
    pub(super) fn leaving(&self) -> watch::Receiver<bool> {
        self.leaving.subscribe()
    }

    /// Returns how full the states are.
    pub fn usage(&self) -> StoreUsage {
        self.states.usage()
    }

    /// Begins to tell. Returns when the first rows are known, or the search failed.
    ///
    /// # Errors
    /// As a search, and those of a token.
    pub async fn begin(
        &self,
        asker: &Asker,
        request: ChangesRequest,
    ) -> Result<ExportStream, ReadError> {
        asker.may_see(request.customer.as_ref())?;
        let account = Account {
            metrics: &self.metrics,
            vendor: Vendor::Wiv,
            kind: Kind::Cases,
        };
        match self.begin_telling(asker, request).await {
            Ok(stream) => {
                account.answered(asker, &stream.note, None);
                Ok(stream)
            }
            Err(error) => {
                account.refused(&error);
                Err(error)
            }
        }
    }

    async fn begin_telling(
        &self,
        asker: &Asker,
        request: ChangesRequest,
    ) -> Result<ExportStream, ReadError> {
        let held = match &request.since {
            None => None,
            Some(token) => Some(self.held(asker, token, &request).await?),
        };
        let query = match &held {
            Some(held) => held.query.clone(),
            None => Arc::new(SearchQuery {
                customer: request.customer,
                range: request.range,
                ..SearchQuery::default()
            }),
        };
        if held.is_none() {
            let view = View::new(None, asker.audience().clone());
            let key = self.cases.key(&query);
            if !self.states.admits(key, view, &asker.caller.name) {
                return Err(ReadError::overloaded(Shortage::CallerSearches));
            }
        }
        let telling = Telling {
            cases: self.cases.clone(),
            sealer: self.sealer.clone(),
            states: self.states.clone(),
            clock: self.clock.clone(),
            leaving: self.leaving.subscribe(),
            asker: asker.clone(),
            query,
            held,
            until: self.clock.now() + request.wait,
        };
        let source = telling.source().await?;
        // Until something is known the answer may still be a typed error.
        let mut changes = source.snapshot.changes();
        while {
            changes.borrow_and_update();
            source.snapshot.ages().is_none()
        } {
            telling
                .grow(&source.snapshot, asker.deadline, &mut changes)
                .await?;
        }
        if !self.states.takes(source.snapshot.size().0) {
            return Err(ReadError::overloaded(Shortage::ChangesBytes));
        }
        let age = source.snapshot.age(true, self.clock.now());
        let note = source.note;
        let (send, pieces) = mpsc::channel(PIECES_AHEAD);
        tokio::spawn(telling.tell(source, send));
        Ok(ExportStream { age, note, pieces })
    }

    /// The state that a token names.
    async fn held(
        &self,
        asker: &Asker,
        token: &str,
        request: &ChangesRequest,
    ) -> Result<Arc<ViewState>, ReadError> {
        let claims = self.sealer.load().open_sync(token);
        let claims = claims.ok_or(ReadError::InvalidSyncToken)?;
        if claims.audience != asker.audience().fingerprint() {
            return Err(ReadError::InvalidSyncToken);
        }
        let (audience, caller) = (asker.audience(), &asker.caller.name);
        let key = |query: &_| self.cases.key(query);
        let found = self.states.find_kept(claims.state, audience, key, caller);
        let state = found.await.ok_or(ReadError::SyncTokenExpired)?;
        if let Ok(told) = Timestamp::from_millisecond(claims.as_of_ms) {
            state.told_as_of(told, self.clock.now());
        }
        let query = &state.query;
        let repeats = (request.customer.is_none() || request.customer == query.customer)
            && (request.range.is_none() || request.range == query.range);
        match repeats && state.view.audience == *asker.audience() {
            true => Ok(state),
            false => Err(ReadError::InvalidSyncToken),
        }
    }
}

/// What a state is made of.
struct Source {
    snapshot: Arc<Snapshot>,
    view: View,
    note: CacheNote,
}

/// The reader left, or nothing whole can be told.
struct Cut;

/// One answer on its way.
struct Telling {
    cases: Arc<Cases>,
    sealer: Arc<ArcSwap<Sealer>>,
    states: Arc<States>,
    clock: Clock,
    leaving: watch::Receiver<bool>,
    asker: Asker,
    query: Arc<SearchQuery>,
    held: Option<Arc<ViewState>>,
    until: Instant,
}

impl Telling {
    /// The snapshot that answers the search now.
    async fn source(&self) -> Result<Source, ReadError> {
        let fresh = [Standing::Fresh];
        self.cases.recall_views(&self.asker, &self.query).await;
        if let Some(derived) = self.cases.derived(&self.asker, &self.query, &fresh) {
            let note = self.cases.derived_note(&derived.snapshot, derived.detail);
            return Ok(Source {
                snapshot: derived.snapshot,
                view: derived.view,
                note,
            });
        }
        let opened = self.cases.open(&self.asker, &self.query, true).await?;
        Ok(Source {
            snapshot: opened.snapshot,
            view: View::new(None, self.asker.audience().clone()),
            note: opened.note,
        })
    }

    /// Waits for more than was known when `changes` was last marked as seen.
    async fn grow(
        &self,
        snapshot: &Arc<Snapshot>,
        deadline: Instant,
        changes: &mut watch::Receiver<u64>,
    ) -> Result<(), PageFailure> {
        let seen_failures = snapshot.failures();
        let ask = Growth {
            want: Want::Export,
            seen_failures,
            payer: &self.asker.payer,
            deadline,
        };
        let snapshots = self.cases.snapshots();
        snapshots.wait_for_growth(snapshot, ask, changes).await?;
        match snapshot.failure_since(seen_failures) {
            Some(failure) => Err(PageFailure::Walk(failure)),
            None => Ok(()),
        }
    }

    /// Waits for a snapshot's end. `false`: it will have none.
    async fn whole(&self, snapshot: &Arc<Snapshot>) -> Result<bool, PageFailure> {
        let mut changes = snapshot.changes();
        loop {
            changes.borrow_and_update();
            match snapshot.end() {
                End::Complete => return Ok(true),
                End::Broken => return Ok(false),
                End::Cut(setting) => return Err(PageFailure::Limit(setting)),
                End::Growing => {}
            }
            let deadline = self.clock.now() + STALL_MAX;
            self.grow(snapshot, deadline, &mut changes).await?;
        }
    }

    async fn tell(mut self, source: Source, send: mpsc::Sender<ExportPiece>) {
        // Its first look is on the caller's account; what follows must not force anything.
        self.asker.directives = Directives::default();
        let told = tokio::select! {
            told = self.tell_to(source, &send) => told,
            () = send.closed() => return,
        };
        // Without its end piece the stream is cut, and cannot pass for complete.
        if let Ok(rows) = told {
            let _ = send.send(ExportPiece::End { rows }).await;
        }
    }

    async fn tell_to(
        &mut self,
        first: Source,
        send: &mpsc::Sender<ExportPiece>,
    ) -> Result<u64, Cut> {
        let mut source = Some(first);
        let mut broken = 0;
        loop {
            self.asker.deadline = self.clock.now() + STALL_MAX;
            let looked = match source.take() {
                Some(source) => Ok(source),
                None => self.source().await,
            };
            let now = match looked {
                Ok(source) => match self.whole(&source.snapshot).await {
                    Ok(true) => self.state_of(source).await?,
                    Ok(false) => {
                        broken += 1;
                        if broken >= BROKEN_MAX {
                            tracing::warn!("changes cut: the list broke while it was read");
                            return Err(Cut);
                        }
                        continue;
                    }
                    Err(failure) => self.passed_over(format!("{failure:?}")).await?,
                },
                Err(failure) => self.passed_over(format!("{failure:?}")).await?,
            };
            let Some((state, source)) = now else { continue };
            let held = self.held.clone();
            let Some(held) = held else {
                let all = (0..u32::try_from(state.row_count()).unwrap_or(u32::MAX)).collect();
                let difference = Difference {
                    upserts: all,
                    removes: Vec::new(),
                };
                return self.write(&state, &source, &difference, None, send).await;
            };
            let is_newer = state.as_of().0 >= held.as_of().0;
            let difference = match is_newer {
                true => held.difference(&state),
                // What the caller holds is newer than what is at hand: nothing to be told.
                false => Difference::default(),
            };
            let as_of = Some(held.as_of().1);
            if !difference.is_empty() {
                return self.write(&state, &source, &difference, as_of, send).await;
            }
            if self.is_over() {
                let state = if is_newer { &state } else { &held };
                return self.write(state, &source, &difference, as_of, send).await;
            }
            self.pause().await;
        }
    }

    /// A failed look: those who wait, wait on with what they hold; others are cut.
    async fn passed_over<T>(&mut self, why: String) -> Result<Option<T>, Cut> {
        if self.held.is_none() || self.is_over() {
            tracing::warn!(why, "changes cut");
            return Err(Cut);
        }
        self.pause().await;
        Ok(None)
    }

    fn is_over(&self) -> bool {
        self.clock.now() >= self.until || *self.leaving.borrow()
    }

    async fn pause(&mut self) {
        let next = (self.clock.now() + LOOK_EVERY).min(self.until);
        tokio::select! {
            () = clock::sleep_until(next) => {}
            // Its sender lives as long as the gateway.
            _ = self.leaving.wait_for(|leaving| *leaving) => {}
        }
    }

    /// The state of a complete snapshot, made if nobody made it before.
    async fn state_of(&self, source: Source) -> Result<Option<(Arc<ViewState>, Source)>, Cut> {
        let Source { snapshot, view, .. } = &source;
        if let Some(state) = self.states.of_snapshot(snapshot, view) {
            return Ok(Some((state, source)));
        }
        let Ok(_turn) = self.states.making.acquire().await else {
            return Err(Cut);
        };
        if let Some(state) = self.states.of_snapshot(snapshot, view) {
            return Ok(Some((state, source)));
        }
        let audience = View::new(None, self.asker.audience().clone());
        let key = self.cases.key(&self.query);
        let mut made = self.states.begin(key, self.query.clone(), audience);
        let mut at = 0;
        loop {
            let (rows, end) = snapshot.rows_known(view, at, ROWS_PER_TURN);
            at += rows.len();
            if !rows.iter().all(|row| made.add(row)) {
                tracing::warn!("changes cut: a search has too many ids");
                return Err(Cut);
            }
            if end == End::Complete {
                break;
            }
            if rows.is_empty() {
                return Err(Cut);
            }
            tokio::task::yield_now().await;
        }
        let caller = &self.asker.caller.name;
        let state = self.states.keep(made, snapshot, view, caller).ok_or(Cut)?;
        Ok(Some((state, source)))
    }

    /// Writes the lines of a difference, and the last one.
    async fn write(
        &self,
        state: &ViewState,
        source: &Source,
        difference: &Difference,
        not_before: Option<Timestamp>,
        send: &mpsc::Sender<ExportPiece>,
    ) -> Result<u64, Cut> {
        let mut out = Vec::new();
        let mut seen = 0;
        // Places go up, as the rows do.
        let wanted = |at: usize| difference.upserts.get(at).map(|place| *place as usize);
        let mut at = 0;
        while let Some(first) = wanted(at) {
            let (rows, _) = source
                .snapshot
                .rows_known(&source.view, first, ROWS_PER_TURN);
            if rows.is_empty() {
                // The rows of a complete snapshot do not go away while it is held.
                return Err(Cut);
            }
            while let Some(row) = wanted(at).and_then(|place| rows.get(place - first)) {
                at += 1;
                seen += 1;
                write_upsert(row, &mut out);
                if out.len() >= PIECE_BYTES {
                    hand_on(&mut out, send).await?;
                }
            }
            tokio::task::yield_now().await;
        }
        for name in &difference.removes {
            out.extend_from_slice(b"{\"op\":\"remove\",");
            write_in_one_line(name.as_bytes(), &mut out);
            out.extend_from_slice(b"}\n");
            seen += 1;
            if out.len() >= PIECE_BYTES {
                hand_on(&mut out, send).await?;
            }
        }
        let as_of = state.as_of().1;
        let as_of = not_before.map_or(as_of, |before| before.max(as_of));
        let claims = SyncClaims {
            state: state.id,
            audience: self.asker.audience().fingerprint(),
            as_of_ms: as_of.as_millisecond(),
        };
        let token = self.sealer.load().seal_sync(&claims).ok_or(Cut)?;
        let rows = state.row_count();
        let last = format!(
            "{{\"op\":\"sync\",\"since\":\"{token}\",\"rows\":{rows},\"as_of\":\"{as_of:.3}\"}}\n"
        );
        out.extend_from_slice(last.as_bytes());
        hand_on(&mut out, send).await?;
        Ok(seen)
    }
}

fn write_upsert(row: &Bytes, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"op\":\"upsert\",");
    let nameless = std::str::from_utf8(row).is_ok_and(is_nameless);
    if nameless {
        out.extend_from_slice(b"\"row_hash\":\"");
        out.extend_from_slice(hex(&hash_of(row)).as_bytes());
        out.extend_from_slice(b"\",");
    }
    out.extend_from_slice(b"\"row\":");
    write_in_one_line(row, out);
    out.extend_from_slice(b"}\n");
}

async fn hand_on(out: &mut Vec<u8>, send: &mpsc::Sender<ExportPiece>) -> Result<(), Cut> {
    let lines = Bytes::from(std::mem::take(out));
    let sent = send.send(ExportPiece::Lines(lines)).await;
    sent.map_err(|_| Cut)
}
