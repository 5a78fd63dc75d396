//! Tests of the whole outbound stack, before a vendor that answers as a test says.
//!
//! `test_vendor` is the vendor and the rig around the stack. `calls` holds the tests of calls that
//! succeed or fail; the other files hold one subject each.

mod answer;
mod calls;
mod hold;
mod stale;
mod test_vendor;
mod tls;
