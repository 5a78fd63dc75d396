//! What the reads are told by the settings.

use jiff::tz::TimeZone;

use crate::cache::Lifetimes;
use crate::clock::Duration;
use crate::domain::CustomerId;

/// Lifetimes of case searches, by how settled their range is.
#[derive(Clone, Copy, Debug)]
pub struct GradedLifetimes {
    /// The range ends today or later, or there is none.
    pub open: Lifetimes,
    /// It ended less than `recent_days` ago.
    pub recent: Lifetimes,
    /// It ended before that.
    pub closed: Lifetimes,
}

/// To which of N-able's billed clients a customer is linked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkTo {
    /// By `ClientId`.
    Id(String),
    /// By `Name`.
    Name(String),
}

/// A configured link between a wiv customer and an N-able billed client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The wiv customer.
    pub customer: CustomerId,
    /// The billed client.
    pub to: LinkTo,
}

/// How reads judge and join.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Of the customer list.
    pub customers: Lifetimes,
    /// Of case searches.
    pub cases: GradedLifetimes,
    /// Days after which a closed range counts as settled.
    pub recent_days: u16,
    /// In which days begin and end.
    pub time_zone: TimeZone,
    /// Whether one customer may be answered from a complete snapshot of all.
    pub derive_customer: bool,
    /// Whether a search's members that look like a documented one are refused.
    pub strict_members: bool,
    /// Whether answers that proved hot are refreshed before they are stale.
    pub refresh_ahead: bool,
    /// Of months the source still fills.
    pub billing_current: Lifetimes,
    /// Of months before.
    pub billing_closed: Lifetimes,
    /// How long a soft failure is remembered.
    pub billing_negative: Duration,
    /// Configured links between customers and billed clients.
    pub links: Vec<Link>,
}
