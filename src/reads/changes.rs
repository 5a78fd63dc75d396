//! Answers which rows of a search changed since a caller's last request: new, changed and removed
//! rows, and a token for the next request.
//!
//! wiv has no feed of changes. The gateway compares the earlier rows of a search (`states`) with
//! its current snapshot. Only complete snapshots are compared, because rows after an early end
//! would look removed. A stream that cannot end with its `sync` line is cut.
//!
//! A waiting request reads the snapshot now and then, as any caller does. So all waiting requests
//! together cause one refresh in each period of freshness.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::{mpsc, watch};

use super::answer::Asker;
use super::cases::Cases;
use super::export::{ExportPiece, ExportStream, write_in_one_line};
use super::row_names::{hash_of, hex, is_nameless};
use super::state_maker::{StateOrder, prepare};
use super::states::{BuiltFor, States};
use super::view_state::{Difference, ViewState};
use super::whole_list::{STALL_MAX, WholeList, accounted};
use super::{Ingredients, ReadError};
use crate::cache::Directives;
use crate::clock::{self, Clock, Duration, Instant};
use crate::domain::{CustomerId, DateRange, SearchQuery, Shortage};
use crate::metrics::{Metrics, StoreUsage};
use crate::snapshot::{End, PageFailure, Sealer, SyncClaims, View};

/// Rows written before the task yields.
const ROWS_PER_TURN: usize = 250;
/// The bytes of lines in one piece. A longer line is a piece of its own.
const PIECE_BYTES: usize = 64 * 1024;
/// The most pieces that wait for a slow reader.
const PIECES_AHEAD: usize = 2;
/// Broken lists in a row after which the stream is cut.
const BROKEN_MAX: usize = 3;
/// How often a waiting request checks for changes. This is also the longest delay of a change.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A request for changes.
#[derive(Clone, Debug)]
pub struct ChangesRequest {
    /// The customer of the search, if the request names one.
    pub customer: Option<CustomerId>,
    /// The days of the search, if the request names them.
    pub range: Option<DateRange>,
    /// The token of the state that the caller holds.
    pub since: Option<String>,
    /// How long to wait for a difference.
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
    /// Whether states of followed searches are already built ahead of requests.
    prepares: AtomicBool,
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
            prepares: AtomicBool::new(false),
        }
    }

    /// Ends all waits, because the gateway is draining.
    pub fn leave(&self) {
        self.leaving.send_replace(true);
    }

    /// Returns a signal that the gateway is draining.
    pub(super) fn leaving(&self) -> watch::Receiver<bool> {
        self.leaving.subscribe()
    }

    /// Returns how full the states are.
    pub fn usage(&self) -> StoreUsage {
        self.states.usage()
    }

    /// Starts the answer. Returns when the first rows are known or the search failed.
    ///
    /// # Errors
    /// The errors of a search, and those of a token.
    pub async fn begin(
        &self,
        asker: &Asker,
        request: ChangesRequest,
    ) -> Result<ExportStream, ReadError> {
        asker.may_see(request.customer.as_ref())?;
        self.prepare();
        let begun = self.begin_telling(asker, request).await;
        accounted(&self.metrics, asker, begun)
    }

    /// Starts to build the states of followed searches ahead of requests. Only the first call has
    /// an effect.
    fn prepare(&self) {
        if !self.prepares.swap(true, Ordering::Relaxed) {
            let snapshots = self.cases.snapshots();
            let of = (Arc::downgrade(&self.states), Arc::downgrade(snapshots));
            tokio::spawn(prepare(of.0, of.1, snapshots.completions()));
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
        source.until_begun(asker).await?;
        if !self.states.takes(source.snapshot.size().0) {
            return Err(ReadError::overloaded(Shortage::ChangesBytes));
        }
        let age = source.snapshot.age(true, self.clock.now());
        let note = source.note;
        let (send, pieces) = mpsc::channel(PIECES_AHEAD);
        tokio::spawn(telling.tell(source, send));
        Ok(ExportStream { age, note, pieces })
    }

    /// Returns the state that a token names.
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

/// The reader disconnected, or the stream cannot be completed.
struct Cut;

/// One answer in progress.
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
    /// Returns the rows that answer the search now.
    async fn source(&self) -> Result<WholeList, ReadError> {
        WholeList::open(&self.cases, &self.asker, &self.query).await
    }

    /// Waits for the end of a snapshot. `false` if it will have none.
    async fn whole(&self, source: &WholeList) -> Result<bool, PageFailure> {
        let mut changes = source.snapshot.changes();
        loop {
            changes.borrow_and_update();
            match source.snapshot.end() {
                End::Complete => return Ok(true),
                End::Broken => return Ok(false),
                End::Cut(setting) => return Err(PageFailure::Limit(setting)),
                End::Growing => {}
            }
            let deadline = self.clock.now() + STALL_MAX;
            source.wait(&self.asker, deadline, &mut changes).await?;
        }
    }

    async fn tell(mut self, source: WholeList, send: mpsc::Sender<ExportPiece>) {
        // The caller's directives apply to the first look only. Later looks must not force vendor
        // calls.
        self.asker.directives = Directives::default();
        let told = tokio::select! {
            told = self.tell_to(source, &send) => told,
            () = send.closed() => return,
        };
        // Without the end piece the stream is cut, so it cannot look complete.
        if let Ok(rows) = told {
            let _ = send.send(ExportPiece::End { rows }).await;
        }
    }

    async fn tell_to(
        &mut self,
        first: WholeList,
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
                Ok(source) => match self.whole(&source).await {
                    Ok(true) => Some(self.state_of(source).await?),
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
                // The caller's state is newer than ours, so there is no difference to send.
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

    /// Handles a failed look. A waiting request continues to wait; any other stream is cut.
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
            // The sender lives as long as the gateway.
            _ = self.leaving.wait_for(|leaving| *leaving) => {}
        }
    }

    /// Returns the state of a complete snapshot. Builds it if there is none.
    async fn state_of(&self, source: WholeList) -> Result<(Arc<ViewState>, WholeList), Cut> {
        let order = StateOrder {
            key: self.cases.key(&self.query),
            query: self.query.clone(),
            view: View::new(None, self.asker.audience().clone()),
            snapshot: source.snapshot.clone(),
            cut: source.view.clone(),
        };
        let built_for = BuiltFor::Caller(self.asker.caller.name.clone());
        let state = self.states.build(order, &built_for).await.ok_or(Cut)?;
        Ok((state, source))
    }

    /// Writes the lines of a difference, and the `sync` line.
    async fn write(
        &self,
        state: &Arc<ViewState>,
        source: &WholeList,
        difference: &Difference,
        not_before: Option<Timestamp>,
        send: &mpsc::Sender<ExportPiece>,
    ) -> Result<u64, Cut> {
        let mut out = Vec::new();
        let mut seen = 0;
        // Places are in the order of the rows.
        let wanted = |at: usize| difference.upserts.get(at).map(|place| *place as usize);
        let (mut at, mut in_turn) = (0, 0);
        while let Some(first) = wanted(at) {
            // Takes as many rows as are consecutive.
            let run = difference.upserts.iter().skip(at).take(ROWS_PER_TURN);
            let run = run
                .zip(first..)
                .take_while(|(place, row)| **place as usize == *row);
            let (rows, _) = source.snapshot.rows_known(&source.view, first, run.count());
            if rows.is_empty() {
                // The rows of a complete snapshot stay while it is held.
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
            in_turn += rows.len();
            if in_turn >= ROWS_PER_TURN {
                in_turn = 0;
                tokio::task::yield_now().await;
            }
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
        self.states.keep(state).await;
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
