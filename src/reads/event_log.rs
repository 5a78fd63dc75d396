//! The log of one caller for its event streams: its targets, and their last events. It does no I/O,
//! takes no lock and reads no clock.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::hash::BuildHasher as _;

use foldhash::fast::FixedState;
use jiff::Timestamp;

use super::answer::Etag;
use super::lookup::Lookup;
use crate::clock::Instant;
use crate::domain::Kind;
use crate::domain::audience::AudienceFingerprint;
use crate::domain::json::write_text;

/// The most targets of a caller. The least recently requested one is evicted first. A dashboard
/// shows a few dozen at once, and every look looks up all of them.
const TARGETS_MAX: usize = 64;
/// The maximum bytes of a target and its body together. Longer targets cause no events.
pub(super) const TARGET_BYTES_MAX: usize = 2 * 1024;
/// The most events that a caller can resume from: four for each target.
const HISTORY_MAX: usize = 256;
/// The most bytes of these events. An event usually has 200 bytes, so this limits events of long
/// searches.
const HISTORY_BYTES_MAX: usize = 128 * 1024;
/// The bytes of a target or an event besides their text.
const OVERHEAD_BYTES: usize = 256;

/// One target of a caller.
pub(super) struct TargetState {
    pub lookup: Lookup,
    pub target: Box<str>,
    pub body: Box<str>,
    pub etag: Etag,
    /// The answer without its page token, which names a snapshot and says nothing of the rows.
    /// `None` until a stream first looks at the target: most callers never read events, and a hash
    /// of every new answer would make a cold search dearer for all of them.
    pub content: Option<blake3::Hash>,
    /// A hash of target and body, which is compared before them.
    asked: u64,
    /// The hash by which the caller is known to have the answer.
    pub known_as: u64,
}

impl TargetState {
    /// Creates the state of a target that was answered for the first time.
    pub fn new(lookup: Lookup, target: &str, body: &str, etag: Etag, known_as: u64) -> Self {
        Self {
            lookup,
            target: target.into(),
            body: body.into(),
            etag,
            content: None,
            asked: hash_of(target, body),
            known_as,
        }
    }

    fn bytes(&self) -> usize {
        self.target.len() + self.body.len() + OVERHEAD_BYTES
    }
}

struct Happened {
    kind: Kind,
    data: String,
}

impl Happened {
    fn bytes(&self) -> usize {
        self.data.len() + OVERHEAD_BYTES
    }
}

/// The reader fell behind the kept events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FellBehind;

/// The log of one caller.
pub(super) struct CallerLog {
    pub audience: AudienceFingerprint,
    /// Distinguishes ids of this log from those of other logs and processes.
    epoch: u64,
    /// The least recently requested target comes first.
    targets: VecDeque<TargetState>,
    history: VecDeque<Happened>,
    /// The number of the last event.
    last: u64,
    bytes: usize,
    history_bytes: usize,
    /// Whether the log was evicted or replaced, so that no stream may wait for its events.
    pub let_go: bool,
    /// When the caller last got an answer or started a stream.
    pub used: Instant,
    /// The number of vendor calls that had ended at the last look, and when it last grew.
    pub calls: u64,
    pub moved: Instant,
    pub looked: Option<Instant>,
}

impl CallerLog {
    pub fn new(audience: AudienceFingerprint, now: Instant) -> Self {
        Self {
            audience,
            epoch: fastrand::u64(..),
            targets: VecDeque::new(),
            history: VecDeque::new(),
            last: 0,
            bytes: OVERHEAD_BYTES,
            history_bytes: 0,
            let_go: false,
            used: now,
            calls: 0,
            moved: now,
            looked: None,
        }
    }

    /// Returns the number of the last event.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Returns the bytes of the log.
    pub fn bytes(&self) -> usize {
        self.bytes + self.history_bytes
    }

    pub fn targets(&self) -> impl ExactSizeIterator<Item = &TargetState> {
        self.targets.iter()
    }

    /// Returns the number before the first kept event.
    fn before_history(&self) -> u64 {
        self.last - self.history.len() as u64
    }

    /// Returns the id of an event.
    pub fn id(&self, number: u64) -> String {
        format!("{:016x}-{number}", self.epoch)
    }

    /// Returns the number in an id of this log, if all that came after it is kept.
    pub fn number_of(&self, id: &str) -> Option<u64> {
        let (of, number) = id.split_once('-')?;
        let plain = number.bytes().all(|b| b.is_ascii_digit());
        let is_ours = plain && of == format!("{:016x}", self.epoch);
        let number = is_ours.then(|| number.parse().ok())??;
        (self.before_history()..=self.last)
            .contains(&number)
            .then_some(number)
    }

    /// Returns the lines of all events of these kinds after `told`.
    pub fn after(&self, told: u64, kinds: &[Kind]) -> Result<String, FellBehind> {
        let before = self.before_history();
        if self.let_go || told < before {
            return Err(FellBehind);
        }
        let mut text = String::new();
        for (number, event) in (before + 1..).zip(&self.history) {
            if number > told && kinds.contains(&event.kind) {
                let (id, data) = (self.id(number), &event.data);
                let _ = write!(text, "event: changed\nid: {id}\ndata: {data}\n\n");
            }
        }
        Ok(text)
    }

    /// Returns the place of a target.
    pub fn find(&self, target: &str, body: &str) -> Option<usize> {
        let asked = hash_of(target, body);
        let is_it = |state: &TargetState| {
            state.asked == asked && *state.target == *target && *state.body == *body
        };
        self.targets.iter().position(is_it)
    }

    /// Records that a target was requested again, so that it is evicted last. Its answer is now
    /// known by this hash: returns the one by which it was known.
    pub fn asked_again(&mut self, at: usize, known_as: u64) -> Option<u64> {
        let mut state = self.targets.remove(at)?;
        let before = std::mem::replace(&mut state.known_as, known_as);
        self.targets.push_back(state);
        (before != known_as).then_some(before)
    }

    /// Adds a new target. Returns the hash of the one that was evicted for it, if any.
    pub fn add(&mut self, state: TargetState) -> Option<u64> {
        let gone = match self.targets.len() >= TARGETS_MAX {
            true => self.targets.pop_front(),
            false => None,
        };
        self.bytes -= gone.as_ref().map_or(0, TargetState::bytes);
        self.bytes += state.bytes();
        self.targets.push_back(state);
        gone.map(|gone| gone.known_as)
    }

    /// Records the answer for a target. Returns `true` if it differs from the last one, which is an
    /// event.
    pub fn learn(&mut self, at: usize, body: &[u8], etag: &Etag, as_of: Timestamp) -> bool {
        let Some(state) = self.targets.get_mut(at) else {
            return false;
        };
        if state.etag == *etag {
            return false;
        }
        state.etag = etag.clone();
        if let Some(before) = state.content {
            let content = content_of(body);
            state.content = Some(content);
            if content == before {
                return false;
            }
        }
        let kind = state.lookup.kind();
        let data = data_of(state, as_of);
        self.happened(Happened { kind, data });
        true
    }

    /// Hashes the answer for a target that a stream looks up for the first time.
    pub fn look(&mut self, at: usize, body: &[u8]) {
        if let Some(state) = self.targets.get_mut(at) {
            state.content.get_or_insert_with(|| content_of(body));
        }
    }

    fn happened(&mut self, event: Happened) {
        self.history_bytes += event.bytes();
        self.last += 1;
        self.history.push_back(event);
        let is_too_much =
            |log: &Self| log.history.len() > HISTORY_MAX || log.history_bytes > HISTORY_BYTES_MAX;
        while is_too_much(self)
            && let Some(gone) = self.history.pop_front()
        {
            self.history_bytes -= gone.bytes();
        }
    }
}

fn hash_of(target: &str, body: &str) -> u64 {
    FixedState::with_seed(0).hash_one((target, body))
}

/// Returns the members of an event.
fn data_of(state: &TargetState, as_of: Timestamp) -> String {
    let kind = state.lookup.kind().as_str();
    let mut data = format!("{{\"kind\":\"{kind}\",\"target\":");
    write_text(&state.target, &mut data);
    if !state.body.is_empty() {
        data.push_str(",\"body\":");
        write_text(&state.body, &mut data);
    }
    data.push_str(",\"etag\":");
    write_text(state.etag.value().to_str().unwrap_or_default(), &mut data);
    let _ = write!(data, ",\"as_of\":\"{as_of:.3}\"}}");
    data
}

/// Returns a hash of an answer without its page token.
fn content_of(body: &[u8]) -> blake3::Hash {
    const TOKEN: &[u8] = b"\"next_page_key\":{\"scroll_id\":\"";
    const NO_TOKEN: &[u8] = b"\"next_page_key\":null";
    let parts = || {
        // Searches forwards, because memchr searches backwards without SIMD, about ten times
        // slower.
        let begin = memchr::memmem::find_iter(body, TOKEN).last()? + TOKEN.len();
        // A row may have members of these names. They count if the page has no token.
        let is_last = memchr::memmem::find(body, NO_TOKEN).is_some();
        body.split_at_checked(begin).filter(|_| !is_last)
    };
    let Some((before, after)) = parts() else {
        return blake3::hash(body);
    };
    let end = after.iter().position(|byte| *byte == b'"').unwrap_or(0);
    let mut hasher = blake3::Hasher::new();
    hasher.update(before);
    hasher.update(after.get(end..).unwrap_or_default());
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::FieldSet;

    fn target(target: &str, body: &str) -> TargetState {
        let lookup = Lookup::Customers(FieldSet::ALL);
        TargetState {
            content: Some(content_of(b"")),
            ..TargetState::new(lookup, target, body, Etag::of(b""), 1)
        }
    }

    fn log() -> CallerLog {
        let now = crate::clock::Clock::system().now();
        CallerLog::new(AudienceFingerprint([0; 16]), now)
    }

    fn learn(log: &mut CallerLog, at: usize, body: &str) -> bool {
        let etag = Etag::of(body.as_bytes());
        log.learn(at, body.as_bytes(), &etag, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn the_history_is_bounded_in_events_and_in_bytes() {
        for (body, kept) in [("", 256), (&*"x".repeat(TARGET_BYTES_MAX), 53)] {
            let mut log = log();
            log.add(target("/msp/customers", body));
            for at in 0..1_000 {
                assert!(learn(&mut log, 0, &format!("[{at}]")));
                assert!(!learn(&mut log, 0, &format!("[{at}]")));
            }
            assert_eq!((log.last(), log.history.len()), (1_000, kept));
            assert!(log.bytes() <= HISTORY_BYTES_MAX + 3 * 1024);
            let counted: usize = log.history.iter().map(Happened::bytes).sum();
            assert_eq!(counted, log.history_bytes);
            let oldest = log.last() - kept as u64;
            assert_eq!(log.after(oldest - 1, &Kind::ALL), Err(FellBehind));
            let told = log.after(oldest, &Kind::ALL).unwrap();
            assert_eq!(told.matches("event: changed\n").count(), kept);
            assert_eq!(log.after(oldest, &[Kind::Cases]).unwrap(), "");
            assert_eq!(log.number_of(&log.id(oldest)), Some(oldest));
            for gone in [oldest - 1, log.last() + 1] {
                assert_eq!(log.number_of(&log.id(gone)), None);
            }
            log.let_go = true;
            assert_eq!(log.after(log.last(), &Kind::ALL), Err(FellBehind));
        }
    }

    #[test]
    fn targets_go_in_the_order_they_were_asked_and_are_counted() {
        let mut log = log();
        let empty = log.bytes();
        for at in 0..TARGETS_MAX {
            let mut target = target(&at.to_string(), "");
            target.known_as = 100 + at as u64;
            assert_eq!(log.add(target), None);
        }
        let first = log.find("0", "").unwrap();
        assert_eq!(log.asked_again(first, 7), Some(100));
        assert_eq!(log.asked_again(log.find("0", "").unwrap(), 7), None);
        assert_eq!(log.add(target("new", "body")), Some(101));
        assert_eq!(log.find("1", ""), None);
        assert!(log.find("0", "").is_some() && log.find("new", "body").is_some());
        assert_eq!(log.find("new", ""), None);
        let bytes: usize = log.targets().map(TargetState::bytes).sum();
        assert_eq!(log.bytes(), empty + bytes);
    }

    /// Before the first look an answer is not hashed, so a new token alone is an event. After the
    /// first look only changed rows are an event.
    #[test]
    fn a_target_is_hashed_from_the_first_look_on() {
        let page = |token: &str| {
            format!("{{\"data\":[1],\"next_page_key\":{{\"scroll_id\":\"{token}\"}}}}")
        };
        let mut log = log();
        log.add(TargetState {
            content: None,
            ..target("/msp/customers", "")
        });
        assert!(learn(&mut log, 0, &page("a")));
        assert!(learn(&mut log, 0, &page("b")));
        assert_eq!(log.targets().next().unwrap().content, None);
        log.look(0, page("b").as_bytes());
        assert!(!learn(&mut log, 0, &page("c")));
        assert!(learn(&mut log, 0, "{\"data\":[2],\"next_page_key\":null}"));
    }

    #[test]
    fn a_page_token_is_no_content_and_a_row_that_looks_like_one_is() {
        let page = |row: &str, token: &str| {
            format!("{{\"data\":[{row}],\"next_page_key\":{token}}}").into_bytes()
        };
        let token = |text: &str| format!("{{\"scroll_id\":\"{text}\"}}");
        let row = |text: &str| format!("{{\"next_page_key\":{}}}", token(text));
        let is_same = |one: Vec<u8>, other: Vec<u8>| content_of(&one) == content_of(&other);
        assert!(is_same(page("1", &token("a")), page("1", &token("bb"))));
        assert!(!is_same(page("1", &token("a")), page("2", &token("a"))));
        assert!(!is_same(page("1", &token("a")), page("1", "null")));
        assert!(!is_same(page(&row("a"), "null"), page(&row("b"), "null")));
        assert!(!is_same(
            page(&row("a"), &token("t")),
            page(&row("b"), &token("t"))
        ));
    }
}
