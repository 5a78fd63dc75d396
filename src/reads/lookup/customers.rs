//! The customer list. One full vendor list answers every field set and audience.

use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;

use crate::admission::{Payer, Spend};
use crate::cache::{
    CacheKey, CacheNote, Detail, Fetched, FiledBodies, Found, Keeping, Pages, Rendered, Shelf,
    Subject, Terms, Wanted,
};
use crate::clock::{Clock, Duration};
use crate::domain::audience::AudienceFingerprint;
use crate::domain::json::{Members, write_text};
use crate::domain::record::text_of;
use crate::domain::{CacheOutcome, FieldSet, Kind, Operation, Vendor};
use crate::metrics::{Metrics, StoreUsage};
use crate::reads::answer::Account;
use crate::reads::{Answer, Asker, Explanation, Ingredients, Policy, ReadError};
use crate::upstream::UpstreamError;
use crate::vendors::Wiv;
use crate::vendors::wiv::{CustomerEnvelope, CustomerList};

/// How long a fetch may wait for budget and answer, if no caller's deadline is later: one attempt
/// and a short queue. The fetch outlives its caller.
const FETCH_WAIT: Duration = Duration::from_secs(20);

/// The vendor's list, parsed once.
#[derive(Debug)]
pub struct CustomerBook {
    list: CustomerList,
    /// The `customer_id` of each row.
    ids: Vec<Option<String>>,
    whole: Rendered,
    /// Memory of the body, the rows copied out of it, the ids, and the body's file if it has one.
    bytes: usize,
    hash: [u8; 32],
}

impl CustomerBook {
    fn new(list: CustomerList, files: &FiledBodies) -> Self {
        let ids: Vec<_> = list
            .rows
            .iter()
            .map(|row| member_text(row, "customer_id"))
            .collect();
        let hash = *blake3::hash(&list.body).as_bytes();
        let mut bytes = list.body.len() * 2 + ids.len() * 48;
        let mut whole = Rendered::new(list.body.clone());
        // Every caller asks for the list, so it gets a file at once and not only when it is read
        // again.
        if let Some(filed) = files.file(&list.body) {
            whole.body = filed;
            bytes += list.body.len();
        }
        Self {
            whole,
            bytes,
            ids,
            list,
            hash,
        }
    }

    fn fetched(self) -> Fetched<Arc<Self>> {
        Fetched {
            hash: self.hash,
            bytes: self.bytes,
            value: Arc::new(self),
            negative: false,
        }
    }

    /// Returns (customer id, raw row) of the customers that an audience may see.
    pub fn rows<'a>(
        &'a self,
        asker: &'a Asker,
    ) -> impl Iterator<Item = (Option<&'a str>, &'a str)> {
        self.list
            .rows
            .iter()
            .zip(&self.ids)
            .map(|(row, id)| (id.as_deref(), row))
            .filter(|(id, _)| asker.audience().admits(*id))
    }
}

/// Returns the text of a row's member.
pub(in crate::reads) fn member_text(row: &str, name: &str) -> Option<String> {
    let Members(members) = serde_json::from_str(row).ok()?;
    let (_, raw) = members.into_iter().find(|(member, _)| member == name)?;
    text_of(raw.get()).map(|text| text.into_owned())
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct CutKey {
    list: [u8; 32],
    fields: FieldSet,
    audience: AudienceFingerprint,
}

/// Answers `GET /msp/customers`.
pub struct Customers {
    wiv: Arc<Wiv>,
    shelf: Arc<Shelf<Arc<CustomerBook>, UpstreamError>>,
    cuts: Pages<CutKey>,
    files: FiledBodies,
    policy: Arc<ArcSwap<Policy>>,
    clock: Clock,
    metrics: Arc<Metrics>,
    key: CacheKey,
}

impl Customers {
    pub(super) fn new(of: &Ingredients, answers_bytes: u64, cuts_bytes: u64) -> Self {
        let files = of.files.clone();
        let keeping = Keeping::new(
            &of.store,
            |book: &Arc<CustomerBook>| book.list.body.clone(),
            Box::new(move |body| {
                let list = CustomerList::of_body(&body)?;
                Some(CustomerBook::new(list, &files).fetched())
            }),
        );
        Self {
            key: CacheKey::new(of.clients.wiv.credential().clone(), Subject::Customers),
            wiv: of.clients.wiv.clone(),
            shelf: Shelf::new(answers_bytes, of.store.purges(), keeping, of.clock.clone()),
            cuts: Pages::new(cuts_bytes, of.files.clone()),
            files: of.files.clone(),
            policy: of.policy.clone(),
            clock: of.clock.clone(),
            metrics: of.metrics.clone(),
        }
    }

    pub(super) fn shelf(&self) -> &Shelf<Arc<CustomerBook>, UpstreamError> {
        &self.shelf
    }

    pub(in crate::reads) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    pub(in crate::reads) fn cuts_usage(&self) -> StoreUsage {
        self.cuts.usage()
    }

    /// Explains how the list would be answered.
    pub(super) fn explain(&self) -> Explanation {
        let lifetimes = self.policy.load().lists.customers;
        Explanation::new(&self.key, lifetimes, Operation::Customers).on(
            &self.shelf,
            &self.key,
            Duration::ZERO,
            self.clock.now(),
        )
    }

    /// Returns the full list, for the caller to cut.
    ///
    /// # Errors
    /// Fails if the vendor gives no list and none is remembered.
    pub async fn book(&self, asker: &Asker) -> Result<Found<Arc<CustomerBook>>, ReadError> {
        let policy = self.policy.load();
        let terms = Terms {
            lifetimes: policy.lists.customers,
            negative: Duration::ZERO,
            directives: asker.directives,
            forced: &asker.caller.forced,
            refresh_ahead: policy.refresh_ahead,
            deadline: asker.deadline,
            trace: asker.payer.trace(),
        };
        let found = self.shelf.lookup(&self.key, &terms, |wanted| {
            let (wiv, spend) = (self.wiv.clone(), spend(&self.clock, wanted, asker));
            let files = self.files.clone();
            async move {
                let list = wiv.customers(spend).await?;
                Ok(CustomerBook::new(list, &files).fetched())
            }
        });
        found
            .await
            .map_err(|error| ReadError::of_lookup(Vendor::Wiv, error))
    }

    /// Returns the customers that the caller may see, with these fields.
    ///
    /// # Errors
    /// Fails if the vendor gives no list and none is remembered.
    pub async fn list(&self, asker: &Asker, fields: FieldSet) -> Result<Answer, ReadError> {
        let account = Account {
            metrics: &self.metrics,
            vendor: Vendor::Wiv,
            kind: Kind::Customers,
        };
        let Found { entry, note, at } = match self.book(asker).await {
            Ok(found) => found,
            Err(error) => {
                account.refused(&error);
                return Err(error);
            }
        };
        let note = projected(note, fields);
        account.answered(asker, &note, None);
        let rendered = self.cut(&entry.value, asker, fields);
        Ok(Answer {
            body: rendered.body,
            etag: Some(rendered.etag),
            age: entry.age(at),
            note,
        })
    }

    /// Returns what memory would answer. It is not counted, because no caller asks.
    pub(super) async fn peek(&self, asker: &Asker, fields: FieldSet) -> Option<Answer> {
        let Found { entry, note, at } = self.book(asker).await.ok()?;
        let rendered = self.cut(&entry.value, asker, fields);
        Some(Answer {
            body: rendered.body,
            etag: Some(rendered.etag),
            age: entry.age(at),
            note,
        })
    }

    fn cut(&self, book: &CustomerBook, asker: &Asker, fields: FieldSet) -> Rendered {
        if fields.is_all() && asker.audience().is_all() {
            return book.whole.clone();
        }
        let key = CutKey {
            list: book.hash,
            fields,
            audience: asker.audience().fingerprint(),
        };
        if let Some(rendered) = self.cuts.get(&key) {
            return rendered;
        }
        let rendered = Rendered::new(render(book, asker, fields));
        self.cuts.note_reading(&key, &rendered);
        rendered
    }
}

/// Returns the terms of a call that a caller waits for, or of a refresh in the background.
pub(super) fn spend(clock: &Clock, wanted: Wanted, asker: &Asker) -> Spend {
    let soonest = clock.now() + FETCH_WAIT;
    match wanted {
        Wanted::Now => {
            let mut spend = asker.spend();
            spend.deadline = spend.deadline.max(soonest);
            spend
        }
        Wanted::Soon | Wanted::Later => Spend {
            lane: wanted.lane(),
            deadline: soonest,
            wanted_until: soonest,
            payer: match wanted {
                Wanted::Later => Payer::gateway(),
                _ => asker.payer.clone(),
            },
            within: None,
        },
    }
}

fn projected(mut note: CacheNote, fields: FieldSet) -> CacheNote {
    if !fields.is_all() && note.is_from_memory() {
        if note.outcome == CacheOutcome::Hit {
            note.outcome = CacheOutcome::Projected;
        }
        note.detail.get_or_insert(Detail::Projected);
    }
    note
}

fn render(book: &CustomerBook, asker: &Asker, fields: FieldSet) -> Bytes {
    let mut out = String::with_capacity(book.list.body.len());
    let (before, after): (&[_], &[_]) = match &book.list.envelope {
        CustomerEnvelope::Data { before, after } if asker.audience().is_all() => (before, after),
        // These members describe the whole list, such as a total. A part of the list must not
        // reveal the rest.
        CustomerEnvelope::Data { .. } | CustomerEnvelope::Bare => (&[], &[]),
    };
    let bare = book.list.envelope == CustomerEnvelope::Bare;
    if !bare {
        out.push('{');
        for (name, raw) in before {
            write_text(name, &mut out);
            out.push(':');
            out.push_str(raw);
            out.push(',');
        }
        out.push_str("\"data\":");
    }
    out.push('[');
    for (at, (_, row)) in book.rows(asker).enumerate() {
        if at > 0 {
            out.push(',');
        }
        project(row, fields, &mut out);
    }
    out.push(']');
    if !bare {
        for (name, raw) in after {
            out.push(',');
            write_text(name, &mut out);
            out.push(':');
            out.push_str(raw);
        }
        out.push('}');
    }
    out.into()
}

/// Appends the selected members of a row, raw and in the vendor's order.
fn project(row: &str, fields: FieldSet, out: &mut String) {
    let members = match serde_json::from_str(row) {
        Ok(Members(members)) if !fields.is_all() => members,
        // A row that is not an object has no fields to select.
        _ => return out.push_str(row),
    };
    out.push('{');
    let mut first = true;
    for (name, raw) in members.iter().filter(|(name, _)| fields.selects(name)) {
        if !std::mem::take(&mut first) {
            out.push(',');
        }
        write_text(name, out);
        out.push(':');
        out.push_str(raw.get());
    }
    out.push('}');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::RawRows;

    fn book(rows: usize, files: &FiledBodies) -> CustomerBook {
        let row = format!("{{\"customer_id\":\"{}\"}}", "c".repeat(1024));
        let rows = vec![row.as_str(); rows];
        let body = format!("[{}]", rows.join(",")).into();
        let list = CustomerList {
            envelope: CustomerEnvelope::Bare,
            rows: RawRows::collect(&rows, Vec::new()).unwrap(),
            body,
        };
        CustomerBook::new(list, files)
    }

    #[test]
    fn a_large_list_lies_in_a_file_and_is_charged_for_it() {
        let files = FiledBodies::default();
        let (small, large) = (book(2, &files), book(40, &files));
        assert_eq!(files.count(), 1);
        let part = files.part(&large.whole.body).unwrap();
        assert_eq!((part.offset, part.bytes), (0, large.list.body.len()));
        assert_eq!(large.whole.body, large.list.body);
        for (book, times) in [(&small, 2), (&large, 3)] {
            assert_eq!(
                book.bytes,
                book.list.body.len() * times + book.ids.len() * 48
            );
        }
        drop(large);
        assert_eq!(files.count(), 0);
    }
}
