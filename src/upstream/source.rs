//! Lists that a vendor gives page by page.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::{RawRows, UpstreamError};
use crate::admission::{Gates, Spend};
use crate::domain::{AccountId, Operation, PageSize, SearchQuery};

/// What a call for a page of a source gives.
pub type SourceCall<'a> = BoxFuture<'a, Result<SourcePage, UpstreamError>>;

/// Where a walk reads the rows of a search from: two functions, and a cursor that only the source
/// can read.
///
/// Boxed futures, because a walk makes one call for hundreds of rows, and a hit makes none.
pub trait Source: Send + Sync {
    /// Asks for the first page of a search. May open a scroll at the vendor.
    fn first<'a>(
        &'a self,
        query: &'a SearchQuery,
        page_size: PageSize,
        spend: Spend,
    ) -> SourceCall<'a>;

    /// Asks for the page that `cursor` leads to, once, whatever happens. After any failure but
    /// those that [`super::Fault::was_not_sent`] names, the walk takes the cursor for lost.
    fn next<'a>(
        &'a self,
        cursor: &'a Cursor,
        query: &'a SearchQuery,
        page_size: PageSize,
        spend: Spend,
    ) -> SourceCall<'a>;
}

/// The vendor whose lists walks read, and what its calls are called.
#[derive(Clone)]
pub struct WalkedVendor {
    /// Gives the pages.
    pub source: Arc<dyn Source>,
    /// Whose keys the source uses: a part of every identity.
    pub account: AccountId,
    /// The call that begins a list.
    pub first: Operation,
    /// The call that continues it.
    pub next: Operation,
    /// What the source's calls pass; `None` if the vendor is not configured.
    pub gates: Option<Gates>,
}

/// One page of a source.
#[derive(Debug)]
pub struct SourcePage {
    /// The rows, in the vendor's order.
    pub rows: RawRows,
    /// How to go on. A page without rows is the end, with a cursor or without.
    pub next: Option<Cursor>,
    /// The members of the answer, in the vendor's order.
    pub envelope: Vec<EnvelopeMember>,
}

/// A member of the object around the rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EnvelopeMember {
    /// `data`: the rows.
    Data,
    /// `next_page_key`: how to go on. Listed last where the vendor left it out.
    NextPageKey,
    /// Anything else: name and raw JSON text.
    Other(String, String),
}

/// A place in a vendor's list. Only the source that made it can read it, and it prints nothing.
pub struct Cursor(Box<dyn Any + Send + Sync>);

impl Cursor {
    /// Wraps what a source needs to go on.
    pub fn new(place: impl Any + Send + Sync) -> Self {
        Self(Box::new(place))
    }

    /// Returns what the source put in; `None` if another source made the cursor.
    pub fn read<T: Any>(&self) -> Option<&T> {
        self.0.downcast_ref()
    }
}

impl fmt::Debug for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[cursor]")
    }
}
