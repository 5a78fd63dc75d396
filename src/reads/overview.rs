//! Joins both vendors in one answer. Each part has its age, and says what it lacks.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use arc_swap::ArcSwap;
use serde_json::value::RawValue;

use super::answer::{Account, Answer, Asker};
use super::billing::Billing;
use super::cases::Cases;
use super::contracts::{BilledContract, MonthContracts};
use super::customers::{Customers, member_text};
use super::{Ingredients, LinkTo, Policy, ReadError};
use crate::cache::{CacheNote, Forward, Found};
use crate::clock::{Clock, Duration};
use crate::domain::json::{Members, write_text};
use crate::domain::{CacheOutcome, ContractId, DateRange, Kind, Month, SearchQuery, Vendor};
use crate::snapshot::{End, Growth, View, Want};
use crate::vendors::nable::BilledClient;

/// Number of days that an overview covers if the request has no range.
const DAYS_DEFAULT: i64 = 30;

/// The period of an overview.
#[derive(Clone, Copy, Debug)]
pub struct OverviewRequest {
    /// Days of the cases. `None` means the last 30 days.
    pub range: Option<DateRange>,
    /// Month of the billing. `None` means the last closed month.
    pub month: Option<Month>,
    /// Whether a missing or incomplete part is an error (`require=all`), or is shown in `parts`
    /// (`require=any`).
    pub require_all: bool,
}

/// One part of the answer.
pub(super) struct Part<T> {
    pub value: Result<T, ReadError>,
    pub age: Duration,
    pub note: Option<CacheNote>,
    /// What the value lacks. `None` if it is complete.
    pub missing: Option<MissingPieces>,
}

/// Pieces that are missing from a part.
pub(super) struct MissingPieces {
    /// Number of missing pieces.
    pub count: usize,
    /// The reason why the first of them is missing.
    pub why: ReadError,
}

impl<T> Part<T> {
    /// Creates a part that is missing as a whole.
    pub fn failed(error: ReadError) -> Self {
        Self {
            value: Err(error),
            age: Duration::ZERO,
            note: None,
            missing: None,
        }
    }

    /// Returns why the part is incomplete, if it is.
    fn lack(&self) -> Option<&ReadError> {
        let missing = self.missing.as_ref().map(|missing| &missing.why);
        self.value.as_ref().err().or(missing)
    }
}

#[derive(Default)]
struct CaseTotals {
    by_customer: HashMap<String, BTreeMap<String, u64>>,
}

/// Answers `GET /v1/overview`.
pub struct Overview {
    customers: Arc<Customers>,
    cases: Arc<Cases>,
    contracts: MonthContracts,
    policy: Arc<ArcSwap<Policy>>,
    clock: Clock,
}

impl Overview {
    pub(super) fn new(
        of: &Ingredients,
        customers: Arc<Customers>,
        cases: Arc<Cases>,
        billing: Arc<Billing>,
    ) -> Self {
        Self {
            customers,
            cases,
            contracts: MonthContracts::new(of, billing),
            policy: of.policy.clone(),
            clock: of.clock.clone(),
        }
    }

    /// Returns the days and the month that a request covers.
    pub fn covered(&self, request: &OverviewRequest) -> (DateRange, Month) {
        let today = self.clock.today(&self.policy.load().time_zone);
        let range = request
            .range
            .unwrap_or_else(|| DateRange::last_days(today, DAYS_DEFAULT));
        (
            range,
            request.month.unwrap_or_else(|| Month::last_closed(today)),
        )
    }

    /// Joins customers, case totals and billing.
    ///
    /// # Errors
    /// With `require_all`, fails with the error of the first part that is missing or incomplete.
    pub async fn get(&self, asker: &Asker, request: OverviewRequest) -> Result<Answer, ReadError> {
        let (range, month) = self.covered(&request);
        // Reserves time to join and send the parts before the caller's own deadline.
        let margin = asker.deadline.saturating_duration_since(self.clock.now()) / 20;
        let asker = &Asker {
            deadline: asker.deadline.checked_sub(margin).unwrap_or(asker.deadline),
            ..asker.clone()
        };
        let (customers, totals, contracts) = tokio::join!(
            self.customer_rows(asker),
            self.case_totals(asker, range),
            self.contracts.of_month(asker, month),
        );
        if request.require_all {
            let missing = [customers.lack(), totals.lack(), contracts.lack()];
            if let Some(error) = missing.into_iter().flatten().next() {
                return Err(error.clone());
            }
        }
        let age = customers.age.max(totals.age).max(contracts.age);
        let notes = [customers.note, totals.note, contracts.note];
        let body = self.join(asker, range, month, customers, totals, contracts);
        Ok(Answer {
            body: body.into(),
            etag: None,
            age,
            note: joined_note(&notes),
        })
    }

    async fn customer_rows(&self, asker: &Asker) -> Part<Vec<(Option<String>, String)>> {
        let account = self.account(Vendor::Wiv, Kind::Customers);
        match self.customers.book(asker).await {
            Err(error) => {
                account.refused(&error);
                Part::failed(error)
            }
            Ok(Found { entry, note, at }) => {
                account.answered_part(asker, &note);
                let rows = entry.value.rows(asker);
                let rows = rows.map(|(id, row)| (id.map(str::to_owned), row.to_owned()));
                Part {
                    value: Ok(rows.collect()),
                    age: entry.age(at),
                    note: Some(note),
                    missing: None,
                }
            }
        }
    }

    fn account(&self, vendor: Vendor, kind: Kind) -> Account<'_> {
        Account {
            metrics: self.customers.metrics(),
            vendor,
            kind,
        }
    }

    async fn case_totals(&self, asker: &Asker, range: DateRange) -> Part<CaseTotals> {
        let account = self.account(Vendor::Wiv, Kind::Cases);
        let part = self.count_cases(asker, range).await;
        match (&part.note, &part.value) {
            (Some(note), _) => account.answered_part(asker, note),
            (None, Err(error)) => account.refused(error),
            (None, Ok(_)) => {}
        }
        part
    }

    async fn count_cases(&self, asker: &Asker, range: DateRange) -> Part<CaseTotals> {
        let query = Arc::new(SearchQuery {
            range: Some(range),
            ..SearchQuery::default()
        });
        let opened = match self.cases.open(asker, &query, true).await {
            Ok(opened) => opened,
            Err(error) => return Part::failed(error),
        };
        let snapshot = opened.snapshot;
        let snapshots = self.cases.snapshots();
        let mut changes = snapshot.changes();
        let seen = snapshot.failures();
        loop {
            changes.borrow_and_update();
            match snapshot.end() {
                End::Complete => break,
                End::Broken => return Part::failed(ReadError::PageTokenExpired),
                End::Cut(setting) => {
                    return Part::failed(ReadError::WalkLimitExceeded { setting });
                }
                End::Growing => {}
            }
            // The walk goes on to its end even if this caller's time is over.
            snapshot.want_all(&asker.payer);
            let ask = Growth {
                want: Want::Page,
                seen_failures: seen,
                payer: &asker.payer,
                deadline: asker.deadline,
            };
            let grown = snapshots
                .wait_for_growth(&snapshot, ask, &mut changes)
                .await;
            if let Err(failure) = grown {
                return Part::failed(failure.into());
            }
        }
        let mut totals = CaseTotals::default();
        let view = View::new(None, asker.audience().clone());
        snapshot.for_each_row(&view, |customer, case_type| {
            // Rows without a customer count for no customer.
            let Some(customer) = customer else { return };
            let by_type = match totals.by_customer.get_mut(customer) {
                Some(by_type) => by_type,
                None => totals.by_customer.entry(customer.to_owned()).or_default(),
            };
            match by_type.get_mut(case_type.unwrap_or("")) {
                Some(count) => *count += 1,
                None => {
                    by_type.insert(case_type.unwrap_or("").to_owned(), 1);
                }
            }
        });
        Part {
            value: Ok(totals),
            age: snapshot.age(true, self.clock.now()),
            note: Some(opened.note),
            missing: None,
        }
    }

    fn join(
        &self,
        asker: &Asker,
        range: DateRange,
        month: Month,
        customers: Part<Vec<(Option<String>, String)>>,
        totals: Part<CaseTotals>,
        contracts: Part<Vec<BilledContract>>,
    ) -> String {
        let mut rows = customers.value.as_ref().cloned().unwrap_or_default();
        if let (Err(_), Ok(totals)) = (&customers.value, &totals.value) {
            // Without the customer list, the cases still name their customers.
            let mut ids: Vec<_> = totals.by_customer.keys().cloned().collect();
            ids.sort();
            rows.extend(ids.into_iter().map(|id| {
                let mut row = String::from("{\"customer_id\":");
                write_text(&id, &mut row);
                row.push('}');
                (Some(id), row)
            }));
        }
        let no_contracts = Vec::new();
        let billed = contracts.value.as_ref().unwrap_or(&no_contracts);
        let policy = self.policy.load();
        let links = Links::new(&policy, &rows);
        let clients = LinkedClients::new(&links, billed);

        let mut out = String::with_capacity(4096);
        out.push_str(&format!(
            "{{\"period\":{{\"start\":\"{}\",\"end\":\"{}\"}},\"timeframe\":\"{month}\",\"customers\":[",
            range.start(),
            range.end()
        ));
        for (at, (id, row)) in rows.iter().enumerate() {
            if at > 0 {
                out.push(',');
            }
            let clients = id.as_deref().map_or(&[][..], |id| clients.of(id));
            write_customer(id.as_deref(), row, &totals, clients, &mut out);
        }
        out.push_str("],\"contracts\":[");
        let whole = asker.audience().is_all();
        let mut first = true;
        for (contract, linked) in billed.iter().zip(&clients.linked_contracts) {
            if whole || *linked {
                if !std::mem::take(&mut first) {
                    out.push(',');
                }
                write_contract(contract, &mut out);
            }
        }
        out.push_str("],\"unlinked_clients\":[");
        let mut first = true;
        for (entry, contract) in clients.unlinked.iter().filter(|_| whole) {
            if !std::mem::take(&mut first) {
                out.push(',');
            }
            write_client(entry, contract, &mut out);
        }
        out.push_str("],\"parts\":{\"wiv.customers\":");
        write_part(&customers, &mut out);
        out.push_str(",\"wiv.cases\":");
        write_part(&totals, &mut out);
        out.push_str(",\"nable.billing\":");
        write_part(&contracts, &mut out);
        out.push_str("}}");
        out
    }
}

fn write_customer(
    id: Option<&str>,
    row: &str,
    totals: &Part<CaseTotals>,
    clients: &[(&BilledClient, &ContractId)],
    out: &mut String,
) {
    out.push('{');
    if let Ok(Members(members)) = serde_json::from_str(row) {
        for (name, raw) in &members {
            // Drop vendor members whose names collide with ours.
            if name != "cases" && name != "billed_clients" {
                write_text(name, out);
                out.push(':');
                out.push_str(RawValue::get(raw));
                out.push(',');
            }
        }
    }
    out.push_str("\"cases\":");
    match &totals.value {
        Err(_) => out.push_str("null"),
        Ok(totals) => {
            let none = BTreeMap::new();
            let by_type = id
                .and_then(|id| totals.by_customer.get(id))
                .unwrap_or(&none);
            let total: u64 = by_type.values().sum();
            out.push_str(&format!("{{\"total\":{total},\"by_type\":{{"));
            for (at, (name, count)) in by_type.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                write_text(name, out);
                out.push_str(&format!(":{count}"));
            }
            out.push_str("}}");
        }
    }
    out.push_str(",\"billed_clients\":[");
    for (at, (entry, contract)) in clients.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        write_client(entry, contract, out);
    }
    out.push_str("]}");
}

/// Maps billed clients to customers: by a configured link, otherwise by the exact name.
struct Links {
    by_id: HashMap<String, String>,
    by_link_name: HashMap<String, String>,
    by_name: HashMap<String, String>,
}

impl Links {
    fn new(policy: &Policy, rows: &[(Option<String>, String)]) -> Self {
        let mut this = Self {
            by_id: HashMap::new(),
            by_link_name: HashMap::new(),
            by_name: HashMap::new(),
        };
        let ids: HashSet<_> = rows.iter().filter_map(|(id, _)| id.as_deref()).collect();
        let shown = |id: &str| ids.contains(id);
        for link in policy
            .links
            .iter()
            .filter(|link| shown(link.customer.as_str()))
        {
            let customer = link.customer.as_str().to_owned();
            match &link.to {
                LinkTo::Id(id) => this.by_id.insert(id.clone(), customer),
                LinkTo::Name(name) => this.by_link_name.insert(name.clone(), customer),
            };
        }
        for (id, row) in rows {
            if let (Some(id), Some(name)) = (id, member_text(row, "customer_name")) {
                this.by_name.entry(name).or_insert_with(|| id.clone());
            }
        }
        this
    }

    fn customer_of(&self, entry: &BilledClient) -> Option<&str> {
        let by_id = self.by_id.get(&entry.id).filter(|_| !entry.id.is_empty());
        let by_name = || self.by_link_name.get(&entry.name);
        let same_name = || {
            self.by_name
                .get(&entry.name)
                .filter(|_| !entry.name.is_empty())
        };
        by_id.or_else(by_name).or_else(same_name).map(|id| &**id)
    }
}

/// Billed clients grouped by customer. This is computed once, because an answer may have thousands
/// of each.
struct LinkedClients<'a> {
    by_customer: HashMap<&'a str, Vec<(&'a BilledClient, &'a ContractId)>>,
    unlinked: Vec<(&'a BilledClient, &'a ContractId)>,
    /// For each contract, whether any of its clients is a customer.
    linked_contracts: Vec<bool>,
}

impl<'a> LinkedClients<'a> {
    fn new(links: &'a Links, contracts: &'a [BilledContract]) -> Self {
        let mut this = Self {
            by_customer: HashMap::new(),
            unlinked: Vec::new(),
            linked_contracts: Vec::with_capacity(contracts.len()),
        };
        for contract in contracts {
            let mut linked = false;
            for entry in &contract.billed.clients {
                let billed = (entry, &contract.id);
                match links.customer_of(entry) {
                    Some(customer) => {
                        linked = true;
                        this.by_customer.entry(customer).or_default().push(billed);
                    }
                    None => this.unlinked.push(billed),
                }
            }
            this.linked_contracts.push(linked);
        }
        this
    }

    fn of(&self, customer: &str) -> &[(&'a BilledClient, &'a ContractId)] {
        self.by_customer.get(customer).map_or(&[], Vec::as_slice)
    }
}

fn write_client(entry: &BilledClient, contract: &ContractId, out: &mut String) {
    out.push_str("{\"client_id\":");
    out.push_str(&entry.id_raw);
    out.push_str(",\"name\":");
    write_text(&entry.name, out);
    out.push_str(",\"contract\":");
    write_text(contract.as_str(), out);
    out.push('}');
}

fn write_contract(contract: &BilledContract, out: &mut String) {
    out.push_str("{\"contract_id\":");
    write_text(contract.id.as_str(), out);
    out.push_str(",\"contract_number\":");
    out.push_str(contract.number.as_deref().unwrap_or("null"));
    out.push_str(",\"services\":[");
    out.push_str(&contract.billed.services.join(","));
    out.push_str("]}");
}

pub(super) fn is_stale(note: &CacheNote) -> bool {
    note.is_from_memory() && note.ttl_s.is_some_and(|ttl_s| ttl_s < 0)
}

fn write_part<T>(part: &Part<T>, out: &mut String) {
    let age = part.age.as_secs().to_string();
    let (status, age) = match (&part.value, &part.note) {
        (Err(_), _) => ("failed", "null".to_owned()),
        (Ok(_), _) if part.missing.is_some() => ("partial", age),
        (Ok(_), Some(note)) if is_stale(note) => ("stale", age),
        (Ok(_), _) => ("fresh", age),
    };
    out.push_str(&format!(
        "{{\"status\":\"{status}\",\"age_s\":{age},\"code\":"
    ));
    match part.lack() {
        None => out.push_str("null"),
        Some(error) => write_text(error.code().as_str(), out),
    }
    if let (Ok(_), Some(missing)) = (&part.value, &part.missing) {
        out.push_str(&format!(",\"missing\":{}", missing.count));
    }
    out.push('}');
}

/// Returns the note of a join: a hit only if every part came from memory, stale if any part is
/// stale.
fn joined_note(notes: &[Option<CacheNote>; 3]) -> CacheNote {
    let present = || notes.iter().flatten();
    if present().count() == 0 {
        // Neither memory nor the vendors had anything.
        return CacheNote {
            outcome: CacheOutcome::Error,
            ..CacheNote::forwarded(Forward::UriMiss, false, false)
        };
    }
    if let Some(asked) = present().find(|note| !note.is_from_memory()) {
        return CacheNote {
            collapsed: present().all(|note| note.collapsed || note.is_from_memory()),
            ..*asked
        };
    }
    let ttl_s = present().filter_map(|note| note.ttl_s).min().unwrap_or(0);
    let mut note = CacheNote::hit(ttl_s);
    note.detail = present().find_map(|note| note.detail.filter(|_| is_stale(note)));
    note
}
