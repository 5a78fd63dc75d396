//! Callers and their keys.
//!
//! A caller key is 256 random bits, so a fast hash of it may be stored and looked up: it is
//! impossible to guess the key. Hashes are compared in constant time, so that the lookup reveals
//! nothing either.

use std::collections::HashMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use foldhash::fast::RandomState;
use jiff::Timestamp;
use tokio::sync::watch;

use super::certificate::{ClientCertificate, ClientSan};
use super::last_key::LastKey;
use super::presence::Presence;
use super::throttle::{ForcedRefreshes, Throttle};
use crate::clock::Clock;
use crate::domain::Audience;
use crate::metrics::{CallerMeter, Metrics};

/// What a caller may do besides reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Reads answers.
    Reader,
    /// Also purges and explains.
    Operator,
}

impl Role {
    /// Every variant.
    pub const ALL: [Self; 2] = [Self::Reader, Self::Operator];

    /// Returns the word used in settings.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Operator => "operator",
        }
    }
}

/// SHA-256 of a whole caller key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CallerKeyHash([u8; 32]);

impl Hash for CallerKeyHash {
    /// Hashes a part of the key hash. The part is as unique as the whole, because it is a hash
    /// already.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        state.write_u64(u64::from_le_bytes([a, b, c, d, e, f, g, h]));
    }
}

impl CallerKeyHash {
    /// Hashes a presented key.
    pub fn of(presented: &[u8]) -> Self {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, presented);
        let mut out = [0; 32];
        for (to, from) in out.iter_mut().zip(digest.as_ref()) {
            *to = *from;
        }
        Self(out)
    }

    /// Reads `sha256:` and 64 lowercase hex digits.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("sha256:")?.as_bytes();
        if digits.len() != 64 {
            return None;
        }
        let nibble = |b: u8| match b {
            b'0'..=b'9' => Some(b - b'0'),
            b'a'..=b'f' => Some(b - b'a' + 10),
            _ => None,
        };
        let mut out = [0; 32];
        for (to, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
            let [high, low] = pair else { return None };
            *to = nibble(*high)? << 4 | nibble(*low)?;
        }
        Some(Self(out))
    }
}

impl fmt::Display for CallerKeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for CallerKeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:…")
    }
}

/// A caller as configured.
#[derive(Clone, Debug)]
pub struct CallerSpec {
    /// Name in logs and metrics; one of a closed, configured set.
    pub name: String,
    /// Hashes of the live keys. There are several during a rotation.
    pub keys: Vec<CallerKeyHash>,
    /// Names in client certificates that identify the caller.
    pub sans: Vec<ClientSan>,
    /// What it may do.
    pub role: Role,
    /// Whose data it may see.
    pub audience: Audience,
    /// Whether it may see billing.
    pub billing: bool,
    /// Requests admitted per minute; absent means unlimited.
    pub requests_per_minute: Option<u32>,
    /// Vendor calls that its `Cache-Control` may force per minute.
    pub forced_refreshes_per_minute: u32,
    /// When its keys and certificates stop working; absent means never.
    pub expires: Option<Timestamp>,
}

/// A caller while the gateway runs.
pub struct Caller {
    /// Name in logs and metrics.
    pub name: Arc<str>,
    /// What it may do.
    pub role: Role,
    /// Whose data it may see.
    pub audience: Audience,
    /// Whether it may see billing.
    pub billing: bool,
    /// Its own rate limit.
    pub throttle: Option<Arc<Throttle>>,
    /// How many vendor calls its `Cache-Control` may force.
    pub forced: Arc<ForcedRefreshes>,
    /// Its counters.
    pub meter: CallerMeter,
    /// Its requests in flight and the time of its last request.
    pub presence: Arc<Presence>,
    expires: Option<Timestamp>,
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caller")
            .field("name", &self.name)
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

impl Caller {
    fn new(spec: &CallerSpec, metrics: &Metrics) -> Self {
        Self {
            name: spec.name.as_str().into(),
            role: spec.role,
            audience: spec.audience.clone(),
            billing: spec.billing,
            throttle: spec
                .requests_per_minute
                .map(|n| Arc::new(Throttle::per_minute(n))),
            forced: Arc::new(ForcedRefreshes::per_minute(
                spec.forced_refreshes_per_minute,
            )),
            meter: metrics.caller(&spec.name),
            presence: Arc::default(),
            expires: spec.expires,
        }
    }

    /// Returns when its keys and certificates stop working; `None`: never.
    pub fn expires(&self) -> Option<Timestamp> {
        self.expires
    }

    /// Takes over from the caller of the same name what a reload must keep: the time of its last
    /// request, its requests in flight and, if its limits are unchanged, how much of them is used.
    fn inherit(&mut self, before: &Self) {
        self.presence = before.presence.clone();
        if let (Some(ours), Some(theirs)) = (&mut self.throttle, &before.throttle)
            && ours.limit() == theirs.limit()
        {
            *ours = theirs.clone();
        }
        if self.forced.limit() == before.forced.limit() {
            self.forced = before.forced.clone();
        }
    }
}

/// The number of the book. It distinguishes the books of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BookId(u64);

impl BookId {
    fn fresh() -> Self {
        static MADE: AtomicU64 = AtomicU64::new(0);
        Self(MADE.fetch_add(1, Ordering::Relaxed))
    }
}

/// Every caller, found by the hash of its key or a name in its client certificate.
pub struct CallerBook {
    id: BookId,
    // The key of this map is a SHA-256, so callers cannot choose where an entry is placed.
    by_key: HashMap<CallerKeyHash, Arc<Caller>, RandomState>,
    by_san: HashMap<ClientSan, Arc<Caller>>,
    all: Vec<Arc<Caller>>,
    /// The caller of every request if `auth.mode = "open"`.
    open: Option<Arc<Caller>>,
    /// Counters of requests without a known caller.
    pub anonymous: CallerMeter,
    /// The book with which a reload replaced this one.
    successor: watch::Sender<Option<Arc<Self>>>,
    clock: Clock,
}

impl CallerBook {
    /// Makes a book of these callers. Names, keys and certificate names are unique; the check of
    /// the settings ensures it.
    pub fn new(specs: &[CallerSpec], metrics: &Metrics, clock: Clock) -> Self {
        Self::after(None, specs, metrics, clock)
    }

    /// Makes a book that replaces another one. Callers of both books keep their state.
    pub fn after(
        before: Option<&Self>,
        specs: &[CallerSpec],
        metrics: &Metrics,
        clock: Clock,
    ) -> Self {
        let (mut by_key, mut by_san) = (HashMap::default(), HashMap::new());
        let mut all = Vec::with_capacity(specs.len());
        for spec in specs {
            let mut caller = Caller::new(spec, metrics);
            if let Some(known) = before.and_then(|book| book.named(&spec.name)) {
                caller.inherit(&known);
            }
            let caller = Arc::new(caller);
            for hash in &spec.keys {
                by_key.insert(*hash, caller.clone());
            }
            for san in &spec.sans {
                by_san.insert(san.clone(), caller.clone());
            }
            all.push(caller);
        }
        Self {
            id: BookId::fresh(),
            by_key,
            by_san,
            all,
            open: None,
            anonymous: metrics.caller("anonymous"),
            successor: watch::Sender::new(None),
            clock,
        }
    }

    /// Creates a book that admits everyone as an operator who may see everything. For loopback
    /// only.
    pub fn open(
        before: Option<&Self>,
        specs: &[CallerSpec],
        forced_refreshes_per_minute: u32,
        metrics: &Metrics,
        clock: Clock,
    ) -> Self {
        let everyone = CallerSpec {
            name: "open".into(),
            keys: Vec::new(),
            sans: Vec::new(),
            role: Role::Operator,
            audience: Audience::All,
            billing: true,
            requests_per_minute: None,
            forced_refreshes_per_minute,
            expires: None,
        };
        let mut everyone = Caller::new(&everyone, metrics);
        if let Some(known) = before.and_then(|book| book.open.as_ref()) {
            everyone.inherit(known);
        }
        let everyone = Arc::new(everyone);
        let mut book = Self::after(before, specs, metrics, clock);
        book.all.push(everyone.clone());
        book.open = Some(everyone);
        book
    }

    /// Identifies the sender of a request from its caller key and its connection's client
    /// certificate. Returns `None` for an unknown or expired key or caller, an expired certificate,
    /// a certificate with names of several callers, or a key and a certificate of two different
    /// callers. A certificate without a known name is ignored: the key alone decides.
    pub fn find(
        &self,
        presented: Option<&[u8]>,
        certificate: Option<&ClientCertificate>,
    ) -> Option<Arc<Caller>> {
        let hash = presented.map(CallerKeyHash::of);
        let caller = self.identify(hash.as_ref(), certificate)?;
        caller.presence.seen(self.clock.wall());
        Some(caller.clone())
    }

    /// Identifies the sender of a request from its caller key alone, as [`Self::find`] does.
    /// `last` belongs to its connection: a key that was sent there before is not hashed again.
    pub fn find_by_key(&self, presented: &[u8], last: &LastKey) -> Option<Arc<Caller>> {
        let Some(caller) = last.caller(presented, self.id) else {
            let caller = self.find(Some(presented), None)?;
            last.remember(presented, self.id, &caller);
            return Some(caller);
        };
        if self.is_over(&caller) {
            return None;
        }
        caller.presence.seen(self.clock.wall());
        Some(caller)
    }

    fn identify(
        &self,
        key: Option<&CallerKeyHash>,
        certificate: Option<&ClientCertificate>,
    ) -> Option<&Arc<Caller>> {
        let by_key = match key {
            Some(hash) => Some(self.by_key(hash)?),
            None => None,
        };
        let by_certificate = match certificate {
            Some(certificate) => self.by_certificate(certificate).ok()?,
            None => None,
        };
        let caller = match (by_key, by_certificate) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other).then_some(one)?,
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => return self.open.as_ref(),
        };
        (!self.is_over(caller)).then_some(caller)
    }

    /// Returns whether a caller has expired.
    fn is_over(&self, caller: &Caller) -> bool {
        caller
            .expires
            .is_some_and(|expires| self.clock.wall() >= expires)
    }

    /// Returns the sender of this key and certificate, if it is still the same caller with the same
    /// rights.
    pub(super) fn admits(
        &self,
        key: Option<&CallerKeyHash>,
        certificate: Option<&ClientCertificate>,
        was: &Caller,
    ) -> Option<Arc<Caller>> {
        let same = |now: &&Arc<Caller>| {
            now.name == was.name
                && now.audience == was.audience
                && now.billing == was.billing
                && now.role == was.role
        };
        self.identify(key, certificate).filter(same).cloned()
    }

    /// Replaces this book by `by`. Ends the tenures of callers that the new book does not admit.
    pub fn succeed(&self, by: Arc<Self>) {
        self.successor.send_replace(Some(by));
    }

    pub(super) fn successor(&self) -> Option<Arc<Self>> {
        self.successor.borrow().clone()
    }

    /// Returns once another book is in force.
    pub(super) async fn replaced(&self) {
        // Its sender lives as long as this book.
        let _ = self.successor.subscribe().wait_for(Option::is_some).await;
    }

    /// Returns the caller of a request without credentials: the open caller in open mode, otherwise
    /// none.
    pub fn without_key(&self) -> Option<Arc<Caller>> {
        self.open.clone()
    }

    fn by_key(&self, hash: &CallerKeyHash) -> Option<&Arc<Caller>> {
        let (stored, caller) = self.by_key.get_key_value(hash)?;
        aws_lc_rs::constant_time::verify_slices_are_equal(&stored.0, &hash.0).ok()?;
        Some(caller)
    }

    fn by_certificate(
        &self,
        certificate: &ClientCertificate,
    ) -> Result<Option<&Arc<Caller>>, Nobody> {
        if certificate.is_over(self.clock.wall()) {
            return Err(Nobody);
        }
        let mut found: Option<&Arc<Caller>> = None;
        for caller in certificate
            .sans()
            .iter()
            .filter_map(|san| self.by_san.get(san))
        {
            if found.is_some_and(|other| !Arc::ptr_eq(other, caller)) {
                return Err(Nobody);
            }
            found = Some(caller);
        }
        Ok(found)
    }

    /// Returns a caller by its configured name.
    pub fn named(&self, name: &str) -> Option<Arc<Caller>> {
        self.all.iter().find(|c| &*c.name == name).cloned()
    }

    /// Returns the first caller who sees all customers. A caller with billing is preferred.
    pub fn who_sees_most(&self) -> Option<Arc<Caller>> {
        let all = || self.all.iter().filter(|c| c.audience == Audience::All);
        all().find(|c| c.billing).or_else(|| all().next()).cloned()
    }

    /// Returns every caller, in the order of the settings.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Caller>> {
        self.all.iter()
    }
}

/// A certificate that must not be used to identify a caller.
struct Nobody;

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str, keys: &[&str]) -> CallerSpec {
        CallerSpec {
            name: name.into(),
            keys: keys
                .iter()
                .map(|k| CallerKeyHash::of(k.as_bytes()))
                .collect(),
            sans: Vec::new(),
            role: Role::Reader,
            audience: Audience::All,
            billing: true,
            requests_per_minute: None,
            forced_refreshes_per_minute: 6,
            expires: None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_live_key_finds_its_caller_until_it_expires() {
        let metrics = Metrics::new().unwrap();
        let clock = Clock::anchored("2026-11-22T12:00:00Z".parse().unwrap());
        let mut old = spec("old", &["k3"]);
        old.expires = Some("2026-11-22T12:00:10Z".parse().unwrap());
        let book = CallerBook::new(&[spec("a", &["k1", "k2"]), old], &metrics, clock);
        let find = |key: &[u8]| book.find(Some(key), None).map(|c| c.name.to_string());
        assert_eq!(find(b"k1").unwrap(), "a");
        assert_eq!(find(b"k2").unwrap(), "a");
        assert!(find(b"k").is_none() && find(b"").is_none());
        assert!(find(b"k3").is_some() && book.find(None, None).is_none());
        crate::clock::sleep(crate::clock::Duration::from_secs(10)).await;
        assert!(find(b"k3").is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_that_is_sent_again_is_judged_again() {
        let metrics = Metrics::new().unwrap();
        let clock = Clock::anchored("2026-11-22T12:00:00Z".parse().unwrap());
        let until = |key: &str, expires: &str| CallerSpec {
            expires: Some(expires.parse().unwrap()),
            ..spec(key, &[key])
        };
        let specs = [spec("k1", &["k1"]), until("k2", "2026-11-22T12:00:10Z")];
        let book = CallerBook::new(&specs, &metrics, clock.clone());
        let last = LastKey::default();
        let find = |book: &CallerBook, key: &[u8]| {
            let found = book.find_by_key(key, &last).map(|c| c.name.to_string());
            assert_eq!(
                found,
                book.find(Some(key), None).map(|c| c.name.to_string())
            );
            found
        };
        // One after the other over one connection, known ones and others.
        for key in ["k1", "k1", "k2", "k2", "k1", "k", "k1", "", "k11", "k2"] {
            let known = ["k1", "k2"].contains(&key).then(|| key.to_owned());
            assert_eq!(find(&book, key.as_bytes()), known, "{key}");
        }
        // It expires while the connection lasts.
        crate::clock::sleep(crate::clock::Duration::from_secs(10)).await;
        assert_eq!(find(&book, b"k2"), None);
        assert!(find(&book, b"k1").is_some());
        // A reload takes it out, or gives it to another caller.
        let none = CallerBook::after(Some(&book), &[], &metrics, clock.clone());
        assert_eq!(find(&none, b"k1"), None);
        let other = CallerBook::after(Some(&book), &[spec("o", &["k1"])], &metrics, clock);
        assert_eq!(find(&other, b"k1").unwrap(), "o");
        assert_eq!(find(&book, b"k1").unwrap(), "k1");
        assert_eq!(format!("{last:?}"), "LastKey", "no part of it in a log");
    }

    #[tokio::test(start_paused = true)]
    async fn a_certificate_is_as_good_as_a_key_and_must_agree_with_one() {
        let metrics = Metrics::new().unwrap();
        let clock = Clock::anchored("2026-11-22T12:00:00Z".parse().unwrap());
        let with_sans = |name: &str, keys: &[&str], sans: &[&str]| CallerSpec {
            sans: sans
                .iter()
                .filter_map(|san| ClientSan::parse(san))
                .collect(),
            ..spec(name, keys)
        };
        let specs = [
            with_sans("a", &["k1"], &["a.internal", "spiffe://corp.example/a"]),
            with_sans("b", &["k2"], &["b.internal"]),
        ];
        let book = CallerBook::new(&specs, &metrics, clock);
        let certificate = |sans: &[&str]| {
            let until = "2026-11-22T12:00:09Z".parse().unwrap();
            ClientCertificate::new(sans.iter().filter_map(|san| ClientSan::parse(san)), until)
        };
        let find = |key: Option<&str>, sans: &[&str]| {
            let found = book.find(key.map(str::as_bytes), Some(&certificate(sans)));
            found.map(|caller| caller.name.to_string())
        };
        let a = Some("a".to_owned());
        assert_eq!(find(None, &["A.internal"]), a);
        assert_eq!(
            find(
                None,
                &["x.internal", "spiffe://corp.example/a", "a.internal"]
            ),
            a
        );
        assert_eq!(find(Some("k1"), &["a.internal"]), a);
        assert_eq!(find(Some("k1"), &["x.internal"]), a);
        assert_eq!(find(Some("k2"), &["a.internal"]), None);
        assert_eq!(find(Some("k"), &["a.internal"]), None);
        assert_eq!(find(None, &["a.internal", "b.internal"]), None);
        assert_eq!(find(None, &["x.internal"]), None);
        assert_eq!(find(None, &["spiffe://corp.example/A"]), None);
        assert_eq!(find(None, &[]), None);
        // The connection outlives the certificate.
        crate::clock::sleep(crate::clock::Duration::from_secs(10)).await;
        assert_eq!(find(None, &["a.internal"]), None);
        assert_eq!(find(Some("k1"), &["a.internal"]), None);
    }

    #[test]
    fn hashes_have_one_spelling() {
        let hash = CallerKeyHash::of(b"abc");
        assert_eq!(
            hash.to_string(),
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(CallerKeyHash::parse(&hash.to_string()), Some(hash));
        assert_eq!(CallerKeyHash::parse(&hash.to_string().to_uppercase()), None);
        assert_eq!(CallerKeyHash::parse("sha256:ab"), None);
        let digits = |text: &str| CallerKeyHash::parse(&format!("sha256:{text}"));
        assert_eq!(digits(&"0a".repeat(32)), Some(CallerKeyHash([10; 32])));
        for bad in ["0a".repeat(33), "0g".repeat(32), "a:".repeat(32)] {
            assert_eq!(digits(&bad), None);
        }
        assert_eq!(CallerKeyHash::parse(&"0a".repeat(32)), None);
        assert_eq!(format!("{hash:?}"), "sha256:…", "no part of it in a log");
    }

    #[tokio::test(start_paused = true)]
    async fn a_reload_forgets_neither_uses_nor_what_limits_that_stay_have_counted() {
        let metrics = Metrics::new().unwrap();
        let clock = Clock::anchored("2026-11-22T12:00:00Z".parse().unwrap());
        let limited = |name: &str, key, requests, forced| CallerSpec {
            requests_per_minute: requests,
            forced_refreshes_per_minute: forced,
            ..spec(name, &[key])
        };
        let book = |before: Option<&CallerBook>, specs: &[CallerSpec]| {
            CallerBook::after(before, specs, &metrics, clock.clone())
        };
        let before = book(
            None,
            &[
                limited("a", "k1", Some(60), 6),
                limited("b", "k2", Some(60), 6),
            ],
        );
        let one = before.find(Some(b"k1"), None).unwrap();
        assert_eq!(one.presence.last_used(), Some(clock.wall()));
        assert_eq!(before.named("b").unwrap().presence.last_used(), None);
        // Other keys, the same limits.
        let after = book(
            Some(&before),
            &[
                limited("a", "k9", Some(60), 6),
                limited("b", "k2", Some(61), 7),
            ],
        );
        assert!(after.find(Some(b"k1"), None).is_none());
        let same = after.named("a").unwrap();
        assert_eq!(same.presence.last_used(), Some(clock.wall()));
        assert!(Arc::ptr_eq(&same.presence, &one.presence));
        let throttle = |caller: &Caller| caller.throttle.clone().unwrap();
        assert!(Arc::ptr_eq(&throttle(&same), &throttle(&one)));
        assert!(Arc::ptr_eq(&same.forced, &one.forced));
        let (old, new) = (before.named("b").unwrap(), after.named("b").unwrap());
        assert!(Arc::ptr_eq(&old.presence, &new.presence));
        assert!(!Arc::ptr_eq(&throttle(&old), &throttle(&new)));
        assert!(!Arc::ptr_eq(&old.forced, &new.forced));
        let names = |book: &CallerBook| book.iter().map(|c| c.name.to_string()).collect::<Vec<_>>();
        assert_eq!(names(&after), ["a", "b"]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_open_book_takes_everyone_for_an_operator_and_knows_keys_still() {
        let metrics = Metrics::new().unwrap();
        let clock = Clock::anchored("2026-11-22T12:00:00Z".parse().unwrap());
        let specs = [spec("a", &["k1"])];
        let open = |before| CallerBook::open(before, &specs, 6, &metrics, clock.clone());
        let book = open(None);
        let found = book.find(None, None).unwrap();
        assert_eq!((&*found.name, found.role), ("open", Role::Operator));
        assert_eq!(&*book.without_key().unwrap().name, "open");
        assert_eq!(&*book.find(Some(b"k1"), None).unwrap().name, "a");
        assert!(book.find(Some(b"k2"), None).is_none());
        assert_eq!(book.iter().count(), 2);
        let after = open(Some(&book)).without_key().unwrap();
        assert!(Arc::ptr_eq(&after.presence, &found.presence));
        assert!(Arc::ptr_eq(&after.forced, &found.forced));
        assert_eq!(
            format!("{found:?}"),
            "Caller { name: \"open\", role: Operator, .. }"
        );
    }

    #[test]
    fn who_sees_most_sees_all_customers_and_billing_if_anybody_does() {
        let metrics = Metrics::new().unwrap();
        let who = |specs: &[CallerSpec]| {
            let book = CallerBook::new(specs, &metrics, Clock::system());
            book.who_sees_most().map(|caller| caller.name.to_string())
        };
        let no_billing = |name: &str| CallerSpec {
            billing: false,
            ..spec(name, &[])
        };
        let few = CallerSpec {
            audience: Audience::only([]),
            ..spec("few", &[])
        };
        assert_eq!(who(std::slice::from_ref(&few)), None);
        assert_eq!(who(&[few.clone(), no_billing("n")]).unwrap(), "n");
        let all = [few, no_billing("n"), spec("b", &[]), spec("c", &[])];
        assert_eq!(who(&all).unwrap(), "b");
    }

    #[test]
    fn roles_are_told_as_in_settings() {
        assert_eq!(
            [Role::Reader, Role::Operator].map(Role::as_str),
            ["reader", "operator"]
        );
    }
}
