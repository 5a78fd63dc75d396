//! Names of vendors, their operations, and the ids they use.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;

/// Longest id accepted in a query, a path or the configuration, in bytes. Vendor ids seen so far
/// are under 40; the limit keeps keys, tokens and log lines small.
pub const ID_BYTES_MAX: usize = 128;

/// Declares the vendors: each with its word, which is the name of its member of [`PerVendor`], and
/// its name for people.
macro_rules! vendors {
    ($($(#[$doc:meta])* $vendor:ident = $word:ident $title:literal,)*) => {
        /// An upstream service whose key we hold.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Vendor {
            $($(#[$doc])* $vendor,)*
        }

        impl Vendor {
            /// Every vendor, in the order of the documentation.
            pub const ALL: [Self; [$(stringify!($word)),*].len()] = [$(Self::$vendor),*];

            /// Returns the word used in labels, logs and settings.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$vendor => stringify!($word),)*
                }
            }

            /// Returns the name for people.
            pub const fn title(self) -> &'static str {
                match self {
                    $(Self::$vendor => $title,)*
                }
            }
        }

        /// One value for each vendor. Code that handles every vendor uses this type, so that the
        /// compiler finds code that forgets one.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct PerVendor<T> {
            $($(#[$doc])* pub $word: T,)*
        }

        impl<T> PerVendor<T> {
            /// Makes the value of every vendor.
            ///
            /// # Errors The first error of `make`.
            pub fn try_from_fn<E>(
                mut make: impl FnMut(Vendor) -> Result<T, E>,
            ) -> Result<Self, E> {
                Ok(Self {
                    $($word: make(Vendor::$vendor)?,)*
                })
            }

            /// Returns the value of one vendor.
            pub const fn get(&self, vendor: Vendor) -> &T {
                match vendor {
                    $(Vendor::$vendor => &self.$word,)*
                }
            }

            /// Takes the value of every vendor, in the order of the documentation.
            pub fn into_each(self) -> impl Iterator<Item = (Vendor, T)> {
                [$((Vendor::$vendor, self.$word)),*].into_iter()
            }
        }
    };
}

vendors! {
    /// wiv: customers of the MSP and their FinOps cases.
    Wiv = wiv "wiv",
    /// N-able: PSA billable services.
    Nable = nable "N-able",
}

impl<T> PerVendor<T> {
    /// Makes the value of every vendor.
    pub fn from_fn(mut make: impl FnMut(Vendor) -> T) -> Self {
        match Self::try_from_fn(|vendor| Ok::<T, Infallible>(make(vendor))) {
            Ok(all) => all,
        }
    }

    /// Returns the value of every vendor, in the order of the documentation.
    pub fn iter(&self) -> impl Iterator<Item = (Vendor, &T)> {
        Vendor::ALL
            .into_iter()
            .map(|vendor| (vendor, self.get(vendor)))
    }
}

impl<T> PerVendor<Option<T>> {
    /// Returns the values that are present.
    pub fn present(&self) -> impl Iterator<Item = &T> {
        self.iter().filter_map(|(_, value)| value.as_ref())
    }
}

/// Declares the calls, each with its word and its vendor.
macro_rules! operations {
    ($($(#[$doc:meta])* $operation:ident = $word:literal at $vendor:ident,)*) => {
        /// A call that the gateway makes at a vendor.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Operation {
            $($(#[$doc])* $operation,)*
        }

        impl Operation {
            /// Every operation.
            pub const ALL: [Self; [$($word),*].len()] = [$(Self::$operation),*];

            /// Returns the word used in labels and logs.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$operation => $word,)*
                }
            }

            /// Returns the vendor that this operation calls.
            pub const fn vendor(self) -> Vendor {
                match self {
                    $(Self::$operation => Vendor::$vendor,)*
                }
            }
        }
    };
}

operations! {
    /// wiv: the list of all customers.
    Customers = "customers" at Wiv,
    /// wiv: the first page of a search, which opens a scroll.
    Search = "search" at Wiv,
    /// wiv: the next page of a scroll. Never retried, coalesced or shared.
    Continue = "continue" at Wiv,
    /// N-able: billable services of a contract and month.
    Billing = "billing" at Nable,
    /// N-able: invoices and contracts of a month.
    Invoices = "invoices" at Nable,
}

impl Operation {
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
/// The rule for contracts. N-able chooses their names freely, and every name is percent-encoded in
/// a path. A name is refused if some server could read it as more than one step of a path.
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
    /// An N-able contract. Its name may contain spaces and brackets.
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
