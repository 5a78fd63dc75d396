//! Lists that a vendor gives page by page.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::{RawRows, UpstreamError};
use crate::admission::{Gates, Spend};
use crate::domain::{AccountId, Operation, PageSize, SearchQuery};

/// The future of a page of a source.
pub type SourceCall<'a> = BoxFuture<'a, Result<SourcePage, UpstreamError>>;

/// The source of a search's rows. It has two functions, and a cursor that only the source can read.
///
/// The futures are boxed: a walk makes one call for hundreds of rows, and a hit makes none.
pub trait Source: Send + Sync {
    /// Requests the first page of a search. May open a scroll at the vendor.
    fn first<'a>(
        &'a self,
        query: &'a SearchQuery,
        page_size: PageSize,
        spend: Spend,
    ) -> SourceCall<'a>;

    /// Requests the page at `cursor`, exactly once. After a failure the walk treats the cursor as
    /// lost, except if [`super::Fault::was_not_sent`].
    fn next<'a>(
        &'a self,
        cursor: &'a Cursor,
        query: &'a SearchQuery,
        page_size: PageSize,
        spend: Spend,
    ) -> SourceCall<'a>;
}

/// The vendor whose lists walks read, and the names of its calls.
#[derive(Clone)]
pub struct WalkedVendor {
    /// The source of the pages.
    pub source: Arc<dyn Source>,
    /// The account whose keys the source uses. It is a part of every identity.
    pub account: AccountId,
    /// The operation that starts a list.
    pub first: Operation,
    /// The operation that continues a list.
    pub next: Operation,
    /// The gates of the source's calls. `None` if the vendor is not configured.
    pub gates: Option<Gates>,
}

/// One page of a source.
#[derive(Debug)]
pub struct SourcePage {
    /// The rows, in the vendor's order.
    pub rows: RawRows,
    /// The cursor of the next page. A page without rows is the end, even with a cursor.
    pub next: Option<Cursor>,
    /// The members of the answer, in the vendor's order.
    pub envelope: Vec<EnvelopeMember>,
}

/// A member of the object around the rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EnvelopeMember {
    /// `data`: the rows.
    Data,
    /// `next_page_key`, the cursor. It comes last if the vendor left it out.
    NextPageKey,
    /// Anything else: name and raw JSON text.
    Other(String, String),
}

/// A position in a vendor's list. Only the source that created it can read it. Its `Debug` output
/// is empty.
pub struct Cursor(Box<dyn Any + Send + Sync>);

impl Cursor {
    /// Wraps a position.
    pub fn new(place: impl Any + Send + Sync) -> Self {
        Self(Box::new(place))
    }

    /// Returns the wrapped position. `None` if another source created the cursor.
    pub fn read<T: Any>(&self) -> Option<&T> {
        self.0.downcast_ref()
    }
}

impl fmt::Debug for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[cursor]")
    }
}
