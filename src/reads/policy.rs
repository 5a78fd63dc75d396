//! The settings of the reads.

use jiff::tz::TimeZone;

use super::ListLifetimes;
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

/// The billed client of N-able to which a customer is linked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
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

/// How the reads judge freshness and join answers.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Lifetimes of lists.
    pub lists: ListLifetimes,
    /// Lifetimes of case searches.
    pub cases: GradedLifetimes,
    /// Days after which a closed range counts as settled.
    pub recent_days: u16,
    /// The time zone in which days begin and end.
    pub time_zone: TimeZone,
    /// Whether a search for one customer may be answered from a complete snapshot of all.
    pub derive_customer: bool,
    /// Whether members that look like a documented one are refused.
    pub strict_members: bool,
    /// Whether answers in frequent use are refreshed before they are stale.
    pub refresh_ahead: bool,
    /// Lifetimes of months that are still being billed.
    pub billing_current: Lifetimes,
    /// Lifetimes of earlier months.
    pub billing_closed: Lifetimes,
    /// How long a soft failure is remembered.
    pub billing_negative: Duration,
    /// Configured links between customers and billed clients.
    pub links: Vec<Link>,
}
