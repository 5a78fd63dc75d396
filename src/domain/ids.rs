//! Names of vendors, their operations, and the ids they use.

use std::fmt;
use std::sync::Arc;

/// Longest id accepted in a query, a path or the configuration, in bytes. Vendor ids seen so far are
/// under 40; the limit keeps keys, tokens and log lines small.
pub const ID_BYTES_MAX: usize = 128;

/// An upstream service whose key we hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Vendor {
    /// wiv: customers of the MSP and their FinOps cases.
    Wiv,
    /// N-able: PSA billable services.
    Nable,
}

impl Vendor {
    /// Both, in the order of the documentation.
    pub const ALL: [Self; 2] = [Self::Wiv, Self::Nable];

    /// Returns the word used in labels, logs and settings.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Wiv => "wiv",
            Self::Nable => "nable",
        }
    }
}

/// A call that the gateway makes at a vendor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operation {
    /// wiv: the list of all customers.
    Customers,
    /// wiv: the first page of a search, which opens a scroll.
    Search,
    /// wiv: the next page of a scroll. Never retried, coalesced or shared.
    Continue,
    /// N-able: billable services of a contract and month.
    Billing,
    /// N-able: invoices and contracts of a month.
    Invoices,
}

impl Operation {
    /// Every operation.
    pub const ALL: [Self; 5] = [
        Self::Customers,
        Self::Search,
        Self::Continue,
        Self::Billing,
        Self::Invoices,
    ];

    /// Returns the word used in labels and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Customers => "customers",
            Self::Search => "search",
            Self::Continue => "continue",
            Self::Billing => "billing",
            Self::Invoices => "invoices",
        }
    }

    /// Returns the vendor that this operation calls.
    pub const fn vendor(self) -> Vendor {
        match self {
            Self::Customers | Self::Search | Self::Continue => Vendor::Wiv,
            Self::Billing | Self::Invoices => Vendor::Nable,
        }
    }

    /// Returns whether the operation may be sent twice. A continuation moves the vendor's scroll,
    /// so it may not.
    pub const fn may_repeat(self) -> bool {
        !matches!(self, Self::Continue)
    }
}

/// Why a text is not an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdProblem {
    /// The text is empty.
    Empty,
    /// More than [`ID_BYTES_MAX`] bytes.
    TooLong,
    /// A character that is not visible ASCII, or one that has a meaning in paths and lists.
    BadCharacter,
    /// A character that could make more than one step of a path, or one that cannot be seen.
    BadContract,
}

impl fmt::Display for IdProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "must not be empty",
            Self::TooLong => "is longer than 128 bytes",
            Self::BadCharacter => "may hold letters, digits and the characters - _ . : @ | only",
            Self::BadContract => {
                "may not hold / \\ ; ? # % or control characters, nor begin or end with a space"
            }
        })
    }
}

fn checked(text: &str) -> Result<Arc<str>, IdProblem> {
    if text.is_empty() {
        return Err(IdProblem::Empty);
    }
    if text.len() > ID_BYTES_MAX {
        return Err(IdProblem::TooLong);
    }
    // "." and ".." would change the path that the id is put into.
    let dots = text.bytes().all(|b| b == b'.');
    let good = |b: u8| b.is_ascii_alphanumeric() || b"-_.:@|".contains(&b);
    if dots || !text.bytes().all(good) {
        return Err(IdProblem::BadCharacter);
    }
    Ok(text.into())
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        id! { $(#[$doc])* $name by checked }
    };
    ($(#[$doc:meta])* $name:ident by $checked:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks length and characters.
            pub fn parse(text: &str) -> Result<Self, IdProblem> {
                $checked(text).map(Self)
            }

            /// Returns the id as the vendor writes it.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        // Equality and order are those of the text.
        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id! {
    /// A wiv organisation, such as `org_12345`.
    CustomerId
}
/// The rule for contracts: N-able names them as it likes, and every name is percent-encoded where it
/// stands in a path. Refused is what some server would read as more than one step of a path.
fn checked_contract(text: &str) -> Result<Arc<str>, IdProblem> {
    if text.is_empty() {
        return Err(IdProblem::Empty);
    }
    if text.len() > ID_BYTES_MAX {
        return Err(IdProblem::TooLong);
    }
    let dots = text.bytes().all(|b| b == b'.');
    let bad = |c: char| c.is_control() || "/\\;?#%".contains(c);
    if dots || text.trim() != text || text.contains(bad) {
        return Err(IdProblem::BadContract);
    }
    Ok(text.into())
}

id! {
    /// An N-able contract: any name that the vendor may give one, spaces and brackets included.
    ContractId by checked_contract
}
id! {
    /// An N-able account (a Salesforce account id), or the name of a wiv credential.
    AccountId
}

impl AccountId {
    /// Returns the placeholder account of a vendor that is not configured.
    pub fn of_disabled() -> Self {
        Self("disabled".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_refuse_what_could_change_a_path() {
        for bad in [
            "", ".", "..", "a/b", "a b", "a%2f", "a\n", "ü", "a,b", "a?b", "a#b", "a;b",
        ] {
            assert!(CustomerId::parse(bad).is_err(), "{bad:?}");
        }
        assert_eq!(CustomerId::parse(&"x".repeat(129)), Err(IdProblem::TooLong));
        assert_eq!(CustomerId::parse("org_1").unwrap().as_str(), "org_1");
    }
}
