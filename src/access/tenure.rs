//! Whether the caller of a long answer would still be admitted now.

use std::fmt;
use std::sync::Arc;

use super::callers::{Caller, CallerBook, CallerKeyHash};
use super::certificate::ClientCertificate;
use crate::clock::{self, Duration};

/// How often a tenure with an end in time is compared with the clock. The clock may be set, so one
/// long sleep would miss the end.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The right of one request to an answer that lasts long. It ends when a reload removes the key or
/// the certificate's name that the request came with, changes what its caller may see, or when
/// either expires.
pub struct Tenure {
    book: Arc<CallerBook>,
    caller: Arc<Caller>,
    key: Option<CallerKeyHash>,
    certificate: Option<Arc<ClientCertificate>>,
}

impl fmt::Debug for Tenure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tenure").field(&self.caller).finish()
    }
}

impl Tenure {
    /// Returns the tenure of `caller`, which `book` found by this key and this certificate.
    pub fn new(
        book: Arc<CallerBook>,
        caller: Arc<Caller>,
        presented: Option<&[u8]>,
        certificate: Option<Arc<ClientCertificate>>,
    ) -> Self {
        Self {
            book,
            caller,
            key: presented.map(CallerKeyHash::of),
            certificate,
        }
    }

    /// Returns the caller.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Returns when the tenure ends. It may never end.
    pub async fn over(mut self) {
        loop {
            while let Some(next) = self.book.successor() {
                self.book = next;
            }
            let certificate = self.certificate.as_deref();
            let key = self.key.as_ref();
            // The book in force decides about the caller, also about its expiry.
            let Some(caller) = self.book.admits(key, certificate, &self.caller) else {
                return;
            };
            self.caller = caller;
            let replaced = self.book.replaced();
            match self.caller.expires().is_some() || certificate.is_some() {
                true => drop(clock::timeout(LOOK_EVERY, replaced).await),
                false => replaced.await,
            }
        }
    }
}
