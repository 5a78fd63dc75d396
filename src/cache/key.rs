//! The one identity function: the meaning of a question to a vendor.
//!
//! The cache, the flights and the snapshots use the same key. Left out on purpose: page size and
//! page token (pages are cut from one snapshot), the field set (cut from the full list), the caller
//! and its audience (an argument of the function that cuts an answer), the spelling of the body,
//! and the vendor key itself (the credential's id names the account, so a rotated key loses
//! nothing).

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::domain::json::Value;
use crate::domain::{AccountId, ContractId, Kind, Month, SearchQuery};
use crate::store::PurgeSubject;

/// Changes whenever the meaning of a part changes, so that old and new keys never match.
const VERSION: &[u8] = b"msp-gateway/key/1";

/// A question to a vendor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The full customer list.
    Customers,
    /// A case search without its paging.
    Search(Arc<SearchQuery>),
    /// Billable services of a contract in a month.
    Billing {
        /// The month.
        month: Month,
        /// The contract.
        contract: ContractId,
    },
    /// The invoices and contracts of a month.
    Invoices {
        /// The month.
        month: Month,
    },
}

impl Subject {
    /// Returns the kind of answer.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Customers => Kind::Customers,
            Self::Search(_) => Kind::Cases,
            Self::Billing { .. } | Self::Invoices { .. } => Kind::Billing,
        }
    }

    /// Returns the subject as purges name it.
    pub fn purged_as(&self) -> PurgeSubject {
        match self {
            Self::Search(query) => PurgeSubject::cases(query.customer.as_ref()),
            other => PurgeSubject::Kind(other.kind()),
        }
    }
}

/// Identifies an answer by every input that could change it.
#[derive(Clone)]
pub struct CacheKey {
    credential: AccountId,
    subject: Subject,
    fingerprint: [u8; 32],
}

impl CacheKey {
    /// Makes the key of `subject`, asked with the credential of this id.
    pub fn new(credential: AccountId, subject: Subject) -> Self {
        let fingerprint = fingerprint(&credential, &subject);
        Self {
            credential,
            subject,
            fingerprint,
        }
    }

    /// Returns the question.
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// Returns the credential's id.
    pub fn credential(&self) -> &AccountId {
        &self.credential
    }

    /// Returns a hash of every part, each prefixed with its length.
    pub fn fingerprint(&self) -> &[u8; 32] {
        &self.fingerprint
    }
}

impl PartialEq for CacheKey {
    fn eq(&self, other: &Self) -> bool {
        // Equality compares the parts too: a collision of hashes must not give a wrong answer.
        let Self {
            credential,
            subject,
            fingerprint,
        } = self;
        *fingerprint == other.fingerprint
            && *credential == other.credential
            && *subject == other.subject
    }
}

impl Eq for CacheKey {}

impl Hash for CacheKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.fingerprint.hash(state);
    }
}

impl fmt::Debug for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CacheKey({})", self)
    }
}

impl fmt::Display for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fingerprint
            .iter()
            .take(8)
            .try_for_each(|b| write!(f, "{b:02x}"))
    }
}

/// Bytes of the parts of nearly every question.
const PARTS_BYTES_USUAL: usize = 256;

/// The bytes that are hashed. They are joined first, because a hasher takes far longer for many
/// short pieces than for one.
struct Parts(Vec<u8>);

impl Parts {
    fn text(&mut self, text: &str) {
        self.count(text.len());
        self.0.extend_from_slice(text.as_bytes());
    }

    fn tag(&mut self, tag: u8) {
        self.0.push(tag);
    }

    fn count(&mut self, n: usize) {
        self.0.extend_from_slice(&(n as u64).to_le_bytes());
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Null => self.tag(0),
            Value::Bool(false) => self.tag(1),
            Value::Bool(true) => self.tag(2),
            Value::Number(digits) => {
                self.tag(3);
                self.text(digits);
            }
            Value::Text(text) => {
                self.tag(4);
                self.text(text);
            }
            Value::List(items) => {
                self.tag(5);
                self.count(items.len());
                items.iter().for_each(|item| self.value(item));
            }
            Value::Object(members) => {
                self.tag(6);
                self.count(members.len());
                for (name, value) in members {
                    self.text(name);
                    self.value(value);
                }
            }
        }
    }
}

fn fingerprint(credential: &AccountId, subject: &Subject) -> [u8; 32] {
    let mut parts = Parts(Vec::with_capacity(PARTS_BYTES_USUAL));
    parts.0.extend_from_slice(VERSION);
    parts.text(credential.as_str());
    match subject {
        Subject::Customers => parts.tag(1),
        Subject::Search(query) => {
            parts.tag(2);
            let SearchQuery {
                customer,
                range,
                extra,
            } = &**query;
            match customer {
                None => parts.tag(0),
                Some(customer) => {
                    parts.tag(1);
                    parts.text(customer.as_str());
                }
            }
            match range {
                None => parts.tag(0),
                Some(range) => {
                    parts.tag(1);
                    parts.text(&range.start().to_string());
                    parts.text(&range.end().to_string());
                }
            }
            parts.count(extra.len());
            for (name, value) in extra {
                parts.text(name);
                parts.value(value);
            }
        }
        Subject::Billing { month, contract } => {
            parts.tag(3);
            parts.text(&month.to_string());
            parts.text(contract.as_str());
        }
        Subject::Invoices { month } => {
            parts.tag(4);
            parts.text(&month.to_string());
        }
    }
    *blake3::hash(&parts.0).as_bytes()
}

#[cfg(test)]
#[path = "key_tests.rs"]
mod tests;
