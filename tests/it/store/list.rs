//! What both halves of the explorer share: a vendor with one list, its rows, and their names.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;
use msp_gateway::snapshot::Marks;
use msp_gateway::snapshot::marks::IdChain;
use msp_gateway::snapshot::rows::Rows;
use msp_gateway::store::{Chain, KeptRows, RecordName};
use msp_gateway::upstream::RawRows;

/// Rows of a vendor page.
pub const VENDOR_PAGE: usize = 2;
/// The line of the one search.
pub const LINE: RecordName = RecordName([1; 16]);

/// A vendor whose scrolls read its list as it was when they began.
#[derive(Clone, Debug, Default)]
pub struct Vendor {
    /// Its list at every moment so far. The last one is the present one.
    pub lists: Vec<Vec<u8>>,
    scrolls: Vec<VendorScroll>,
}

#[derive(Clone, Debug)]
struct VendorScroll {
    list: Vec<u8>,
    at: usize,
    /// The lives of gateways that read it.
    users: BTreeSet<u8>,
}

/// A vendor page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VendorPage {
    pub rows: Vec<u8>,
    pub ended: bool,
}

impl Vendor {
    /// Creates a vendor with a list of this many rows.
    pub fn with(rows: u8) -> Self {
        Self {
            lists: vec![(1..=rows).collect()],
            scrolls: Vec::new(),
        }
    }

    pub fn search(&mut self) -> usize {
        self.scrolls.push(VendorScroll {
            list: self.lists.last().cloned().unwrap_or_default(),
            at: 0,
            users: BTreeSet::new(),
        });
        self.scrolls.len() - 1
    }

    pub fn next(&mut self, scroll: usize, user: u8) -> VendorPage {
        let VendorScroll { list, at, users } = &mut self.scrolls[scroll];
        users.insert(user);
        let upto = (*at + VENDOR_PAGE).min(list.len());
        let rows = list[*at..upto].to_vec();
        *at = upto;
        let ended = upto == list.len();
        VendorPage { rows, ended }
    }

    /// Inserts a new case before the row at `at`.
    pub fn change(&mut self, at: usize) {
        let mut list = self.lists.last().cloned().unwrap_or_default();
        list.insert(at, 9 + u8::try_from(self.lists.len()).unwrap());
        self.lists.push(list);
    }

    pub fn has_scroll_of_two(&self) -> bool {
        self.scrolls.iter().any(|scroll| scroll.users.len() > 1)
    }
}

fn text(ids: &[u8]) -> (Bytes, Vec<u32>) {
    let (mut text, mut ends) = (String::new(), Vec::new());
    for id in ids {
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(&format!("{{\"case_id\":\"{id}\",\"customer_id\":\"c\"}}"));
        ends.push(u32::try_from(text.len()).unwrap());
    }
    (text.into(), ends)
}

/// Returns rows in the form in which snapshots hold them.
pub fn rows(ids: &[u8]) -> Rows {
    let (text, ends) = text(ids);
    let places = Vec::new();
    let mut rows = Rows::default();
    rows.append(RawRows { text, ends, places }, |_| true);
    rows
}

thread_local! {
    static MARKS: RefCell<HashMap<Vec<u8>, Marks>> = RefCell::default();
    static CHAINS: RefCell<HashMap<(Chain, Vec<u8>), Chain>> = RefCell::default();
}

/// Returns the marks of a place in a list. Each is computed once.
pub fn marks(ids: &[u8], place: usize) -> Marks {
    let before = ids[..place.min(ids.len())].to_vec();
    let known = MARKS.with(|known| known.borrow().get(&before).copied());
    known.unwrap_or_else(|| {
        let rows = rows(&before);
        let marks = IdChain::default().marks(place, |range, each| rows.for_each_id(range, each));
        MARKS.with(|known| known.borrow_mut().insert(before, marks));
        marks
    })
}

/// Returns the chain after some rows. Each is computed once.
pub fn chain_after(ids: &[u8], before: &Chain) -> Chain {
    let key = (*before, ids.to_vec());
    let known = CHAINS.with(|known| known.borrow().get(&key).copied());
    known.unwrap_or_else(|| {
        let (text, ends) = text(ids);
        let chain = KeptRows { text, ends }.chain(before);
        CHAINS.with(|known| known.borrow_mut().insert(key, chain));
        chain
    })
}

/// Returns the name of a snapshot in the store.
pub fn name(snapshot: u8) -> RecordName {
    RecordName([100 + snapshot; 16])
}

/// Returns the snapshot of such a name.
pub fn number(name: RecordName) -> u8 {
    name.0[0] - 100
}
