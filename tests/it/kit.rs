//! The test kit: reads over the sandbox vendors, without sockets.

use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use msp_gateway::access::{CallerBook, CallerKeyHash, CallerSpec, Role};
use msp_gateway::admission::Payer;
use msp_gateway::cache::{Directives, FiledBodies, Lifetimes, VariantOptions};
use msp_gateway::clock::{Clock, Duration, Instant};
use msp_gateway::domain::query::SearchRequest;
use msp_gateway::domain::{AccountId, Audience, CustomerId, PerVendor, Vendor};
use msp_gateway::metrics::Metrics;
use msp_gateway::reads::{
    Answer, Asker, GradedLifetimes, Ingredients, ListLifetimes, Policy, ReadError, Reads,
};
use msp_gateway::sandbox::{self, Sandbox};
use msp_gateway::secrets::{SealingKey, Secret, VendorKey, VendorKeyring, VendorKeys};
use msp_gateway::snapshot::{Sealer, SnapshotOptions, Snapshots};
use msp_gateway::stack::outbound;
use msp_gateway::store::Store;
use msp_gateway::upstream::connect::InMemory;
use msp_gateway::upstream::{BaseUrl, VendorOptions};
use msp_gateway::vendors::Clients;
use serde_json::value::RawValue;

/// Noon of the sandbox's last day.
pub const NOW: &str = "2026-11-20T12:00:00Z";

/// Settings of a rig.
pub struct Setup {
    pub world: sandbox::Options,
    pub snapshots: SnapshotOptions,
    pub lifetimes: Lifetimes,
    pub wiv: Box<dyn Fn(&mut VendorOptions)>,
    pub nable: Box<dyn Fn(&mut VendorOptions)>,
    pub policy: Box<dyn Fn(&mut Policy)>,
    pub store: Store,
    /// `None`: a clock of its own.
    pub clock: Option<Clock>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            world: sandbox::Options {
                cases: 2_000,
                wiv_requests_per_minute: None,
                nable_requests_per_minute: None,
                ..sandbox::Options::default()
            },
            snapshots: SnapshotOptions::default(),
            lifetimes: Lifetimes {
                fresh: Duration::from_secs(60),
                stale: Duration::from_secs(60),
                on_error: Duration::from_secs(3600),
            },
            wiv: Box::new(|_| {}),
            nable: Box::new(|_| {}),
            policy: Box::new(|_| {}),
            store: Store::none(),
            clock: None,
        }
    }
}

/// The gateway's reads over the sandbox vendors.
pub struct Rig {
    pub clock: Clock,
    pub sandbox: Arc<Sandbox>,
    pub reads: Reads,
    pub metrics: Arc<Metrics>,
}

fn keyring(text: &str) -> VendorKeyring {
    Arc::new(ArcSwap::from_pointee(VendorKeys {
        primary: VendorKey::new(Secret::parse(text).unwrap()),
        fallback: None,
    }))
}

/// A vendor's options with a budget that no test of something else runs into.
fn vendor(vendor: Vendor, path: &str, credential: &str) -> VendorOptions {
    let url = BaseUrl::parse(&format!("http://127.0.0.1:7070{path}")).unwrap();
    let mut options = VendorOptions::new(vendor, url, AccountId::parse(credential).unwrap());
    options.requests_per_minute = 600_000;
    options.concurrency = 64;
    options
}

impl Rig {
    pub fn new(setup: Setup) -> Self {
        let clock = setup.clock.clone();
        let clock = clock.unwrap_or_else(|| Clock::anchored(NOW.parse().unwrap()));
        let sandbox = Sandbox::new(setup.world.clone(), clock.clone());
        Self::before(sandbox, clock, setup)
    }

    /// Another gateway before the same vendors, with the same sealing key, that remembers nothing.
    pub fn restarted(&self, setup: Setup) -> Self {
        Self::before(self.sandbox.clone(), self.clock.clone(), setup)
    }

    fn before(sandbox: Arc<Sandbox>, clock: Clock, setup: Setup) -> Self {
        let metrics = Metrics::new().unwrap();
        let connector = {
            let sandbox = sandbox.clone();
            InMemory::new(move || {
                let (near, far) = tokio::io::duplex(256 * 1024);
                tokio::spawn(sandbox.clone().serve_io(far));
                near
            })
        };
        let mut wiv_options = vendor(Vendor::Wiv, "", "wiv");
        (setup.wiv)(&mut wiv_options);
        let mut nable_options = vendor(Vendor::Nable, "/ws/rest/V1/PSA_API", "SANDBOX");
        (setup.nable)(&mut nable_options);
        let sides = [
            (&wiv_options, sandbox::WIV_KEY),
            (&nable_options, sandbox::NABLE_KEY),
        ]
        .map(|(options, key)| {
            let gates = options.gates(keyring(key), &clock, &metrics);
            gates.remember(&setup.store, &options.credential);
            let service = outbound(options, &gates, &clock, &metrics, connector.clone());
            (options, gates, service)
        });
        let clients = Clients::new(PerVendor::from_fn(|vendor| {
            let (options, _, service) = sides.iter().find(|(of, ..)| of.row.vendor == vendor)?;
            Some((service.clone(), *options))
        }));
        let [(_, wiv_gates, _), _] = &sides;
        let snapshots = Snapshots::new(
            clients.wiv.walked(Some(wiv_gates)),
            setup.snapshots,
            setup.store.clone(),
            clock.clone(),
            metrics.clone(),
        );
        let mut policy = Policy {
            lists: ListLifetimes::all(setup.lifetimes),
            cases: GradedLifetimes {
                open: setup.lifetimes,
                recent: setup.lifetimes,
                closed: setup.lifetimes,
            },
            recent_days: 7,
            time_zone: jiff::tz::TimeZone::UTC,
            derive_customer: true,
            strict_members: false,
            refresh_ahead: false,
            billing_current: setup.lifetimes,
            billing_closed: setup.lifetimes,
            billing_negative: Duration::from_secs(120),
            links: Vec::new(),
        };
        (setup.policy)(&mut policy);
        let sealing = SealingKey::derive("test", &Secret::parse("sealing").unwrap());
        let reads = Reads::new(Ingredients {
            clients,
            snapshots,
            sealer: Arc::new(ArcSwap::from_pointee(Sealer::new(&sealing, None).unwrap())),
            policy: Arc::new(ArcSwap::from_pointee(policy)),
            cache_bytes_max: 64 << 20,
            changes_bytes_max: 64 << 20,
            store: setup.store,
            files: FiledBodies::default(),
            compression: VariantOptions::default(),
            clock: clock.clone(),
            metrics: metrics.clone(),
        });
        Self {
            clock,
            sandbox,
            reads,
            metrics,
        }
    }

    /// One request of a caller with this audience, answered within 30 s.
    pub fn asker(&self, audience: Audience) -> Asker {
        self.asker_within(audience, Duration::from_secs(30))
    }

    pub fn asker_within(&self, audience: Audience, patience: Duration) -> Asker {
        let spec = CallerSpec {
            name: "test".into(),
            keys: vec![CallerKeyHash::of(b"test")],
            sans: Vec::new(),
            role: Role::Reader,
            audience,
            billing: true,
            requests_per_minute: None,
            forced_refreshes_per_minute: 6,
            expires: None,
        };
        let book = CallerBook::new(&[spec], &self.metrics, self.clock.clone());
        Asker {
            caller: book.find(Some(b"test"), None).unwrap(),
            payer: Payer::caller("test".into(), None),
            deadline: Instant::now() + patience,
            directives: Directives::default(),
        }
    }

    pub fn everyone(&self) -> Asker {
        self.asker(Audience::All)
    }

    /// One page.
    pub async fn page(
        &self,
        asker: &Asker,
        customer: Option<&str>,
        body: &str,
    ) -> Result<Page, ReadError> {
        let customer = customer.map(|id| CustomerId::parse(id).unwrap());
        let request = SearchRequest::parse(body.as_bytes(), customer).unwrap();
        let answer = self.reads.cases.search(asker, request).await?;
        Ok(Page::read(answer))
    }

    /// Searches and calls the vendor was asked.
    pub fn searches(&self) -> u64 {
        self.asked(sandbox::SimOperation::Search)
    }

    pub fn continues(&self) -> u64 {
        self.asked(sandbox::SimOperation::Continue)
    }

    pub fn asked(&self, operation: sandbox::SimOperation) -> u64 {
        self.sandbox.counts().requests(operation)
    }
}

/// A page as a caller reads it.
pub struct Page {
    pub answer: Answer,
    pub rows: Vec<String>,
    pub token: Option<String>,
}

impl Page {
    fn read(answer: Answer) -> Self {
        #[derive(serde::Deserialize)]
        struct Body<'a> {
            #[serde(borrow)]
            data: Vec<&'a RawValue>,
            next_page_key: Option<Key>,
        }
        #[derive(serde::Deserialize)]
        struct Key {
            scroll_id: String,
        }
        let body: Bytes = answer.body.clone();
        let body: Body<'_> = serde_json::from_slice(&body).unwrap();
        Self {
            rows: body.data.iter().map(|row| row.get().to_owned()).collect(),
            token: body.next_page_key.map(|key| key.scroll_id),
            answer,
        }
    }
}

/// The line of an NDJSON export for this row: what line readers take for a line's end is escaped.
pub fn export_line(row: &str) -> String {
    row.replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029")
        .replace('\u{85}', "\\u0085")
}

/// The body of a first page: `members` are further members, with a comma before each.
pub fn first(size: usize, members: &str) -> String {
    format!("{{\"max_returned_items\":{size}{members}}}")
}

/// The body of a continuation.
pub fn continued(token: &str, size: Option<usize>) -> String {
    let size = size.map_or(String::new(), |size| {
        format!("\"max_returned_items\":{size},")
    });
    format!("{{{size}\"start_page_key\":{{\"scroll_id\":\"{token}\"}}}}")
}
